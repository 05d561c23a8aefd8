//! Small text files that are whole or refused.
//!
//! A file is written beside its place, flushed to the disk and renamed, and the directory is flushed after
//! it, so that a crash leaves the old text or the new one. Its last line is a checksum: text that was cut
//! short or changed by another hand is named and refused, never half believed. Several programs may share the
//! directory: who changes a file holds the lock of the directory from reading to writing.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::DataError;

/// The largest file that is read, in bytes: many times what a busy user writes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// Between two attempts to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Attempts to take the lock: 3 s in all, many times what writing one small file takes.
const LOCK_TRIES: u32 = 300;
/// Opens the last line.
const END: &str = "# end ";

/// A place for files: a directory, or this process's memory.
#[derive(Debug)]
pub(super) enum Files {
    /// In a directory.
    Disk(PathBuf),
    /// Nowhere but here.
    Memory(Mutex<BTreeMap<String, Zeroizing<String>>>),
}

/// The right to change files. Ends when dropped.
pub(super) struct Exclusive<'a> {
    files: &'a Files,
    // Held for its lock.
    _lock: Option<File>,
}

impl Files {
    /// Files in `root`, which is created for this user alone if it is missing.
    pub(super) fn open(root: &Path) -> Result<Self, DataError> {
        create_private_dir(root).map_err(|source| DataError::io("create", root, source))?;
        Ok(Files::Disk(root.to_owned()))
    }

    /// Where the file `name` is, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Files::Disk(root) => root.join(name),
            Files::Memory(_) => PathBuf::from(name),
        }
    }

    /// The text of a file, checked against its last line. `None` if there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<String>>, DataError> {
        match self {
            Files::Disk(root) => read_checked(&root.join(name)),
            Files::Memory(files) => Ok(locked(files).get(name).cloned()),
        }
    }

    /// Waits until no other program changes files here, at most 3 s. Blocks the thread.
    pub(super) fn exclusive(&self) -> Result<Exclusive<'_>, DataError> {
        let lock = match self {
            Files::Disk(root) => Some(take_lock(&root.join("lock"))?),
            Files::Memory(_) => None,
        };
        Ok(Exclusive { files: self, _lock: lock })
    }
}

impl Exclusive<'_> {
    /// Puts `text` in place of what the file holds now. `text` ends with a line break.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), DataError> {
        match self.files {
            Files::Disk(root) => {
                let path = root.join(name);
                let sealed = Zeroizing::new(format!("{text}{END}{}\n", checksum(text)));
                replace(&path, sealed.as_bytes()).map_err(|source| DataError::io("write", &path, source))
            }
            Files::Memory(files) => {
                locked(files).insert(name.to_owned(), Zeroizing::new(text.to_owned()));
                Ok(())
            }
        }
    }

    /// Removes a file. It is no fault if there is none.
    pub(super) fn remove(&self, name: &str) -> Result<(), DataError> {
        match self.files {
            Files::Disk(root) => {
                let path = root.join(name);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(DataError::io("remove", &path, error))
                    }
                    _ => Ok(()),
                }
            }
            Files::Memory(files) => {
                locked(files).remove(name);
                Ok(())
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic between two whole changes leaves whole files.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read_checked(path: &Path) -> Result<Option<Zeroizing<String>>, DataError> {
    let mut sealed = Zeroizing::new(String::new());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io("open", path, error)),
    };
    match file.take(LARGEST).read_to_string(&mut sealed) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(DataError::damaged(path, "it is no text"));
        }
        Err(error) => return Err(DataError::io("read", path, error)),
    }
    let Some((text, end)) = sealed.rfind(END).map(|at| sealed.split_at(at)) else {
        return Err(DataError::damaged(path, "its end is missing"));
    };
    if end.trim_end().strip_prefix(END) != Some(checksum(text).as_str()) {
        return Err(DataError::damaged(path, "it was changed by something else"));
    }
    Ok(Some(Zeroizing::new(text.to_owned())))
}

fn checksum(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

fn take_lock(path: &Path) -> Result<File, DataError> {
    let file = private_file(path, false).map_err(|source| DataError::io("open", path, source))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::Error(source)) => return Err(DataError::io("lock", path, source)),
        }
    }
    Err(DataError::Busy { path: path.to_owned() })
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    create_private_dir(parent)?;
    // One writer at a time: whoever holds the lock. What a crash left is written over.
    let beside = path.with_extension("tmp");
    let mut file = private_file(&beside, true)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn private_file(path: &Path, empty: bool) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(empty);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
