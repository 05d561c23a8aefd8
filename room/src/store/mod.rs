//! The data directory: what a Room knows about itself and its users across restarts.

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;
use parlor_protocol::identity::{Identity, PublicIdentity};
use parlor_protocol::name::UserName;

use crate::password::PasswordHash;

/// What the data directory held when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// The Room's own key.
    pub identity: Identity,
    /// Accounts made by `parlor-room user add`.
    pub accounts: BTreeMap<UserName, PasswordHash>,
    /// The identity of each account's first login.
    pub bindings: BTreeMap<UserName, PublicIdentity>,
    /// Bans, those that have passed included.
    pub bans: Vec<Ban>,
    /// Resume tickets, those that have expired included.
    pub tickets: Vec<TicketRecord>,
}

/// A ban of an address or range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Who is banned.
    pub net: IpNet,
    /// When it passes, in seconds since 1970. `None`: never.
    pub until: Option<u64>,
    /// Why, for the operator.
    pub reason: String,
}

/// A resume ticket as the Room keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketRecord {
    /// SHA-256 of the ticket's secret.
    pub hash: [u8; 32],
    /// Whose it is.
    pub name: UserName,
    /// The identity that must show it.
    pub identity: PublicIdentity,
    /// When it expires, in seconds since 1970.
    pub expires: u64,
}

/// One change to what the store keeps.
#[derive(Debug, Clone)]
pub enum StoreChange {
    /// An account is made, gets another password, or goes.
    Account {
        /// Whose.
        name: UserName,
        /// The hash of its password. `None`: the account goes.
        hash: Option<PasswordHash>,
    },
    /// An account is bound to an identity, or freed from it.
    Binding {
        /// Whose.
        name: UserName,
        /// The identity. `None`: the next login binds it anew.
        identity: Option<PublicIdentity>,
    },
    /// A ban; it takes the place of one for the same range.
    Ban(Ban),
    /// The ban of exactly this range goes.
    Unban(IpNet),
    /// The tickets, all of them.
    Tickets {
        /// What is kept from now on.
        all: Vec<TicketRecord>,
    },
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {}

/// The open data directory. While it is open no other process can open it.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// Opens the data directory, and makes it if there is none. `seed` becomes the Room's identity if it has none yet.
    /// Without a directory everything is kept in memory alone.
    pub fn open(_data: Option<&Path>, seed: [u8; 32]) -> Result<(Store, Loaded), StoreError> {
        let loaded = Loaded {
            identity: Identity::from_seed(&seed),
            accounts: BTreeMap::new(),
            bindings: BTreeMap::new(),
            bans: Vec::new(),
            tickets: Vec::new(),
        };
        Ok((Store {}, loaded))
    }

    /// Makes one change. When this returns it is on disk.
    pub fn apply(&mut self, _change: StoreChange) -> Result<(), StoreError> {
        Ok(())
    }
}
