//! What is measured, where, and how often.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};

use crate::process::Program;

/// Measures Parlor beside raw TCP on this machine.
#[derive(Debug, Clone, Parser)]
#[command(name = "parlor-bench", version)]
pub(super) struct Args {
    /// Where the processes run.
    #[arg(long, value_enum, default_value_t = Place::One)]
    pub(super) place: Place,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Sends everything through the Room, and raw TCP through a relay that only copies.
    #[arg(long)]
    pub(super) relay: bool,
    /// How records are protected. `aes` needs a processor with instructions for it.
    #[arg(long, value_enum, default_value_t = CipherChoice::Aes)]
    pub(super) cipher: CipherChoice,
    /// tokio's runtime in the client and the server.
    #[arg(long, value_enum, default_value_t = Flavour::Multi)]
    pub(super) runtime: Flavour,
    /// Timed runs of each row, after one that is not counted.
    #[arg(long, default_value_t = 5)]
    pub(super) runs: usize,
    /// How long a run lasts, in milliseconds.
    #[arg(long, default_value_t = 250)]
    pub(super) millis: u64,
    /// Users that do nothing, for `memory`.
    #[arg(long, default_value_t = 1000)]
    pub(super) users: usize,
    /// Prints tables of what runs with `--json` printed to this file, an object a line, and measures nothing.
    #[arg(long)]
    pub(super) tables: Option<PathBuf>,
    /// Which rows; those between two users unless given.
    #[arg(value_enum)]
    pub(super) rows: Vec<Row>,

    /// What this process is for the client that started it.
    #[arg(long, value_enum, hide = true)]
    pub(super) role: Option<Role>,
    /// The Room's address, for a role.
    #[arg(long, hide = true, default_value = "")]
    pub(super) room: String,
    /// The port to forward to, for a role.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(super) to: u16,
    /// Accounts of the Room, for a role.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(super) accounts: usize,
}

/// Where the processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Place {
    /// All on CPU 0: what both ends cost together. Repeats best.
    One,
    /// The client on CPU 0, the rest on CPU 1: like two machines.
    Split,
    /// Where the system puts them.
    Free,
}

/// How records are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CipherChoice {
    /// ChaCha20-Poly1305.
    Chacha,
    /// AES-256-GCM.
    Aes,
}

/// A kind of runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Flavour {
    /// One thread.
    Current,
    /// As many threads as the process may use CPUs.
    Multi,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Row {
    /// `get` of 64 bytes, one after another.
    #[value(name = "rtt-64")]
    Rtt64,
    /// `get` of 1 KiB, one after another.
    #[value(name = "rtt-1k")]
    Rtt1k,
    /// `get` of 64 bytes by 64 tasks at once.
    #[value(name = "calls-64")]
    Calls64,
    /// `send` of 64 bytes.
    #[value(name = "send-64")]
    Send64,
    /// `send` of 1 KiB.
    #[value(name = "send-1k")]
    Send1k,
    /// `send` of 64 KiB.
    #[value(name = "bulk-64k")]
    Bulk64k,
    /// `send` of 1 MiB.
    #[value(name = "bulk-1m")]
    Bulk1m,
    /// The first `get` to a peer that is not linked yet.
    #[value(name = "setup")]
    Setup,
    /// CPU time of the Room for what it relays.
    #[value(name = "relaying")]
    Relaying,
    /// Wake-ups and memory of a user that does nothing.
    #[value(name = "idle")]
    Idle,
    /// Memory of the Room for each user that does nothing, and logins until they are all there.
    #[value(name = "memory")]
    Memory,
    /// Logins a second by ticket and by password.
    #[value(name = "logins")]
    Logins,
    /// Sizes of the programs.
    #[value(name = "sizes")]
    Sizes,
}

/// What a process is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Role {
    /// Serves raw TCP.
    Raw,
    /// Copies raw TCP.
    Copy,
    /// The Room.
    Room,
    /// The other user of the rows.
    Server,
    /// Many users that answer `echo`.
    Answerers,
    /// A user that does nothing.
    Idle,
}

impl Args {
    /// The rows asked for.
    pub(super) fn rows(&self) -> Vec<Row> {
        if !self.rows.is_empty() {
            return self.rows.clone();
        }
        let besides = [Row::Relaying, Row::Idle, Row::Memory, Row::Logins, Row::Sizes];
        Row::value_variants().iter().copied().filter(|row| !besides.contains(row)).collect()
    }

    /// How long a run lasts.
    pub(super) fn time(&self) -> Duration {
        Duration::from_millis(self.millis)
    }

    /// The CPU this process is to stay on.
    pub(super) fn cpu(&self) -> Option<usize> {
        match (self.place, self.role) {
            (Place::One, _) | (Place::Split, None) => Some(0),
            (Place::Split, Some(_)) => Some(1),
            (Place::Free, _) => None,
        }
    }

    /// Starts another process of this program in a role, and waits until it is ready. Returns what it said then.
    pub(super) fn start(&self, role: Role, more: &[(&str, &str)]) -> Result<(Program, String)> {
        let mut command = Command::new(std::env::current_exe().context("finding this program")?);
        let mut option = |name: &str, value: &str| {
            command.arg(OsString::from(format!("--{name}={value}")));
        };
        option("role", &word(&role));
        option("place", &word(&self.place));
        option("cipher", &word(&self.cipher));
        option("runtime", &word(&self.runtime));
        for (name, value) in more {
            option(name, value);
        }
        let mut program = Program::start(command)?;
        let line = program.line_where(READY, |line| line.starts_with("READY"))?;
        Ok((program, line.trim_start_matches("READY").trim().to_owned()))
    }

    /// A runtime of the kind asked for.
    pub(super) fn runtime(&self) -> Result<tokio::runtime::Runtime> {
        let mut builder = match self.runtime {
            Flavour::Current => tokio::runtime::Builder::new_current_thread(),
            Flavour::Multi => tokio::runtime::Builder::new_multi_thread(),
        };
        builder.enable_all().build().context("starting a runtime")
    }
}

/// A role may take this long to be ready: a thousand users to log in, on a busy machine.
const READY: Duration = Duration::from_secs(120);

/// The word for a value on the command line.
pub(super) fn word<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
