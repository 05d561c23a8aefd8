//! Peers that misbehave at a user.
//!
//! Every row has a victim of its own, a user of the real library, and a hostile peer that the Room has introduced to
//! it: as the one that dials, as the one that is dialled, or as both in turn.

mod answers;
mod bodies;
mod calls;
mod frames;
mod handshakes;
mod records;
mod sessions;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::link::Link;
use parlor_lab::hostile::outcome::Outcome;
use parlor_lab::hostile::peer::{Meeting, Peer};
use parlor_protocol::address::RoomAddress;
use parlor_room::{Room, RoomConfig, RoomHandle};
use parlor_user::{Inbox, OpenError, Rung, User, Value};
use tokio::task::JoinSet;

use crate::table::{self, Row, side_by_side};

/// The largest body that victims take, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// For somebody who means well to be answered: a peer may keep a machine busy, not for long.
const ANSWER: Duration = Duration::from_secs(20);

/// Who opens the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The hostile peer dials the victim.
    Dials,
    /// The victim dials the hostile peer.
    Answers,
    /// Both, one after another.
    Both,
}

/// A behaviour of a peer.
pub(crate) struct PeerRow {
    pub(crate) way: Way,
    pub(crate) row: Row<Scene>,
    /// What of it reaches the victim's program. Bodies that are no text are one `?`, however many.
    pub(crate) delivers: &'static [&'static str],
}

impl PeerRow {
    /// As `docs/SECURITY.md` lists it.
    pub(crate) fn listed(&self) -> String {
        let way = match self.way {
            Way::Dials => "dials",
            Way::Answers => "is dialled",
            Way::Both => "either",
        };
        format!("| {} | {way} | {} |", self.row.name, self.row.outcome)
    }
}

/// A row whose messages never reach the victim's program.
fn row(way: Way, name: &'static str, does: crate::table::Does<Scene>, outcome: Outcome) -> PeerRow {
    PeerRow { way, row: Row::new(name, does, outcome), delivers: &[] }
}

/// A row of which these texts reach the victim's program.
fn delivering(delivers: &'static [&'static str], row: PeerRow) -> PeerRow {
    PeerRow { delivers, ..row }
}

/// Where a row is played.
pub(crate) struct Scene {
    room: RoomAddress,
    /// What the Room's operator holds.
    operator: Arc<RoomHandle>,
    way: Way,
    /// The hostile peer and its name.
    peer: Peer,
    name: String,
    victim: User,
    victim_name: String,
    inbox: Inbox,
    /// How often the victim's callbacks were called.
    executed: Arc<AtomicUsize>,
    /// What the victim's program does meanwhile.
    program: JoinSet<Result<(), OpenError>>,
}

impl Scene {
    async fn set(operator: Arc<RoomHandle>, way: Way, number: usize) -> Result<Self> {
        let room = operator.addresses()[0].clone();
        let (name, victim_name) = (format!("mallory{number}"), format!("victim{number}"));
        let executed = Arc::<AtomicUsize>::default();
        let (at_once, later) = (Arc::clone(&executed), Arc::clone(&executed));
        let victim = User::builder(&victim_name)
            .room(room.to_string())
            .ephemeral()
            .rungs(&[Rung::SameHost])
            .lan_addresses(Vec::new())
            .max_body(MAX_BODY)
            .on_get("echo", move |_, text: String| {
                at_once.fetch_add(1, Ordering::Relaxed);
                async move { Ok::<_, String>(text) }
            })
            .on_get("later", move |_, text: String| {
                later.fetch_add(1, Ordering::Relaxed);
                async move {
                    tokio::task::yield_now().await;
                    Ok::<_, String>(text)
                }
            })
            .on_get("value", |_, _: Value| async move { Ok::<_, String>(()) })
            .on_get("wait", |_, (): ()| std::future::pending::<Result<(), String>>())
            .join()
            .await?;
        let inbox = victim.inbox();
        let peer = Peer::named(&room, &name, way == Way::Answers).await?;
        let program = JoinSet::new();
        Ok(Self { room, operator, way, peer, name, victim, victim_name, inbox, executed, program })
    }

    /// The victim's program wants to talk to the hostile peer.
    fn victim_connects(&mut self) -> Result<()> {
        let peer = self.victim.peer(&self.name)?;
        self.program.spawn(async move { peer.connect().await.map(drop) });
        Ok(())
    }

    /// The two are introduced.
    async fn meeting(&mut self) -> Result<Meeting> {
        if self.way == Way::Answers {
            self.victim_connects()?;
            return self.peer.is_asked_for().await;
        }
        self.peer.asks_for(&self.victim_name).await
    }

    /// A link like any other.
    async fn linked(&mut self) -> Result<Link> {
        let meeting = self.meeting().await?;
        if self.way == Way::Answers {
            self.peer.accepts(&meeting).await
        } else {
            self.peer.links(&meeting).await
        }
    }

    /// What has reached the victim's program.
    fn delivered(&mut self) -> Vec<String> {
        let mut delivered = Vec::new();
        while let Some(message) = self.inbox.try_next() {
            let text = message.decode::<String>().unwrap_or_else(|_| "?".to_owned());
            if text != "?" || delivered.last() != Some(&text) {
                delivered.push(text);
            }
        }
        delivered
    }
}

/// The rows.
pub(crate) fn rows() -> Vec<PeerRow> {
    let parts = [
        handshakes::rows(),
        answers::rows(),
        records::rows(),
        frames::rows(),
        calls::rows(),
        bodies::rows(),
        sessions::rows(),
    ];
    parts.into_iter().flatten().collect()
}

async fn play(
    row: PeerRow,
    ways: Vec<Way>,
    number: usize,
    room: Arc<RoomHandle>,
    friend: User,
) -> Result<()> {
    for way in ways {
        let number = number * 2 + usize::from(way == Way::Answers);
        let mut scene = Scene::set(Arc::clone(&room), way, number).await?;
        let found = (row.row.does)(&mut scene).await;
        row.row.expects(&found.with_context(|| format!("{way:?}"))?).with_context(|| format!("{way:?}"))?;
        let delivered = scene.delivered();
        ensure!(delivered == row.delivers, "{way:?}: delivered {delivered:?} in place of {:?}", row.delivers);
        let peer = friend.peer(&scene.victim_name)?;
        let answer = peer.get("echo", "still there?").timeout(ANSWER);
        let answer: String = answer.await.with_context(|| format!("{way:?}: the friend"))?;
        ensure!(answer == "still there?", "the friend hears {answer:?}");
        let Scene { victim, program, .. } = scene;
        drop(program);
        victim.leave().await;
    }
    Ok(())
}

#[test]
fn peers_end_as_the_table_says() -> Result<()> {
    table::run(|_| async move {
        let config = RoomConfig { listen: vec![([127, 0, 0, 1], 0).into()], ..RoomConfig::default() };
        let room = Arc::new(Room::bind(config).await?);
        let address = room.addresses()[0].clone();
        let friend = User::builder("Friend").room(address.to_string()).ephemeral().rungs(&[Rung::SameHost]);
        let friend = friend.join().await?;
        let played = side_by_side(
            rows(),
            |row| row.row.name,
            |number, row| {
                let ways = if row.way == Way::Both { vec![Way::Dials, Way::Answers] } else { vec![row.way] };
                play(row, ways, number, Arc::clone(&room), friend.clone())
            },
        )
        .await;
        friend.leave().await;
        // A row that failed may still hold it, and it ends with that.
        if let Some(room) = Arc::into_inner(room) {
            room.shutdown().await;
        }
        played
    })
}
