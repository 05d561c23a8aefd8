//! The shell's random bytes: a keyed BLAKE3 in counter mode, seeded by the operating system at the start and
//! stirred with its fresh bytes at every draw. So a draw cannot fail, and is unpredictable as long as either is.

use zeroize::Zeroizing;

use crate::core::Chance;

/// A source of unpredictable bytes.
pub(crate) struct Random {
    key: Zeroizing<[u8; 32]>,
    count: u64,
}

impl Random {
    /// Seeds a source from the operating system.
    pub(crate) fn from_system() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice())?;
        Ok(Self { key, count: 0 })
    }
}

impl Chance for Random {
    fn draw(&mut self) -> [u8; 32] {
        let mut fresh = Zeroizing::new([0; 32]);
        // Without fresh bytes the seed alone keeps the draw unpredictable.
        let _ = getrandom::fill(fresh.as_mut_slice());
        self.count += 1;
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.count.to_le_bytes()).update(fresh.as_slice());
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_alike() {
        let (mut one, mut other) = (Random::from_system().unwrap(), Random::from_system().unwrap());
        let draws = [one.draw(), one.draw(), other.draw(), other.draw()];
        let distinct: std::collections::HashSet<_> = draws.iter().collect();
        assert_eq!(distinct.len(), draws.len());
    }
}
