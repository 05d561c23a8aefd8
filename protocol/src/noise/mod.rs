//! The handshake between two users and the records they exchange after it.
//!
//! A link, whatever its rung, opens with a [`handshake`]: two messages of the Noise pattern IK (Noise
//! revision 34), in which each end proves the key that the introduction gives it, and both agree on what
//! they were told about each other. Each message carries a [`payload`]. After it both hold the keys of the
//! link's [`records`], one for each direction.
//!
//! What this promises against an attacker who owns the network and the Room's relay: it reads nothing, it
//! changes nothing unnoticed, it neither repeats nor reorders records, and it cannot make one end believe
//! in another peer, role, rung, cipher or room than the other end does. It can drop and delay, and it can
//! replay the first message; so a responder does nothing on a payload of message 1 that must happen once
//! before the initiator's first record has opened.

mod aead;
pub mod handshake;
pub mod payload;
pub mod records;
mod resolver;

#[cfg(test)]
mod vectors;
