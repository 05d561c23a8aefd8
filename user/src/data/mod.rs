//! What a user keeps on this machine, in one directory that only its owner can read:
//!
//! ```text
//! rooms.toml                        Room keys that were believed, by address
//! ROOM/peers.toml                   identities of peers seen in that Room, by name
//! ROOM/identity_NAME.toml           the secret identity under one name in that Room
//! ROOM/ticket_NAME.toml             the resume ticket of the last login
//! ROOM/introductions_NAME.toml      introductions to peers, encrypted under the identity
//! ```
//!
//! `ROOM` is the Room's fingerprint and `NAME` a user name in lower case. Every file is whole or refused;
//! several programs may share the directory. All functions may wait for the disk: call them where a thread
//! may block.

mod files;
mod introductions;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use parlor_protocol::identity::{Fingerprint, Identity, PublicIdentity};
use parlor_protocol::name::UserName;
use parlor_protocol::wire::control::TicketSecret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use self::files::Files;
pub use self::introductions::{CachedIntroduction, CachedIntroductions, NONCE_BYTES};

/// Peers of one Room whose keys are kept. Twice the largest room that is tested, and their file stays far below
/// the largest that is read.
pub const PEER_PINS: usize = 20_000;
/// The version of the files' layout.
const VERSION: u32 = 1;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The system refused.
    #[error("cannot {op} {}: {source}; see to that, or use another --data directory", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not as it was written.
    #[error(
        "{} is damaged: {why}; put back a copy of it, or move it away to start without what it held",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file of another version of this program.
    #[error(
        "{} has version {version}, this program reads version {VERSION}: use the program that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it has.
        version: u32,
    },
    /// The keys of as many peers as may be are kept already.
    #[error(
        "{} holds the keys of {PEER_PINS} peers, which is the most: `parlor forget` those that are not needed",
        path.display()
    )]
    TooManyPeers {
        /// The file.
        path: PathBuf,
    },
    /// Another program has been changing files there for long.
    #[error("another program has held {} for 3 s: stop it, or use another --data directory", path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// Neither `XDG_STATE_HOME` nor `HOME` is set.
    #[error("there is no place for data: set HOME or XDG_STATE_HOME, or give a directory with --data")]
    NoHome,
}

impl DataError {
    fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        DataError::Io { op, path: path.to_owned(), source }
    }

    fn damaged(path: &Path, why: impl fmt::Display) -> Self {
        // TOML's own message spans lines; an error is one line.
        let why = why.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        DataError::Damaged { path: path.to_owned(), why }
    }
}

/// The user's data directory. Clones are the same directory.
#[derive(Debug, Clone)]
pub struct DataDir {
    files: Arc<Files>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

#[derive(Default, Serialize, Deserialize)]
struct RoomsFile {
    rooms: BTreeMap<String, Fingerprint>,
}

#[derive(Default, Serialize, Deserialize)]
struct PeersFile {
    peers: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct IdentityFile {
    fingerprint: Fingerprint,
    seed: Zeroizing<String>,
}

#[derive(Serialize, Deserialize)]
struct TicketFile {
    ticket: Zeroizing<String>,
    password_tag: u8,
}

/// A resume ticket as it is kept. The Room alone says when it has ended: this machine's calendar may be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTicket {
    /// The ticket.
    pub secret: TicketSecret,
    /// Tells the passwords it was won with from most others, so that a wrong password is not hidden by a
    /// good ticket. 8 bits are enough for that and tell a thief next to nothing.
    pub password_tag: u8,
}

impl DataDir {
    /// The directory `path`, created for its owner alone if it is missing.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        Ok(Self { files: Arc::new(Files::open(path)?) })
    }

    /// Keeps everything in memory, for this process alone.
    pub fn ephemeral() -> Self {
        Self { files: Arc::new(Files::Memory(Mutex::default())) }
    }

    /// True if what is kept outlives this process.
    pub fn is_lasting(&self) -> bool {
        matches!(*self.files, Files::Disk(_))
    }

    /// The directory used unless told otherwise: `$XDG_STATE_HOME/parlor`, else `~/.local/state/parlor`.
    /// `env` reads an environment variable.
    pub fn default_path(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, DataError> {
        // The XDG base directory specification says to ignore a path that is not absolute.
        let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| state.join("parlor"))
            .ok_or(DataError::NoHome)
    }

    /// The identity of `name` in a Room: the one kept, else the one of `seed_if_new`, which is then kept.
    pub fn identity(
        &self,
        room: Fingerprint,
        name: &UserName,
        seed_if_new: &[u8; 32],
    ) -> Result<Identity, DataError> {
        let file = of_user(room, "identity", name);
        if let Some(kept) = self.read_identity(&file)? {
            return Ok(kept);
        }
        let exclusive = self.files.exclusive()?;
        if let Some(kept) = self.read_identity(&file)? {
            return Ok(kept);
        }
        let identity = Identity::from_seed(seed_if_new);
        let content = IdentityFile {
            fingerprint: identity.fingerprint(),
            seed: Zeroizing::new(hex(identity.seed().as_slice())),
        };
        exclusive.write(&file, &text(content))?;
        Ok(identity)
    }

    /// The identity of `name` in a Room, if one is kept.
    pub fn known_identity(&self, room: Fingerprint, name: &UserName) -> Result<Option<Identity>, DataError> {
        self.read_identity(&of_user(room, "identity", name))
    }

    fn read_identity(&self, file: &str) -> Result<Option<Identity>, DataError> {
        let Some(content) = self.read::<IdentityFile>(file)? else { return Ok(None) };
        let seed = Zeroizing::new(self.unhex::<32>(file, &content.seed)?);
        let identity = Identity::from_seed(&seed);
        if identity.fingerprint() == content.fingerprint {
            Ok(Some(identity))
        } else {
            Err(DataError::damaged(&self.files.path(file), "the seed does not belong to the fingerprint"))
        }
    }

    /// The Room key believed at an address; `address` is what [`trust::pin_key`](crate::trust::pin_key) made
    /// of it.
    pub fn room_pin(&self, address: &str) -> Result<Option<Fingerprint>, DataError> {
        Ok(self.read::<RoomsFile>(ROOMS)?.and_then(|file| file.rooms.get(address).copied()))
    }

    /// Remembers the Room key believed at an address.
    pub fn pin_room(&self, address: &str, key: Fingerprint) -> Result<(), DataError> {
        self.change(ROOMS, |file: &mut RoomsFile| file.rooms.insert(address.to_owned(), key) != Some(key))?;
        Ok(())
    }

    /// The identity that a peer showed first.
    pub fn peer_pin(&self, room: Fingerprint, peer: &UserName) -> Result<Option<PublicIdentity>, DataError> {
        Ok(self.pinned_peers(room)?.remove(peer))
    }

    /// Remembers the identity of a peer. An error if it is one more than [`PEER_PINS`].
    pub fn pin_peer(
        &self,
        room: Fingerprint,
        peer: &UserName,
        identity: &PublicIdentity,
    ) -> Result<(), DataError> {
        let (name, peer, key) = (peers(room), peer.folded(), hex(&identity.0));
        let mut full = false;
        self.change(&name, |file: &mut PeersFile| {
            full = file.peers.len() >= PEER_PINS && !file.peers.contains_key(&peer);
            !full && file.peers.insert(peer, key.clone()).as_ref() != Some(&key)
        })?;
        if full { Err(DataError::TooManyPeers { path: self.files.path(&name) }) } else { Ok(()) }
    }

    /// Forgets the identity of a peer. False if none was known.
    pub fn forget_peer(&self, room: Fingerprint, peer: &UserName) -> Result<bool, DataError> {
        self.change(&peers(room), |file: &mut PeersFile| file.peers.remove(&peer.folded()).is_some())
    }

    /// All identities of peers known in a Room.
    pub fn pinned_peers(&self, room: Fingerprint) -> Result<BTreeMap<UserName, PublicIdentity>, DataError> {
        let name = peers(room);
        let file: PeersFile = self.read(&name)?.unwrap_or_default();
        let damaged = |why: &dyn fmt::Display| DataError::damaged(&self.files.path(&name), why);
        let entry = |(peer, key): (String, String)| {
            let peer = UserName::try_from(peer).map_err(|error| damaged(&error))?;
            Ok((peer, PublicIdentity(self.unhex(&name, &key)?)))
        };
        file.peers.into_iter().map(entry).collect()
    }

    /// The resume ticket of the last login.
    pub fn ticket(&self, room: Fingerprint, name: &UserName) -> Result<Option<StoredTicket>, DataError> {
        let file = of_user(room, "ticket", name);
        let Some(content) = self.read::<TicketFile>(&file)? else { return Ok(None) };
        let secret = TicketSecret(self.unhex(&file, &content.ticket)?);
        Ok(Some(StoredTicket { secret, password_tag: content.password_tag }))
    }

    /// Keeps the resume ticket of a login, or drops the one that was kept.
    pub fn set_ticket(
        &self,
        room: Fingerprint,
        name: &UserName,
        ticket: Option<&StoredTicket>,
    ) -> Result<(), DataError> {
        let file = of_user(room, "ticket", name);
        let exclusive = self.files.exclusive()?;
        let Some(ticket) = ticket else { return exclusive.remove(&file) };
        let content =
            TicketFile { ticket: Zeroizing::new(hex(&ticket.secret.0)), password_tag: ticket.password_tag };
        exclusive.write(&file, &text(content))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataError> {
        let Some(text) = self.files.read(name)? else { return Ok(None) };
        let path = self.files.path(name);
        let damaged = |error: toml::de::Error| DataError::damaged(&path, error.message());
        match toml::from_str(&text).map_err(damaged)? {
            VersionOnly { version: VERSION } => {}
            VersionOnly { version } => return Err(DataError::Version { path: path.clone(), version }),
        }
        toml::from_str::<Versioned<T>>(&text).map(|file| Some(file.content)).map_err(damaged)
    }

    /// Reads a file, lets `change` change it, and writes it if that returned true.
    fn change<T: Default + Serialize + DeserializeOwned>(
        &self,
        name: &str,
        change: impl FnOnce(&mut T) -> bool,
    ) -> Result<bool, DataError> {
        let exclusive = self.files.exclusive()?;
        let mut content: T = self.read(name)?.unwrap_or_default();
        let changed = change(&mut content);
        if changed {
            exclusive.write(name, &text(content))?;
        }
        Ok(changed)
    }

    fn unhex<const N: usize>(&self, file: &str, digits: &str) -> Result<[u8; N], DataError> {
        unhex(digits)
            .and_then(|bytes| bytes.as_slice().try_into().ok())
            .ok_or_else(|| DataError::damaged(&self.files.path(file), "a key in it is no key"))
    }
}

const ROOMS: &str = "rooms.toml";

fn peers(room: Fingerprint) -> String {
    format!("{room}/peers.toml")
}

/// The prefix keeps names that some systems reserve (`nul`, `con`) and names of other files apart.
fn of_user(room: Fingerprint, what: &str, name: &UserName) -> String {
    format!("{room}/{what}_{}.toml", name.folded())
}

fn text<T: Serialize>(content: T) -> Zeroizing<String> {
    let text = toml::to_string(&Versioned { version: VERSION, content });
    debug_assert!(text.is_ok(), "a file's type that TOML cannot write");
    Zeroizing::new(text.unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    digits.as_bytes().chunks(2).map(pair).collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

#[cfg(test)]
mod tests;
