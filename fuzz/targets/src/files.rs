//! The files that a Room and a user read when they start. Each is read as it is read then: from a directory.
//!
//! A file is refused with its name or read whole; refused, it stays as it is.

use std::fs;
use std::path::Path;

use parlor_protocol::identity::{Identity, PublicIdentity};
use parlor_protocol::limits::BCRYPT_COSTS;
use parlor_protocol::name::UserName;
use parlor_room::config::{DaemonConfig, RunFlags};
use parlor_room::store::{Store, StoreError};
use parlor_user::data::{DataDir, DataError};
use tempfile::TempDir;

use crate::Verdict;

/// The first byte says whether the rest is a whole `accounts.toml` or what stands below a good checksum.
pub fn accounts(data: &[u8]) -> Verdict {
    let Some((&form, content)) = data.split_first() else { return Verdict::Refused };
    let directory = directory();
    let file = directory.path().join("accounts.toml");
    let sealed = form % 2 == 1;
    let bytes = if sealed {
        let checksum = &blake3::hash(content).to_hex()[..32];
        [format!("# Accounts\nversion = 1\nchecksum = \"{checksum}\"\n").as_bytes(), content].concat()
    } else {
        content.to_vec()
    };
    write(&file, &bytes);
    match Store::open(Some(directory.path()), [7; 32]) {
        Ok((_, loaded)) => {
            let written = if sealed { names_in(content) } else { None };
            assert!(written.is_none_or(|names| names == loaded.accounts.len()), "an account vanished");
            assert!(loaded.accounts.values().all(|hash| BCRYPT_COSTS.contains(&hash.cost())));
            Verdict::Accepted
        }
        Err(StoreError::Damaged { path, why }) => {
            assert!(path == file && !why.is_empty() && !why.contains('\n'), "{}: {why:?}", path.display());
            assert_eq!(fs::read(&file).ok(), Some(bytes));
            Verdict::Refused
        }
        Err(StoreError::Version { path, .. }) => {
            assert_eq!((path, fs::read(&file).ok()), (file, Some(bytes)));
            Verdict::Refused
        }
        Err(error) => panic!("{error}"),
    }
}

/// How many accounts a file lists.
fn names_in(content: &[u8]) -> Option<usize> {
    let table: toml::Table = std::str::from_utf8(content).ok()?.parse().ok()?;
    Some(table.get("accounts")?.as_table()?.len())
}

/// The bytes are a Room's configuration file.
pub fn config(data: &[u8]) -> Verdict {
    let directory = directory();
    let file = directory.path().join("room.toml");
    write(&file, data);
    let flags = RunFlags { data: Some(directory.path().to_owned()), ..RunFlags::default() };
    match DaemonConfig::load(Some(&file), |_| None, &flags) {
        Ok(config) => {
            assert!(!config.room.listen.is_empty());
            assert!(config.room.accounts.values().all(|hash| BCRYPT_COSTS.contains(&hash.cost())));
            Verdict::Accepted
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            Verdict::Refused
        }
    }
}

/// The first byte says which of a user's files the rest is, and whether it is the whole file or what stands above a
/// good checksum.
pub fn state(data: &[u8]) -> Verdict {
    let Some((&form, content)) = data.split_first() else { return Verdict::Refused };
    let (room, name) = (Identity::from_seed(&[3; 32]).public(), user());
    let which = usize::from(form / 2) % FILES.len();
    let directory = directory();
    let place = directory.path().join(room.fingerprint().to_string());
    assert!(fs::create_dir(&place).is_ok());
    let file = if FILES[which] == "rooms" {
        directory.path().join("rooms.toml")
    } else {
        place.join(format!("{}.toml", FILES[which]))
    };
    let bytes = if form % 2 == 1 {
        let checksum = &blake3::hash(content).to_hex()[..16];
        [content, format!("# end {checksum}\n").as_bytes()].concat()
    } else {
        content.to_vec()
    };
    write(&file, &bytes);
    let Ok(data) = DataDir::open(directory.path()) else { panic!("the directory cannot be opened") };
    match read(&data, FILES[which], &room, &name) {
        Ok(()) => Verdict::Accepted,
        Err(DataError::Damaged { path, why }) => {
            assert!(path == file && !why.contains('\n'), "{}: {why:?}", path.display());
            assert_eq!(fs::read(&file).ok(), Some(bytes));
            Verdict::Refused
        }
        Err(DataError::Version { path, .. }) => {
            assert_eq!((path, fs::read(&file).ok()), (file, Some(bytes)));
            Verdict::Refused
        }
        Err(error) => panic!("{error}"),
    }
}

const FILES: [&str; 5] = ["rooms", "peers", "identity_foo", "ticket_foo", "introductions_foo"];

fn user() -> UserName {
    let Ok(name) = "Foo".parse() else { panic!("Foo is a name") };
    name
}

/// Reads one file, and changes it where a running user would, without losing what it held.
fn read(data: &DataDir, file: &str, room: &PublicIdentity, name: &UserName) -> Result<(), DataError> {
    let fingerprint = room.fingerprint();
    match file {
        "rooms" => {
            data.room_pin("room://somewhere:1")?;
            data.pin_room("room://elsewhere:1", fingerprint)?;
            assert_eq!(data.room_pin("room://elsewhere:1")?, Some(fingerprint));
        }
        "peers" => {
            let before = data.pinned_peers(fingerprint)?;
            data.pin_peer(fingerprint, name, room)?;
            let mut after = data.pinned_peers(fingerprint)?;
            assert_eq!(after.remove(name), Some(*room));
            assert!(before.iter().all(|(peer, key)| peer == name || after.get(peer) == Some(key)));
        }
        "identity_foo" => {
            let first = data.identity(fingerprint, name, &[1; 32])?;
            assert_eq!(data.identity(fingerprint, name, &[2; 32])?.public(), first.public());
        }
        "ticket_foo" => drop(data.ticket(fingerprint, name)?),
        _ => {
            let kept =
                data.introductions(fingerprint, name, &Identity::from_seed(&[1; 32]), 1_700_000_000)?;
            assert!(kept.is_none_or(|kept| kept.room == *room));
        }
    }
    Ok(())
}

fn directory() -> TempDir {
    let Ok(directory) = tempfile::tempdir() else { panic!("no temporary directory can be made") };
    directory
}

fn write(file: &Path, bytes: &[u8]) {
    assert!(fs::write(file, bytes).is_ok(), "{} cannot be written", file.display());
}
