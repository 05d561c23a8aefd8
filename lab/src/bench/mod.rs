//! Parlor beside raw TCP: the same work over both, between the same processes' CPUs, in the same seconds.
//!
//! A figure means nothing by itself, because machines and hours differ; what is printed is a figure, that of raw
//! TCP taken in turn with it, and their ratio. Everything runs on loopback in processes of its own: the *client*
//! (this program), the *server* (the other user), the *Room*, and for raw TCP a server and, beside relayed rows,
//! a relay that does nothing but copy. All are the same executable in different `roles` and end with the
//! client.
//!
//! - `args`: what is measured, where, and how often.
//! - `client`: the rows between two users; `setup`: their first call; `relaying`: what it costs the Room.
//! - `raw`, `sealed`: the same work over plain sockets, and over sealed ones.
//! - `idle`: a user that does nothing; `memory`: a Room with many; `logins`; `light`: a client for these.
//! - `sizes`: the programs' files.
//! - `roles`: the other processes.
//! - `machine`: CPUs, memory, and how busy others were meanwhile; `report`: rows; `tables`: many reports as tables;
//!   `goals`: what they are to show.

mod args;
mod client;
mod goals;
mod idle;
mod light;
mod logins;
mod machine;
mod memory;
mod raw;
mod relaying;
mod report;
mod roles;
mod sealed;
mod setup;
mod sizes;
mod tables;

use anyhow::Result;
use clap::Parser as _;

use self::args::{Args, Row};
use self::machine::Others;
pub(crate) use self::machine::{allow_many_files, resident_kib};
use self::report::Report;
pub(crate) use self::report::float;

/// Runs the program with the arguments of this process.
pub fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(file) = &args.tables {
        return tables::print(file);
    }
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
    for row in rows {
        match row {
            Row::Setup => setup::measure(&args, &mut report)?,
            Row::Relaying => relaying::measure(&args, &mut report)?,
            Row::Idle => idle::measure(&args, &mut report)?,
            Row::Memory => memory::measure(&args, &mut report)?,
            Row::Logins => logins::measure(&args, &mut report)?,
            Row::Sizes => sizes::measure(&args, &mut report)?,
            Row::Rtt64
            | Row::Rtt1k
            | Row::Calls64
            | Row::Send64
            | Row::Send1k
            | Row::Bulk64k
            | Row::Bulk1m => {}
        }
    }
    report.finish(others.share());
    Ok(())
}
