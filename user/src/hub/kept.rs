//! Introductions that outlive the program.
//!
//! The latest introduction to each peer is kept, with the addresses the Room offered, for the time when the Room
//! is gone. A task writes them where a thread may block: at once when something has changed, then again at the
//! earliest after [`REST`], and a last time when the user leaves.
//!
//! An introduction ends with its time, and before that when it is *withdrawn*: the Room does not introduce the two
//! any more or lists the peer with another key, it allows no records in the clear any more, it does not let this
//! user in again, or the user forgets the peer. It is then good for nothing here, neither to dial nor to be dialed.

use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use parlor_protocol::introduction::SignedIntroduction;
use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::wire::control::RungOffer;

use super::introductions::INTRODUCTIONS;
use super::{Hub, Known};
use crate::clock;
use crate::data::{CachedIntroduction, CachedIntroductions};
use crate::start::{Valid, keep};

/// From one write to the next.
const REST: Duration = Duration::from_secs(1);
/// Two introductions that cross were issued within so many seconds: what lies between is the disk that keeps the pins.
const CROSSING: u64 = 60;

/// The latest introduction to a peer.
#[derive(Debug, Clone)]
pub(super) struct Latest {
    pub(super) known: Arc<Known>,
    pub(super) offers: Vec<RungOffer>,
    pub(super) signed: SignedIntroduction,
}

impl Hub {
    /// Takes in what was kept by an earlier run.
    pub(super) fn restore(&self, kept: Vec<Valid>) {
        let (now, wall) = (clock::now(), clock::unix_now());
        for Valid { introduction, identity, cached } in kept {
            let age = Duration::from_secs(wall.saturating_sub(cached.received_at));
            let until = now + introduction.lifetime().saturating_sub(age);
            let known = Arc::new(Known { introduction, peer: cached.peer.clone(), identity, until });
            let mut offers = cached.rungs;
            offers.retain(|offer| self.settings.rungs.contains(&offer.rung));
            self.remember(&known, now);
            self.lock().latest.insert(cached.peer, Latest { known, offers, signed: cached.introduction });
        }
    }

    /// From now on this is the latest introduction to its peer.
    pub(super) fn set_latest(&self, latest: Latest, now: Instant) {
        let mut state = self.lock();
        if state.latest.len() >= INTRODUCTIONS {
            state.latest.retain(|_, latest| latest.known.until > now);
        }
        let full = state.latest.len() >= INTRODUCTIONS;
        match state.latest.entry(latest.known.peer.clone()) {
            Entry::Occupied(before) if overtook(&before.get().known, &latest.known) => {}
            Entry::Occupied(mut before) => {
                before.insert(latest);
            }
            Entry::Vacant(_) if full => {}
            Entry::Vacant(place) => {
                place.insert(latest);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What belongs to the introductions has changed. Nothing is written for a user that has none.
    pub(super) fn room_said_more(&self) {
        if !self.lock().latest.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Drops every introduction that does not `stay`.
    pub(super) fn withdraw(&self, stay: impl Fn(&Known) -> bool) {
        let mut introductions = self.introductions.lock().unwrap_or_else(PoisonError::into_inner);
        let before = introductions.len();
        introductions.retain(|_, known| stay(known));
        let withdrawn = before > introductions.len();
        drop(introductions);
        self.lock().latest.retain(|_, latest| stay(&latest.known));
        if withdrawn {
            self.changed.notify_one();
        }
    }

    /// Writes what is to be kept, until the user leaves.
    pub(crate) async fn keep_introductions(self: Arc<Self>, port: u16) {
        loop {
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = self.stop.cancelled() => return,
            }
            self.write_introductions(port).await;
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(REST) => {}
            }
        }
    }

    async fn write_introductions(&self, port: u16) {
        let cache = self.to_be_kept(port);
        let (data, name, identity) = (self.data.clone(), self.name.clone(), Arc::clone(&self.identity));
        let written = self.tasks.spawn_blocking(move || keep(&data, &name, &identity, cache));
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "introductions cannot be kept for the next start"),
            Err(error) => tracing::warn!(%error, "introductions were not kept for the next start"),
        }
    }

    fn to_be_kept(&self, port: u16) -> CachedIntroductions {
        let (now, wall) = (clock::now(), clock::unix_now());
        let state = self.lock();
        let good = state.latest.values().filter(|latest| latest.known.until > now);
        let entry = |latest: &Latest| CachedIntroduction {
            peer: latest.known.peer.clone(),
            introduction: latest.signed.clone(),
            rungs: latest.offers.iter().filter(|offer| offer.rung.is_direct()).cloned().collect(),
            // By the calendar as it stands now: it may have been set since.
            received_at: wall.saturating_sub(latest.known.age(now).as_secs()),
        };
        // A guest is gone with its name.
        let entries = good.filter(|latest| !latest.known.peer.is_guest()).map(entry).collect();
        drop(state);
        CachedIntroductions { room: self.room, blacklist: self.blacklist.nets(), port, entries }
    }
}

impl Known {
    /// How long ago it was received.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let left = self.until.saturating_duration_since(now);
        self.introduction.lifetime().saturating_sub(left)
    }
}

/// True if `before` was issued after `latest`, although it was verified first: the two crossed. A Room's clock that is set
/// back makes its later word look much older, and yet it is the latest.
fn overtook(before: &Known, latest: &Known) -> bool {
    let (before, latest) = (before.introduction.issued_at, latest.introduction.issued_at);
    (1..=CROSSING).contains(&before.saturating_sub(latest))
}

/// True if the Room's word means that earlier introductions of the two are void.
pub(super) fn withdraws(why: &PairRefusal) -> bool {
    match why {
        PairRefusal::NoSuchPeer
        | PairRefusal::Blocked
        | PairRefusal::EncryptionMismatch { .. }
        | PairRefusal::EncryptionRequired
        | PairRefusal::NoCleartextPath => true,
        PairRefusal::Offline | PairRefusal::Yourself | PairRefusal::NoPath | PairRefusal::Busy { .. } => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::introduction::Cipher;
    use parlor_protocol::name::UserName;
    use parlor_protocol::presence::Encryption;
    use parlor_protocol::rung::Rung;
    use parlor_protocol::wire::control::{Member, Roster};

    use super::super::harness::{bar_asks, bar_asks_at, foo, joined};
    use super::*;
    use crate::error::OpenError;
    use crate::net::room::{Joined, LostReason, RoomEvent};

    /// Foo, introduced to Bar, with a Room that is gone.
    async fn acquainted(cipher: Cipher) -> Arc<Hub> {
        let (hub, _) = foo(Encryption::Off);
        hub.know(bar_asks(cipher, &[Rung::Lan])).await.unwrap();
        let (why, retry_in) = (LostReason::Silent, Duration::ZERO);
        hub.on_room_event(RoomEvent::Lost { why, retry_in });
        hub
    }

    async fn is_known(hub: &Arc<Hub>) -> bool {
        let bar: UserName = "Bar".parse().unwrap();
        match hub.introduce(&bar).await {
            Ok(introduced) => introduced.age.is_some(),
            Err(OpenError::RoomLost(_)) => {
                assert!(hub.introductions.lock().unwrap().is_empty());
                false
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Whether an introduction on the lan is the latest after one on the same host, by when each was issued.
    async fn the_second_is_the_latest(first: u64, second: u64) -> bool {
        let (hub, _) = foo(Encryption::On);
        hub.know(bar_asks_at(first, Cipher::ChaChaPoly, &[Rung::SameHost])).await.unwrap();
        hub.know(bar_asks_at(second, Cipher::ChaChaPoly, &[Rung::Lan])).await.unwrap();
        hub.on_room_event(RoomEvent::Lost { why: LostReason::Silent, retry_in: Duration::ZERO });
        let introduced = hub.introduce(&"Bar".parse().unwrap()).await.unwrap();
        introduced.offers[0].rung == Rung::Lan
    }

    #[tokio::test]
    async fn a_room_has_the_last_word_also_when_its_clock_was_set_back() {
        const DAY: u64 = 86_400;
        assert!(the_second_is_the_latest(9 * DAY, 9 * DAY + 1).await);
        assert!(!the_second_is_the_latest(9 * DAY + 1, 9 * DAY).await, "the two crossed");
        assert!(the_second_is_the_latest(9 * DAY, 8 * DAY).await, "the clock was set back");
    }

    fn member(seed: u8) -> Member {
        let identity = parlor_protocol::identity::Identity::from_seed(&[seed; 32]).public();
        Member { name: "Bar".parse().unwrap(), identity }
    }

    #[tokio::test]
    async fn an_introduction_serves_until_the_rooms_word_contradicts_it() {
        let hub = acquainted(Cipher::ChaChaPoly).await;
        assert!(is_known(&hub).await);
        for (seed, known) in [(2, true), (9, false)] {
            let roster = Roster { joined: vec![member(seed)], left: Vec::new(), complete: true };
            hub.on_room_event(RoomEvent::Roster(roster));
            assert_eq!(is_known(&hub).await, known, "{seed}");
        }
    }

    #[tokio::test]
    async fn a_room_that_forbids_clear_records_on_its_return_voids_what_it_allowed_before() {
        for (cipher, stays) in [(Cipher::ChaChaPoly, true), (Cipher::Cleartext, false)] {
            let hub = acquainted(cipher).await;
            assert!(is_known(&hub).await);
            hub.on_room_event(RoomEvent::Back(Box::new(Joined { allow_unencrypted: false, ..joined() })));
            hub.on_room_event(RoomEvent::Lost { why: LostReason::Silent, retry_in: Duration::ZERO });
            assert_eq!(is_known(&hub).await, stays, "{cipher}");
        }
    }

    #[tokio::test]
    async fn who_is_not_let_in_again_keeps_no_introductions() {
        use parlor_protocol::refusal::{CloseCode, LoginRefusal};
        use parlor_protocol::wire::control::Closing;
        let ended = |code| crate::error::JoinError::Ended(Closing { code, reconnect_in_ms: None });
        let credentials = crate::error::JoinError::Refused(LoginRefusal::Credentials);
        for (error, stays) in [
            (ended(CloseCode::Removed), false),
            (ended(CloseCode::Banned), false),
            (credentials, false),
            (ended(CloseCode::Replaced), true),
        ] {
            let hub = acquainted(Cipher::ChaChaPoly).await;
            hub.on_room_event(RoomEvent::Refused(error));
            assert_eq!(is_known(&hub).await, stays);
        }
    }

    #[test]
    fn a_refusal_to_introduce_voids_earlier_introductions_unless_it_passes_by_itself() {
        assert!(withdraws(&PairRefusal::NoSuchPeer) && withdraws(&PairRefusal::Blocked));
        assert!(!withdraws(&PairRefusal::Offline) && !withdraws(&PairRefusal::Busy { retry_after_ms: 1 }));
    }
}
