//! What a Room is told at its start. A [`RoomConfig`] is checked as a whole before a Room sees it: every
//! part is a type that cannot be wrong, and parts that contradict each other are an error that names file, line, field,
//! reason and what to do.
//!
//! The daemon reads a file, then the environment (`PARLOR_ROOM_…`), then its flags; the later wins. A program that embeds
//! a Room fills in the struct.

mod file;
mod load;
mod net;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use parlor_protocol::limits::{BCRYPT_QUEUE, DEFAULT_PORT, RELAY_BURST, RELAY_RATE, RELAYED_PAIRS};
use parlor_protocol::name::UserName;

pub(crate) use self::file::parse_listen;
pub use self::load::{ConfigError, DaemonConfig, Place, RunFlags, data_directory};
pub use self::net::{BadNet, parse_net};
use crate::password::PasswordHash;

/// What a Room is told at its start.
///
/// The default listens on 127.0.0.1:2428, keeps nothing on disk and lets everybody in: a Room for one machine.
#[derive(Debug, Clone)]
pub struct RoomConfig {
    /// Where to listen: at least one address; port 0 picks a free one.
    pub listen: Vec<SocketAddr>,
    /// The data directory. `None`: nothing is kept on disk and the Room's identity is made anew.
    pub data: Option<PathBuf>,
    /// Whether a Room that asks for no password may listen beyond loopback.
    pub open: bool,
    /// Whether two users on one host or LAN that both ask for it may talk without encryption.
    pub allow_unencrypted: bool,
    /// Accounts of the configuration file; those of the data directory come besides.
    pub accounts: BTreeMap<UserName, PasswordHash>,
    /// A password that everybody needs besides their own.
    pub room_password: Option<PasswordHash>,
    /// Addresses that are never let in.
    pub blacklist: Vec<IpNet>,
    /// A certificate that an authority issued. `None`: the Room makes one of its own key.
    pub tls: Option<CertificateFiles>,
    /// How much of everything.
    pub limits: RoomLimits,
}

impl Default for RoomConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT))],
            data: None,
            open: false,
            allow_unencrypted: false,
            accounts: BTreeMap::new(),
            room_password: None,
            blacklist: Vec::new(),
            tls: None,
            limits: RoomLimits::default(),
        }
    }
}

impl RoomConfig {
    /// Refuses a Room that everybody on the network could enter although nobody said so. `stored_accounts` is the
    /// number of accounts in the data directory. To be called before the first socket is bound.
    pub fn check_exposure(&self, stored_accounts: usize) -> Result<(), ConfigError> {
        let asks_for_password =
            !self.accounts.is_empty() || stored_accounts > 0 || self.room_password.is_some();
        let beyond = self.listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
        match beyond {
            Some(&address) if !self.open && !asks_for_password => Err(ConfigError::Exposed { address }),
            _ => Ok(()),
        }
    }
}

/// Where a certificate that an authority issued is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and those between it and the authority, in PEM form.
    pub certificate: PathBuf,
    /// Its private key, in PEM form. Not an Ed25519 key: users would take the certificate for one of the Room's own.
    pub key: PathBuf,
}

/// How much of everything a Room gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomLimits {
    /// Users online at once.
    pub max_users: usize,
    /// Users online at once from one address (v6: one /64), where no password is asked for. 0: no limit. Loopback has
    /// none.
    pub users_per_address: usize,
    /// What the Room relays.
    pub relay: RelayLimits,
    /// Whether failed logins slow an address down and end in a ban that passes.
    pub penalties: bool,
    /// After this many bans that pass, an address is banned for good. `None`: never.
    pub ban_forever_after: Option<u32>,
    /// Threads that verify passwords.
    pub bcrypt_threads: usize,
    /// Logins that may wait for such a thread.
    pub bcrypt_queue: usize,
}

impl Default for RoomLimits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            max_users: MAX_USERS,
            users_per_address: USERS_PER_ADDRESS,
            relay: RelayLimits::default(),
            penalties: true,
            ban_forever_after: None,
            bcrypt_threads: (cores / 2).max(1),
            bcrypt_queue: BCRYPT_QUEUE,
        }
    }
}

/// Users online at once unless set: one that is silent costs 12 KiB, so this is about 120 MiB.
pub const MAX_USERS: usize = 10_000;

/// Users online at once from one address unless set, in a Room without passwords: a large office behind one address has
/// its place, and no address a tenth of a Room.
pub const USERS_PER_ADDRESS: usize = 1_000;

/// Relayed pairs of all users at once unless set: 8,192 descriptors and, at 128 KiB of buffers a pair, 512 MiB.
pub const RELAYED_PAIRS_TOTAL: usize = 4_096;

/// What a Room relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// Whether it relays at all.
    pub enabled: bool,
    /// Relayed pairs of one user at once.
    pub pairs_per_user: usize,
    /// Relayed pairs of all users at once; each costs two descriptors.
    pub pairs_total: usize,
    /// Bytes a second of one user, over all its pairs. 0: no limit.
    pub rate: u64,
    /// Bytes that one user may have relayed at once above `rate`.
    pub burst: u64,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            pairs_per_user: RELAYED_PAIRS,
            pairs_total: RELAYED_PAIRS_TOTAL,
            rate: RELAY_RATE,
            burst: RELAY_BURST,
        }
    }
}
