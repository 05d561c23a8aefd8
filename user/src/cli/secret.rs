//! Passwords from files and, where a person sits, from a prompt. Never from an argument.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::error::Error;
use super::output;

/// Longest first line that is read, in bytes: a password has at most 71, the rest tells how long it was.
const LINE_BYTES: u64 = 4096;
/// The mode bits with which others than the owner can read a file.
const READABLE_BY_OTHERS: u32 = 0o044;

/// The first line of a file, without its line end.
pub(super) fn of_file(path: &Path) -> Result<Zeroizing<String>, Error> {
    let wrong = |why: &dyn std::fmt::Display| {
        Error::Usage(format!("cannot read a password from {}: {why}", path.display()))
    };
    let file = File::open(path).map_err(|error| wrong(&error))?;
    let metadata = file.metadata().map_err(|error| wrong(&error))?;
    if metadata.is_file() && metadata.mode() & READABLE_BY_OTHERS != 0 {
        let path = path.display();
        tracing::warn!(%path, "others can read this password file");
        output::note(&format!("others can read {path}: chmod 600 it"));
    }
    first_line(BufReader::new(file)).map_err(|error| wrong(&error))
}

/// True if somebody is there to be asked.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// A password from the terminal.
pub(super) fn ask(what: &str) -> Result<Zeroizing<String>, Error> {
    rpassword::prompt_password(format!("{what}: "))
        .map(Zeroizing::new)
        .map_err(|source| Error::System { op: "read the password from the terminal", source })
}

fn first_line(input: impl BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    input.take(LINE_BYTES).read_line(&mut line)?;
    if line.ends_with('\n') {
        line.pop();
        if line.ends_with('\r') {
            line.pop();
        }
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_the_password_and_all_else_is() {
        for (input, password) in [
            ("123456\n", "123456"),
            ("123456\r\n", "123456"),
            ("123456", "123456"),
            (" a b \nc\n", " a b "),
            ("", ""),
        ] {
            assert_eq!(*first_line(input.as_bytes()).unwrap(), password, "{input:?}");
        }
        assert!(first_line(&[0xff, b'\n'][..]).is_err());
    }
}
