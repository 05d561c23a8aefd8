//! What the two messages of a handshake carry, encrypted: where each end's session stands, and its limits.
//!
//! The hello is replayable (it rides in message 1); the accept is not.

use serde::{Deserialize, Serialize};

use super::handshake::PAYLOAD_BYTES;
use crate::identity::InstanceId;
use crate::wire::codec::{self, DecodeError};

/// One life of one end of a channel. A process that restarts, or a user that gives up its session with a
/// peer, starts another epoch; what was unacknowledged in the old one is reported, never repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// The run of the program.
    pub instance: InstanceId,
    /// Counts this run's sessions with the peer.
    pub generation: u32,
}

/// What the initiator says in message 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkHello {
    /// The initiator's epoch.
    pub epoch: Epoch,
    /// The responder's epoch as the initiator knows it. `None`: they have not talked.
    pub peer_epoch: Option<Epoch>,
    /// The next sequence number the initiator wants to receive.
    pub recv_next: u64,
    /// The largest message body it takes, in bytes.
    pub max_body: u32,
    /// What it can do beyond the version, as bits. Unknown bits are ignored.
    pub features: u64,
}

/// What the responder says in message 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkAccept {
    /// The responder's epoch.
    pub epoch: Epoch,
    /// The next sequence number the responder wants to receive.
    pub recv_next: u64,
    /// The largest message body it takes, in bytes.
    pub max_body: u32,
    /// What it can do beyond the version, as bits. Unknown bits are ignored.
    pub features: u64,
}

impl LinkHello {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads it. The initiator is at fault for an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<_, PAYLOAD_BYTES>(bytes)
    }
}

impl LinkAccept {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads it. The responder is at fault for an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode::<_, PAYLOAD_BYTES>(bytes)
    }
}
