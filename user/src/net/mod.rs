//! What acts: the sockets between a user, its Room and its peers.
//!
//! - [`room`]: the control connection to the Room, over [`tls`].
//! - [`listener`], [`dial`]: connections from and to peers, and to the Room's relay.
//! - [`interfaces`]: what this machine is and where it can be reached.
//! - [`blacklist`]: the addresses that are neither dialed nor answered.

pub mod blacklist;
pub mod dial;
pub mod interfaces;
pub(crate) mod link;
pub mod listener;
mod places;
pub mod room;
pub mod tls;
