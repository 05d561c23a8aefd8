//! Parlor beside raw TCP: the same work over both, between the same processes' CPUs, in the same seconds.
//!
//! A figure means nothing by itself, because machines and hours differ; what is printed is a figure, that of raw
//! TCP taken in turn with it, and their ratio. Everything runs on loopback in processes of its own: the *client*
//! (this program), the *server* (the other user), the *Room*, and for raw TCP a server and, beside relayed rows,
//! a relay that does nothing but copy. All are the same executable in different `roles` and end with the
//! client.
//!
//! - `args`: what is measured, where, and how often.
//! - `client`: the rows between two users; `setup`: their first call; `idle`: users that do nothing.
//! - `raw`: the same work over plain sockets.
//! - `roles`: the other processes.
//! - `machine`: CPUs, memory, and how busy others were meanwhile; `report`: rows.

mod args;
mod client;
mod idle;
mod machine;
mod raw;
mod report;
mod roles;
mod setup;

use anyhow::Result;
use clap::Parser as _;

use self::args::{Args, Row};
use self::machine::Others;
use self::report::Report;

/// Runs the program with the arguments of this process.
pub fn main() -> Result<()> {
    let args = Args::parse();
    // Before any thread starts, so that all of them inherit it.
    machine::pin(args.cpu())?;
    machine::allow_many_files();
    if let Some(role) = args.role {
        return roles::run(role, &args);
    }
    let others = Others::watch();
    let mut report = Report::new(&args);
    let rows = args.rows();
    client::measure(&args, &rows, &mut report)?;
    if rows.contains(&Row::Setup) {
        setup::measure(&args, &mut report)?;
    }
    if rows.contains(&Row::Idle) {
        idle::measure(&args, &mut report)?;
    }
    report.finish(others.share());
    Ok(())
}
