//! Certificates of handshake keys that were verified, so that a user that comes back costs one signature less.
//!
//! What was verified once stays true: a certificate is an identity's statement about a key, and both are compared as a
//! whole. Only those of users that got in are remembered, so that nobody who fails to displaces another's.

use std::collections::{HashMap, VecDeque};

use parlor_protocol::identity::{NoiseCertificate, PublicIdentity};

/// Identities whose certificate is remembered; the one that was remembered first goes first. About 4 MiB.
const IDENTITIES: usize = 16_384;

/// The certificates of users that have logged in.
#[derive(Debug)]
pub struct Certificates {
    capacity: usize,
    verified: HashMap<PublicIdentity, NoiseCertificate>,
    /// First to last remembered.
    order: VecDeque<PublicIdentity>,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { capacity: IDENTITIES, verified: HashMap::new(), order: VecDeque::new() }
    }
}

impl Certificates {
    /// True if `identity` made this certificate.
    pub fn is_good(&self, identity: &PublicIdentity, certificate: &NoiseCertificate) -> bool {
        self.verified.get(identity) == Some(certificate) || certificate.verify(identity).is_ok()
    }

    /// Remembers a certificate that [is good](Self::is_good).
    pub fn remember(&mut self, identity: PublicIdentity, certificate: &NoiseCertificate) {
        if self.verified.insert(identity, certificate.clone()).is_none() {
            self.order.push_back(identity);
        }
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.verified.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::identity::Identity;

    use super::*;

    #[test]
    fn a_certificate_is_good_for_its_identity_alone_remembered_or_not() {
        let (foo, bar) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
        let mut certificates = Certificates::default();
        let mut forged = foo.noise_certificate();
        forged.key = bar.noise_certificate().key;
        for _ in 0..2 {
            assert!(certificates.is_good(&foo.public(), &foo.noise_certificate()));
            assert!(!certificates.is_good(&bar.public(), &foo.noise_certificate()));
            assert!(!certificates.is_good(&foo.public(), &bar.noise_certificate()));
            assert!(!certificates.is_good(&foo.public(), &forged), "another key under the same signature");
            certificates.remember(foo.public(), &foo.noise_certificate());
        }
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_goes() {
        let mut certificates = Certificates { capacity: 2, ..Certificates::default() };
        for seed in [1, 2, 2, 3] {
            let identity = Identity::from_seed(&[seed; 32]);
            certificates.remember(identity.public(), &identity.noise_certificate());
        }
        let remembered =
            |seed| certificates.verified.contains_key(&Identity::from_seed(&[seed; 32]).public());
        assert!(!remembered(1) && remembered(2) && remembered(3));
        assert_eq!(certificates.order.len(), 2);
    }
}
