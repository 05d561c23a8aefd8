//! The first bytes of connections that are not TLS.

use parlor_protocol::noise::handshake::{MESSAGE_BYTES, message_length};
use parlor_protocol::wire::preface;

use crate::Verdict;

/// The bytes begin a connection. What is read as a preface is what would have been written, byte for byte, and no
/// bytes are two kinds of preface.
pub fn preface(data: &[u8]) -> Verdict {
    let relay = data.first_chunk().and_then(|bytes| {
        let token = preface::parse_relay(bytes).ok()?;
        assert_eq!(preface::relay(&token), *bytes);
        Some(())
    });
    let check = data.first_chunk().and_then(|bytes| {
        let nonce = preface::parse_check(bytes).ok()?;
        assert_eq!(preface::check(&nonce), *bytes);
        assert_ne!(preface::check_answer(&[1; 32], &nonce), preface::check_answer(&[2; 32], &nonce));
        Some(())
    });
    let link = data.split_first_chunk().and_then(|(bytes, rest)| {
        let id = preface::parse_link(bytes).ok()?;
        assert_eq!(preface::link(&id), *bytes);
        if let Some(Ok(Some(length))) = rest.first_chunk().map(|prefix| message_length(*prefix)) {
            assert!((1..=MESSAGE_BYTES).contains(&length));
        }
        Some(())
    });
    let kinds = [relay, check, link].into_iter().flatten().count();
    assert!(kinds <= 1, "{kinds} kinds");
    Verdict::accepted_if(kinds == 1)
}
