//! Programs under test. A [`Program`] is killed when it is dropped; every wait has a deadline and, when it
//! passes, an error that shows what the program had said until then. Nothing here sleeps: a wait ends when
//! a line arrives or a process exits.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::clock;

/// What a program may print before the laboratory gives up on it, in bytes: a million short lines.
const TRANSCRIPT_BYTES: usize = 64 * 1024 * 1024;
/// Lines shown of a program that disappointed.
const LINES_IN_ERRORS: usize = 30;

/// A running program. Dropping it kills it.
pub struct Program {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Transcript>,
    stderr: Arc<Transcript>,
    exited: Arc<Flag>,
    next_line: usize,
}

/// What is left of a program that ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code. `None`: a signal ended it.
    pub code: Option<i32>,
    /// All it wrote to stdout, bytes that are no UTF-8 replaced.
    pub stdout: String,
    /// All it wrote to stderr, bytes that are no UTF-8 replaced.
    pub stderr: String,
}

impl Finished {
    /// The output of a program that exited with 0, else an error with all it said.
    pub fn success(self) -> Result<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        bail!("exit code {:?}; stdout: {:?}; stderr: {:?}", self.code, self.stdout, self.stderr)
    }

    /// Each line of stdout as JSON.
    pub fn json_lines(&self) -> Result<Vec<serde_json::Value>> {
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"));
        self.stdout.lines().map(parse).collect()
    }
}

impl Program {
    /// Starts `command` with pipes. Its stdin stays open until [`close_stdin`](Self::close_stdin) or
    /// [`feed`](Self::feed).
    pub fn start(mut command: Command) -> Result<Self> {
        let what = format!("{command:?}");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {what}"))?;
        let stdin = child.stdin.take();
        let stdout = Transcript::record(child.stdout.take().context("stdout is a pipe")?);
        let stderr = Transcript::record(child.stderr.take().context("stderr is a pipe")?);
        let exited = watch_exit(pid_of(&child));
        Ok(Self { what, child, stdin, stdout, stderr, exited, next_line: 0 })
    }

    /// Starts `command` with an empty stdin.
    pub fn start_without_input(command: Command) -> Result<Self> {
        let mut program = Self::start(command)?;
        program.close_stdin();
        Ok(program)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its stdin. Blocks while the program does not read.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin is closed")?;
        stdin
            .write_all(bytes)
            .and_then(|()| stdin.flush())
            .with_context(|| format!("writing to {}", self.what))
    }

    /// Writes all of `bytes` to its stdin and closes it, without waiting for the program to read.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        if let Some(mut stdin) = self.stdin.take() {
            // Ends with the pipe at the latest; a program that stops reading is the test's business.
            thread::spawn(move || stdin.write_all(&bytes));
        }
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line on its stdout.
    pub fn line(&mut self, within: Duration) -> Result<String> {
        self.line_where(within, |_| true)
    }

    /// The next line on its stdout that is `wanted`; lines before it are passed over.
    pub fn line_where(&mut self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        match self.stdout.find(&mut self.next_line, within, wanted) {
            Some(line) => Ok(line),
            None => Err(self.disappointed("did not print the expected line", within)),
        }
    }

    /// The first line on its stderr that is `wanted`, whether it came before or comes yet.
    pub fn error_line_where(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        self.stderr
            .find(&mut 0, within, wanted)
            .ok_or_else(|| self.disappointed("did not write the expected line to stderr", within))
    }

    /// All it has written to stderr so far.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.text()
    }

    /// True while it has not exited.
    pub fn is_running(&self) -> bool {
        !self.exited.is_raised()
    }

    /// Waits until it exits by itself.
    pub fn wait(mut self, within: Duration) -> Result<Finished> {
        let code = self.end(within)?;
        Ok(Finished { code, stdout: self.stdout.text(), stderr: self.stderr.text() })
    }

    /// Waits until it exits by itself, for a program whose output is no text: its exit code, all its stdout
    /// unaltered, and its stderr.
    pub fn wait_for_bytes(mut self, within: Duration) -> Result<(Option<i32>, Vec<u8>, String)> {
        let code = self.end(within)?;
        Ok((code, self.stdout.bytes(), self.stderr.text()))
    }

    fn end(&mut self, within: Duration) -> Result<Option<i32>> {
        let deadline = clock::now() + within;
        if !self.exited.wait(within) {
            return Err(self.disappointed("did not exit", within));
        }
        let status: ExitStatus = self.child.wait()?;
        // Grandchildren may still hold the pipes; what they would add is not worth more than the deadline.
        let rest = deadline.saturating_duration_since(clock::now()).max(Duration::from_secs(1));
        self.stdout.wait_for_end(rest);
        self.stderr.wait_for_end(rest);
        Ok(status.code())
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(self, within: Duration) -> Result<Finished> {
        self.signal(Signal::SIGTERM)?;
        self.wait(within)
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The child is reaped by `wait`, `kill` and `drop` only, so its id is still its own.
        kill(pid_of(&self.child), signal).with_context(|| format!("{signal} to {}", self.what))
    }

    fn disappointed(&self, how: &str, within: Duration) -> anyhow::Error {
        let state = if self.is_running() { "still runs" } else { "has ended" };
        anyhow!(
            "{} {how} within {within:?}; it {state}\nstdout: {}\nstderr: {}",
            self.what,
            self.stdout.tail(),
            self.stderr.tail()
        )
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command` to its end with `input` on stdin.
pub fn run(command: Command, input: &[u8], within: Duration) -> Result<Finished> {
    let mut program = Program::start(command)?;
    program.feed(input.to_vec());
    program.wait(within)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Raised when the process exits; leaves it for its owner to reap.
fn watch_exit(pid: Pid) -> Arc<Flag> {
    let flag = Arc::new(Flag::default());
    let raised = Arc::clone(&flag);
    thread::spawn(move || {
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(nix::Error::EINTR) {}
        raised.raise();
    });
    flag
}

#[derive(Default)]
struct Flag {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn raise(&self) {
        *lock(&self.raised) = true;
        self.changed.notify_all();
    }

    fn is_raised(&self) -> bool {
        *lock(&self.raised)
    }

    fn wait(&self, within: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(lock(&self.raised), within, |raised| !*raised);
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The lines of one stream, as they come.
#[derive(Default)]
struct Transcript {
    state: Mutex<Recorded>,
    changed: Condvar,
}

#[derive(Default)]
struct Recorded {
    /// Each with its line feed, but for the last if it has none.
    lines: Vec<Vec<u8>>,
    bytes: usize,
    ended: bool,
}

impl Transcript {
    fn record(stream: impl Read + Send + 'static) -> Arc<Self> {
        let transcript = Arc::new(Self::default());
        let recorder = Arc::clone(&transcript);
        // Ends with the stream, which the program's end closes.
        thread::spawn(move || recorder.read_all(BufReader::new(stream)));
        transcript
    }

    fn read_all(&self, mut stream: impl BufRead) {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = stream.read_until(b'\n', &mut line).unwrap_or(0);
            let mut state = lock(&self.state);
            state.bytes += read;
            if read == 0 || state.bytes > TRANSCRIPT_BYTES {
                state.ended = true;
                self.changed.notify_all();
                return;
            }
            state.lines.push(line.clone());
            self.changed.notify_all();
        }
    }

    /// The first line from number `next` on that is `wanted`; `next` moves past all lines looked at.
    fn find(&self, next: &mut usize, within: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = clock::now() + within;
        let mut state = lock(&self.state);
        loop {
            while let Some(line) = state.lines.get(*next) {
                *next += 1;
                let line = text_of(line);
                if wanted(&line) {
                    return Some(line.into_owned());
                }
            }
            let left = deadline.saturating_duration_since(clock::now());
            if state.ended || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for_end(&self, within: Duration) {
        let wait = self.changed.wait_timeout_while(lock(&self.state), within, |state| !state.ended);
        drop(wait);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn bytes(&self) -> Vec<u8> {
        lock(&self.state).lines.concat()
    }

    fn tail(&self) -> String {
        let state = lock(&self.state);
        let from = state.lines.len().saturating_sub(LINES_IN_ERRORS);
        let last: Vec<_> = state.lines[from..].iter().map(|line| text_of(line)).collect();
        format!("({} lines)\n  {}", state.lines.len(), last.join("\n  "))
    }
}

/// A line without its line feed.
fn text_of(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_answers_line_by_line_and_its_end_is_told_with_code_and_output() {
        let mut program =
            Program::start(shell("read a; echo got $a; read b; echo last >&2; exit 5")).unwrap();
        program.write(b"one\n").unwrap();
        assert_eq!(program.line(SOON).unwrap(), "got one");
        assert!(program.is_running());
        program.close_stdin();
        let finished = program.wait(SOON).unwrap();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(5), "last\n"));
        assert!(finished.success().is_err());
    }

    #[test]
    fn a_wait_that_ends_in_vain_shows_what_the_program_said() {
        let mut program = Program::start(shell("echo only this; exec sleep 60")).unwrap();
        assert_eq!(program.line(SOON).unwrap(), "only this");
        let error = program.line_where(Duration::from_millis(300), |line| line == "that").unwrap_err();
        assert!(error.to_string().contains("only this"), "{error}");
        let error = program.wait(Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains("still runs"), "{error}");
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let program = Program::start(shell("exec sleep 60")).unwrap();
        let pid = program.pid();
        drop(program);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn more_input_than_a_pipe_holds_passes_through() {
        let input = (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join("\n") + "\n";
        let finished = run(Command::new("cat"), input.as_bytes(), SOON).unwrap().success().unwrap();
        assert_eq!(finished.stdout, input);
        assert_eq!(finished.json_lines().unwrap().len(), 100_000);
    }

    #[test]
    fn a_terminated_program_has_no_exit_code_unless_it_catches_the_signal() {
        let mut program =
            Program::start(shell("trap 'exit 0' TERM; echo up; while :; do read x; done")).unwrap();
        program.line(SOON).unwrap();
        assert_eq!(program.terminate(SOON).unwrap().code, Some(0));
        let program = Program::start(shell("exec sleep 60")).unwrap();
        assert_eq!(program.terminate(SOON).unwrap().code, None);
    }
}
