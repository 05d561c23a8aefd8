//! The configuration of the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::RoomConfig;

/// What `parlor-room run` was told on its command line.
#[derive(Debug, Clone, Default)]
pub struct RunFlags {
    /// `--listen`, as often as it was given.
    pub listen: Vec<SocketAddr>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--open`.
    pub open: bool,
    /// `--allow-unencrypted`.
    pub allow_unencrypted: bool,
    /// `--log`.
    pub log: Option<String>,
    /// `--json`.
    pub json: bool,
}

/// The configuration of the daemon: a Room's, and how it talks to its operator.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// The Room's.
    pub room: RoomConfig,
    /// What is logged, as tracing-subscriber's filters are written: `info`, `parlor_room=debug`.
    pub log: String,
    /// Whether ready lines and logs are JSON.
    pub json: bool,
}

/// Why a configuration cannot be used. The operator's move.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Everybody on the network could enter.
    #[error(
        "listen: everybody who reaches {address} could enter this Room, because it has no accounts and no room \
         password: add an account with \"parlor-room user add NAME\", set room_password, or start it with --open"
    )]
    Exposed {
        /// The address beyond loopback.
        address: SocketAddr,
    },
}

/// The data directory when none is configured: `$XDG_STATE_HOME/parlor-room`, else `~/.local/state/parlor-room`.
pub fn data_directory(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("parlor-room"))
}
