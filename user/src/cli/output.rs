//! What goes to stdout and stderr.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use parlor_protocol::name::{is_unprintable, printable};
use parlor_user::Value;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::error::Error;

/// Batches of lines that wait for a slow reader of stdout.
const BATCHES: usize = 4;
/// The last lines get this long to leave when the program ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Writes a line to stdout at once.
pub(super) fn print(line: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(Error::of_stdout)
}

/// Tells a person something that is neither result nor error. Nobody else is told: for scripts, stderr has
/// nothing but the error of a command that failed.
pub(super) fn note(sentence: &str) {
    if io::stderr().is_terminal() {
        complain(sentence);
    }
}

/// Writes a line to stderr. Where nobody reads that, nobody is told.
pub(super) fn complain(sentence: &str) {
    let line: Vec<&str> = sentence.split(['\n', '\r']).map(str::trim).collect();
    let _ = writeln!(io::stderr(), "parlor: {}", printable(&line.join(" ")));
}

/// JSON on one line, with an escape for whatever must not reach a terminal.
pub(super) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value);
    debug_assert!(text.is_ok(), "a line that JSON cannot write");
    let text = text.unwrap_or_default();
    if !text.chars().any(is_unprintable) {
        return text;
    }
    // JSON has such characters within strings only, and there it has this escape for them.
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unprintable(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                let _ = write!(clean, "\\u{unit:04x}");
            }
        } else {
            clean.push(c);
        }
    }
    clean
}

/// A body as people read it: texts plain, anything else as JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Str(text) => printable(text).into_owned(),
        other => json(&other.to_json()),
    }
}

/// A duration in milliseconds, to the microsecond.
pub(super) fn milliseconds(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// A duration in whole microseconds.
pub(super) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Lines on their way to stdout. A thread of its own writes them, so that a reader that stalls holds up
/// whoever sends, and never the end of the program.
pub(super) struct Lines {
    batches: mpsc::Sender<Vec<u8>>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Lines {
    pub(super) fn start() -> Self {
        let (batches, mut waiting) = mpsc::channel::<Vec<u8>>(BATCHES);
        let (finished, done) = oneshot::channel();
        // Ends when the sender is gone or stdout is closed; the end of the program does not wait for it.
        thread::spawn(move || {
            let mut stdout = io::stdout().lock();
            let mut result = Ok(());
            while let Some(batch) = waiting.blocking_recv() {
                result = stdout.write_all(&batch).and_then(|()| stdout.flush());
                if result.is_err() {
                    break;
                }
            }
            drop(waiting);
            let _ = finished.send(result);
        });
        Self { batches, done }
    }

    /// Hands a batch over, waiting for the reader. False: stdout is closed.
    pub(super) async fn write(&self, batch: Vec<u8>) -> bool {
        self.batches.send(batch).await.is_ok()
    }

    /// Waits until stdout is found closed, which a write finds.
    pub(super) async fn closed(&self) {
        self.batches.closed().await;
    }

    /// Hands over the last lines and waits for a while until all is written.
    pub(super) async fn finish(self, rest: Vec<u8>) -> Result<(), Error> {
        let Self { batches, done } = self;
        let written = async {
            // A thread that is gone has said why.
            let _ = batches.send(rest).await;
            drop(batches);
            done.await
        };
        match tokio::time::timeout(LAST_LINES, written).await {
            Ok(Ok(written)) => written.map_err(Error::of_stdout),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_meaning_and_loses_what_a_terminal_would_obey() {
        let value = serde_json::json!({ "a": "\u{1b}[31m \u{202e} \u{9b} ß" });
        let text = json(&value);
        assert!(!text.chars().any(is_unprintable), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_text_is_plain_and_stays_on_its_line() {
        assert_eq!(plain(&"Hello!".into()), "Hello!");
        assert_eq!(plain(&"a\nb".into()), "a\\nb");
        assert_eq!(plain(&Value::Array(vec![1.into(), "x".into()])), r#"[1,"x"]"#);
    }
}
