//! `parlor send Bar - < lines` while the links between the two are cut and the Room is killed and started: `parlor
//! listen` prints every line once and in order.
//!
//! Both are the commands as anybody runs them. The lines come in as many chunks as there are faults, and each
//! fault falls while its chunk is being read, so that lines are always on their way.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;
use serde_json::json;

use super::report::Report;
use crate::clock;
use crate::netns::{Host, Lab, Lan};
use crate::process::Program;
use crate::programs::{PATIENCE, RoomProgram, Stage};

/// The last line of a chunk is printed within this after its fault.
const ARRIVES: Duration = Duration::from_secs(120);

/// How many lines.
#[derive(Debug, Clone, Args)]
pub(super) struct LinesArgs {
    /// Lines in all.
    #[arg(long, default_value_t = 1_000_000)]
    lines: usize,
    /// Times that all kinds of faults are gone through.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

/// Runs it and says how it went.
pub(super) fn measure(args: &LinesArgs, report: &mut Report) -> Result<()> {
    let began = clock::now();
    let outcome = lines_arrive(Lab::new()?, args.lines, args.rounds);
    let figures = [
        ("lines", json!(args.lines)),
        ("faults", json!(args.rounds * FAULTS.len())),
        ("seconds", json!(began.elapsed().as_secs())),
        ("the same", json!(outcome.is_ok())),
    ];
    report.row("parlor send - | parlor listen", &figures);
    if let Err(error) = outcome {
        report.promise(false, || format!("{error:#}"));
    }
    Ok(())
}

/// What happens to the two.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Direct links are reset; the way stays open.
    Reset,
    /// The direct way falls silent.
    Silence,
    /// The Room is killed and started again.
    KillRoom,
    /// The direct way opens again, and the relayed link is reset.
    Open,
    /// The direct way answers with resets.
    Refuse,
    /// Every connection to the Room is reset.
    ResetRoom,
    /// The direct way opens again.
    Admit,
    /// The Room is killed and started again.
    KillRoomAgain,
}

const FAULTS: [Fault; 8] = [
    Fault::Reset,
    Fault::Silence,
    Fault::KillRoom,
    Fault::Open,
    Fault::Refuse,
    Fault::ResetRoom,
    Fault::Admit,
    Fault::KillRoomAgain,
];

/// Sends this many lines through `rounds` of all faults, and compares what is printed with what was sent.
///
/// # Errors
/// A line is lost, repeated, out of order or altered; something took too long; there can be no laboratory.
pub fn lines_arrive(lab: Lab, lines: usize, rounds: usize) -> Result<()> {
    let lan = Lan::build(lab)?;
    let stage = Stage::new()?;
    let setup = stage.room("room").on(&lan.room).listen(format!("{}:2428", lan.room_ip())).arg("--open");
    let mut room = Some(setup.start()?);
    let address = room.as_ref().map(|room| room.address.clone()).unwrap_or_default();
    let bar = stage.named(&address, "Bar").on(&lan.bar);
    let mut bar = room.as_ref().context("there is a Room")?.online(&bar, "Bar", &["listen"])?;
    let mut foo = stage.named(&address, "Foo").on(&lan.foo).start(&["send", "Bar", "-"])?;
    let ends = Ends { foo: &lan.foo, bar: &lan.bar, foo_ip: lan.cables[1].ip(), bar_ip: lan.cables[2].ip() };

    let mut sent = String::new();
    let chunks = rounds * FAULTS.len();
    for number in 0..chunks {
        let from = sent.len();
        for line in lines * number / chunks..lines * (number + 1) / chunks {
            writeln!(sent, "{line} of {lines}: what Foo says to Bar")?;
        }
        let chunk = &sent[from..];
        let fault = FAULTS[number % FAULTS.len()];
        thread::scope(|scope| {
            let writing = scope.spawn(|| foo.write(chunk.as_bytes()));
            let done = ends.suffer(fault, &mut room, lan.room_ip());
            let written = writing.join().map_err(|_| anyhow!("the writing thread panicked"))?;
            done.and(written)
        })?;
        let last = chunk.lines().next_back().context("a chunk has lines")?;
        bar.line_where(ARRIVES, |line| text_of(line) == Some(last))
            .with_context(|| format!("after {fault:?}"))?;
    }
    foo.close_stdin();
    foo.wait(PATIENCE)?.success()?;
    let heard = bar.terminate(PATIENCE)?.success()?.stdout;
    compare(&sent, &heard)
}

/// What was printed, without who said it, must be what was sent.
fn compare(sent: &str, heard: &str) -> Result<()> {
    let mut heard = heard.lines();
    for expected in sent.lines() {
        let line = heard.next().and_then(text_of);
        ensure!(line == Some(expected), "{line:?} was printed where {expected:?} was to come");
    }
    ensure!(heard.next().is_none(), "more was printed than was sent");
    Ok(())
}

/// A line without the time and who said it: `[12:34:56] Foo: text`.
fn text_of(line: &str) -> Option<&str> {
    line.split_once("] Foo: ").map(|(_, text)| text)
}

/// The two hosts, as the other sees them.
struct Ends<'a> {
    foo: &'a Host,
    bar: &'a Host,
    foo_ip: IpAddr,
    bar_ip: IpAddr,
}

impl Ends<'_> {
    fn suffer(&self, fault: Fault, room: &mut Option<RoomProgram>, room_ip: IpAddr) -> Result<()> {
        match fault {
            Fault::Reset => self.foo.reset_peer(self.bar_ip).map(drop),
            Fault::Silence => self.foo.block(self.bar_ip).and_then(|()| self.bar.block(self.foo_ip)),
            Fault::Open => {
                self.foo.unblock(self.bar_ip)?;
                self.bar.unblock(self.foo_ip)?;
                self.foo.reset_peer(room_ip).map(drop)
            }
            Fault::Refuse => self.foo.refuse(self.bar_ip).and_then(|()| self.bar.refuse(self.foo_ip)),
            Fault::Admit => self.foo.admit(self.bar_ip).and_then(|()| self.bar.admit(self.foo_ip)),
            Fault::ResetRoom => {
                self.foo.reset_peer(room_ip)?;
                self.bar.reset_peer(room_ip).map(drop)
            }
            Fault::KillRoom | Fault::KillRoomAgain => {
                let RoomProgram { setup, program, .. } = room.take().context("there is a Room")?;
                Program::kill(program)?;
                *room = Some(setup.start()?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_lost_repeated_or_out_of_order_is_noticed() {
        let heard = |lines: &[&str]| {
            lines.iter().fold(String::new(), |all, line| all + "[12:34:56] Foo: " + line + "\n")
        };
        assert!(compare("a\nb\nc\n", &heard(&["a", "b", "c"])).is_ok());
        for wrong in
            [&["a", "c"][..], &["a", "b"], &["a", "b", "b", "c"], &["b", "a", "c"], &["a", "b", "c", "c"]]
        {
            assert!(compare("a\nb\nc\n", &heard(wrong)).is_err(), "{wrong:?}");
        }
    }
}
