//! Exactly once, in order, above links that come and go.
//!
//! A session is the state that two running programs share about what they said to each other. Every reliable
//! frame has a sequence number; its sender keeps it until the peer has acknowledged it, and sends it again,
//! from the lowest one the peer lacks, on whatever link carries the channel next. The receiver takes a frame
//! over when its number is the next expected one and drops what it has had. So nothing is lost, repeated or
//! reordered while both programs live, whichever links fail.
//!
//! Order: messages of one event arrive in the order in which they were sent. Everything whose body fits into
//! one frame arrives in the order in which it was sent while the peer's receive window is open, but for messages
//! behind a longer body of their event. Bodies longer than [`PIECE`](crate::limits::PIECE) travel in pieces, between
//! which calls and answers pass, and messages of *other* events: however long a body is, it takes three quarters of the
//! window until it is whole. In turn the pieces pass them: nothing that waits is held up for good by what is pushed later.
//!
//! Bounds: [`Outbound`] holds at most its limit and one message more, where a body of more than half the limit counts as
//! half of it, and one such message and one such call or answer are held at a time; messages beyond the peer's receive
//! window wait there, calls do not wait behind them. [`Inbound`] takes at most the window and one message
//! more before the application has consumed any.

mod arrived;
mod inbound;
mod outbound;
mod pool;
mod pushed;
mod retained;
#[cfg(test)]
mod tests;
mod waiting;

pub use arrived::{Arrived, Messages};
pub use inbound::{Inbound, Taken};
pub use outbound::Outbound;
pub use pushed::{Class, Full, Given, Placed, Progress};
