//! Those who try: clients, peers and networks that speak the real protocol up to the point where they
//! misbehave.
//!
//! The tables of `lab/tests/hostile` say what each of them does and what must become of it; what is here is what
//! they do it with. Honest steps are taken with the codecs and the handshake of `parlor-protocol`, so a row fails
//! for what its victim does and not for a mistake of its own; dishonest ones with bytes.
//!
//! - [`ground`]: a network of a table's own, where addresses count as strangers'.
//! - [`client`]: who comes to a Room. [`peer`], [`link`]: who is introduced to a user.
//! - [`way`]: who is between two users that mean well.
//! - [`outcome`]: what becomes of it, in the words of `docs/SECURITY.md`.
//! - [`leaks`]: what a table leaves behind: descriptors, tasks, panics.

pub mod client;
pub mod ground;
pub mod leaks;
pub mod link;
pub mod outcome;
pub mod peer;
pub mod way;
