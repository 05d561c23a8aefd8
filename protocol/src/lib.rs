//! What a Parlor Room and its users must agree on.
//!
//! Nothing in this crate opens a socket, reads a clock, starts a task or draws a random number: time,
//! chance and the bytes of the network come in as arguments. Everything that crosses a boundary is parsed
//! here, once, into a type that cannot be wrong; lengths are checked before memory is spent.
//!
//! - [`name`], [`address`], [`identity`]: who is who.
//! - [`network`]: which addresses are the same when somebody is kept out.
//! - [`introduction`]: the Room's signed statement that lets two users open a channel.
//! - [`presence`], [`rung`]: where a user can be reached, and the kinds of path between two users.
//! - [`wire`]: the bytes on every connection.
//! - [`noise`]: the handshake between two users and the records they exchange after it.
//! - [`session`]: exactly once, in order, above links that come and go.
//! - [`body`]: the values that messages carry.
//! - [`limits`]: every limit, with its unit and its reason.

pub mod address;
pub mod body;
pub mod identity;
pub mod introduction;
pub mod limits;
pub mod name;
pub mod network;
pub mod noise;
pub mod presence;
pub mod refusal;
pub mod rung;
pub mod session;
pub mod wire;
