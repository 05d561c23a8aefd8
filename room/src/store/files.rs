//! One file of the data directory: a comment, a version, a checksum, and TOML.
//!
//! A file is replaced whole - written beside it, synced, renamed, the directory synced - so after a crash it is the old
//! one or the new one. What is read is checked against the checksum; a file that fails is named and left as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;

/// The version that this program writes.
const VERSION: u32 = 1;
/// Longest file that is read, in bytes: 400,000 accounts.
const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Reads a file. `None` if there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let io = |source| StoreError::io("read", path, source);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    make_private(&file, path).map_err(io)?;
    let damaged = |why: String| StoreError::Damaged { path: path.to_owned(), why };
    let mut text = String::new();
    let count = match (&mut file).take(FILE_BYTES + 1).read_to_string(&mut text) {
        Ok(count) => count as u64,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged("it is no text".to_owned()));
        }
        Err(error) => return Err(io(error)),
    };
    if count > FILE_BYTES {
        return Err(damaged(format!("it is longer than {FILE_BYTES} bytes")));
    }
    let body = body(path, &text)?;
    toml::from_str(body).map(Some).map_err(|error| {
        let start = text.len() - body.len() + error.span().map_or(0, |span| span.start);
        let line = 1 + text.get(..start).unwrap_or(&text).matches('\n').count();
        damaged(format!("line {line}: {}", error.message().trim().replace('\n', ", ")))
    })
}

/// Checks version and checksum and gives what stands below them.
fn body<'a>(path: &Path, text: &'a str) -> Result<&'a str, StoreError> {
    let damaged = |why: &str| StoreError::Damaged { path: path.to_owned(), why: why.to_owned() };
    let mut rest = text;
    let mut line = || {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = after;
        line
    };
    let (comment, version, checksum) = (line(), line(), line());
    if !comment.starts_with('#') {
        return Err(damaged("it does not start as parlor-room writes it"));
    }
    let version: u32 = version
        .strip_prefix("version = ")
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| damaged("its second line is no version"))?;
    if version != VERSION {
        return Err(StoreError::Version { path: path.to_owned(), version });
    }
    let checksum = checksum
        .strip_prefix("checksum = \"")
        .and_then(|checksum| checksum.strip_suffix('"'))
        .ok_or_else(|| damaged("its third line is no checksum"))?;
    if checksum != checksum_of(rest) {
        return Err(damaged("it is not as parlor-room wrote it, the checksum differs"));
    }
    Ok(rest)
}

/// Replaces a file. When this returns it is on disk.
pub(super) fn write<T: Serialize>(path: &Path, comment: &str, content: &T) -> Result<(), StoreError> {
    let body = toml::to_string(content)
        .map_err(|error| StoreError::io("write", path, io::Error::other(error.to_string())))?;
    let checksum = checksum_of(&body);
    let text = format!("# {comment}\nversion = {VERSION}\nchecksum = \"{checksum}\"\n{body}");
    if text.len() as u64 > FILE_BYTES {
        // It would be refused when it is read.
        let why = format!("it would have {} bytes, at most {FILE_BYTES} are read again", text.len());
        return Err(StoreError::io("write", path, io::Error::other(why)));
    }
    replace(path, text.as_bytes()).map_err(|source| StoreError::io("write", path, source))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let fresh = path.with_extension("new");
    // One that an earlier crash left may have any mode; this one is made by us.
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(directory)?.sync_all()
}

/// A file that others could read is made private, and the operator is told: its content may be known.
fn make_private(file: &File, path: &Path) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format_args!("{:o}", mode & 0o777), "others could open this file; its mode is now 600");
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// 128 bits of BLAKE3: against torn writes and stray edits, not against an enemy, who could write the checksum too.
fn checksum_of(body: &str) -> String {
    blake3::hash(body.as_bytes()).to_hex()[..32].to_owned()
}
