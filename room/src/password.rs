//! Password hashes. A [`PasswordHash`] has passed its check and can be verified against; no password is kept
//! anywhere, and what `Debug` shows of a hash is its cost.
//!
//! bcrypt reads 72 bytes with the terminator, so a password has 1 to 71 bytes and no NUL; a longer one is never cut short
//! in silence. The `$2a$`, `$2b$` and `$2y$` forms are the same function and are all accepted.

use std::fmt;
use std::str::FromStr;

use parlor_protocol::limits::{BCRYPT_COSTS, PASSWORD_BYTES};
use serde::{Deserialize, Serialize};

/// A bcrypt hash of a password, cost 10-14.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordHash {
    text: Box<str>,
    cost: u32,
}

/// Why a text is no hash that this Room works with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not a bcrypt hash at all.
    #[error("this is no bcrypt hash ($2b$, cost, $, 53 characters): {0}; make one with: parlor-room hash")]
    Syntax(&'static str),
    /// A cost outside 10-14.
    #[error(
        "bcrypt cost {0} is not from {low} to {high}: make a new hash with: parlor-room hash",
        low = BCRYPT_COSTS.start(), high = BCRYPT_COSTS.end()
    )]
    Cost(u32),
}

/// Why a password cannot be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing was given.
    #[error("the password is empty: give one of 1 to {PASSWORD_BYTES} bytes")]
    Empty,
    /// bcrypt would not read the end of it.
    #[error("the password has {0} bytes: bcrypt reads {PASSWORD_BYTES}, choose a shorter one")]
    TooLong(usize),
    /// bcrypt would stop there.
    #[error("the password contains a NUL byte: choose one without")]
    Nul,
    /// A cost outside 10-14.
    #[error(transparent)]
    Cost(HashError),
    /// bcrypt itself failed.
    #[error("bcrypt failed: {0}")]
    Bcrypt(String),
}

impl PasswordHash {
    /// True if `password` is the one that was hashed. Takes as long as the cost says (a quarter of a second at 12):
    /// call it on a blocking thread.
    pub fn verify(&self, password: &str) -> bool {
        check_password(password).is_ok()
            && bcrypt::non_truncating_verify(password, &self.text).unwrap_or(false)
    }

    /// Base-2 logarithm of the rounds.
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// The hash as text, `$2b$12$…`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Hashes `password`. As slow as [`verify`](Self::verify). The salt must be random.
    pub fn make(password: &str, cost: u32, salt: [u8; 16]) -> Result<Self, PasswordError> {
        check_password(password)?;
        check_cost(cost).map_err(PasswordError::Cost)?;
        let parts = bcrypt::non_truncating_hash_with_salt(password, cost, salt)
            .map_err(|error| PasswordError::Bcrypt(error.to_string()))?;
        let text = parts.format_for_version(bcrypt::Version::TwoB);
        text.parse().map_err(|error: HashError| PasswordError::Bcrypt(error.to_string()))
    }

    /// A hash that no password is known for. Verifying it for a name that does not exist takes as long as for one
    /// that does. A cost outside the accepted range is brought to its nearer end.
    pub fn dummy(cost: u32) -> Self {
        let cost = cost.clamp(*BCRYPT_COSTS.start(), *BCRYPT_COSTS.end());
        // Readable words stand where salt and digest would, so that everybody sees that nobody chose them.
        let text = format!("$2b${cost:02}$SaltForNameUnknownToMeNobodyKnowsThePasswordOfThisOne");
        Self { text: text.into(), cost }
    }
}

/// Checks what bcrypt demands of a password: 1 to 71 bytes, no NUL.
pub fn check_password(password: &str) -> Result<(), PasswordError> {
    match password.len() {
        0 => Err(PasswordError::Empty),
        len if len > PASSWORD_BYTES => Err(PasswordError::TooLong(len)),
        _ if password.contains('\0') => Err(PasswordError::Nul),
        _ => Ok(()),
    }
}

fn check_cost(cost: u32) -> Result<(), HashError> {
    if BCRYPT_COSTS.contains(&cost) { Ok(()) } else { Err(HashError::Cost(cost)) }
}

impl FromStr for PasswordHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let rest = ["$2a$", "$2b$", "$2y$"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .ok_or(HashError::Syntax("it starts with none of $2a$, $2b$, $2y$"))?;
        let (cost, rest) = rest.split_once('$').ok_or(HashError::Syntax("no $ follows the cost"))?;
        if cost.len() != 2 || !cost.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HashError::Syntax("the cost is not two digits"));
        }
        let cost = cost.parse().map_err(|_| HashError::Syntax("the cost is not two digits"))?;
        if rest.len() != SALT_CHARS + DIGEST_CHARS {
            return Err(HashError::Syntax("salt and digest are not 53 characters long, copy it whole"));
        }
        if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/')) {
            return Err(HashError::Syntax("a character stands in it that is none of A-Z a-z 0-9 . /"));
        }
        check_cost(cost)?;
        Ok(Self { text: text.into(), cost })
    }
}

/// Characters of the 16 bytes of salt.
const SALT_CHARS: usize = 22;
/// Characters of the 23 bytes of digest.
const DIGEST_CHARS: usize = 31;

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash(cost {})", self.cost)
    }
}

impl TryFrom<String> for PasswordHash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<PasswordHash> for String {
    fn from(hash: PasswordHash) -> String {
        hash.text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOO: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";
    const BAR: &str = "$2b$10$rTQtNZDzfO7484b/UZltROJ/Yy5f1WOxZIeymjv8JhSQrFoGuGS8i";

    #[test]
    fn hashes_made_elsewhere_verify_unchanged() {
        for text in [FOO, BAR] {
            let hash: PasswordHash = text.parse().unwrap();
            assert!(hash.verify("123456"));
            assert!(!hash.verify("1234567"));
            assert!(!hash.verify(""));
            assert_eq!((hash.cost(), hash.as_str()), (10, text));
        }
    }

    #[test]
    fn the_three_forms_of_one_hash_are_one_function() {
        for form in ["$2a$", "$2y$"] {
            assert!(FOO.replace("$2b$", form).parse::<PasswordHash>().unwrap().verify("123456"));
        }
    }

    #[test]
    fn a_new_hash_verifies_its_password_and_no_other() {
        let hash = PasswordHash::make("correct horse", 10, [7; 16]).unwrap();
        assert!(hash.as_str().starts_with("$2b$10$"));
        assert!(hash.verify("correct horse") && !hash.verify("correct hors"));
        assert_eq!(hash.as_str().parse(), Ok(hash));
    }

    #[test]
    fn a_password_is_never_cut_short() {
        let longest = "x".repeat(PASSWORD_BYTES);
        assert!(PasswordHash::make(&longest, 10, [1; 16]).unwrap().verify(&longest));
        for (password, error) in [
            (String::new(), PasswordError::Empty),
            ("x".repeat(PASSWORD_BYTES + 1), PasswordError::TooLong(PASSWORD_BYTES + 1)),
            ("a\0b".to_owned(), PasswordError::Nul),
        ] {
            assert_eq!(PasswordHash::make(&password, 10, [1; 16]), Err(error));
        }
        assert!(!PasswordHash::make(&longest, 10, [1; 16]).unwrap().verify(&"x".repeat(PASSWORD_BYTES + 1)));
    }

    #[test]
    fn what_is_no_hash_is_refused_with_what_is_wrong() {
        for (text, part) in [
            ("123456", "starts with none"),
            ("$2x$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e", "starts with none"),
            ("$2b$10", "no $"),
            ("$2b$1$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e", "two digits"),
            (&FOO[..59], "53 characters"),
            (&FOO.replace('T', "!"), "A-Z a-z"),
            (&FOO.replace("$10$", "$09$"), "cost 9 is not from 10 to 14"),
            (&FOO.replace("$10$", "$31$"), "cost 31"),
        ] {
            let error = text.parse::<PasswordHash>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(PasswordHash::make("x", 15, [0; 16]), Err(PasswordError::Cost(HashError::Cost(15))));
    }

    #[test]
    fn the_dummy_is_a_whole_hash_of_any_accepted_cost_and_nothing_matches_it() {
        for cost in BCRYPT_COSTS {
            let dummy = PasswordHash::dummy(cost);
            assert_eq!(dummy.as_str().parse(), Ok(dummy.clone()));
            assert_eq!(dummy.cost(), cost);
        }
        assert!(!bcrypt::non_truncating_verify("123456", PasswordHash::dummy(0).as_str()).unwrap());
    }

    #[test]
    fn debug_shows_no_hash() {
        assert_eq!(format!("{:?}", FOO.parse::<PasswordHash>().unwrap()), "PasswordHash(cost 10)");
    }
}
