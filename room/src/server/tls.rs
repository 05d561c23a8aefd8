//! TLS 1.3 with a certificate of the Room's own key: whoever pins the fingerprint pins the key of the TLS
//! connection, too.

use std::sync::Arc;

use parlor_protocol::identity::Identity;
use parlor_protocol::wire::control::ALPN;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why TLS could not be set up. A fault of this program or its libraries.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("the Room's certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate or the configuration was not taken.
    #[error("TLS could not be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What stands before the 32 bytes of an Ed25519 seed in a PKCS#8 key (RFC 8410 section 7).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// TLS 1.3 only, nothing resumed: a connection to the Room is one handshake, and its proofs are over that
/// connection's own exporter.
pub(crate) fn acceptor(identity: &Identity) -> Result<tokio_rustls::TlsAcceptor, TlsError> {
    let seed = identity.seed();
    let key = zeroize::Zeroizing::new([ED25519_PKCS8.as_slice(), seed.as_slice()].concat());
    let key_pair =
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key.as_slice()), &PKCS_ED25519)?;
    let mut params = CertificateParams::new(vec!["parlor-room".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, identity.fingerprint().to_string());
    let certificate = params.self_signed(&key_pair)?;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}

/// True of errors that no honest client causes, whatever it thinks of the certificate.
pub(crate) fn is_malformed(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidMessage(_) | rustls::Error::PeerMisbehaved(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_carries_the_rooms_own_key() {
        let identity = Identity::from_seed(&[5; 32]);
        assert!(acceptor(&identity).is_ok());
    }
}
