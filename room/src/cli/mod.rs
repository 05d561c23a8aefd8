//! The command line of `parlor-room`.
//!
//! Results go to stdout; logs and errors to stderr, an error as one line that says what to do. Exit codes: 0 done, 2 the
//! command line or the configuration is wrong, 4 there is no such user or ban, 1 anything else. No secret is ever
//! taken from an argument: a password comes from a prompt, or from the first line of stdin when that is no terminal.
//!
//! `user`, `ban` and `status` ask the Room that runs on the data directory, so that a change acts at once; where none runs,
//! `user` and `ban` change the directory itself.

mod args;
mod log;
mod manage;
mod offline;
mod output;
mod run;
mod secret;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use parlor_protocol::name::printable;

use self::args::{Cli, Command};
use crate::admin::{AdminError, AdminErrorKind, CallError};
use crate::config::ConfigError;
use crate::handle::RoomError;
use crate::password::{PasswordError, PasswordHash};
use crate::server::TlsError;
use crate::store::StoreError;

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help or version, which clap formats for the terminal. Nobody is left to tell if stdout is gone.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return Failure::usage(&error).report(),
    };
    let done = match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(args) => run::run(&args),
        Command::Hash { cost } => hash(cost),
        Command::User(command) => manage::user(command),
        Command::Ban(command) => manage::ban(command),
        Command::Status(args) => manage::status(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn hash(cost: u32) -> Result<(), Failure> {
    let hash = make_hash(cost)?;
    output::print(&[hash.as_str().to_owned()])
}

/// Asks for a password and hashes it.
fn make_hash(cost: u32) -> Result<PasswordHash, Failure> {
    let password = secret::read()?;
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)
        .map_err(|error| Failure::other(format!("the system gives no random bytes ({error}): try again")))?;
    Ok(PasswordHash::make(&password, cost, salt)?)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Why a command failed: one line, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    sentence: String,
}

impl Failure {
    /// The command line or the configuration is wrong.
    const USAGE: u8 = 2;
    /// There is no such user or ban.
    const NOT_FOUND: u8 = 4;
    /// Anything else.
    const OTHER: u8 = 1;

    fn other(sentence: impl Into<String>) -> Self {
        Self { code: Self::OTHER, sentence: sentence.into() }
    }

    fn wrong(sentence: impl Into<String>) -> Self {
        Self { code: Self::USAGE, sentence: sentence.into() }
    }

    /// clap's message without the usage below it, on one line.
    fn usage(error: &clap::Error) -> Self {
        let text = error.to_string();
        let said = text.split("\n\nUsage:").next().unwrap_or_default();
        let said = said.split("\n\nFor more information").next().unwrap_or_default();
        let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
        Self::wrong(format!("{} (see parlor-room --help)", words.join(" ")))
    }

    fn report(&self) -> ExitCode {
        let line: Vec<&str> = self.sentence.lines().map(str::trim).collect();
        // Where stderr is gone the exit code still tells.
        let _ = writeln!(io::stderr(), "parlor-room: {}", printable(&line.join(" ")));
        ExitCode::from(self.code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::wrong(error.to_string())
    }
}

impl From<PasswordError> for Failure {
    fn from(error: PasswordError) -> Self {
        Self::wrong(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::other(error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::other(error.to_string())
    }
}

impl From<RoomError> for Failure {
    fn from(error: RoomError) -> Self {
        match error {
            // A setting names the files of a certificate.
            RoomError::Config(_) | RoomError::NoAddress | RoomError::Tls(TlsError::File { .. }) => {
                Self::wrong(error.to_string())
            }
            error => Self::other(error.to_string()),
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let code = match error.kind {
            AdminErrorKind::NotFound => Self::NOT_FOUND,
            AdminErrorKind::Exists | AdminErrorKind::Invalid | AdminErrorKind::Io => Self::OTHER,
        };
        Self { code, sentence: error.sentence }
    }
}
