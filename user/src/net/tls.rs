//! TLS to the Room: version 1.3 only, and two kinds of certificate.
//!
//! A Room's own certificate is self-signed with its identity key: the handshake's signature, which is always
//! checked, then proves that key, and [`trust`](crate::trust) says whether it is the right one. Dates and
//! names in such a certificate say nothing and are not looked at. Any other certificate (of a key that is not
//! Ed25519) must be one that this machine's authorities vouch for. In both cases the Room proves its identity
//! again over the connection's exporter, in its `HelloReply`.

use std::io;
use std::sync::{Arc, OnceLock};

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::wire::control::{ALPN, EXPORTER_LABEL};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, SignatureScheme};

/// What comes before the key in the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What a Room's certificate says, after a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomCertificate {
    /// It is for this key, which must be the Room's identity.
    OfIdentity(PublicIdentity),
    /// An authority of this machine vouches for the host name.
    OfAuthority,
}

/// The configuration of connections to Rooms.
pub fn client_config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = RoomVerifier { provider: Arc::clone(&provider), authorities: OnceLock::new() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection proves the certificate's key anew.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// What the certificate of a connection says, once its handshake is done.
pub fn certificate_of(connection: &ClientConnection) -> Option<RoomCertificate> {
    let end = connection.peer_certificates()?.first()?;
    Some(match identity_of(end).ok()? {
        Some(identity) => RoomCertificate::OfIdentity(identity),
        // The verifier let only certified ones through.
        None => RoomCertificate::OfAuthority,
    })
}

/// What proofs on a connection sign.
pub fn exporter_of(connection: &ClientConnection) -> Result<[u8; 32], rustls::Error> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[]))
}

/// How a failed handshake ended, where TLS itself says it.
#[derive(Debug, Clone, PartialEq)]
pub enum HandshakeFailure {
    /// The server turned this client away (alert `access_denied`).
    TurnedAway,
    /// The certificate is neither of a Parlor Room's own making nor one that this machine's authorities vouch
    /// for.
    Certificate(CertificateError),
    /// The server does not speak TLS 1.3 as Rooms do.
    NotTls,
}

/// Reads what TLS says about a handshake that failed. `None`: the network failed.
pub fn failure_of(error: &io::Error) -> Option<HandshakeFailure> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(AlertDescription::AccessDenied) => Some(HandshakeFailure::TurnedAway),
        rustls::Error::InvalidCertificate(why) => Some(HandshakeFailure::Certificate(why.clone())),
        _ => Some(HandshakeFailure::NotTls),
    }
}

/// The Ed25519 key that a certificate is for. `None`: a key of another kind.
fn identity_of(certificate: &CertificateDer<'_>) -> Result<Option<PublicIdentity>, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let spki = parsed.subject_public_key_info();
    let key = spki.strip_prefix(&ED25519_SPKI);
    Ok(key.and_then(|key| <[u8; 32]>::try_from(key).ok()).map(PublicIdentity))
}

#[derive(Debug)]
struct RoomVerifier {
    provider: Arc<CryptoProvider>,
    /// Read from the system when first needed: most Rooms have a certificate of their own.
    authorities: OnceLock<Result<rustls_platform_verifier::Verifier, rustls::Error>>,
}

impl ServerCertVerifier for RoomVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if identity_of(end_entity)?.is_some() {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities
            .get_or_init(|| rustls_platform_verifier::Verifier::new(Arc::clone(&self.provider)))
            .as_ref()
            .map_err(|error| {
                let why = rustls::OtherError(Arc::new(error.clone()));
                rustls::Error::InvalidCertificate(CertificateError::Other(why))
            })?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
