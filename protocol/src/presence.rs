//! What a user tells the Room about where it can be reached.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::name::LanId;

/// Where a user can be reached and what it can do, as it says itself. The Room checks what can be checked
/// and treats the rest as hints: a path counts when a handshake has proved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Equal for programs that share a machine and a network stack.
    pub host_tag: HostTag,
    /// The local network, as the user's operator calls it.
    pub lan_id: LanId,
    /// The TCP port of the user's listener. 0: it has none and can only dial.
    pub port: u16,
    /// The addresses of its interfaces, at most [`CANDIDATES`](crate::limits::CANDIDATES).
    pub private: Vec<IpAddr>,
    /// The address its operator says it has on the Internet.
    pub public: Option<IpAddr>,
    /// Whether its channels are to be encrypted.
    pub encryption: Encryption,
    /// True if its processor has instructions for AES.
    pub aes: bool,
}

/// Whether a user's channels are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Encryption {
    /// Always.
    #[default]
    On,
    /// Not between users that both ask for it, on one host or LAN, where the Room's policy allows it.
    Off,
}

/// Equal for programs that share a machine and a network stack; says nothing else about the machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostTag(pub [u8; 16]);

impl HostTag {
    /// The tag of a machine within one room: BLAKE3 of what names the machine and the Room's key, so that two
    /// Rooms cannot tell that their users share a machine.
    pub fn derive(machine: &[u8], room: &crate::identity::PublicIdentity) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("parlor host tag v1");
        hasher.update(&room.0).update(machine);
        let mut tag = [0; 16];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(tag)
    }
}

impl fmt::Debug for HostTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostTag({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}
