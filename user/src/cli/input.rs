//! The lines of stdin, as they come.

use std::io::{self, BufRead};
use std::thread;

use parlor_protocol::limits::BODY;
use tokio::sync::mpsc;

use super::error::Error;

/// Batches of lines that wait to be sent. A batch is what one read of stdin gave.
const BATCHES: usize = 4;

/// Reads stdin in a thread of its own. Line ends are no part of the lines; after an error nothing follows.
pub(super) fn lines() -> mpsc::Receiver<Result<Vec<String>, Error>> {
    let (sender, receiver) = mpsc::channel(BATCHES);
    // Ends with stdin or with the receiver; the end of the program does not wait for it.
    thread::spawn(move || read(io::stdin().lock(), |batch| sender.blocking_send(batch).is_ok()));
    receiver
}

fn read(mut input: impl BufRead, mut give: impl FnMut(Result<Vec<String>, Error>) -> bool) {
    let mut splitter = Splitter::default();
    loop {
        let buffer = match input.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                give(Err(Error::System { op: "read stdin", source }));
                return;
            }
        };
        let (read, end) = (buffer.len(), buffer.is_empty());
        let outcome = if end { splitter.finish() } else { splitter.push(buffer) };
        input.consume(read);
        let batch = std::mem::take(&mut splitter.lines);
        if !batch.is_empty() && !give(Ok(batch)) {
            return;
        }
        match outcome {
            Ok(()) if end => return,
            Ok(()) => {}
            Err(why) => {
                give(Err(Error::Usage(why)));
                return;
            }
        }
    }
}

/// Cuts bytes into lines.
#[derive(Default)]
struct Splitter {
    lines: Vec<String>,
    partial: Vec<u8>,
    number: u64,
}

impl Splitter {
    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = piece.strip_suffix(b"\n");
            self.partial.extend_from_slice(line.unwrap_or(piece));
            if self.partial.len() > BODY {
                return Err(format!(
                    "line {} of stdin is longer than 1 MiB: nothing after it is sent",
                    self.number + 1
                ));
            }
            if line.is_some() {
                self.take()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        if self.partial.is_empty() { Ok(()) } else { self.take() }
    }

    fn take(&mut self) -> Result<(), String> {
        self.number += 1;
        let line = String::from_utf8(std::mem::take(&mut self.partial));
        let line = line
            .map_err(|_| format!("line {} of stdin is not UTF-8: nothing from it on is sent", self.number))?;
        self.lines.push(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(bytes: &[u8], buffer: usize) -> (Vec<String>, Option<String>) {
        let (mut lines, mut error) = (Vec::new(), None);
        read(io::BufReader::with_capacity(buffer, bytes), |batch| {
            match batch {
                Ok(batch) => lines.extend(batch),
                Err(why) => error = Some(why.to_string()),
            }
            true
        });
        (lines, error)
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        for buffer in [1, 2, 3, 100] {
            let (lines, error) = lines_of("a\n\nß\r\nlast".as_bytes(), buffer);
            assert_eq!(lines, ["a", "", "ß\r", "last"], "{buffer}");
            assert_eq!(error, None);
        }
        assert_eq!(lines_of(b"", 8).0, Vec::<String>::new());
        assert_eq!(lines_of(b"\n", 8).0, [""]);
    }

    #[test]
    fn a_line_that_is_no_text_is_named_after_all_before_it_were_given() {
        let (lines, error) = lines_of(b"one\ntwo\n\xff\nfour\n", 4);
        assert_eq!(lines, ["one", "two"]);
        assert!(error.unwrap().contains("line 3"));
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_a_body() {
        let (lines, error) = lines_of(&vec![b'x'; BODY + 10], 8192);
        assert_eq!(lines, Vec::<String>::new());
        assert!(error.unwrap().contains("line 1"));
    }
}
