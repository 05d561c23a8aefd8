//! Attempts on the ladder: dial, shake hands, take the link in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parlor_protocol::limits::LINK_ATTEMPT;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::RungOffer;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Conversation;
use super::links::{Incoming, LinkError};
use crate::clock;
use crate::core::ladder::{Attempt, Target, improves, schedule};
use crate::error::OpenError;
use crate::hub::{Hub, Introduced, Known};
use crate::net::dial::{dial, dial_relay};

/// How long the peer's dial is waited for when all of this side's attempts have failed.
const PEER_DIALS: Duration = Duration::from_secs(1);

/// How an attempt ended.
enum Outcome {
    Linked(Rung),
    /// A link at least as good was there first.
    NotNeeded,
    Failed(Rung, String),
}

impl Conversation {
    /// Asks the Room for an introduction and tries its rungs.
    pub(super) async fn search(self: Arc<Self>, hub: Arc<Hub>) {
        let gone = self.lock().gone.clone();
        let result = tokio::select! {
            () = gone.cancelled() => Err(OpenError::Offline(self.peer.clone())),
            result = self.seek(&hub) => result,
        };
        let now = clock::now();
        let mut state = self.lock_keeper();
        if let Err(error) = &result {
            state.story.tell(now, None, error.to_string());
        }
        state.keeper.searched(result, now);
        drop(state);
        self.look.notify_one();
    }

    async fn seek(self: &Arc<Self>, hub: &Arc<Hub>) -> Result<(), OpenError> {
        let Introduced { known, offers, age } = tokio::select! {
            () = hub.stop.cancelled() => return Err(OpenError::Left),
            introduced = hub.introduce(&self.peer) => introduced?,
        };
        self.introduced(age);
        match self.attempt(hub, known, &offers, false).await {
            // The Room would have offered more than what is remembered: it is waited for.
            Err(OpenError::NoPath { .. }) if !hub.room_is_up() => Err(OpenError::RoomLost(self.peer.clone())),
            done => done,
        }
    }

    /// There is an introduction: one of the Room, or of so long ago because the Room cannot be asked.
    fn introduced(&self, age: Option<Duration>) {
        let mut state = self.lock_keeper();
        if let Some(age) = age {
            let ago = humantime::format_duration(Duration::from_secs(age.as_secs()));
            let what =
                format!("the Room cannot be asked: going by what it said {ago} ago, without its relay");
            state.story.tell(clock::now(), None, what);
        }
        state.keeper.introduced();
    }

    /// The peer asked for this introduction: does this side's part.
    pub(crate) async fn asked(self: Arc<Self>, hub: Arc<Hub>, known: Arc<Known>, offers: Vec<RungOffer>) {
        // What became of it is in the story; the peer is the one who waits.
        let _ = self.attempt(&hub, known, &offers, true).await;
    }

    async fn attempt(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        known: Arc<Known>,
        offers: &[RungOffer],
        asked: bool,
    ) -> Result<(), OpenError> {
        let began = clock::now();
        if asked {
            self.probe();
        }
        let is_the_peers = |offer: &&RungOffer| offer.rung.is_direct() && offer.dial.is_empty();
        for offer in offers.iter().filter(is_the_peers) {
            let what = "offered: the peer is the one to dial";
            self.lock().story.tell(began, Some(offer.rung), what.to_owned());
        }
        let mut attempts = JoinSet::new();
        for attempt in schedule(offers, asked) {
            let (this, hub, known) = (Arc::clone(self), Arc::clone(hub), Arc::clone(&known));
            attempts.spawn(async move { this.try_rung(&hub, &known, attempt, asked, began).await });
        }
        let best = offers.iter().map(|offer| offer.rung).min();
        let (mut failures, mut linked) = (Vec::new(), false);
        loop {
            let outcome = tokio::select! {
                () = hub.stop.cancelled() => return Err(OpenError::Left),
                outcome = attempts.join_next() => outcome,
            };
            match outcome {
                None => break,
                Some(Ok(Outcome::Failed(rung, why))) => failures.push(format!("{rung}: {why}")),
                Some(Ok(Outcome::Linked(rung))) => {
                    linked = true;
                    if best.is_none_or(|best| rung <= best) {
                        break;
                    }
                }
                Some(Ok(Outcome::NotNeeded) | Err(_)) => {}
            }
            let sound = self.sound_rung(asked, began);
            if sound.is_some_and(|rung| best.is_none_or(|best| rung <= best)) {
                break;
            }
        }
        let peer_dials = offers.iter().any(|offer| is_the_peers(&offer));
        if peer_dials && !linked && self.path().is_none() {
            // The peer's own dial may be on its way.
            let _ = timeout(PEER_DIALS, self.linked()).await;
        }
        // A link that came up and ended since is the keeper's to follow up, with a new introduction.
        if linked || self.path().is_some() {
            return Ok(());
        }
        let tried =
            if failures.is_empty() { "nothing could be tried".to_owned() } else { failures.join("; ") };
        Err(OpenError::NoPath { peer: self.peer.clone(), tried })
    }

    async fn try_rung(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        known: &Arc<Known>,
        attempt: Attempt,
        asked: bool,
        began: Instant,
    ) -> Outcome {
        sleep(attempt.after).await;
        if !improves(attempt.rung, self.sound_rung(asked, began)) {
            return Outcome::NotNeeded;
        }
        let started = clock::now();
        let linked = timeout(LINK_ATTEMPT, self.link_up(hub, known, attempt, asked)).await;
        let place = match attempt.target {
            Target::Address(address) => format!("{address}"),
            Target::Relay(_) => "the Room".to_owned(),
        };
        let took = started.elapsed().as_millis();
        let (what, outcome) = match linked.unwrap_or(Err(LinkError::TimedOut)) {
            Ok(()) => (format!("tried {place}: works, after {took} ms"), Outcome::Linked(attempt.rung)),
            Err(error) => {
                let why = format!("{place}: {error}");
                (format!("tried {place}: {error}, after {took} ms"), Outcome::Failed(attempt.rung, why))
            }
        };
        self.lock().story.tell(clock::now(), Some(attempt.rung), what);
        outcome
    }

    /// The rung that needs no help. A suspect link does. The side that was asked may not know that the link is
    /// dead in the other direction, so it counts one only that has given a sign of life since.
    fn sound_rung(&self, asked: bool, began: Instant) -> Option<Rung> {
        let state = self.lock();
        if asked { state.channel.rung_heard_since(began) } else { state.channel.sound_rung() }
    }

    /// Asks the peer for a sign of life on the link that carries the data, now.
    pub(super) fn probe(&self) {
        let mut state = self.lock();
        state.channel.probe();
        let active = state.active.clone();
        drop(state);
        if let Some(link) = active {
            link.flush(self);
        }
    }

    async fn link_up(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        known: &Arc<Known>,
        attempt: Attempt,
        asked: bool,
    ) -> Result<(), LinkError> {
        match attempt.target {
            Target::Address(address) => {
                if !known.allows(attempt.rung, address.ip()) {
                    return Err(LinkError::ClearAbroad);
                }
                let stream = dial(address, known.introduction.id, LINK_ATTEMPT, &hub.blacklist).await?;
                self.open_link(hub, stream, attempt.rung, known).await?;
            }
            Target::Relay(token) => {
                let room = [hub.room_socket()];
                let stream = dial_relay(&room, &token, LINK_ATTEMPT).await?;
                if asked {
                    let rungs = vec![Rung::Relay];
                    self.answer_link(hub, Incoming { stream, known: Arc::clone(known), rungs }).await?;
                } else {
                    self.open_link(hub, stream, Rung::Relay, known).await?;
                }
            }
        }
        Ok(())
    }
}
