//! Two messages that prove both ends to each other and give them the keys of a link's records.
//!
//! The pattern is `Noise_IK_25519_ChaChaPoly_BLAKE2s`, or `Noise_IK_25519_AESGCM_BLAKE2s` where the
//! introduction says so. The initiator knows the responder's key from the introduction; the responder checks
//! the initiator's key, which message 1 carries, against its own copy of it. The prologue is made of
//! everything the two must agree on, so a difference in any of it fails the handshake at the first message
//! that is read.
//!
//! ```text
//! initiator                                responder
//!   Initiator::start   -- message 1 -->    Responder::answer       reads the payload of message 1
//!   Initiator::finish  <-- message 2 --    ResponderPending::reply
//! ```

use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::records::RecordKeys;
use super::resolver::Resolver;
use crate::identity::Identity;
use crate::introduction::{Cipher, Introduction, Party};
use crate::name::UserName;
use crate::refusal::CloseCode;
use crate::rung::Rung;
use crate::wire::control;

/// Longest payload of a handshake message, in bytes. A hello takes about 70.
pub const PAYLOAD_BYTES: usize = 1024;
/// Longest handshake message, in bytes. The pattern adds 96 to a payload at most; the rest is for later
/// versions.
pub const MESSAGE_BYTES: usize = 4096;

const PROLOGUE_CONTEXT: &[u8] = b"parlor link v1\0";
/// What the pattern adds to the payload of message 1: ephemeral key, static key and its tag, tag.
const MESSAGE_1_OVERHEAD: usize = 32 + 32 + 16 + 16;
/// What the pattern adds to the payload of message 2: ephemeral key, tag.
const MESSAGE_2_OVERHEAD: usize = 32 + 16;

/// What one end knows before the handshake. The two ends' differ in `local`, `local_name`, `initiator` and
/// `ephemeral` only.
pub struct HandshakeSetup<'a> {
    /// The introduction that brought the two together, verified.
    pub introduction: &'a Introduction,
    /// This end's identity.
    pub local: &'a Identity,
    /// This end's name in the introduction.
    pub local_name: &'a UserName,
    /// True for the end that sends message 1.
    pub initiator: bool,
    /// The rung that the link is on.
    pub rung: Rung,
    /// Random bytes from a cryptographic source, for this handshake alone.
    pub ephemeral: Zeroizing<[u8; 32]>,
}

/// Why a handshake fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Ours: the introduction does not name this end.
    #[error("the introduction does not name {0}")]
    NotIntroduced(UserName),
    /// Ours: the introduction gives this end another identity than it has.
    #[error(
        "the introduction gives {0} another identity than this program holds; ask the Room for a new one"
    )]
    OtherIdentity(UserName),
    /// Ours: an initiator's setup was given to a responder, or the other way round.
    #[error("the setup is for the other role")]
    Role,
    /// Ours, or a plan of the Room that we must not follow: cleartext records beyond host and LAN.
    #[error("records may not go unencrypted over the rung {0}")]
    CleartextRung(Rung),
    /// Ours: the payload is too long.
    #[error("a handshake payload of {len} bytes where at most {limit} are allowed")]
    PayloadTooLong {
        /// The length found, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer's: the message, or the payload in it, is too long.
    #[error("a handshake message of {len} bytes where at most {limit} are allowed")]
    MessageTooLong {
        /// The length found, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer's: the message ends early.
    #[error("a handshake message of {0} bytes is too short")]
    MessageTooShort(usize),
    /// The peer's, or somebody's on the way: the message does not open. The peer has another introduction,
    /// role, rung or key in mind, or the bytes were changed.
    #[error("the handshake message does not open: the peer holds another key or another introduction")]
    NotAuthentic,
    /// The peer's: its key is a point of low order, which no honest program sends.
    #[error("the peer's handshake key is of low order")]
    LowOrder,
    /// The peer's: it proved a key, but not the one that the introduction gives its name.
    #[error("the peer proved another key than the introduction gives {0}")]
    OtherKey(UserName),
    /// Ours: the library refused what it should not.
    #[error("the handshake failed within this program: {0}")]
    Internal(String),
}

impl HandshakeError {
    /// The code with which the link is refused.
    pub fn close_code(&self) -> CloseCode {
        match self {
            HandshakeError::NotIntroduced(_)
            | HandshakeError::OtherIdentity(_)
            | HandshakeError::NotAuthentic
            | HandshakeError::OtherKey(_) => CloseCode::Introduction,
            HandshakeError::CleartextRung(_) => CloseCode::EncryptionMismatch,
            HandshakeError::MessageTooLong { .. } => CloseCode::LimitExceeded,
            HandshakeError::MessageTooShort(_) | HandshakeError::LowOrder => CloseCode::Malformed,
            HandshakeError::Role | HandshakeError::PayloadTooLong { .. } | HandshakeError::Internal(_) => {
                CloseCode::Internal
            }
        }
    }
}

/// The length of a handshake message from its two-byte prefix. `None`: the responder refuses, and a close
/// code (`u16`, little endian) follows.
pub fn message_length(prefix: [u8; 2]) -> Result<Option<usize>, HandshakeError> {
    match usize::from(u16::from_le_bytes(prefix)) {
        0 => Ok(None),
        len if len > MESSAGE_BYTES => Err(HandshakeError::MessageTooLong { len, limit: MESSAGE_BYTES }),
        len => Ok(Some(len)),
    }
}

/// A handshake message behind its two-byte length, as it goes on the wire.
pub fn framed_message(message: &[u8]) -> Vec<u8> {
    debug_assert!(message.len() <= MESSAGE_BYTES);
    [&(message.len() as u16).to_le_bytes(), message].concat()
}

/// The responder's refusal as it goes on the wire: a length of 0 and the close code.
pub fn framed_refusal(code: CloseCode) -> [u8; 4] {
    let [low, high] = u16::from(code).to_le_bytes();
    [0, 0, low, high]
}

/// The initiator, waiting for message 2.
pub struct Initiator {
    state: HandshakeState,
    cipher: Cipher,
}

impl Initiator {
    /// Makes message 1 with `payload` in it. The payload is encrypted to the responder, but whoever records
    /// the message can replay it.
    pub fn start(setup: HandshakeSetup<'_>, payload: &[u8]) -> Result<(Self, Vec<u8>), HandshakeError> {
        let cipher = setup.introduction.cipher;
        let (mut state, _) = setup.into_state(true)?;
        let message = write_message(&mut state, payload, MESSAGE_1_OVERHEAD)?;
        Ok((Self { state, cipher }, message))
    }

    /// Reads message 2: its payload and the keys of the link. The responder has proved its key.
    pub fn finish(mut self, message: &[u8]) -> Result<(Vec<u8>, RecordKeys), HandshakeError> {
        let payload = read_message(&mut self.state, message, MESSAGE_2_OVERHEAD)?;
        let (send, recv) = raw_split(&mut self.state);
        Ok((payload, RecordKeys::new(send, recv, self.cipher)))
    }
}

/// The end that waits for message 1.
pub struct Responder;

impl Responder {
    /// Reads message 1. The peer holds the introduction's key, or replays a message of one who does.
    pub fn answer(
        setup: HandshakeSetup<'_>,
        message: &[u8],
    ) -> Result<(Vec<u8>, ResponderPending), HandshakeError> {
        let cipher = setup.introduction.cipher;
        let (mut state, peer) = setup.into_state(false)?;
        let payload = read_message(&mut state, message, MESSAGE_1_OVERHEAD)?;
        if state.get_remote_static() != Some(peer.noise.key.0.as_slice()) {
            return Err(HandshakeError::OtherKey(peer.name.clone()));
        }
        Ok((payload, ResponderPending { state, cipher }))
    }

    /// Reads message 1 of a link that may be on any of these rungs, and returns which it is: a direct link does
    /// not say its rung, and where it comes from does not tell it reliably. `setup.rung` is not looked at. A
    /// rung that does not fit costs one multiplication on the curve.
    pub fn answer_any(
        setup: HandshakeSetup<'_>,
        rungs: &[Rung],
        message: &[u8],
    ) -> Result<(Rung, Vec<u8>, ResponderPending), HandshakeError> {
        let HandshakeSetup { introduction, local, local_name, initiator, ephemeral, .. } = setup;
        let mut refused = HandshakeError::NotAuthentic;
        for &rung in rungs {
            // The ephemeral key is not drawn before `reply`, which happens on one rung.
            let ephemeral = ephemeral.clone();
            let setup = HandshakeSetup { introduction, local, local_name, initiator, rung, ephemeral };
            match Self::answer(setup, message) {
                Ok((payload, pending)) => return Ok((rung, payload, pending)),
                Err(HandshakeError::NotAuthentic) => {}
                Err(error @ HandshakeError::CleartextRung(_)) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }
}

/// The responder, message 1 read and message 2 not yet written.
pub struct ResponderPending {
    state: HandshakeState,
    cipher: Cipher,
}

impl ResponderPending {
    /// Makes message 2 with `payload` in it, and the keys of the link. The initiator's first record proves
    /// that it did not replay message 1.
    pub fn reply(mut self, payload: &[u8]) -> Result<(Vec<u8>, RecordKeys), HandshakeError> {
        let message = write_message(&mut self.state, payload, MESSAGE_2_OVERHEAD)?;
        let (recv, send) = raw_split(&mut self.state);
        Ok((message, RecordKeys::new(send, recv, self.cipher)))
    }
}

impl<'a> HandshakeSetup<'a> {
    fn into_state(self, initiator: bool) -> Result<(HandshakeState, &'a Party), HandshakeError> {
        let introduction = self.introduction;
        let (me, peer) = introduction
            .sides(self.local_name)
            .ok_or_else(|| HandshakeError::NotIntroduced(self.local_name.clone()))?;
        if me.identity != self.local.public() {
            return Err(HandshakeError::OtherIdentity(self.local_name.clone()));
        }
        if self.initiator != initiator {
            return Err(HandshakeError::Role);
        }
        if introduction.cipher == Cipher::Cleartext && !self.rung.allows_cleartext() {
            return Err(HandshakeError::CleartextRung(self.rung));
        }
        let (first, second) = if initiator { (me, peer) } else { (peer, me) };
        let prologue = prologue(introduction, first, second, self.rung);
        let secret = self.local.noise_secret();
        let builder = noise_builder(pattern(introduction.cipher), self.ephemeral)?
            .prologue(&prologue)
            .and_then(|b| b.local_private_key(secret.as_slice()))
            .map_err(|error| internal(&error))?;
        let state = if initiator {
            builder.remote_public_key(&peer.noise.key.0).and_then(Builder::build_initiator)
        } else {
            builder.build_responder()
        };
        Ok((state.map_err(|error| internal(&error))?, peer))
    }
}

/// The Noise name of a cipher's pattern. Cleartext concerns the records; its handshake is encrypted.
fn pattern(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::ChaChaPoly | Cipher::Cleartext => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
        Cipher::AesGcm => "Noise_IK_25519_AESGCM_BLAKE2s",
    }
}

pub(super) fn noise_builder<'a>(
    pattern: &str,
    ephemeral: Zeroizing<[u8; 32]>,
) -> Result<Builder<'a>, HandshakeError> {
    let params = pattern.parse().map_err(|error: snow::Error| internal(&error))?;
    Ok(Builder::with_resolver(params, Box::new(Resolver::new(ephemeral))))
}

/// Everything both ends must agree on. Fields of fixed length stand as they are, names behind their length.
/// The identities are in it because a handshake key does not name its identity: without them a Room could
/// make one end take the peer for another identity that certified the same key.
fn prologue(introduction: &Introduction, initiator: &Party, responder: &Party, rung: Rung) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend(PROLOGUE_CONTEXT);
    bytes.extend(control::VERSION.to_le_bytes());
    bytes.extend(introduction.room.0);
    bytes.extend(introduction.id.0);
    for party in [initiator, responder] {
        let name = party.name.folded();
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.extend(party.identity.0);
    }
    bytes.push(introduction.cipher as u8);
    bytes.push(rung as u8);
    bytes
}

pub(super) fn write_message(
    state: &mut HandshakeState,
    payload: &[u8],
    overhead: usize,
) -> Result<Vec<u8>, HandshakeError> {
    if payload.len() > PAYLOAD_BYTES {
        return Err(HandshakeError::PayloadTooLong { len: payload.len(), limit: PAYLOAD_BYTES });
    }
    let mut message = vec![0; payload.len() + overhead];
    let len = state.write_message(payload, &mut message).map_err(|error| failure(&error, 0))?;
    message.truncate(len);
    Ok(message)
}

pub(super) fn read_message(
    state: &mut HandshakeState,
    message: &[u8],
    overhead: usize,
) -> Result<Vec<u8>, HandshakeError> {
    let limit = PAYLOAD_BYTES + overhead;
    if message.len() > limit {
        return Err(HandshakeError::MessageTooLong { len: message.len(), limit });
    }
    let payload_len =
        message.len().checked_sub(overhead).ok_or(HandshakeError::MessageTooShort(message.len()))?;
    let mut payload = vec![0; payload_len];
    let read = state.read_message(message, &mut payload).map_err(|error| failure(&error, message.len()))?;
    payload.truncate(read);
    Ok(payload)
}

/// The keys from initiator to responder and back.
pub(super) fn raw_split(state: &mut HandshakeState) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
    let (forth, back) = state.dangerously_get_raw_split();
    (Zeroizing::new(forth), Zeroizing::new(back))
}

fn failure(error: &snow::Error, len: usize) -> HandshakeError {
    match error {
        snow::Error::Decrypt => HandshakeError::NotAuthentic,
        snow::Error::Dh => HandshakeError::LowOrder,
        snow::Error::Input => HandshakeError::MessageTooShort(len),
        other => internal(other),
    }
}

fn internal(error: &snow::Error) -> HandshakeError {
    HandshakeError::Internal(error.to_string())
}
