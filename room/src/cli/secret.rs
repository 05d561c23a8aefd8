//! Passwords from a person or a pipe, never from an argument.

use std::io::{self, BufRead, IsTerminal};

use zeroize::Zeroizing;

use super::Failure;
use crate::password::check_password;

/// Longest first line that is read, in bytes: bcrypt reads 71 of it, the rest tells how long it was.
const LINE_BYTES: u64 = 4096;

/// A password from the terminal, asked for twice; or the first line of stdin when that is no terminal.
pub(super) fn read() -> Result<Zeroizing<String>, Failure> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() { ask()? } else { first_line(stdin.lock())? };
    check_password(&password)?;
    Ok(password)
}

fn ask() -> Result<Zeroizing<String>, Failure> {
    let prompt = |text: &str| {
        rpassword::prompt_password(text)
            .map(Zeroizing::new)
            .map_err(|error| Failure::other(format!("cannot read the password from the terminal: {error}")))
    };
    let password = prompt("Password: ")?;
    if *prompt("Again: ")? == *password {
        Ok(password)
    } else {
        Err(Failure::wrong("the two passwords differ: start again"))
    }
}

fn first_line(input: impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    input
        .take(LINE_BYTES)
        .read_line(&mut line)
        .map_err(|error| Failure::wrong(format!("cannot read the password from stdin: {error}")))?;
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
            (" a b \nsecond line\n", " a b "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(*first_line(input.as_bytes()).unwrap(), password, "{input:?}");
        }
        assert!(first_line(&[0xff, b'\n'][..]).unwrap_err().sentence.contains("stdin"));
    }
}
