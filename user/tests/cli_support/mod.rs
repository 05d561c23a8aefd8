//! The command `parlor` as a script sees it, and a Room in this process for it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::future::Future;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parlor_room::{Room, RoomConfig, RoomHandle};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Awaits what must come.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("it comes within a minute")
}

/// A Room, and a directory for what users keep.
pub(crate) struct Stage {
    pub(crate) room: RoomHandle,
    pub(crate) address: String,
    pub(crate) dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn open() -> Self {
        Self::with(RoomConfig::default()).await
    }

    pub(crate) async fn with(config: RoomConfig) -> Self {
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let room = Room::bind(RoomConfig { listen, ..config }).await.unwrap();
        let address = room.addresses()[0].to_string();
        Self { room, address, dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file that only its owner reads, and returns its path.
    pub(crate) fn secret(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `parlor` with a data directory of this name, and no user name.
    pub(crate) fn parlor(&self, data: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_parlor"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path().join("home")).env("PARLOR_ROOM", &self.address);
        command.env("PARLOR_DATA", self.path().join(data)).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// The same under a name that is also that of its data directory.
    pub(crate) fn named(&self, name: &str, args: &[&str]) -> Command {
        let mut command = self.parlor(name, args);
        command.env("PARLOR_NAME", name);
        command
    }

    /// Runs a command of `name` to its end.
    pub(crate) async fn run(&self, name: &str, args: &[&str]) -> Done {
        run(self.named(name, args), b"").await
    }

    /// Runs a command of `name` until what it printed is `wanted`.
    pub(crate) async fn run_until(&self, name: &str, args: &[&str], wanted: impl Fn(&Done) -> bool) -> Done {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let done = self.run(name, args).await;
            if wanted(&done) {
                return done;
            }
            assert!(tokio::time::Instant::now() < deadline, "not what is wanted: {done:?}");
        }
    }

    /// Starts a command that stays, and waits until it can be talked to.
    pub(crate) async fn stay(&self, name: &str, args: &[&str]) -> Staying {
        Staying::start(self.named(name, args)).await
    }
}

/// What is left of a command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// What a command printed that did what it should.
    #[track_caller]
    pub(crate) fn well(&self) -> &str {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{self:?}");
        &self.out
    }

    /// The one line of a command that failed.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.err.strip_prefix("parlor: ").and_then(|line| line.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("not a line of parlor: {self:?}"));
        assert!(!line.contains('\n'), "{self:?}");
        line
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Vec<Value> {
        self.well().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command, input: &[u8]) -> Done {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let feed = async move {
        // A command that fails does not read on.
        let _ = stdin.write_all(input).await;
    };
    let ((), out, err, status) =
        within(async { tokio::join!(feed, all(stdout), all(stderr), child.wait()) }).await;
    Done { code: status.unwrap().code(), out, err }
}

async fn all(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// A command that stays. Killed when dropped.
pub(crate) struct Staying {
    child: Child,
    /// Open and silent.
    _stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: Lines<BufReader<ChildStderr>>,
}

impl Staying {
    async fn start(mut command: Command) -> Self {
        command.args(["--log", "parlor=info"]);
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let stdin = child.stdin.take();
        let mut staying = Self { child, _stdin: stdin, stdout, stderr };
        staying.error_line(|line| line.contains(" listens in ") || line.contains(" serves in ")).await;
        staying
    }

    /// The next line on stdout.
    pub(crate) async fn line(&mut self) -> String {
        within(self.stdout.next_line()).await.unwrap().expect("it still runs")
    }

    /// Waits for a line on stderr.
    pub(crate) async fn error_line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let line = within(self.stderr.next_line()).await.unwrap().expect("it still runs");
            if wanted(&line) {
                return line;
            }
        }
    }

    /// Reads no more of its stdout.
    pub(crate) fn hang_up(self) -> Child {
        self.child
    }

    /// The exit code after SIGTERM.
    pub(crate) async fn terminate(self) -> Option<i32> {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        self.end().await
    }

    /// The exit code when it ends by itself.
    pub(crate) async fn end(mut self) -> Option<i32> {
        within(self.child.wait()).await.unwrap().code()
    }
}
