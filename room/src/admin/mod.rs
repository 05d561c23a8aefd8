//! The operator's way into a running Room: a Unix socket in its data directory that only the Room's own account can
//! open. Each line is one JSON request and gets one JSON line in answer, so what an operator changes acts at once and
//! is on disk when the command returns.
//!
//! The server bounds what a caller can cost: 64 KiB a request, 5 s for each, 8 connections at once. It decides nothing:
//! every request goes to the Room as an [`AdminCall`].

mod client;
mod server;

use std::net::SocketAddr;

use ipnet::IpNet;
use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::Fingerprint;
use parlor_protocol::name::UserName;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use self::client::{CallError, call};
pub use self::server::{AdminSocket, SocketError, serve};
use crate::password::PasswordHash;

/// What an operator asks of a running Room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Makes an account.
    UserAdd {
        /// Its name.
        name: UserName,
        /// The hash of its password.
        hash: PasswordHash,
    },
    /// Gives an account another password.
    UserPassword {
        /// Its name.
        name: UserName,
        /// The hash of the new password.
        hash: PasswordHash,
    },
    /// Removes an account, its identity and tickets, and ends its session.
    UserRemove {
        /// Its name.
        name: UserName,
    },
    /// Lists accounts.
    UserList,
    /// Frees an account from the identity of its first login.
    ResetIdentity {
        /// Its name.
        name: UserName,
    },
    /// Bans an address or range and cuts its sessions.
    BanAdd {
        /// Who is banned.
        net: IpNet,
        /// For how long, in seconds. `None`: until it is removed.
        seconds: Option<u64>,
    },
    /// Removes a ban.
    BanRemove {
        /// The range exactly as it was banned.
        net: IpNet,
    },
    /// Lists bans in force.
    BanList,
    /// Asks how the Room does.
    Status,
}

/// A running Room's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AdminResponse {
    /// It is done, and on disk.
    Done,
    /// The accounts.
    Users {
        /// By name.
        users: Vec<UserEntry>,
    },
    /// The bans in force.
    Bans {
        /// By range.
        bans: Vec<BanEntry>,
    },
    /// How the Room does.
    Status(StatusReport),
    /// It was not done.
    Failed(AdminError),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct AdminError {
    /// Which kind of failure, for the exit code.
    pub kind: AdminErrorKind,
    /// What is the matter and what to do, for the operator.
    pub sentence: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdminErrorKind {
    /// There is no such user or ban.
    NotFound,
    /// There is one already.
    Exists,
    /// The request makes no sense to this Room.
    Invalid,
    /// The Room could not write to its data directory.
    Io,
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    /// Its name.
    pub name: UserName,
    /// Where it is defined.
    pub source: AccountSource,
    /// The identity it is bound to, once it has logged in.
    pub identity: Option<Fingerprint>,
    /// Whether it is online now.
    pub online: bool,
}

/// Where an account is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountSource {
    /// In the configuration file: it changes there.
    File,
    /// In the data directory: `parlor-room user` changes it.
    Store,
}

/// One ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanEntry {
    /// Who is banned.
    pub net: IpNet,
    /// When it passes, in seconds since 1970. `None`: never.
    pub until: Option<u64>,
    /// Why: by the operator, by the configuration file, for too many failed logins.
    pub reason: String,
}

/// How a Room does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Where it listens.
    pub addresses: Vec<RoomAddress>,
    /// The version of the program.
    pub version: String,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Who is online, by name.
    pub users: Vec<OnlineUser>,
    /// Pairs it relays now.
    pub relayed_pairs: u64,
    /// What it has done since it started.
    pub totals: Totals,
}

/// One user online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineUser {
    /// Its name.
    pub name: UserName,
    /// Its address as the Room sees it.
    pub address: SocketAddr,
    /// Its program and version, as it says itself; `version` in JSON.
    #[serde(rename = "version")]
    pub agent: String,
    /// When it logged in, in seconds since 1970.
    pub since: u64,
    /// Its identity.
    pub identity: Fingerprint,
}

/// What a Room has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections accepted.
    pub connections: u64,
    /// Connections turned away before TLS: banned, or too many.
    pub turned_away: u64,
    /// Logins that succeeded.
    pub logins: u64,
    /// Of those, with a resume ticket.
    pub resumed: u64,
    /// Logins that were refused.
    pub refused_logins: u64,
    /// Passwords verified: each is a bcrypt.
    #[serde(default)]
    pub passwords_checked: u64,
    /// Introductions made.
    pub introductions: u64,
    /// Links relayed.
    pub relayed_links: u64,
    /// Bytes relayed, both directions.
    pub relayed_bytes: u64,
}

/// A request on its way to the Room.
#[derive(Debug)]
pub struct AdminCall {
    /// What is asked.
    pub request: AdminRequest,
    /// Where the answer goes.
    pub reply: oneshot::Sender<AdminResponse>,
}

#[cfg(test)]
mod tests;
