//! Introductions: asked for, verified, held against pins and this user's settings, remembered.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::introduction::{Cipher, Introduction, IntroductionId, SignedIntroduction};
use parlor_protocol::limits::WHOLE_LOGIN;
use parlor_protocol::name::UserName;
use parlor_protocol::presence::Encryption;
use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{self, RungOffer};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::kept::{Latest, withdraws};
use super::{Hub, Known};
use crate::clock;
use crate::error::OpenError;
use crate::events::Event;
use crate::net::room::RoomCommand;

/// Introductions that are remembered. A room in which more are under way at once is not this program's.
pub(super) const INTRODUCTIONS: usize = 4096;
/// Introductions of other keys than those seen before that are remembered, so that who comes with one is told why it is
/// refused. The oldest goes.
const REFUSED: usize = 64;
/// How often a Room that is asked too much is asked again.
const BUSY_TRIES: usize = 8;

/// An introduction and the rungs that this user takes of those it offers.
#[derive(Debug)]
pub(crate) struct Introduced {
    pub(crate) known: Arc<Known>,
    pub(crate) offers: Vec<RungOffer>,
    /// How old it is, if the Room could not be asked for one.
    pub(crate) age: Option<Duration>,
}

/// False if records would go in the clear and this user does not want that.
pub(crate) fn takes(introduction: &Introduction, encryption: Encryption) -> bool {
    introduction.cipher != Cipher::Cleartext || encryption == Encryption::Off
}

impl Known {
    /// False if records in the clear would leave the host or the LAN that the rung stands for: the Room's word is not
    /// enough for that.
    pub(crate) fn allows(&self, rung: Rung, address: IpAddr) -> bool {
        if self.introduction.cipher != Cipher::Cleartext {
            return true;
        }
        match rung {
            Rung::SameHost => address.to_canonical().is_loopback(),
            Rung::Lan => is_local(address.to_canonical()),
            Rung::Public | Rung::Relay => false,
        }
    }
}

/// Addresses that do not lead out of a local network: RFC 1918, RFC 4193, link-local.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

impl Hub {
    /// Asks the Room for an introduction; while it is gone, the latest one serves.
    pub(crate) async fn introduce(self: &Arc<Self>, peer: &UserName) -> Result<Introduced, OpenError> {
        if *peer == self.name {
            return Err(OpenError::Refused { peer: peer.clone(), why: PairRefusal::Yourself });
        }
        for _ in 0..BUSY_TRIES {
            match self.ask_for_introduction(peer).await {
                Err(OpenError::Refused { why: PairRefusal::Busy { retry_after_ms }, .. }) => {
                    tokio::time::sleep(Duration::from_millis(u64::from(retry_after_ms))).await;
                }
                answer => return answer,
            }
        }
        self.ask_for_introduction(peer).await
    }

    async fn ask_for_introduction(self: &Arc<Self>, peer: &UserName) -> Result<Introduced, OpenError> {
        if !self.room_is_up() {
            return self.latest(peer);
        }
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.lock().requests.insert(request, sender);
        let command = RoomCommand::Introduce { request, peer: peer.clone() };
        let answered = timeout(WHOLE_LOGIN, async {
            self.commands.send(command).await.ok()?;
            answer.await.ok()
        });
        let answer = answered.await;
        self.lock().requests.remove(&request);
        match answer {
            Ok(Some(Ok(introduced))) => {
                let introduced = self.know(*introduced).await?;
                if introduced.known.peer != *peer {
                    let why = format!("it introduces {} instead", introduced.known.peer);
                    return Err(OpenError::BadIntroduction { peer: peer.clone(), why });
                }
                Ok(introduced)
            }
            Ok(Some(Err(why))) => {
                if withdraws(&why) {
                    self.withdraw(|known| known.peer != *peer);
                }
                Err(refused(peer, why))
            }
            Ok(None) | Err(_) => self.latest(peer),
        }
    }

    fn latest(&self, peer: &UserName) -> Result<Introduced, OpenError> {
        let now = clock::now();
        let latest = self.lock().latest.get(peer).cloned();
        let Some(latest) = latest.filter(|latest| latest.known.until > now) else {
            return Err(OpenError::RoomLost(peer.clone()));
        };
        // Relay tokens are used up, and the relay is gone with the Room.
        let offers = latest.offers.into_iter().filter(|offer| offer.rung.is_direct()).collect();
        Ok(Introduced { age: Some(latest.known.age(now)), known: latest.known, offers })
    }

    /// Verifies an introduction and remembers it.
    pub(crate) async fn know(
        self: &Arc<Self>,
        introduced: control::Introduced,
    ) -> Result<Introduced, OpenError> {
        let (known, signed) = self.verify(&introduced)?;
        if let Err(error) = self.check_pin(&known).await {
            // Whoever is right, the two keys are of two programs: what was said of the first is void.
            self.withdraw(|other| other.peer != known.peer);
            if matches!(error, OpenError::IdentityChanged { .. }) {
                self.remember_refused(known.introduction.id);
            }
            return Err(error);
        }
        let now = clock::now();
        self.remember(&known, now);
        self.introduced.notify_waiters();
        let mut offers = introduced.rungs;
        offers.retain(|offer| self.settings.rungs.contains(&offer.rung));
        let latest = Latest { known: Arc::clone(&known), offers: offers.clone(), signed };
        self.set_latest(latest, now);
        Ok(Introduced { known, offers, age: None })
    }

    fn verify(
        &self,
        introduced: &control::Introduced,
    ) -> Result<(Arc<Known>, SignedIntroduction), OpenError> {
        let bad = |why: String| OpenError::BadIntroduction { peer: self.name.clone(), why };
        let introduction =
            introduced.introduction.verify(&self.room).map_err(|error| bad(error.to_string()))?;
        let Some((me, peer)) = introduction.sides(&self.name) else {
            return Err(bad("it does not name this user".to_owned()));
        };
        if me.identity != self.identity.public() {
            return Err(bad("it names this user with another identity".to_owned()));
        }
        let (peer, identity) = (peer.name.clone(), peer.identity);
        if !takes(&introduction, self.settings.encryption) {
            let why = "it says that records go in the clear, and this user wants encryption".to_owned();
            return Err(OpenError::BadIntroduction { peer, why });
        }
        let until = clock::now() + introduction.lifetime();
        let known = Arc::new(Known { introduction, peer, identity, until });
        Ok((known, introduced.introduction.clone()))
    }

    /// From now on a peer may come with this introduction.
    pub(super) fn remember(&self, known: &Arc<Known>, now: Instant) {
        let mut introductions = self.introductions.lock().unwrap_or_else(PoisonError::into_inner);
        if introductions.len() >= INTRODUCTIONS {
            introductions.retain(|_, known| known.until > now);
        }
        if introductions.len() >= INTRODUCTIONS
            && let Some(oldest) = introductions.iter().min_by_key(|(_, known)| known.until).map(|(id, _)| *id)
        {
            introductions.remove(&oldest);
        }
        introductions.insert(known.introduction.id, Arc::clone(known));
    }

    /// Who comes with this introduction is told that its key is not the one seen before.
    fn remember_refused(&self, id: IntroductionId) {
        let mut state = self.lock();
        if state.refused.len() >= REFUSED {
            state.refused.pop_front();
        }
        state.refused.push_back(id);
        drop(state);
        self.introduced.notify_waiters();
    }

    /// Holds a peer's key against the one seen before.
    async fn check_pin(self: &Arc<Self>, known: &Known) -> Result<(), OpenError> {
        let (peer, identity) = (&known.peer, &known.identity);
        let seen_in_this_run = self.lock().pins.get(peer).copied();
        let pinned = match seen_in_this_run {
            Some(pinned) => Some(pinned),
            // A key that cannot be compared is not believed.
            None => self.pin_on_disk(peer).await.map_err(|error| {
                let why = format!("its key cannot be held against the one seen before: {error}");
                OpenError::BadIntroduction { peer: peer.clone(), why }
            })?,
        };
        match pinned {
            Some(pinned) if pinned != *identity => {
                let error = OpenError::IdentityChanged {
                    peer: peer.clone(),
                    pinned: pinned.fingerprint(),
                    seen: identity.fingerprint(),
                };
                self.tell(Event::IdentityChanged { peer: peer.clone(), why: error.to_string() });
                Err(error)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The key that is kept for a peer. The disk is waited for where a thread may block.
    async fn pin_on_disk(&self, peer: &UserName) -> Result<Option<PublicIdentity>, String> {
        let (data, room, peer) = (self.data.clone(), self.room.fingerprint(), peer.clone());
        if !data.is_lasting() {
            return data.peer_pin(room, &peer).map_err(|error| error.to_string());
        }
        match self.tasks.spawn_blocking(move || data.peer_pin(room, &peer)).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A peer has proved this key: it is the one expected from now on. False if another one was proved first.
    pub(crate) fn pin(self: &Arc<Self>, known: &Known) -> bool {
        let (peer, identity) = (known.peer.clone(), known.identity);
        match self.lock().pins.entry(peer.clone()) {
            Entry::Occupied(pinned) => return *pinned.get() == identity,
            Entry::Vacant(place) => place.insert(identity),
        };
        if peer.is_guest() {
            return true;
        }
        let (data, room) = (self.data.clone(), self.room.fingerprint());
        self.tasks.spawn_blocking(move || {
            if let Ok(Some(_)) = data.peer_pin(room, &peer) {
                return;
            }
            if let Err(error) = data.pin_peer(room, &peer, &identity) {
                tracing::warn!(%peer, %error, "the key of a peer cannot be kept");
            }
        });
        true
    }

    /// Forgets the key seen before under a name. True if there was one.
    pub(crate) fn forget(&self, peer: &UserName) -> Result<bool, crate::data::DataError> {
        let here = self.lock().pins.remove(peer).is_some();
        self.withdraw(|known| known.peer != *peer);
        Ok(self.data.forget_peer(self.room.fingerprint(), peer)? || here)
    }
}

fn refused(peer: &UserName, why: PairRefusal) -> OpenError {
    let peer = peer.clone();
    match why {
        PairRefusal::Offline => OpenError::Offline(peer),
        PairRefusal::NoSuchPeer => OpenError::NoSuchPeer(peer),
        why => OpenError::Refused { peer, why },
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::identity::Identity;
    use parlor_protocol::introduction::Party;

    use super::super::harness::{ROOM, bar_asks, foo};
    use super::*;

    /// Bar asks for Foo, in the words of a Room that lies so, under this Room's key.
    fn told(room: &[u8; 32], cipher: Cipher, lie: impl FnOnce(&mut Introduction)) -> control::Introduced {
        let truth = bar_asks(cipher, &[Rung::Lan]);
        let mut said = truth.introduction.verify(&Identity::from_seed(&ROOM).public()).unwrap();
        lie(&mut said);
        control::Introduced { introduction: said.sign(&Identity::from_seed(room)), ..truth }
    }

    fn someone(party: &mut Party, seed: u8) {
        let identity = Identity::from_seed(&[seed; 32]);
        (party.identity, party.noise) = (identity.public(), identity.noise_certificate());
    }

    /// How many introductions a peer may come with, and how many it would be told about.
    fn remembered(hub: &Hub) -> (usize, usize) {
        (hub.introductions.lock().unwrap().len(), hub.lock().refused.len())
    }

    #[tokio::test]
    async fn what_a_room_says_that_lies_is_refused_and_nobody_may_come_with_it() {
        let (hub, _told) = foo(Encryption::On);
        let aes = Cipher::AesGcm;
        let lies = [
            ("of another Room", told(&[9; 32], aes, |_| {})),
            (
                "under its name only",
                told(&ROOM, aes, |said| said.room = Identity::from_seed(&[9; 32]).public()),
            ),
            ("of two others", told(&ROOM, aes, |said| said.asked.name = "Baz".parse().unwrap())),
            ("of somebody else as this user", told(&ROOM, aes, |said| someone(&mut said.asked, 7))),
            (
                "with a key of its own for Bar's handshakes",
                told(&ROOM, aes, |said| said.asker.noise = Identity::from_seed(&ROOM).noise_certificate()),
            ),
            ("in the clear", told(&ROOM, Cipher::Cleartext, |_| {})),
        ];
        for (lie, introduced) in lies {
            let error = hub.know(introduced).await.unwrap_err();
            assert!(matches!(error, OpenError::BadIntroduction { .. }), "{lie}: {error}");
            assert_eq!(remembered(&hub), (0, 0), "{lie}");
        }
        hub.know(told(&ROOM, aes, |_| {})).await.unwrap();
        assert_eq!(remembered(&hub), (1, 0), "the truth");
    }

    #[tokio::test]
    async fn another_key_under_a_name_is_refused_and_only_so_many_are_remembered_for_that() {
        let (hub, _told) = foo(Encryption::On);
        let known = hub.know(bar_asks(Cipher::AesGcm, &[Rung::Lan])).await.unwrap().known;
        assert!(hub.pin(&known));
        for n in 0..=u8::try_from(REFUSED).unwrap() {
            let other = told(&ROOM, Cipher::AesGcm, |said| {
                said.id = IntroductionId([n; 16]);
                someone(&mut said.asker, 7);
            });
            let error = hub.know(other).await.unwrap_err();
            assert!(matches!(error, OpenError::IdentityChanged { .. }), "{error}");
        }
        assert_eq!(remembered(&hub), (0, REFUSED), "what was said of the first key is void, too");
        assert_eq!(hub.lock().refused.front(), Some(&IntroductionId([1; 16])), "the oldest went");
    }
}
