//! What Parlor's fuzzers do with the bytes they are given, as plain functions: the fuzzers in `fuzz/` call them,
//! and so do ordinary tests with every input of `fuzz/corpus/`.
//!
//! A target takes any bytes, panics if something does not hold that must hold for all of them, and otherwise says
//! whether the bytes were accepted. Where a signature or a checksum would turn every mutation away, the target
//! makes it itself, so that what stands behind it is reached: then the bytes are a script (see
//! [`arbitrary::Unstructured`]) or the content that is sealed.

#![allow(clippy::missing_panics_doc, reason = "a target panics when what it checks does not hold")]

mod admin;
mod body;
#[path = "../../../protocol/tests/common/mod.rs"]
mod common;
mod control;
mod files;
mod introduction;
mod preface;
mod records;
mod responder;
mod session;

pub use admin::admin;
pub use body::body;
pub use control::control;
pub use files::{accounts, config, state};
pub use introduction::introduction;
pub use preface::preface;
pub use records::records;
pub use responder::responder;
pub use session::session;

/// What became of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They are, in whole or part, what the target reads.
    Accepted,
    /// They are not.
    Refused,
}

impl Verdict {
    fn accepted_if(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }
}

/// A target.
pub type Target = fn(&[u8]) -> Verdict;

/// Every target with the name of its fuzzer and of its corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("control", control),
    ("preface", preface),
    ("responder", responder),
    ("records", records),
    ("session", session),
    ("body", body),
    ("introduction", introduction),
    ("accounts", accounts),
    ("config", config),
    ("admin", admin),
    ("state", state),
];
