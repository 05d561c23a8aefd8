//! Somebody sits between two users that mean well and changes what passes. Whatever is done, what both said arrives
//! once and in order: over the same link, or over the next.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::outcome::Outcome::{self, Dropped, Replaced, Served};
use parlor_lab::hostile::way::{Deed, Unit, Way};
use parlor_protocol::address::RoomAddress;
use parlor_room::{Room, RoomConfig};
use parlor_user::{Inbox, Rung, User};
use tokio::time::{sleep, timeout};

use crate::table::{self, side_by_side};

/// Messages each way.
const MESSAGES: u32 = 40;
/// The record that something is done about: the handshake and the first words are before it.
const HERE: usize = 4;
/// For all that was said to arrive, however often the link ends.
const ARRIVES: Duration = Duration::from_secs(45);

/// For a link to end when both users have turned from it.
const ENDS: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// What somebody on the way remembers.
#[derive(Default)]
pub(crate) struct Memory {
    /// The link on which it was done.
    done: Option<usize>,
    kept: Vec<u8>,
}

/// What somebody does on the way.
pub(crate) struct WayRow {
    name: &'static str,
    does: fn(&mut Memory, Unit) -> Deed,
    /// What becomes of the link on which it was done.
    outcome: Outcome,
}

impl WayRow {
    /// As `docs/SECURITY.md` lists it.
    pub(crate) fn listed(&self) -> String {
        format!("| {} | {} |", self.name, self.outcome)
    }
}

fn row(name: &'static str, does: fn(&mut Memory, Unit) -> Deed) -> WayRow {
    WayRow { name, does, outcome: Dropped }
}

/// Does it once, to one record of the first link from the user; everything else passes.
fn once(memory: &mut Memory, unit: Unit, deed: impl FnOnce(&mut Memory, Vec<u8>) -> Deed) -> Deed {
    if memory.done.is_some() || !unit.from_user || unit.number != HERE {
        return Deed::Passes(unit.bytes);
    }
    memory.done = Some(unit.link);
    deed(memory, unit.bytes)
}

/// Flips a bit of one unit.
fn flip(memory: &mut Memory, mut unit: Unit, from_user: bool, number: usize, at: fn(usize) -> usize) -> Deed {
    if memory.done.is_none() && unit.from_user == from_user && unit.number == number {
        memory.done = Some(unit.link);
        let at = at(unit.bytes.len());
        unit.bytes[at] ^= 1;
    }
    Deed::Passes(unit.bytes)
}

/// The rows.
pub(crate) fn rows() -> Vec<WayRow> {
    vec![
        row("a bit of the handshake's first message is changed", |m, unit| {
            let from_user = unit.from_user;
            // Whoever asks opens the handshake on the relay; here both directions' first units are messages.
            flip(m, unit, from_user, 0, |_| 40)
        }),
        row("a bit of the handshake's second message is changed", |m, unit| flip(m, unit, false, 0, |_| 40)),
        row("a bit at the head of a record is changed", |m, unit| flip(m, unit, true, HERE, |_| 2)),
        row("a bit in the middle of a record is changed", |m, unit| flip(m, unit, true, HERE, |len| len / 2)),
        row("a bit in the tag of a record is changed", |m, unit| flip(m, unit, true, HERE, |len| len - 1)),
        row("a bit of a record from the other side is changed", |m, unit| {
            flip(m, unit, false, HERE, |len| len / 2)
        }),
        row("a record's length is another", |m, unit| flip(m, unit, true, HERE, |_| 0)),
        row("a record is left out", |m, unit| once(m, unit, |_, _| Deed::Passes(Vec::new()))),
        row("a record is repeated", |m, unit| once(m, unit, |_, bytes| Deed::Passes(bytes.repeat(2)))),
        row("two records change places", |m, unit| {
            if m.done.is_some() && !m.kept.is_empty() && unit.from_user {
                return Deed::Passes([unit.bytes, std::mem::take(&mut m.kept)].concat());
            }
            once(m, unit, |m, bytes| {
                m.kept = bytes;
                Deed::Passes(Vec::new())
            })
        }),
        row("a record is cut in two, and the link with it", |m, unit| {
            once(m, unit, |_, bytes| Deed::Cuts(bytes[..bytes.len() / 2].to_vec()))
        }),
        row("the link is cut between two records", |m, unit| once(m, unit, |_, _| Deed::Cuts(Vec::new()))),
        row("a record is sent back to its sender", |m, unit| once(m, unit, |_, bytes| Deed::Returns(bytes))),
        row("an empty record is put in", |m, unit| {
            once(m, unit, |_, bytes| Deed::Passes([vec![0, 0], bytes].concat()))
        }),
        row("garbage is put in", |m, unit| {
            once(m, unit, |_, bytes| Deed::Passes([[40, 0].as_slice(), &[7; 40], &bytes].concat()))
        }),
        row("a record of one link is put into the next", |m, unit| {
            if m.done.is_some_and(|link| link != unit.link)
                && unit.from_user
                && unit.number == HERE
                && !m.kept.is_empty()
            {
                return Deed::Passes(std::mem::take(&mut m.kept));
            }
            once(m, unit, |m, bytes| {
                m.kept = bytes;
                Deed::Cuts(Vec::new())
            })
        }),
        WayRow {
            outcome: Replaced,
            ..row("nothing passes any more, and nobody is told", |m, unit| {
                once(m, unit, |_, _| Deed::Swallows)
            })
        },
        WayRow {
            outcome: Served,
            ..row("a record comes byte by byte", |m, unit| once(m, unit, |_, bytes| Deed::Drips(bytes)))
        },
    ]
}

async fn user(name: &str, room: &RoomAddress) -> Result<User> {
    let user = User::builder(name).room(room.to_string()).ephemeral().rungs(&[Rung::Relay]);
    Ok(user.on_get("next", |_, n: u32| async move { Ok::<_, String>(n + 1) }).join().await?)
}

async fn play(row: WayRow, number: usize, room: RoomAddress) -> Result<()> {
    let done = Arc::<Mutex<Option<usize>>>::default();
    let (does, told) = (row.does, Arc::clone(&done));
    let mut memory = Memory::default();
    let tamper = move |unit| {
        let deed = does(&mut memory, unit);
        *told.lock().unwrap_or_else(PoisonError::into_inner) = memory.done;
        deed
    };
    let way = Way::to(&room, Box::new(tamper)).await?;
    let (foo_name, bar_name) = (format!("Foo{number}"), format!("Bar{number}"));
    let (foo, bar) = (user(&foo_name, &way.address).await?, user(&bar_name, &room).await?);
    let (mut to_foo, mut to_bar) = (foo.inbox(), bar.inbox());
    let (foo_peer, bar_peer) = (bar.peer(&foo_name)?, foo.peer(&bar_name)?);
    let talk = async {
        for n in 0..MESSAGES {
            bar_peer.send(&n).await?;
            foo_peer.send(&n).await?;
            let next: u32 = bar_peer.get("next", &n).timeout(ARRIVES).await?;
            ensure!(next == n + 1, "{n} is followed by {next}");
        }
        tokio::try_join!(arrives(&mut to_foo), arrives(&mut to_bar))?;
        Ok(())
    };
    timeout(ARRIVES, talk).await.context("it does not arrive")??;
    ensure!(to_foo.try_next().is_none() && to_bar.try_next().is_none(), "more arrived than was said");
    let link = done.lock().unwrap_or_else(PoisonError::into_inner).context("nothing was done")?;
    let ends = async {
        while row.outcome == Dropped && !way.has_ended(link) {
            sleep(LOOK).await;
        }
    };
    let _ = timeout(ENDS, ends).await;
    // Where it need not end, it may: both users look for paths, and tidy up when they have two.
    ensure!(row.outcome != Dropped || way.has_ended(link), "the link on which it was done goes on");
    foo.leave().await;
    bar.leave().await;
    Ok(())
}

/// All messages, once each and in order.
async fn arrives(inbox: &mut Inbox) -> Result<()> {
    for n in 0..MESSAGES {
        let message = inbox.next().await.context("the user has left")?;
        let said: u32 = message.decode()?;
        ensure!(said == n, "{said} where {n} comes next");
    }
    Ok(())
}

#[test]
fn what_passes_somebody_arrives_once_and_in_order_as_the_table_says() -> Result<()> {
    table::run(|_| async move {
        let config = RoomConfig { listen: vec![([127, 0, 0, 1], 0).into()], ..RoomConfig::default() };
        let room = Room::bind(config).await?;
        let address = room.addresses()[0].clone();
        let played =
            side_by_side(rows(), |row| row.name, |number, row| play(row, number, address.clone())).await;
        room.shutdown().await;
        played
    })
}
