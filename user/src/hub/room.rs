//! What the Room says, and what it is told.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parlor_protocol::introduction::Cipher;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{self, Roster};
use tokio::sync::mpsc;

use super::{Answer, Hub, Introduced};
use crate::core::roster::Change;
use crate::error::OpenError;
use crate::events::Event;
use crate::net::interfaces::{self, Reachability};
use crate::net::room::{Joined, LostReason, RoomCommand, RoomEvent};

/// How often this machine's addresses are looked at.
const NETWORK_LOOK: Duration = Duration::from_secs(5);

impl Hub {
    /// Takes what the Room says, until the user leaves.
    pub(crate) async fn listen_to_room(self: Arc<Self>, mut events: mpsc::Receiver<RoomEvent>) {
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.recv() => event,
            };
            let Some(event) = event else { return };
            self.on_room_event(event);
        }
    }

    /// Tells the Room when this machine's addresses change, and looks for better paths then.
    pub(crate) async fn watch_network(self: Arc<Self>, reachability: Reachability) {
        let mut known = interfaces::addresses();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(NETWORK_LOOK) => {}
            }
            let now = interfaces::addresses();
            if now == known {
                continue;
            }
            tracing::info!(addresses = ?now, "this machine's addresses changed");
            known = now;
            // While the Room is gone this would wait for it; the next login says the same.
            if self.room_is_up()
                && self.commands.try_send(RoomCommand::Presence(reachability.clone())).is_err()
            {
                tracing::warn!("the Room was not told of this machine's new addresses");
            }
            for conversation in self.conversations() {
                conversation.try_again();
                // Two that are on one host have no better rung to find.
                conversation.climb_now(Rung::Lan);
            }
        }
    }

    pub(super) fn on_room_event(self: &Arc<Self>, event: RoomEvent) {
        match event {
            RoomEvent::Roster(delta) => self.on_roster(delta),
            RoomEvent::Introduced(introduced) => match introduced.request {
                Some(request) => self.answer(request, Ok(introduced)),
                None => {
                    self.tasks.spawn(Arc::clone(self).on_asked(*introduced));
                }
            },
            RoomEvent::IntroductionRefused { request, why } => self.answer(request, Err(why)),
            RoomEvent::Blacklist(nets) => {
                self.blacklist.set(nets);
                self.room_said_more();
            }
            RoomEvent::Reachable(addresses) => {
                tracing::debug!(?addresses, "what peers are told to dial from outside");
                if !addresses.is_empty() {
                    for conversation in self.conversations() {
                        conversation.climb_now(Rung::Public);
                    }
                }
            }
            RoomEvent::Lost { why, retry_in } => {
                self.room_is_up.store(false, Ordering::SeqCst);
                let mut state = self.lock();
                state.outage = Some(why.to_string());
                state.members.room_lost();
                // Who waits for an introduction falls back to an earlier one.
                state.requests.clear();
                drop(state);
                tracing::warn!(%why, ?retry_in, "the Room is lost");
                let code = match &why {
                    LostReason::Closed(closing) => Some(closing.code),
                    _ => None,
                };
                self.tell(Event::RoomLost { why: why.to_string(), code, retry_in });
            }
            RoomEvent::Back(joined) => {
                tracing::info!("the Room is back");
                self.joined(*joined);
                self.tell(Event::RoomBack);
                for conversation in self.conversations() {
                    conversation.try_again();
                }
            }
            RoomEvent::Refused(error) => {
                tracing::error!(%error, "the Room does not let this user in again");
                self.room_is_up.store(false, Ordering::SeqCst);
                let mut state = self.lock();
                state.outage = Some(error.to_string());
                state.requests.clear();
                drop(state);
                if error.ends_introductions() {
                    self.withdraw(|_| false);
                }
                self.tell(Event::RoomRefused { why: error.to_string() });
            }
        }
    }

    /// A login succeeded, the first or a later one.
    pub(super) fn joined(self: &Arc<Self>, joined: Joined) {
        self.blacklist.set(joined.blacklist);
        if !joined.allow_unencrypted {
            self.withdraw(|known| known.introduction.cipher != Cipher::Cleartext);
        }
        let mut state = self.lock();
        state.outage = None;
        state.room_socket = joined.room_socket;
        state.observed = joined.observed;
        let changes = state.members.replace(joined.members);
        drop(state);
        self.room_is_up.store(true, Ordering::SeqCst);
        self.room_said_more();
        self.on_changes(changes);
    }

    fn on_roster(self: &Arc<Self>, delta: Roster) {
        let changes = self.lock().members.apply(delta);
        self.on_changes(changes);
    }

    fn on_changes(self: &Arc<Self>, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Joined(member) if member.name == self.name => {}
                Change::Joined(member) => {
                    let latest = self.lock().latest.get(&member.name).map(|latest| latest.known.identity);
                    if latest.is_some_and(|identity| identity != member.identity) {
                        self.withdraw(|known| known.peer != member.name);
                    }
                    let waiting = self.lock().peers.get(&member.name).cloned();
                    if let Some(conversation) = waiting {
                        conversation.try_again();
                    }
                    self.tell(Event::Joined { peer: member.name });
                }
                Change::Left(name) => {
                    if name != self.name {
                        let talked_to = self.lock().peers.get(&name).cloned();
                        if let Some(conversation) = talked_to {
                            conversation.peer_left();
                        }
                        self.tell(Event::Left { peer: name });
                    }
                }
            }
        }
    }

    fn answer(&self, request: u32, answer: Answer) {
        if let Some(waiting) = self.lock().requests.remove(&request) {
            let _ = waiting.send(answer);
        }
    }

    /// A peer asked to be introduced to this user.
    async fn on_asked(self: Arc<Self>, introduced: control::Introduced) {
        match self.know(introduced).await {
            Ok(_) if self.has_left() => {}
            Ok(Introduced { known, offers, .. }) => {
                let conversation = self.conversation(&known.peer);
                conversation.asked(self, known, offers).await;
            }
            Err(error) => {
                tracing::warn!(%error, "an introduction is refused");
                let peer = match &error {
                    OpenError::IdentityChanged { peer, .. } => Some(peer.clone()),
                    _ => None,
                };
                self.tell(Event::Refused { peer, why: error.to_string() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::identity::Identity;
    use parlor_protocol::presence::Encryption;
    use parlor_protocol::wire::control::Member;

    use super::super::harness;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_left_and_is_back_in_one_word_of_the_room_is_looked_for_again() {
        let (hub, mut told) = harness::foo(Encryption::On);
        let bar = Member { name: "Bar".parse().unwrap(), identity: Identity::from_seed(&[2; 32]).public() };
        let conversation = hub.conversation(&bar.name);
        let (left, joined) = (bar.name.clone(), bar);
        hub.on_room_event(RoomEvent::Roster(Roster {
            joined: vec![joined.clone()],
            left: Vec::new(),
            complete: true,
        }));
        let waiting = Arc::clone(&conversation);
        let linked = hub.tasks.spawn(async move { waiting.linked().await });
        assert!(matches!(told.recv().await, Some(RoomCommand::Introduce { .. })));
        let restarted = Roster { joined: vec![joined], left: vec![left], complete: true };
        hub.on_room_event(RoomEvent::Roster(restarted));
        let asked_again = tokio::time::timeout(Duration::from_secs(1), told.recv()).await;
        assert!(matches!(asked_again, Ok(Some(RoomCommand::Introduce { .. }))));
        assert!(!linked.is_finished());
    }
}
