//! The bytes on every connection.
//!
//! - [`control`]: between a user and the Room, inside TLS. [`codec`] turns its messages into bytes.
//! - [`preface`]: the first bytes of every connection that is not TLS: relayed links, direct links, address
//!   checks.
//! - [`peer`]: between two users, inside the records of a channel.

pub mod codec;
pub mod control;
pub mod peer;
pub mod preface;
