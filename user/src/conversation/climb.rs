//! Attempts on the ladder: dial, shake hands, take the link in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parlor_protocol::limits::LINK_ATTEMPT;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::RungOffer;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::Conversation;
use super::links::{Incoming, LinkError};
use crate::clock;
use crate::core::ladder::{Attempt, Target, improves, schedule, sign_of_life};
use crate::error::OpenError;
use crate::hub::{Hub, Introduced, Known};
use crate::net::dial::{dial, dial_relay};

/// How long the peer's dial is waited for when all of this side's attempts have failed.
const PEER_DIALS: Duration = Duration::from_secs(1);

/// How an attempt ended.
enum Outcome {
    Linked(Rung),
    /// A link at least as good was there first.
    NotNeeded(Rung),
    Failed(String),
}

/// What came of the attempts of one introduction.
struct Tried {
    failures: Vec<String>,
    linked: bool,
}

impl Conversation {
    /// Asks the Room for an introduction and tries its rungs.
    pub(super) async fn search(self: Arc<Self>, hub: Arc<Hub>) {
        let (gone, overtaken) = {
            let state = self.lock();
            (state.gone.clone(), state.overtaken.clone())
        };
        let result = tokio::select! {
            // It may have come back in the same breath.
            () = gone.cancelled() => if hub.is_online(&self.peer) {
                Ok(())
            } else {
                Err(OpenError::Offline(self.peer.clone()))
            },
            () = overtaken.cancelled() => Ok(()),
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
        let called_off = self.lock().called_off.clone();
        let Introduced { known, offers, age } = tokio::select! {
            () = hub.stop.cancelled() => return Err(OpenError::Left),
            () = called_off.cancelled() => return Ok(()),
            introduced = hub.introduce(&self.peer) => introduced?,
        };
        self.introduced(age);
        let attempt = self.attempt(hub, known, &offers, false);
        let done = tokio::select! {
            () = called_off.cancelled() => Ok(()),
            done = attempt => done,
        };
        match done {
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
        let called_off = self.lock().called_off.clone();
        tokio::select! {
            () = called_off.cancelled() => {}
            // What became of it is in the story; the peer is the one who waits.
            _ = self.attempt(&hub, known, &offers, true) => {}
        }
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
        let best = offers.iter().map(|offer| offer.rung).min();
        self.tell_offers(offers, asked, best, began);
        let schedule = schedule(offers, asked);
        let mut attempts = JoinSet::new();
        for &attempt in &schedule {
            let (this, hub, known) = (Arc::clone(self), Arc::clone(hub), Arc::clone(&known));
            let tried = async move { this.try_rung(&hub, &known, attempt, asked, began).await };
            attempts.spawn(async move { (attempt, tried.await) });
        }
        let enough = |rung: Rung| best.is_none_or(|best| rung <= best);
        let heard = || self.sound_rung(asked, began).is_some_and(enough);
        let tried = tokio::select! {
            () = hub.stop.cancelled() => return Err(OpenError::Left),
            tried = self.gather(attempts, schedule, enough, heard) => tried,
        };
        if offers.iter().any(is_the_peers) && !tried.linked && self.path().is_none() {
            // The peer's own dial may be on its way.
            let _ = timeout(PEER_DIALS, self.link_comes()).await;
        }
        self.tell_who_did_not_come(offers);
        // A link that came up and ended since is the keeper's to follow up, with a new introduction.
        if tried.linked || self.path().is_some() {
            return Ok(());
        }
        let nothing = || "nothing could be tried".to_owned();
        let tried = if tried.failures.is_empty() { nothing() } else { tried.failures.join("; ") };
        Err(OpenError::NoPath { peer: self.peer.clone(), tried })
    }

    /// Waits until every attempt has come to something, or one to `enough`.
    async fn gather(
        &self,
        mut attempts: JoinSet<(Attempt, Outcome)>,
        mut open: Vec<Attempt>,
        enough: impl Fn(Rung) -> bool,
        heard: impl Fn() -> bool,
    ) -> Tried {
        let mut tried = Tried { failures: Vec::new(), linked: false };
        while let Some(ended) = attempts.join_next().await {
            let Ok((attempt, outcome)) = ended else { continue };
            open.retain(|other| *other != attempt);
            match outcome {
                Outcome::Failed(why) => tried.failures.push(format!("{}: {why}", attempt.rung)),
                Outcome::Linked(rung) => {
                    tried.linked = true;
                    if enough(rung) {
                        break;
                    }
                }
                Outcome::NotNeeded(by) => self.tell_of(attempt, &format!("not tried: {by} works")),
            }
            if heard() {
                break;
            }
        }
        if let Some((by, _)) = self.path() {
            for attempt in open {
                self.tell_of(attempt, &format!("not tried to the end: {by} works"));
            }
        }
        tried
    }

    /// Waits until some link is up, without asking for one.
    async fn link_comes(&self) {
        loop {
            let news = self.room.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.path().is_some() {
                return;
            }
            news.await;
        }
    }

    fn tell_offers(&self, offers: &[RungOffer], asked: bool, best: Option<Rung>, now: Instant) {
        let mut state = self.lock();
        state.keeper.offered(best);
        let whose = if asked { "the peer asked; " } else { "" };
        for offer in offers {
            let what = match (offer.rung, offer.dial.as_slice()) {
                (Rung::Relay, _) => "offered: the Room's relay".to_owned(),
                (_, []) => "offered: the peer is the one to dial".to_owned(),
                (_, dial) => {
                    let addresses: Vec<String> = dial.iter().map(ToString::to_string).collect();
                    format!("offered: {}", addresses.join(", "))
                }
            };
            state.story.tell(now, Some(offer.rung), format!("{whose}{what}"));
        }
    }

    fn tell_of(&self, attempt: Attempt, what: &str) {
        let what = format!("{}: {what}", place(attempt.target));
        self.lock().story.tell(clock::now(), Some(attempt.rung), what);
    }

    /// A better rung on which nothing came from the peer, which was to dial.
    fn tell_who_did_not_come(&self, offers: &[RungOffer]) {
        let path = self.path().map(|(rung, _)| rung);
        let what = "nothing came from the peer: it cannot reach this machine's port (a firewall or NAT here, or --port)";
        for offer in offers.iter().filter(|offer| is_the_peers(offer) && improves(offer.rung, path)) {
            self.lock().story.tell(clock::now(), Some(offer.rung), what.to_owned());
        }
    }

    async fn try_rung(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        known: &Arc<Known>,
        attempt: Attempt,
        asked: bool,
        began: Instant,
    ) -> Outcome {
        // A timer of no time at all takes a millisecond or two all the same.
        if !attempt.after.is_zero() {
            sleep(attempt.after).await;
        }
        if asked {
            self.await_sign_of_life(attempt.rung, began).await;
        }
        if let Some(by) = self.sound_rung(asked, began).filter(|&by| !improves(attempt.rung, Some(by))) {
            return Outcome::NotNeeded(by);
        }
        let started = clock::now();
        let linked = timeout(LINK_ATTEMPT, self.link_up(hub, known, attempt, asked)).await;
        let took = started.elapsed().as_millis();
        match linked.unwrap_or(Err(LinkError::TimedOut)) {
            Ok(()) => {
                self.tell_of(attempt, &format!("works, after {took} ms"));
                Outcome::Linked(attempt.rung)
            }
            Err(error) => {
                let why = in_words(&error, attempt.rung);
                self.tell_of(attempt, &format!("{why} (after {took} ms)"));
                Outcome::Failed(format!("{}: {why}", place(attempt.target)))
            }
        }
    }

    /// A link that would make the attempt needless has a few round trips to show that it lives.
    async fn await_sign_of_life(&self, rung: Rung, began: Instant) {
        let believed = {
            let state = self.lock();
            let sound = state.channel.sound_rung().is_some_and(|by| !improves(rung, Some(by)));
            state.channel.path().filter(|_| sound).map(|(_, _, rtt)| rtt)
        };
        let Some(rtt) = believed else { return };
        if improves(rung, self.sound_rung(true, began)) {
            sleep_until((began + sign_of_life(rtt)).into()).await;
        }
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

fn is_the_peers(offer: &RungOffer) -> bool {
    offer.rung.is_direct() && offer.dial.is_empty()
}

fn place(target: Target) -> String {
    match target {
        Target::Address(address) => address.to_string(),
        Target::Relay(_) => "the Room's relay".to_owned(),
    }
}

/// Why an attempt came to nothing, in words that say where to look.
fn in_words(error: &LinkError, rung: Rung) -> String {
    use std::io::ErrorKind;
    let kind = match error {
        LinkError::Io(error) => error.kind(),
        LinkError::TimedOut => ErrorKind::TimedOut,
        other => return other.to_string(),
    };
    match kind {
        ErrorKind::TimedOut if rung == Rung::Relay => "the peer did not come there in time",
        ErrorKind::TimedOut => "no answer: a firewall or NAT drops it, or the address is of another network",
        ErrorKind::ConnectionRefused => "refused: the peer listens there no more, or a firewall says no",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "this machine has no route there",
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
            "hung up: what listens there is not the peer, or the peer remembers another key of this user, or knows \
             nothing of this introduction"
        }
        _ => return error.to_string(),
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use std::io;

    use parlor_protocol::introduction::Cipher;
    use parlor_protocol::presence::Encryption;

    use super::*;
    use crate::hub::harness;

    #[test]
    fn what_the_system_says_of_a_dial_is_told_in_words_to_act_on() {
        let told = |kind: io::ErrorKind| in_words(&LinkError::Io(kind.into()), Rung::Lan);
        assert!(told(io::ErrorKind::ConnectionRefused).contains("firewall says no"));
        assert!(told(io::ErrorKind::TimedOut).contains("NAT drops it"));
        assert!(told(io::ErrorKind::NetworkUnreachable).contains("no route"));
        assert_eq!(in_words(&LinkError::TimedOut, Rung::Relay), "the peer did not come there in time");
        assert_eq!(in_words(&LinkError::Left, Rung::Lan), LinkError::Left.to_string());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_and_can_only_wait_asks_the_room_for_nothing() {
        let (hub, mut told) = harness::foo(Encryption::On);
        let introduced = hub.know(harness::bar_asks(Cipher::ChaChaPoly, &[Rung::Lan])).await.unwrap();
        let conversation = hub.conversation(&introduced.known.peer);
        Arc::clone(&conversation).asked(Arc::clone(&hub), introduced.known, introduced.offers).await;
        // A keeper would have looked by now.
        sleep(Duration::from_secs(60)).await;
        assert!(told.try_recv().is_err(), "the Room was asked");
        assert!(conversation.is_at_rest());
        let story: Vec<String> = conversation.story().into_iter().map(|step| step.what).collect();
        assert_eq!(story.len(), 2, "{story:?}");
        assert!(story[0].contains("the peer is the one to dial"), "{story:?}");
        assert!(story[1].contains("nothing came from the peer"), "{story:?}");
    }
}
