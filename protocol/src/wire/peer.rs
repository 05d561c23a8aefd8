//! The frames inside the records of a channel.
//!
//! The plaintext of a record is a header and frames:
//!
//! ```text
//! flags: u8          1 ACK, 2 CREDIT, 4 DATA
//! ack: u64           with ACK: the next sequence number its sender expects; all before are taken over
//! credit: u64        with CREDIT: bytes of messages the receiver of this record may have sent in all
//! seq: u64           with DATA: the sequence number of the first reliable frame in this record
//! frames             kind: u8, length: u16, payload
//! ```
//!
//! Numbers are little endian. Frames of kind 16 and above are *reliable*: they are numbered one after another,
//! kept by their sender until they are acknowledged, and sent again on another link. Frames below 16 belong
//! to their link and are never sent again.

use bytes::Bytes;

use crate::limits::{EVENT_NAME_BYTES, PIECE};
use crate::refusal::CloseCode;

/// The record acknowledges.
pub const ACK: u8 = 1;
/// The record grants credit.
pub const CREDIT: u8 = 2;
/// The record has reliable frames.
pub const DATA: u8 = 4;
/// The longest header of a record, in bytes.
pub const HEADER_MOST: usize = 25;
/// Bytes before a frame's payload.
pub const FRAME_HEAD: usize = 3;
/// The first kind of a reliable frame.
pub const RELIABLE: u8 = 16;
/// What a message costs of the receiver's window beside its body, in bytes: about what it occupies there.
pub const MESSAGE_COST: u64 = 64;

/// Kinds of frames.
pub mod kind {
    /// `id: u64`: answer with a pong on this link.
    pub const PING: u8 = 1;
    /// `id: u64`: the answer to a ping.
    pub const PONG: u8 = 2;
    /// `code: u16`: the sender uses this link no more.
    pub const CLOSE: u8 = 3;
    /// Nothing: the records after this one are under the next key.
    pub const REKEY: u8 = 4;
    /// `code: u16`: the sender ends the channel, on every link.
    pub const END: u8 = 5;
    /// A message: event, body.
    pub const SEND: u8 = 16;
    /// A call: `call: u32`, `timeout: u32` in ms (0: none), name, body.
    pub const GET: u8 = 17;
    /// An answer: `call: u32`, status, body.
    pub const ANSWER: u8 = 18;
    /// `call: u32`: nobody waits for this call's answer any more.
    pub const CANCEL: u8 = 19;
    /// `stream: u32`, `total: u32`, then the head of a SEND, GET or ANSWER with its kind before it: its body of
    /// `total` bytes follows in pieces.
    pub const BEGIN: u8 = 20;
    /// `stream: u32`, bytes: a piece of a body that was begun.
    pub const PIECE: u8 = 21;
    /// `stream: u32`: the rest of this body does not come.
    pub const ABORT: u8 = 22;
}

/// How a call ended at its callee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The body is the answer.
    Ok,
    /// The callback failed; the body is its error.
    Failed,
    /// The callee has no callback of this name.
    NoSuchCallback,
    /// The callee does not let this user call it. Kept for permissions of callbacks: this version never answers so.
    Denied,
    /// The callee runs as many callbacks as it may; the body is a `u32`: milliseconds to wait.
    Overloaded,
    /// The callback panicked.
    Panicked,
    /// The answer is larger than a body may be.
    TooLarge,
    /// The callee could not read the argument; the body is a text.
    Argument,
    /// The call's time was up at the callee.
    TimedOut,
}

impl Status {
    /// The status of a wire number.
    pub fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            0 => Status::Ok,
            1 => Status::Failed,
            2 => Status::NoSuchCallback,
            3 => Status::Denied,
            4 => Status::Overloaded,
            5 => Status::Panicked,
            6 => Status::TooLarge,
            7 => Status::Argument,
            8 => Status::TimedOut,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub fn to_wire(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::Failed => 1,
            Status::NoSuchCallback => 2,
            Status::Denied => 3,
            Status::Overloaded => 4,
            Status::Panicked => 5,
            Status::TooLarge => 6,
            Status::Argument => 7,
            Status::TimedOut => 8,
        }
    }
}

/// What a peer did that this protocol does not allow. Ends the link; the session survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// A record or frame ends early.
    #[error("a frame ends early")]
    Truncated,
    /// Flags that this version does not have.
    #[error("record flags {0:#04x} are unknown")]
    Flags(u8),
    /// A frame kind that this version does not have.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// A frame's payload is longer than its fields.
    #[error("bytes follow the fields of a frame of kind {0}")]
    Trailing(u8),
    /// A reliable frame without a sequence number in its record's header.
    #[error("a reliable frame without a sequence number")]
    Unnumbered,
    /// A sequence number beyond the next expected one.
    #[error("sequence number {found} where {expected} comes next")]
    Gap {
        /// The next expected one.
        expected: u64,
        /// The one found.
        found: u64,
    },
    /// An acknowledgement of what was never sent.
    #[error("acknowledged {ack}, but only {sent} were sent")]
    AckOfUnsent {
        /// What was acknowledged.
        ack: u64,
        /// What was sent.
        sent: u64,
    },
    /// More messages than the receive window.
    #[error("more messages than the receive window allows")]
    Window,
    /// A body larger than this user takes.
    #[error("a body of {0} bytes is larger than allowed")]
    TooLarge(u32),
    /// More bodies in pieces at once than allowed.
    #[error("more bodies in pieces at once than allowed")]
    Streams,
    /// A piece of a body that was not begun, or more of it than was announced.
    #[error("a piece of a body that was not announced")]
    Piece,
    /// A frame other than CLOSE and END behind the word that the key changes.
    #[error("a frame of kind {0} in a record behind REKEY")]
    BehindRekey(u8),
    /// A name that is no name.
    #[error("a callback or event name that is none")]
    Name,
    /// A status that this version does not have.
    #[error("answer status {0} is unknown")]
    Status(u8),
}

impl PeerMisbehaved {
    /// The code with which the link is closed.
    pub fn close_code(self) -> CloseCode {
        match self {
            PeerMisbehaved::Truncated
            | PeerMisbehaved::Flags(_)
            | PeerMisbehaved::Trailing(_)
            | PeerMisbehaved::Name
            | PeerMisbehaved::Status(_) => CloseCode::Malformed,
            PeerMisbehaved::Kind(_)
            | PeerMisbehaved::Unnumbered
            | PeerMisbehaved::Gap { .. }
            | PeerMisbehaved::AckOfUnsent { .. }
            | PeerMisbehaved::Piece
            | PeerMisbehaved::BehindRekey(_) => CloseCode::Unexpected,
            PeerMisbehaved::Window | PeerMisbehaved::TooLarge(_) | PeerMisbehaved::Streams => {
                CloseCode::LimitExceeded
            }
        }
    }
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordHeader {
    /// The next sequence number its sender expects.
    pub ack: Option<u64>,
    /// Bytes of messages that its receiver may have sent in all.
    pub credit: Option<u64>,
    /// The sequence number of the first reliable frame.
    pub seq: Option<u64>,
}

impl RecordHeader {
    /// Appends the header.
    pub fn write(&self, out: &mut Vec<u8>) {
        let flag = |bit: u8, field: Option<u64>| if field.is_some() { bit } else { 0 };
        out.push(flag(ACK, self.ack) | flag(CREDIT, self.credit) | flag(DATA, self.seq));
        for field in [self.ack, self.credit, self.seq].into_iter().flatten() {
            out.extend_from_slice(&field.to_le_bytes());
        }
    }

    /// Reads the header off the front of a record's plaintext and returns it with the rest's offset.
    pub fn read(plaintext: &[u8]) -> Result<(Self, usize), PeerMisbehaved> {
        let &flags = plaintext.first().ok_or(PeerMisbehaved::Truncated)?;
        if flags & !(ACK | CREDIT | DATA) != 0 {
            return Err(PeerMisbehaved::Flags(flags));
        }
        let mut at = 1;
        let mut field = |bit: u8| {
            if flags & bit == 0 {
                return Ok(None);
            }
            let bytes = plaintext.get(at..at + 8).and_then(|b| b.try_into().ok());
            at += 8;
            bytes.map(|b| Some(u64::from_le_bytes(b))).ok_or(PeerMisbehaved::Truncated)
        };
        let header = Self { ack: field(ACK)?, credit: field(CREDIT)?, seq: field(DATA)? };
        Ok((header, at))
    }
}

/// One frame: its kind and where its payload lies in the record's plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFrame {
    /// The kind.
    pub kind: u8,
    /// The payload's place in the plaintext.
    pub payload: std::ops::Range<usize>,
}

/// Reads the frame at `at` and returns it; the next one begins at its payload's end. `None` at the end.
pub fn next_frame(plaintext: &[u8], at: usize) -> Result<Option<RawFrame>, PeerMisbehaved> {
    let Some(rest) = plaintext.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let [kind, low, high, ..] = rest else { return Err(PeerMisbehaved::Truncated) };
    let start = at + FRAME_HEAD;
    let end = start + usize::from(u16::from_le_bytes([*low, *high]));
    if end > plaintext.len() {
        return Err(PeerMisbehaved::Truncated);
    }
    Ok(Some(RawFrame { kind: *kind, payload: start..end }))
}

/// Appends a frame's first three bytes.
pub fn write_frame_head(out: &mut Vec<u8>, kind: u8, payload: usize) {
    debug_assert!(u16::try_from(payload).is_ok());
    let [low, high] = (payload as u16).to_le_bytes();
    out.extend_from_slice(&[kind, low, high]);
}

/// What stands before the body of a message, call or answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head<N> {
    /// A message, with its event name if it has one.
    Send {
        /// The event name.
        event: Option<N>,
    },
    /// A call.
    Get {
        /// Chosen by the caller, comes back in the answer.
        call: u32,
        /// Milliseconds the caller waits. 0: as long as it takes.
        timeout_ms: u32,
        /// The callback's name.
        name: N,
    },
    /// An answer.
    Answer {
        /// The call it answers.
        call: u32,
        /// How the call ended.
        status: Status,
    },
}

impl<N: AsRef<[u8]>> Head<N> {
    /// The kind of frame that starts so.
    pub fn kind(&self) -> u8 {
        match self {
            Head::Send { .. } => kind::SEND,
            Head::Get { .. } => kind::GET,
            Head::Answer { .. } => kind::ANSWER,
        }
    }

    /// The same with a copy of its name.
    pub fn with_own_name(&self) -> Head<Bytes> {
        let own = |name: &N| Bytes::copy_from_slice(name.as_ref());
        match self {
            Head::Send { event } => Head::Send { event: event.as_ref().map(own) },
            Head::Get { call, timeout_ms, name } => {
                Head::Get { call: *call, timeout_ms: *timeout_ms, name: own(name) }
            }
            Head::Answer { call, status } => Head::Answer { call: *call, status: *status },
        }
    }

    /// Its length in bytes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Head::Send { event } => 1 + event.as_ref().map_or(0, |name| name.as_ref().len()),
            Head::Get { name, .. } => 9 + name.as_ref().len(),
            Head::Answer { .. } => 5,
        }
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut write_name = |prefix: &[u8], name: &[u8]| {
            debug_assert!(name.len() <= EVENT_NAME_BYTES);
            out.extend_from_slice(prefix);
            out.push(name.len() as u8);
            out.extend_from_slice(name);
        };
        match self {
            Head::Send { event } => write_name(&[], event.as_ref().map_or(&[], AsRef::as_ref)),
            Head::Get { call, timeout_ms, name } => {
                let numbers = u64::from(*call) | u64::from(*timeout_ms) << 32;
                write_name(&numbers.to_le_bytes(), name.as_ref());
            }
            Head::Answer { call, status } => {
                out.extend_from_slice(&call.to_le_bytes());
                out.push(status.to_wire());
            }
        }
    }
}

impl Head<Bytes> {
    /// Reads the head of a `kind` frame off the front of `payload`, which keeps the body.
    pub fn read(kind: u8, payload: &mut Bytes) -> Result<Self, PeerMisbehaved> {
        match kind {
            kind::SEND => {
                let name = take_name(payload)?;
                Ok(Head::Send { event: (!name.is_empty()).then_some(name) })
            }
            kind::GET => {
                let (call, timeout_ms) = (take_u32(payload)?, take_u32(payload)?);
                let name = take_name(payload)?;
                if name.is_empty() {
                    Err(PeerMisbehaved::Name)
                } else {
                    Ok(Head::Get { call, timeout_ms, name })
                }
            }
            kind::ANSWER => {
                let call = take_u32(payload)?;
                let [status] = take::<1>(payload)?;
                let status = Status::from_wire(status).ok_or(PeerMisbehaved::Status(status))?;
                Ok(Head::Answer { call, status })
            }
            other => Err(PeerMisbehaved::Kind(other)),
        }
    }
}

/// Takes the first bytes off a payload.
pub fn take<const N: usize>(payload: &mut Bytes) -> Result<[u8; N], PeerMisbehaved> {
    let bytes = payload.get(..N).and_then(|b| b.try_into().ok()).ok_or(PeerMisbehaved::Truncated)?;
    bytes::Buf::advance(payload, N);
    Ok(bytes)
}

/// Takes a number off the front of a payload.
pub fn take_u32(payload: &mut Bytes) -> Result<u32, PeerMisbehaved> {
    take(payload).map(u32::from_le_bytes)
}

/// Takes a number off the front of a payload.
pub fn take_u64(payload: &mut Bytes) -> Result<u64, PeerMisbehaved> {
    take(payload).map(u64::from_le_bytes)
}

/// Refuses what is left of a payload of fixed length.
pub fn finish(kind: u8, payload: &Bytes) -> Result<(), PeerMisbehaved> {
    if payload.is_empty() { Ok(()) } else { Err(PeerMisbehaved::Trailing(kind)) }
}

/// The event's name, if there is one, and the body in the payload of a message.
pub fn split_name(payload: &[u8]) -> Result<(Option<&[u8]>, &[u8]), PeerMisbehaved> {
    let (&len, rest) = payload.split_first().ok_or(PeerMisbehaved::Truncated)?;
    let len = usize::from(len);
    if len > EVENT_NAME_BYTES {
        return Err(PeerMisbehaved::Name);
    }
    let (name, body) = rest.split_at_checked(len).ok_or(PeerMisbehaved::Truncated)?;
    Ok(((len > 0).then_some(name), body))
}

fn take_name(payload: &mut Bytes) -> Result<Bytes, PeerMisbehaved> {
    let name = 1..1 + split_name(payload)?.0.map_or(0, <[u8]>::len);
    let mut taken = payload.split_to(name.end);
    bytes::Buf::advance(&mut taken, name.start);
    Ok(taken)
}

/// The longest body that travels in one frame, in bytes.
pub const BODY_IN_ONE_FRAME: usize = PIECE;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_of_a_record_with_a_call_never_change() {
        let mut out = Vec::new();
        RecordHeader { ack: Some(3), credit: None, seq: Some(7) }.write(&mut out);
        let head = Head::Get { call: 1, timeout_ms: 5000, name: b"up" };
        write_frame_head(&mut out, head.kind(), head.encoded_len() + 1);
        head.write(&mut out);
        out.push(0xc0);
        assert_eq!(
            out,
            [
                &[5u8][..],
                &[3, 0, 0, 0, 0, 0, 0, 0],
                &[7, 0, 0, 0, 0, 0, 0, 0],
                &[17, 12, 0],
                &[1, 0, 0, 0, 0x88, 0x13, 0, 0, 2, b'u', b'p', 0xc0],
            ]
            .concat()
        );
    }

    #[test]
    fn unknown_flags_and_cut_headers_are_refused() {
        assert_eq!(RecordHeader::read(&[]), Err(PeerMisbehaved::Truncated));
        assert_eq!(RecordHeader::read(&[8]), Err(PeerMisbehaved::Flags(8)));
        assert_eq!(RecordHeader::read(&[1, 0, 0]), Err(PeerMisbehaved::Truncated));
        assert_eq!(next_frame(&[16, 5, 0, 1], 0), Err(PeerMisbehaved::Truncated));
        assert_eq!(next_frame(&[16, 5], 0), Err(PeerMisbehaved::Truncated));
        assert_eq!(next_frame(&[], 0), Ok(None));
    }

    fn head() -> impl Strategy<Value = Head<Vec<u8>>> {
        let name = proptest::collection::vec(any::<u8>(), 1..EVENT_NAME_BYTES);
        prop_oneof![
            proptest::option::of(name.clone()).prop_map(|event| Head::Send { event }),
            (any::<u32>(), any::<u32>(), name).prop_map(|(call, timeout_ms, name)| Head::Get {
                call,
                timeout_ms,
                name
            }),
            (any::<u32>(), 0u8..9)
                .prop_map(|(call, s)| Head::Answer { call, status: Status::from_wire(s).unwrap() }),
        ]
    }

    proptest! {
        #[test]
        fn a_head_reads_back(head in head(), body in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut out = Vec::new();
            head.write(&mut out);
            prop_assert_eq!(out.len(), head.encoded_len());
            out.extend(&body);
            let mut payload = Bytes::from(out);
            let read = Head::read(head.kind(), &mut payload).unwrap();
            prop_assert_eq!(&payload[..], &body[..]);
            let same = match (read, head) {
                (Head::Send { event: a }, Head::Send { event: b }) => a.as_deref() == b.as_deref(),
                (Head::Get { call: a, timeout_ms: b, name: c }, Head::Get { call: d, timeout_ms: e, name: f }) => {
                    (a, b, &c[..]) == (d, e, &f[..])
                }
                (Head::Answer { call: a, status: b }, Head::Answer { call: c, status: d }) => (a, b) == (c, d),
                _ => false,
            };
            prop_assert!(same);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((_, mut at)) = RecordHeader::read(&bytes) {
                while let Ok(Some(frame)) = next_frame(&bytes, at) {
                    prop_assert!(frame.payload.end > at && frame.payload.end <= bytes.len());
                    at = frame.payload.end;
                    let mut payload = Bytes::copy_from_slice(&bytes[frame.payload.clone()]);
                    let _ = Head::read(frame.kind, &mut payload);
                }
            }
        }
    }
}
