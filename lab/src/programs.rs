//! The two programs as a script sees them: a Room that says when it is ready, and users that are one command
//! each. Every user has a data directory of its own unless told otherwise, and nothing from the caller's
//! environment reaches any of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries::{Binaries, binaries};
use crate::clock;
use crate::netns::Host;
use crate::process::{self, Finished, Program};

/// A Room is ready, and a command answers, within this on a machine with better things to do.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A directory for everything the programs of one test keep. Deleted when dropped.
pub struct Stage {
    directory: TempDir,
    binaries: Binaries,
}

impl Stage {
    /// Builds the programs if need be.
    pub fn new() -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, binaries: binaries()? })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file for the programs to read and returns its path as text.
    pub fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.path().join(name);
        fs::write(&path, content)?;
        path.into_os_string().into_string().ok().context("a temporary path is UTF-8")
    }

    /// A Room to be, with a data directory called `name`, on a free port of 127.0.0.1.
    pub fn room(&self, name: &str) -> RoomSetup {
        RoomSetup {
            stage: Environment::of(self),
            binary: self.binaries.room.clone(),
            listen: vec!["127.0.0.1:0".into()],
            data: self.path().join(name),
            host: None,
            args: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Commands of a user in the Room at `room`, with a data directory called `data`. It has no name:
    /// [`Stage::named`] gives one.
    pub fn user(&self, room: &str, data: &str) -> UserSetup {
        let data = self.path().join(data);
        UserSetup {
            stage: Environment::of(self),
            binary: self.binaries.user.clone(),
            host: None,
            args: vec!["--room".into(), room.into(), "--data".into(), data.to_string_lossy().into_owned()],
            variables: Vec::new(),
            data,
        }
    }

    /// A user called `name`, with a data directory of that name.
    pub fn named(&self, room: &str, name: &str) -> UserSetup {
        self.user(room, name).arg("--name").arg(name)
    }
}

/// A loopback address that nothing else uses, for a Room that must come back on the port it had: the kernel
/// gives out ports of 127.0.0.1 only.
pub fn own_loopback() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    format!("127.{}.{high}.{}", 100 + count % 100, low.max(1))
}

/// What every program under test finds: a home of its own, no `PARLOR_` variables, no terminal.
#[derive(Clone)]
struct Environment {
    home: PathBuf,
}

impl Environment {
    fn of(stage: &Stage) -> Self {
        Self { home: stage.path().join("home") }
    }

    fn command(&self, program: &Path, host: Option<&Host>, variables: &[(String, String)]) -> Command {
        let mut command = host.map_or_else(|| Command::new(program), |host| host.command(program));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.home).env("XDG_STATE_HOME", self.home.join("state"));
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A Room before it starts.
#[derive(Clone)]
pub struct RoomSetup {
    stage: Environment,
    binary: PathBuf,
    listen: Vec<String>,
    data: PathBuf,
    host: Option<Host>,
    args: Vec<String>,
    variables: Vec<(String, String)>,
}

impl RoomSetup {
    /// On this host, in its namespace.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// On this address instead.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = vec![address.into()];
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// A subcommand such as `["ban", "list"]`, on this Room's data directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stage.command(&self.binary, self.host.as_ref(), &self.variables);
        command.args(args).arg("--data").arg(&self.data);
        command
    }

    /// Runs a subcommand to its end with `input` on stdin.
    pub fn admin(&self, args: &[&str], input: &str) -> Result<Finished> {
        process::run(self.command(args), input.as_bytes(), PATIENCE)
    }

    /// The command that starts the Room.
    pub fn run_command(&self) -> Command {
        let mut command = self.command(&["run"]);
        for address in &self.listen {
            command.args(["--listen", address]);
        }
        command.args(&self.args);
        command
    }

    /// Starts the Room and waits until it is ready.
    pub fn start(self) -> Result<RoomProgram> {
        let mut program = Program::start_without_input(self.run_command())?;
        let line = program.line(PATIENCE)?;
        let address = match line.strip_prefix('{') {
            None => line,
            Some(_) => ready_address(&line)?,
        };
        Ok(RoomProgram { address, setup: self, program })
    }
}

fn ready_address(line: &str) -> Result<String> {
    let ready: Value = serde_json::from_str(line)?;
    match (ready["event"].as_str(), ready["address"].as_str()) {
        (Some("ready"), Some(address)) => Ok(address.to_owned()),
        _ => bail!("this says not where the Room is: {line}"),
    }
}

/// A Room that is ready.
pub struct RoomProgram {
    /// Its address with its fingerprint, as it printed it.
    pub address: String,
    /// How it was started; start it again with this.
    pub setup: RoomSetup,
    /// The program.
    pub program: Program,
}

impl RoomProgram {
    /// Its address without the fingerprint.
    pub fn bare_address(&self) -> String {
        self.address.split('#').next().unwrap_or_default().to_owned()
    }

    /// `HOST:PORT` of it.
    pub fn socket(&self) -> String {
        self.bare_address().trim_start_matches("room://").trim_end_matches('/').to_owned()
    }

    /// Its status, as `parlor-room status --json` prints it.
    pub fn status(&self) -> Result<Value> {
        let done = self.setup.admin(&["status", "--json"], "")?.success()?;
        serde_json::from_str(&done.stdout).with_context(|| format!("status printed {:?}", done.stdout))
    }

    /// Starts a command of a user that stays, and waits until the user is online.
    pub fn online(&self, user: &UserSetup, name: &str, command: &[&str]) -> Result<Program> {
        let program = user.start(command)?;
        let arrived = self.await_status(PATIENCE, |status| mentions(status, name) || !program.is_running());
        let there = arrived.is_ok() && program.is_running();
        ensure!(there, "{name} did not come online ({arrived:?}); it said: {}", program.stderr_so_far());
        Ok(program)
    }

    /// Waits until all these users are online.
    pub fn await_online(&self, names: &[&str], within: Duration) -> Result<()> {
        self.await_status(within, |status| names.iter().all(|name| mentions(status, name)))
            .with_context(|| format!("{names:?} should be online"))
    }

    /// Waits until none of these users is online.
    pub fn await_offline(&self, names: &[&str], within: Duration) -> Result<()> {
        self.await_status(within, |status| !names.iter().any(|name| mentions(status, name)))
            .with_context(|| format!("{names:?} should be offline"))
    }

    /// Asks for the status until it is `wanted`. Each question is a program's run, which paces the loop.
    pub fn await_status(&self, within: Duration, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        let deadline = clock::now() + within;
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(());
            }
            if clock::now() > deadline {
                bail!("after {within:?} the status is {status}\nthe Room: {}", self.program.stderr_so_far());
            }
        }
    }
}

/// True if a text of exactly this content stands anywhere in `value`.
pub fn mentions(value: &Value, text: &str) -> bool {
    match value {
        Value::String(found) => found == text,
        Value::Array(items) => items.iter().any(|item| mentions(item, text)),
        Value::Object(fields) => fields.values().any(|field| mentions(field, text)),
        _ => false,
    }
}

/// How a user's commands are run.
#[derive(Clone)]
pub struct UserSetup {
    stage: Environment,
    binary: PathBuf,
    host: Option<Host>,
    args: Vec<String>,
    variables: Vec<(String, String)>,
    /// Where this user keeps its identity.
    pub data: PathBuf,
}

impl UserSetup {
    /// On this host, in its namespace.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    /// With one more argument before the subcommand.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Without any argument so far, not even the Room's address.
    #[must_use]
    pub fn without_args(mut self) -> Self {
        self.args.clear();
        self
    }

    /// The command line, ready to start.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.stage.command(&self.binary, self.host.as_ref(), &self.variables);
        command.args(&self.args).args(args);
        command
    }

    /// Runs a command to its end with an empty stdin.
    pub fn run(&self, args: &[&str]) -> Result<Finished> {
        self.run_with(args, "")
    }

    /// Runs a command to its end with `input` on stdin.
    pub fn run_with(&self, args: &[&str], input: &str) -> Result<Finished> {
        process::run(self.command(args), input.as_bytes(), PATIENCE)
    }

    /// Starts a command that goes on, its stdin open.
    pub fn start(&self, args: &[&str]) -> Result<Program> {
        Program::start(self.command(args))
    }
}
