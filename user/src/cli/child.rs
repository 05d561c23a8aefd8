//! A shell command as a callback.
//!
//! `sh -c COMMAND` gets the argument as one line of JSON on stdin, and `PARLOR_FROM` and `PARLOR_CALLBACK` in its
//! environment. Its stdout is the answer: JSON if it is JSON, else a text without its last line end, and bytes if
//! it is no text. An exit code other than 0 is an error that carries the last line of stderr. A call that ends
//! before its command (cancelled, too late, too much output) kills the command and all it started.

use std::io;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use parlor_protocol::limits::BODY;
use parlor_protocol::name::UserName;
use parlor_user::Value;
use parlor_user::protocol::body::to_body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Of stderr this much is kept, in bytes: enough for a last line that people read.
const STDERR_TAIL: usize = 4096;

/// A callback that a command answers.
pub(super) struct Callback {
    pub(super) name: String,
    pub(super) command: String,
}

impl Callback {
    /// Runs the command for one call. The error is for the caller to read.
    pub(super) async fn answer(&self, from: &UserName, argument: &Value) -> Result<Value, String> {
        let mut child =
            self.start(from).map_err(|error| format!("the command cannot be started: {error}"))?;
        let group = Group::of(&child);
        let (status, stdout, stderr) =
            talk(&mut child, argument).await.map_err(|error| format!("the command was lost: {error}"))?;
        if stdout.len() > BODY {
            return Err("the command's answer is larger than 1 MiB".to_owned());
        }
        group.ended();
        if status.success() { read_answer(stdout) } else { Err(last_words(status, &stderr)) }
    }

    fn start(&self, from: &UserName) -> io::Result<Child> {
        Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .env("PARLOR_FROM", from.as_str())
            .env("PARLOR_CALLBACK", &self.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

/// Feeds the command and hears it out. Too much output ends this before the command ends.
async fn talk(child: &mut Child, argument: &Value) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let input = argument.to_json().to_string() + "\n";
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A command that does not read its argument is no error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        Ok::<_, io::Error>(())
    };
    let hear = async {
        let mut answer = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(BODY as u64 + 1).read_to_end(&mut answer).await?;
        }
        Ok(answer)
    };
    let both = async { tokio::try_join!(feed, hear, tail(stderr)) };
    let ((), answer, errors) = both.await?;
    Ok((child.wait().await?, answer, errors))
}

/// The end of a stream, however long it is.
async fn tail(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return Ok(kept) };
    while stream.read_buf(&mut kept).await? > 0 {
        if kept.len() > 2 * STDERR_TAIL {
            kept.drain(..kept.len() - STDERR_TAIL);
        }
    }
    Ok(kept)
}

fn read_answer(stdout: Vec<u8>) -> Result<Value, String> {
    let text = match String::from_utf8(stdout) {
        Ok(text) => text,
        Err(error) => return Ok(Value::Bin(error.into_bytes())),
    };
    let value = match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) => Value::from(json),
        Err(_) => Value::Str(text.strip_suffix('\n').unwrap_or(&text).to_owned()),
    };
    match to_body(&value) {
        Ok(_) => Ok(value),
        Err(error) => Err(format!("the command's answer cannot be sent: {error}")),
    }
}

/// What a command that failed said last.
fn last_words(status: ExitStatus, stderr: &[u8]) -> String {
    use std::os::unix::process::ExitStatusExt;

    let stderr = String::from_utf8_lossy(stderr);
    match (stderr.lines().map(str::trim).rfind(|line| !line.is_empty()), status.code(), status.signal()) {
        (Some(line), ..) => line.to_owned(),
        (None, Some(code), _) => format!("exit code {code}"),
        (None, None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None, None) => "ended without an exit code".to_owned(),
    }
}

/// The command and all it started. Killed when dropped before the command ended.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself just now.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(command: &str, argument: Value) -> Result<Value, String> {
        let callback = Callback { name: "test".to_owned(), command: command.to_owned() };
        callback.answer(&"Foo".parse().unwrap(), &argument).await
    }

    #[tokio::test]
    async fn the_argument_is_json_and_the_answer_json_text_or_bytes() {
        assert_eq!(run("tr a-z A-Z", "abc".into()).await, Ok("ABC".into()));
        assert_eq!(run("cat", Value::Nil).await, Ok(Value::Nil));
        assert_eq!(run("echo two words; echo", Value::Nil).await, Ok("two words\n".into()));
        assert_eq!(
            run("printf '%s %s' $PARLOR_FROM $PARLOR_CALLBACK", Value::Nil).await,
            Ok("Foo test".into())
        );
        assert_eq!(run("printf '\\377'", Value::Nil).await, Ok(Value::Bin(vec![0xff])));
        assert_eq!(run("true", Value::Nil).await, Ok("".into()));
    }

    #[tokio::test]
    async fn a_command_that_fails_is_an_error_with_its_last_words() {
        let said = run("echo out; echo first >&2; echo last words >&2; echo >&2; exit 3", Value::Nil).await;
        assert_eq!(said, Err("last words".to_owned()));
        assert_eq!(run("exit 3", Value::Nil).await, Err("exit code 3".to_owned()));
        assert_eq!(run("kill -9 $$", Value::Nil).await, Err("ended by signal 9".to_owned()));
        assert_eq!(run("seq 100000 >&2; exit 1", Value::Nil).await, Err("100000".to_owned()));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut_off_and_its_command_killed() {
        let error = run("yes", Value::Nil).await.unwrap_err();
        assert!(error.contains("1 MiB"), "{error}");
    }
}
