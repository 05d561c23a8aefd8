//! The rows between two users: calls and messages, each in turn with the same work over raw TCP, through a relay that
//! only copies where the rows are relayed, and, for messages, over sealed TCP.
//!
//! The work runs in tasks of the runtime, as a server's work does. (In the future that `block_on` drives, tokio's
//! runtime of many threads would wake another thread for each answer.)

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parlor_user::{Peer, Rung, User};
use serde_bytes::{ByteBuf, Bytes};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::args::{Args, CipherChoice, Role, Row};
use super::raw;
use super::report::{Report, Summary, float};
use super::roles::{self, DRAINED, ECHO, SERVER};
use super::sealed;
use crate::clock;

/// Calls under way at once, where there are many.
pub(super) const IN_FLIGHT: usize = 64;
/// Round trips before the clock starts.
const WARM: usize = 200;
/// Messages between two looks at the clock, where they are small.
const BURST: u64 = 16;
/// A message from this size on is worth a look at the clock, in bytes.
const LARGE: usize = 16 * 1024;
/// A peer that has just joined must be seen by then.
const SEEN: Duration = Duration::from_secs(10);

/// What is measured beside Parlor.
pub(super) const RAW: &str = "raw TCP";
pub(super) const COPIED: &str = "copying relay";
pub(super) const SEALED: &str = "sealed TCP";
pub(super) const SEALED_COPIED: &str = "sealed TCP through it";

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a row does.
enum Work {
    RoundTrip(usize),
    Calls(usize),
    Messages(usize),
    Bulk(usize),
}

impl Work {
    fn of(row: Row) -> Option<(&'static str, &'static str, Self)> {
        Some(match row {
            Row::Rtt64 => ("get 64 B", "us", Self::RoundTrip(64)),
            Row::Rtt1k => ("get 1 KiB", "us", Self::RoundTrip(KIB)),
            Row::Calls64 => ("get 64 B, 64 in flight", "/s", Self::Calls(64)),
            Row::Send64 => ("send 64 B", "/s", Self::Messages(64)),
            Row::Send1k => ("send 1 KiB", "/s", Self::Messages(KIB)),
            Row::Bulk64k => ("send 64 KiB", "MB/s", Self::Bulk(64 * KIB)),
            Row::Bulk1m => ("send 1 MiB", "MB/s", Self::Bulk(MIB)),
            Row::Setup | Row::Relaying | Row::Idle | Row::Memory | Row::Logins | Row::Sizes => return None,
        })
    }

    fn raw(&self, to: SocketAddr, time: Duration) -> Result<f64> {
        match *self {
            Self::RoundTrip(size) => raw::round_trip(to, size, time),
            Self::Calls(size) => raw::requests(to, size, time),
            Self::Messages(size) => raw::messages(to, size, time),
            Self::Bulk(size) => Ok(megabytes(raw::messages(to, size, time)?, size)),
        }
    }

    /// The same work over TCP sealed with the same cipher, where that bounds it.
    fn sealed(&self, to: SocketAddr, time: Duration, cipher: CipherChoice) -> Result<Option<f64>> {
        Ok(match *self {
            Self::RoundTrip(_) | Self::Calls(_) => None,
            Self::Messages(size) => Some(sealed::messages(to, size, time, cipher)?),
            Self::Bulk(size) => Some(megabytes(sealed::messages(to, size, time, cipher)?, size)),
        })
    }

    fn parlor(&self, runtime: &Runtime, peer: Peer, time: Duration) -> Result<f64> {
        match *self {
            Self::RoundTrip(size) => on(runtime, round_trip(peer, size, time)),
            Self::Calls(size) => on(runtime, calls(peer, size, time)),
            Self::Messages(size) => on(runtime, messages(peer, size, time)),
            Self::Bulk(size) => Ok(megabytes(on(runtime, messages(peer, size, time))?, size)),
        }
    }
}

fn megabytes(messages: f64, size: usize) -> f64 {
    messages * float(size as u64) / 1e6
}

/// Measures the rows that are between two users.
pub(super) fn measure(args: &Args, rows: &[Row], report: &mut Report) -> Result<()> {
    let work: Vec<_> = rows.iter().filter_map(|&row| Work::of(row)).collect();
    if work.is_empty() {
        return Ok(());
    }
    let (_raw, port) = args.start(Role::Raw, &[])?;
    let direct = raw::address(port.parse()?);
    let copy = if args.relay { Some(args.start(Role::Copy, &[("to", &port)])?) } else { None };
    let copied = copy.as_ref().map(|(_, port)| anyhow::Ok(raw::address(port.parse()?))).transpose()?;
    let (_room, room) = args.start(Role::Room, &[])?;
    let (_server, _) = args.start(Role::Server, &[("room", &room)])?;
    let runtime = args.runtime()?;
    let user = runtime.block_on(join(args, "Foo", &room))?;
    let peer = user.peer(SERVER)?;
    runtime.block_on(connect(args, &peer))?;
    for (name, unit, work) in work {
        let (mut parlor, mut beside) = (Vec::new(), Beside::new(direct, copied));
        for run in 0..=args.runs {
            let figure = work.parlor(&runtime, peer.clone(), args.time())?;
            beside.measure(&work, args)?;
            if run == 0 {
                beside.forget();
            } else {
                parlor.push(figure);
            }
        }
        report.row(name, unit, Summary::of(parlor), &beside.summaries());
    }
    runtime.block_on(user.leave());
    Ok(())
}

/// What does the same work in turn with Parlor.
struct Beside {
    direct: SocketAddr,
    copied: Option<SocketAddr>,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Beside {
    fn new(direct: SocketAddr, copied: Option<SocketAddr>) -> Self {
        Self { direct, copied, figures: Vec::new() }
    }

    fn measure(&mut self, work: &Work, args: &Args) -> Result<()> {
        self.add(RAW, Some(work.raw(self.direct, args.time())?));
        if let Some(copied) = self.copied {
            self.add(COPIED, Some(work.raw(copied, args.time())?));
        }
        let sealed = if self.copied.is_some() { SEALED_COPIED } else { SEALED };
        self.add(sealed, work.sealed(self.copied.unwrap_or(self.direct), args.time(), args.cipher)?);
        Ok(())
    }

    fn add(&mut self, what: &'static str, figure: Option<f64>) {
        let Some(figure) = figure else { return };
        match self.figures.iter_mut().find(|(other, _)| *other == what) {
            Some((_, figures)) => figures.push(figure),
            None => self.figures.push((what, vec![figure])),
        }
    }

    fn forget(&mut self) {
        self.figures.clear();
    }

    fn summaries(self) -> Vec<(&'static str, Summary)> {
        self.figures.into_iter().map(|(what, figures)| (what, Summary::of(figures))).collect()
    }
}

/// A user of the client's.
pub(super) async fn join(args: &Args, name: &str, room: &str) -> Result<User> {
    let builder = roles::user(args, name, room);
    let builder = if args.relay { builder.rungs(&[Rung::Relay]) } else { builder };
    Ok(builder.join().await?)
}

/// Waits until the Room has told this user of the peer.
pub(super) async fn seen(peer: &Peer) -> Result<()> {
    let started = clock::now();
    while !peer.is_online() {
        if started.elapsed() > SEEN {
            bail!("{} is not online after {SEEN:?}", peer.name());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Sees to it that the rows are about what the report says.
pub(super) async fn connect(args: &Args, peer: &Peer) -> Result<()> {
    seen(peer).await?;
    let path = peer.connect().await?;
    let cipher = sealed::cipher(args.cipher);
    let rung = if args.relay { Rung::Relay } else { Rung::SameHost };
    if (path.rung, path.cipher) != (rung, cipher) {
        bail!("the path is {} with {}, not {rung} with {cipher}", path.rung, path.cipher);
    }
    Ok(())
}

/// Runs work in a task of the runtime.
pub(super) fn on<F>(runtime: &Runtime, work: F) -> F::Output
where
    F: Future<Output = Result<f64>> + Send + 'static,
{
    runtime.block_on(async {
        let mut task = JoinSet::new();
        task.spawn(work);
        task.join_next().await.context("there is a task")??
    })
}

/// One call that is answered with its argument.
pub(super) async fn echo(peer: &Peer, body: &[u8]) -> Result<()> {
    let answer: ByteBuf = peer.get(ECHO, Bytes::new(body)).await?;
    if answer.len() != body.len() {
        bail!("{} bytes came back of {}", answer.len(), body.len());
    }
    Ok(())
}

async fn round_trip(peer: Peer, size: usize, time: Duration) -> Result<f64> {
    let body = vec![7; size];
    for _ in 0..WARM {
        echo(&peer, &body).await?;
    }
    let (started, mut n) = (clock::now(), 0);
    while started.elapsed() < time {
        echo(&peer, &body).await?;
        n += 1;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / float(n))
}

async fn calls(peer: Peer, size: usize, time: Duration) -> Result<f64> {
    let started = clock::now();
    let mut callers = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let peer = peer.clone();
        callers.spawn(async move {
            let (body, mut n) = (vec![7; size], 0);
            while started.elapsed() < time {
                echo(&peer, &body).await?;
                n += 1;
            }
            anyhow::Ok(n)
        });
    }
    let mut n = 0;
    while let Some(calls) = callers.join_next().await {
        n += calls??;
    }
    Ok(float(n) / started.elapsed().as_secs_f64())
}

/// Messages a second that the other program has taken from its inbox.
pub(super) async fn messages(peer: Peer, size: usize, time: Duration) -> Result<f64> {
    let body = vec![7; size];
    let burst = if size < LARGE { BURST } else { 1 };
    let (started, mut n) = (clock::now(), 0);
    while started.elapsed() < time {
        for _ in 0..burst {
            peer.send(Bytes::new(&body)).await?;
        }
        n += burst;
    }
    peer.get::<_, ()>(DRAINED, &n).await?;
    Ok(float(n) / started.elapsed().as_secs_f64())
}
