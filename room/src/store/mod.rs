//! The data directory: what a Room knows about itself and its users across restarts.
//!
//! - One process has it at a time: [`Store::open`] takes a lock that the system drops with the process.
//! - A change is on disk, synced, when [`Store::apply`] returns; a crash leaves the old file or the new one.
//! - A file that is torn, altered or of another version is named and refused, never emptied and never overwritten. Only
//!   `tickets.toml` is expendable: it is set aside as `tickets.toml.bad`.
//! - The directory has mode 0700 when it is made here, every file 0600.
//!
//! | file | content |
//! |---|---|
//! | `identity.key` | the Room's secret key |
//! | `accounts.toml` | accounts: name and bcrypt hash |
//! | `identities.toml` | the identity of each account's first login |
//! | `bans.toml` | bans by the operator and by the penalties |
//! | `tickets.toml` | SHA-256 of resume tickets |
//! | `lock` | the process id of the Room that has the directory |
//! | `admin.sock` | the operator's way in while the Room runs, see [`admin`](crate::admin) |

mod files;
mod records;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use parlor_protocol::identity::{Identity, PublicIdentity};
use parlor_protocol::name::UserName;

use self::records::{AccountsFile, BansFile, BindingsFile, Hex32, IdentityFile, TicketsFile};
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

/// Why the data directory cannot be used. The operator's move.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the data directory {} is in use by another parlor-room{}: stop that one or choose another directory",
        path.display(), pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, if it said so.
        pid: Option<u32>,
    },
    /// Anybody could put files there.
    #[error(
        "everybody on this machine can write to the data directory {0}: chmod 700 it or choose another directory"
    )]
    Exposed(String),
    /// A file is torn or altered.
    #[error(
        "{} is damaged: {why}; put back a copy of it, or move it away to start without what it held", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How one can tell.
        why: String,
    },
    /// There were accounts, and their file is gone.
    #[error(
        "{} is gone, and without accounts everybody could enter under any name ({bound} have been used here): put back \
         a copy of it, or make them again with \"parlor-room user add NAME\"; to go on without accounts, move {} away, too",
        path.display(), bindings.display()
    )]
    AccountsGone {
        /// The file.
        path: PathBuf,
        /// The file that says which accounts were used.
        bindings: PathBuf,
        /// How many.
        bound: usize,
    },
    /// A file of a version that this program does not know.
    #[error("{} has version {version}, which this parlor-room does not know: use the one that wrote it", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it states.
        version: u32,
    },
    /// The system refused.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StoreError {
    fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { op, path: path.to_owned(), source }
    }
}

/// The open data directory. While it is open no other process can open it.
#[derive(Debug)]
pub struct Store {
    disk: Option<Disk>,
    accounts: BTreeMap<UserName, PasswordHash>,
    bindings: BTreeMap<UserName, PublicIdentity>,
    bans: BTreeMap<IpNet, Ban>,
}

#[derive(Debug)]
struct Disk {
    directory: PathBuf,
    /// Locked; closing it unlocks.
    _lock: File,
}

impl Store {
    /// Opens the data directory, and makes it if there is none. `seed` becomes the Room's identity if it has none yet.
    /// Without a directory everything is kept in memory alone. Blocks on the disk.
    pub fn open(data: Option<&Path>, seed: [u8; 32]) -> Result<(Store, Loaded), StoreError> {
        let Some(directory) = data else {
            let empty = Loaded {
                identity: Identity::from_seed(&seed),
                accounts: BTreeMap::new(),
                bindings: BTreeMap::new(),
                bans: Vec::new(),
                tickets: Vec::new(),
            };
            return Ok((Store::holding(None, &empty), empty));
        };
        make_directory(directory)?;
        let lock = take_lock(directory)?;
        let disk = Disk { directory: directory.to_owned(), _lock: lock };
        let loaded = disk.load(seed)?;
        Ok((Store::holding(Some(disk), &loaded), loaded))
    }

    fn holding(disk: Option<Disk>, loaded: &Loaded) -> Self {
        Self {
            disk,
            accounts: loaded.accounts.clone(),
            bindings: loaded.bindings.clone(),
            bans: loaded.bans.iter().map(|ban| (ban.net, ban.clone())).collect(),
        }
    }

    /// An error where accounts have been used and their file is gone: a Room that has no others would be open to
    /// everybody. An account that was removed leaves a file without it.
    pub fn has_its_accounts(&self) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else { return Ok(()) };
        let path = disk.directory.join(ACCOUNTS);
        if self.bindings.is_empty() || path.exists() {
            return Ok(());
        }
        let (bindings, bound) = (disk.directory.join(BINDINGS), self.bindings.len());
        Err(StoreError::AccountsGone { path, bindings, bound })
    }

    /// Makes one change. When this returns it is on disk; when it fails nothing has changed. Blocks on the disk.
    pub fn apply(&mut self, change: StoreChange) -> Result<(), StoreError> {
        match change {
            StoreChange::Account { name, hash } => {
                let mut accounts = self.accounts.clone();
                put(&mut accounts, name, hash);
                self.write(ACCOUNTS, &AccountsFile { accounts: accounts.clone() })?;
                self.accounts = accounts;
            }
            StoreChange::Binding { name, identity } => self.bind([(name, identity)])?,
            StoreChange::Ban(ban) => self.keep_bans(|bans| drop(bans.insert(ban.net, ban)))?,
            StoreChange::Unban(net) => self.keep_bans(|bans| drop(bans.remove(&net)))?,
            StoreChange::Tickets { all } => {
                self.write(TICKETS, &TicketsFile { tickets: all.iter().map(Into::into).collect() })?;
            }
        }
        Ok(())
    }

    /// Binds accounts to identities, or frees them, all in one write. When this fails nothing has changed. Blocks on the
    /// disk.
    pub fn bind(
        &mut self,
        changes: impl IntoIterator<Item = (UserName, Option<PublicIdentity>)>,
    ) -> Result<(), StoreError> {
        let mut bindings = self.bindings.clone();
        changes.into_iter().for_each(|(name, identity)| put(&mut bindings, name, identity));
        let identities = bindings.iter().map(|(name, public)| (name.clone(), Hex32(public.0))).collect();
        self.write(BINDINGS, &BindingsFile { identities })?;
        self.bindings = bindings;
        Ok(())
    }

    fn keep_bans(&mut self, change: impl FnOnce(&mut BTreeMap<IpNet, Ban>)) -> Result<(), StoreError> {
        let mut bans = self.bans.clone();
        change(&mut bans);
        self.write(BANS, &BansFile { bans: bans.values().map(Into::into).collect() })?;
        self.bans = bans;
        Ok(())
    }

    fn write<T: serde::Serialize>(&self, name: &str, content: &T) -> Result<(), StoreError> {
        self.disk.as_ref().map_or(Ok(()), |disk| files::write(&disk.directory.join(name), NOTE, content))
    }
}

const IDENTITY: &str = "identity.key";
const ACCOUNTS: &str = "accounts.toml";
const BINDINGS: &str = "identities.toml";
const BANS: &str = "bans.toml";
const TICKETS: &str = "tickets.toml";
/// A file of tickets that could not be used.
const TICKETS_ASIDE: &str = "tickets.toml.bad";
const LOCK: &str = "lock";
/// First line of most files.
const NOTE: &str =
    "Written by parlor-room; change it with parlor-room user and parlor-room ban, not by hand.";
/// First line of the key file.
const KEY_NOTE: &str =
    "The secret key of this Room. Whoever has it can pose as the Room: keep it to yourself, and keep a copy.";

/// Puts or removes. A key that is there already would keep its old spelling, so it goes first.
fn put<V>(map: &mut BTreeMap<UserName, V>, name: UserName, value: Option<V>) {
    map.remove(&name);
    if let Some(value) = value {
        map.insert(name, value);
    }
}

impl Disk {
    fn load(&self, seed: [u8; 32]) -> Result<Loaded, StoreError> {
        let accounts: AccountsFile = self.read(ACCOUNTS)?;
        let bindings: BindingsFile = self.read(BINDINGS)?;
        let bans: BansFile = self.read(BANS)?;
        let tickets = self.tickets()?;
        Ok(Loaded {
            // Last, so that a directory with a damaged file gets no new key.
            identity: self.identity(seed)?,
            accounts: accounts.accounts,
            bindings: bindings
                .identities
                .into_iter()
                .map(|(name, Hex32(bytes))| (name, PublicIdentity(bytes)))
                .collect(),
            bans: bans.bans.into_iter().map(Into::into).collect(),
            tickets: tickets.tickets.into_iter().map(Into::into).collect(),
        })
    }

    /// Tickets are expendable: a file that cannot be used is set aside and users log in with their passwords.
    fn tickets(&self) -> Result<TicketsFile, StoreError> {
        match self.read(TICKETS) {
            Err(error @ (StoreError::Damaged { .. } | StoreError::Version { .. })) => {
                let (path, aside) = (self.directory.join(TICKETS), self.directory.join(TICKETS_ASIDE));
                fs::rename(&path, &aside).map_err(|source| StoreError::io("set aside", &path, source))?;
                let aside = aside.display();
                tracing::warn!(%error, "users need their passwords again; the file is now {aside}");
                Ok(TicketsFile::default())
            }
            read => read,
        }
    }

    fn read<T: serde::de::DeserializeOwned + Default>(&self, name: &str) -> Result<T, StoreError> {
        Ok(files::read(&self.directory.join(name))?.unwrap_or_default())
    }

    fn identity(&self, seed: [u8; 32]) -> Result<Identity, StoreError> {
        let path = self.directory.join(IDENTITY);
        if let Some(IdentityFile { seed: Hex32(seed), fingerprint }) = files::read(&path)? {
            let identity = Identity::from_seed(&seed);
            if identity.fingerprint() != fingerprint {
                return Err(StoreError::Damaged { path, why: "the fingerprint is another key's".to_owned() });
            }
            return Ok(identity);
        }
        let others = [ACCOUNTS, BINDINGS, BANS, TICKETS];
        if others.iter().any(|name| self.directory.join(name).exists()) {
            tracing::warn!(
                path = %path.display(),
                "the Room's key is gone and it gets another one: users that know the old one refuse it until the key is put back"
            );
        }
        let identity = Identity::from_seed(&seed);
        files::write(&path, KEY_NOTE, &IdentityFile::of(&identity))?;
        Ok(identity)
    }
}

/// Makes the directory for its owner alone; one that is there is taken unless everybody can write to it.
fn make_directory(directory: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::io("make the data directory", directory, source);
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)?;
    let mode = fs::metadata(directory).map_err(io)?.permissions().mode();
    if mode & 0o002 == 0 { Ok(()) } else { Err(StoreError::Exposed(directory.display().to_string())) }
}

fn take_lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join(LOCK);
    let io = |source| StoreError::io("lock", &path, source);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(16).read_to_string(&mut pid);
            return Err(StoreError::InUse { path: directory.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests;
