//! The Room under siege: its program, what it holds, and what it says that it refused.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use parlor_room::password::PasswordHash;
use serde_json::Value;
use tempfile::TempDir;

use super::args::Args;
use super::ground::Ground;
use super::witness::{PASSWORD, TALKERS, right};
use crate::bench::resident_kib;
use crate::clock;
use crate::process::{self, Program};

/// A Room is ready, and answers, within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often what the Room holds is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Within this after a siege the Room has back every descriptor: its longest deadline for a stranger is 10 s.
const RECOVERY: Duration = Duration::from_secs(30);
/// Accounts for right logins, of which each is used once.
const RIGHT: usize = 2_000;

/// What a Room holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// Resident memory, in KiB.
    pub(super) kib: u64,
    /// Open descriptors.
    pub(super) descriptors: usize,
}

/// What a Room counted since it started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Totals {
    /// Connections that it accepted.
    pub(super) connections: u64,
    /// Of those, turned away before a byte was read.
    pub(super) turned_away: u64,
    /// Logins that it refused.
    pub(super) refused_logins: u64,
}

impl Totals {
    /// What was counted since.
    pub(super) fn since(self, before: &Totals) -> Totals {
        Totals {
            connections: self.connections - before.connections,
            turned_away: self.turned_away - before.turned_away,
            refused_logins: self.refused_logins - before.refused_logins,
        }
    }
}

/// A running Room.
pub(super) struct Besieged {
    /// Its address with its fingerprint.
    pub(super) address: String,
    /// Its port.
    pub(super) socket: SocketAddr,
    program: Program,
    binary: PathBuf,
    directory: TempDir,
}

impl Besieged {
    /// Starts a Room with an account for each user of the siege, and otherwise as it comes.
    pub(super) fn start(args: &Args, ground: &Ground) -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("parlor-room");
        let binary = args.room_binary.clone().unwrap_or(beside);
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("room.toml");
        fs::write(&config, accounts()?)?;
        let mut command = Command::new(&binary);
        command.env_clear().arg("run").arg("--data").arg(directory.path().join("data"));
        command.arg("--config").arg(config).arg("--listen").arg(format!("{}:0", ground.listen()));
        // What it writes about a siege is limited; here nobody reads it.
        command.args(["--log", "error"]);
        let mut program = Program::start_without_input(command)
            .with_context(|| format!("{}; build it first: cargo build --release", binary.display()))?;
        let (listen, home) = (ground.listen().to_string(), ground.home().to_string());
        let address = program.line(PATIENCE)?.replacen(&listen, &home, 1);
        let socket = address.strip_prefix("room://").and_then(|rest| rest.split('/').next());
        let socket = socket.and_then(|socket| socket.parse().ok());
        let socket = socket.with_context(|| format!("this says not where the Room is: {address}"))?;
        Ok(Self { address, socket, program, binary, directory })
    }

    /// What it holds now.
    pub(super) fn held(&self) -> Result<Held> {
        held(self.program.pid())
    }

    /// Looks at what it holds until the watch ends.
    pub(super) fn watch(&self) -> Watch {
        let (pid, ended) = (self.program.pid(), Arc::new(AtomicBool::new(false)));
        let stop = Arc::clone(&ended);
        let most = thread::spawn(move || {
            let mut most = held(pid)?;
            while !stop.load(Ordering::Relaxed) {
                let now = held(pid)?;
                most.kib = most.kib.max(now.kib);
                most.descriptors = most.descriptors.max(now.descriptors);
                thread::sleep(LOOK);
            }
            Ok(most)
        });
        Watch { ended, most }
    }

    /// Waits until it has no more descriptors than before, for as long as that may take.
    pub(super) fn recovered(&self, before: Held) -> Result<Held> {
        let deadline = clock::now() + RECOVERY;
        loop {
            let now = self.held()?;
            if now.descriptors <= before.descriptors || clock::now() > deadline {
                return Ok(now);
            }
            thread::sleep(LOOK);
        }
    }

    /// What it counted.
    pub(super) fn totals(&self) -> Result<Totals> {
        let mut command = Command::new(&self.binary);
        command.env_clear().args(["status", "--json", "--data"]).arg(self.directory.path().join("data"));
        let said = process::run(command, b"", PATIENCE)?.success()?.stdout;
        let status: Value =
            serde_json::from_str(&said).with_context(|| format!("status printed {said:?}"))?;
        let total = |name: &str| {
            let total = status["totals"][name].as_u64();
            total.with_context(|| format!("the status has no total {name}: {status}"))
        };
        Ok(Totals {
            connections: total("connections")?,
            turned_away: total("turned_away")?,
            refused_logins: total("refused_logins")?,
        })
    }
}

/// A look at the Room that goes on.
pub(super) struct Watch {
    ended: Arc<AtomicBool>,
    most: JoinHandle<Result<Held>>,
}

impl Watch {
    /// Ends it and says what the Room held at most.
    pub(super) fn end(self) -> Result<Held> {
        self.ended.store(true, Ordering::Relaxed);
        self.most.join().map_err(|_| anyhow!("the watch panicked"))?
    }
}

fn held(pid: u32) -> Result<Held> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("the Room is gone")?.count();
    Ok(Held { kib: resident_kib(pid)?, descriptors })
}

/// A configuration file with all accounts, which share one hash of the usual cost.
fn accounts() -> Result<String> {
    let hash = PasswordHash::make(PASSWORD, parlor_protocol::limits::BCRYPT_COST, *b"salt of a siege.")?;
    let mut file = String::from("[accounts]\n");
    for name in TALKERS.into_iter().map(str::to_owned).chain((0..RIGHT).map(right)) {
        writeln!(file, "{name} = \"{}\"", hash.as_str())?;
    }
    Ok(file)
}
