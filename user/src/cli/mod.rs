//! The command line of `parlor`.
//!
//! - Results go to stdout, with `--json` as one object a line; whatever else there is to say goes to stderr. What
//!   peers sent reaches neither as a terminal command: control characters are shown as escapes.
//! - An error is one line on stderr that says what to do, and one exit code (see [`error`]).
//! - No secret is ever taken from an argument, and nothing asks unless stdin and stderr are a terminal.
//! - The commands that stay (`listen`, `serve`, `ping` without a count) leave the room on SIGINT and SIGTERM and
//!   exit with 0. The others end at once, as any program does.

mod args;
mod call;
mod child;
mod error;
mod explain;
mod input;
mod listen;
mod output;
mod peers;
mod ping;
mod secret;
mod send;
mod serve;
mod session;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::args::{Cli, Command};
use self::error::Error;

/// Tasks that are still running get this long to see that they are not wanted any more.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// Threads for the library's tasks; the command itself has the main thread.
const WORKERS: usize = 2;

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help or version, which clap formats for the terminal. Nobody is left to tell if stdout is gone.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return Error::of_clap(&error).report(),
    };
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn start(cli: Cli) -> Result<(), Error> {
    let filter = EnvFilter::builder().parse(&cli.settings.log).map_err(|error| {
        Error::Usage(format!("--log: {error}; use off, error, warn, info, debug or trace"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A log that nobody reads is no reason to stop.
    log.with_ansi(io::stderr().is_terminal()).log_internal_errors(false).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|source| Error::System { op: "start threads", source })?;
    let done = runtime.block_on(run(cli));
    // Drops every task, so that no child of `serve` is left behind.
    runtime.shutdown_timeout(SHUTDOWN);
    done
}

async fn run(Cli { settings, command }: Cli) -> Result<(), Error> {
    match command {
        Command::Listen => listen::listen(&settings).await,
        Command::Send(what) => send::send(&settings, what).await,
        Command::Get(call) => call::get(&settings, call).await,
        Command::Serve { callbacks } => serve::serve(&settings, callbacks).await,
        Command::Peers { no_probe } => peers::peers(&settings, !no_probe).await,
        Command::Ping(ping) => ping::ping(&settings, ping).await,
        Command::Explain { peer } => explain::explain(&settings, &peer).await,
        Command::Forget { peer } => session::forget(&settings, &peer),
    }
}
