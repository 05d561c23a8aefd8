//! TLS 1.3 with a certificate of the Room's own key: whoever pins the fingerprint pins the key of the TLS
//! connection, too. Or with one that an authority issued: then the Room proves its identity in its `HelloReply` alone.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use parlor_protocol::identity::Identity;
use parlor_protocol::wire::control::ALPN;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::config::CertificateFiles;

/// Why TLS could not be set up: a file of the operator's, or a fault of this program or its libraries.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate could not be made.
    #[error("the Room's certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate or the configuration was not taken.
    #[error("TLS could not be set up: {0}")]
    Rustls(#[from] rustls::Error),
    /// A file of the certificate cannot be used.
    #[error("{field}: {}: {why}", path.display())]
    File {
        /// The setting that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: String,
    },
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

    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
    with(vec![certificate.der().clone()], key).map_err(TlsError::from)
}

/// The same with a certificate that an authority issued. Blocks on the disk.
pub(crate) fn issued(files: &CertificateFiles) -> Result<tokio_rustls::TlsAcceptor, TlsError> {
    let wrong = |field, path: &Path, why: String| TlsError::File { field, path: path.to_owned(), why };
    let in_chain = |why| wrong("tls.certificate", &files.certificate, why);
    let in_key = |why| wrong("tls.key", &files.key, why);
    let pem = read(&files.certificate).map_err(|error| in_chain(error.to_string()))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| in_chain(format!("no certificates in PEM form: {error}")))?;
    let Some(end) = chain.first() else {
        return Err(in_chain("there is no certificate in it: give the whole chain in PEM form".to_owned()));
    };
    if is_of_ed25519(end)? {
        // Users take such a certificate for the Room's own.
        let why = "it is for an Ed25519 key, as the Room's own certificate is: have one issued for an ECDSA or RSA key";
        return Err(in_chain(why.to_owned()));
    }
    let pem = read(&files.key).map_err(|error| in_key(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|error| in_key(format!("no private key in PEM form: {error}")))?;
    with(chain, key).map_err(|error| in_key(format!("it does not fit the certificate: {error}")))
}

/// Longest file, in bytes: a chain of certificates has a few KiB.
const FILE_BYTES: u64 = 1024 * 1024;

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // A pipe that nobody writes to would keep this waiting, when it is opened and when it is read.
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What comes before the key in the SubjectPublicKeyInfo of an Ed25519 key (RFC 8410 section 4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn is_of_ed25519(certificate: &CertificateDer<'_>) -> Result<bool, rustls::Error> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate)?;
    Ok(parsed.subject_public_key_info().starts_with(&ED25519_SPKI))
}

/// Best first. All are as strong as they need be; what a handshake costs is mostly its hash, and processors have
/// instructions for SHA-256 where SHA-384 takes a tenth of a login.
const SUITES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
];

fn with(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<tokio_rustls::TlsAcceptor, rustls::Error> {
    let provider = CryptoProvider { cipher_suites: SUITES.to_vec(), ..aws_lc_rs::default_provider() };
    let provider = Arc::new(provider);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.ignore_client_order = true;
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

    fn files(certificate: &str, key: &str) -> (tempfile::TempDir, CertificateFiles) {
        let home = tempfile::tempdir().unwrap();
        let files =
            CertificateFiles { certificate: home.path().join("chain.pem"), key: home.path().join("key.pem") };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        (home, files)
    }

    fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(vec!["room.example".to_owned()]).unwrap();
        (certificate.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn an_issued_certificate_is_taken_with_its_key_and_what_is_none_is_refused_by_its_setting() {
        let (chain, key) = made(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (other_chain, other_key) = made(&rcgen::PKCS_ECDSA_P256_SHA256);
        let (ed25519_chain, ed25519_key) = made(&PKCS_ED25519);
        let gone = files(&chain, &key).1;
        assert!(issued(&gone).is_err());
        let (_home, good) = files(&format!("{chain}{other_chain}"), &key);
        assert!(issued(&good).is_ok());
        for (chain, key, part) in [
            (chain.as_str(), other_key.as_str(), "tls.key"),
            (&chain, "", "tls.key"),
            (&chain, &chain, "no private key"),
            ("", &key, "tls.certificate"),
            (&key, &key, "there is no certificate in it"),
            (&ed25519_chain, &ed25519_key, "Ed25519"),
        ] {
            let (_home, files) = files(chain, key);
            let error = issued(&files).err().unwrap().to_string();
            assert!(error.contains(part) && error.contains(".pem"), "{error}");
            assert!(!error.contains("PRIVATE"), "{error}");
        }
    }
}
