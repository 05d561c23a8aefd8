//! Calendars that are set forward and back under running programs, as `date -s` would, for one program alone.
//!
//! libfaketime stands between a program and the system's calendar and adds what a file says, which is read at each
//! look. The monotonic clock, the timers and the times of files stay the machine's own, as they do when a real calendar is set.
//! What the library leaves behind in `/dev/shm` of programs that are gone goes with the [`Calendar`]: drop it after them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use tempfile::TempDir;

/// The library of programs with threads.
const LIBRARY: &str = "libfaketimeMT.so.1";
/// Where systems keep libraries for each architecture, or all of them.
const PLACES: [&str; 3] = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];

/// One program's calendar. It shows the machine's date until it is [set](Self::set_days).
#[derive(Debug)]
pub struct Calendar {
    library: PathBuf,
    directory: TempDir,
}

impl Calendar {
    /// Whether this machine can set calendars. The error says what is missing.
    pub fn available() -> Result<(), String> {
        library().map(drop)
    }

    /// A calendar that shows the machine's date.
    ///
    /// # Errors
    /// libfaketime is not installed; the disk fails.
    pub fn new() -> Result<Self> {
        let library = library().map_err(|why| anyhow!(why))?;
        let calendar = Self { library, directory: tempfile::tempdir()? };
        calendar.set_days(0)?;
        Ok(calendar)
    }

    /// Sets it to so many days from the machine's date, in one step. Programs see it at their next look.
    ///
    /// # Errors
    /// The disk fails.
    pub fn set_days(&self, days: i32) -> Result<()> {
        let seconds = days * 86_400;
        // A file that is only half written would be the machine's date for a moment.
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{seconds:+}\n")).context("setting a calendar")?;
        fs::rename(&new, self.file()).context("setting a calendar")
    }

    /// What a program that is to live by it finds in its environment.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.to_string_lossy().into_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().to_string_lossy().into_owned()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("calendar")
    }
}

impl Drop for Calendar {
    fn drop(&mut self) {
        sweep();
    }
}

/// Removes what the library left behind of programs that are gone: those that were killed, and those that `ip` started.
fn sweep() {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let pid = ["faketime_shm_", "sem.faketime_sem_"].iter().find_map(|prefix| name.strip_prefix(prefix));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another process may sweep, too.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Where the library is.
fn library() -> Result<PathBuf, String> {
    let here = |place: &Path| Some(place.join("faketime").join(LIBRARY)).filter(|path| path.is_file());
    for place in PLACES.map(Path::new) {
        let mut architectures = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        if let Some(found) = here(place).or_else(|| architectures.find_map(|place| here(&place))) {
            return Ok(found);
        }
    }
    Err(format!("{LIBRARY} is not there to set a calendar with: install the package libfaketime"))
}
