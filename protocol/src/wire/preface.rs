//! The first bytes of every connection that is not TLS.
//!
//! The first byte tells what follows, on the Room's port and on a user's listener alike; [`TLS`] and
//! [`RELAY`] come to a Room, [`LINK`] and [`CHECK`] to a user.
//!
//! - relay: `R`, version, 32 bytes of token. The Room answers one byte: [`RELAY_READY`] when both ends are
//!   there, after which every byte is the peer's; else [`RELAY_REFUSED`] and a close code (`u16`, little endian).
//! - link: `L`, version, 16 bytes of introduction id, then the handshake's first message with its length
//!   (`u16`, little endian). Answered with the second message in the same form, or with a length of 0 and a
//!   close code.
//! - check: `C`, version, 32 bytes of nonce. A user answers with 32 bytes: BLAKE3 of the nonce, keyed with
//!   the key from its `Welcome`.

use crate::introduction::IntroductionId;
use crate::wire::control::RelayToken;

/// First byte of TLS: a handshake record (RFC 8446 section 5.1).
pub const TLS: u8 = 0x16;
/// First byte of a relayed link.
pub const RELAY: u8 = b'R';
/// First byte of a direct link.
pub const LINK: u8 = b'L';
/// First byte of a Room's check of an address.
pub const CHECK: u8 = b'C';
/// The version of these prefaces.
pub const VERSION: u8 = 1;

/// The Room's answer when both ends of a relayed link are there.
pub const RELAY_READY: u8 = 1;
/// The Room's answer to a token it does not take; a close code follows.
pub const RELAY_REFUSED: u8 = 0;

/// Length of a relay preface, first byte included.
pub const RELAY_BYTES: usize = 34;
/// Length of a link preface, first byte included, without the handshake message.
pub const LINK_BYTES: usize = 18;
/// Length of a check, first byte included.
pub const CHECK_BYTES: usize = 34;

/// Why a preface is refused. The sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefaceError {
    /// The first byte is none of those expected here.
    #[error("first byte {0:#04x} is not expected here")]
    Kind(u8),
    /// A version this crate does not speak.
    #[error("preface version {0} is unknown")]
    Version(u8),
}

/// The preface of a relayed link.
pub fn relay(token: &RelayToken) -> [u8; RELAY_BYTES] {
    with_head(RELAY, &token.0)
}

/// Reads a relay preface.
pub fn parse_relay(bytes: &[u8; RELAY_BYTES]) -> Result<RelayToken, PrefaceError> {
    parse_head(RELAY, bytes).map(RelayToken)
}

/// The preface of a direct link.
pub fn link(introduction: &IntroductionId) -> [u8; LINK_BYTES] {
    with_head(LINK, &introduction.0)
}

/// Reads a link preface.
pub fn parse_link(bytes: &[u8; LINK_BYTES]) -> Result<IntroductionId, PrefaceError> {
    parse_head(LINK, bytes).map(IntroductionId)
}

/// A Room's check of an address.
pub fn check(nonce: &[u8; 32]) -> [u8; CHECK_BYTES] {
    with_head(CHECK, nonce)
}

/// Reads a check and returns its nonce.
pub fn parse_check(bytes: &[u8; CHECK_BYTES]) -> Result<[u8; 32], PrefaceError> {
    parse_head(CHECK, bytes)
}

/// What a user answers to a check.
pub fn check_answer(check_key: &[u8; 32], nonce: &[u8; 32]) -> [u8; 32] {
    blake3::keyed_hash(check_key, nonce).into()
}

fn with_head<const N: usize>(kind: u8, rest: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[0] = kind;
    bytes[1] = VERSION;
    bytes[2..].copy_from_slice(rest);
    bytes
}

fn parse_head<const N: usize, const REST: usize>(
    kind: u8,
    bytes: &[u8; N],
) -> Result<[u8; REST], PrefaceError> {
    if bytes[0] != kind {
        return Err(PrefaceError::Kind(bytes[0]));
    }
    if bytes[1] != VERSION {
        return Err(PrefaceError::Version(bytes[1]));
    }
    let mut rest = [0; REST];
    rest.copy_from_slice(&bytes[2..]);
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preface_reads_back_and_refuses_another_kind_and_version() {
        let token = RelayToken([7; 32]);
        assert_eq!(parse_relay(&relay(&token)), Ok(token));
        let id = IntroductionId([8; 16]);
        assert_eq!(parse_link(&link(&id)), Ok(id));
        let nonce = [9; 32];
        assert_eq!(parse_check(&check(&nonce)), Ok(nonce));
        assert_eq!(parse_relay(&check(&nonce)), Err(PrefaceError::Kind(b'C')));
        let mut newer = relay(&token);
        newer[1] = 2;
        assert_eq!(parse_relay(&newer), Err(PrefaceError::Version(2)));
    }

    #[test]
    fn a_check_is_answered_with_the_key_only() {
        assert_eq!(check_answer(&[1; 32], &[2; 32]), check_answer(&[1; 32], &[2; 32]));
        assert_ne!(check_answer(&[1; 32], &[2; 32]), check_answer(&[3; 32], &[2; 32]));
    }
}
