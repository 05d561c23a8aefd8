//! The task that looks after one peer while there is something to look after. What it does is decided by
//! [`core::keeper`](crate::core::keeper).

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::{Conversation, State};
use crate::clock;
use crate::core::channel::LinkId;
use crate::core::keeper::{Next, Phase, View};
use crate::error::OpenError;
use crate::hub::Hub;

impl Conversation {
    /// Somebody wants a way to the peer.
    pub(super) fn open(self: &Arc<Self>) -> Result<(), OpenError> {
        let hub = self.hub()?;
        self.lock_keeper().keeper.want();
        self.keep_running(&hub);
        self.look.notify_one();
        Ok(())
    }

    pub(super) fn open_if_closed(self: &Arc<Self>) -> Result<(), OpenError> {
        if *self.phase.borrow() == Phase::Closed { self.open() } else { Ok(()) }
    }

    /// The peer came online, or the Room is back: what waits for it is tried now.
    pub(crate) fn try_again(&self) {
        let mut state = self.lock_keeper();
        let is_linked = state.channel.is_linked();
        state.keeper.try_again(is_linked, clock::now());
        drop(state);
        self.look.notify_one();
    }

    /// This rung may lead to the peer now.
    pub(crate) fn climb_now(&self, rung: Rung) {
        self.lock().keeper.climb_now(rung);
        self.look.notify_one();
    }

    /// The Room says that the peer is gone: a search that goes on would find nobody.
    pub(crate) fn peer_left(&self) {
        let state = self.lock();
        if !state.channel.is_linked() {
            state.gone.cancel();
        }
    }

    /// Sees to it that the keeper runs.
    pub(super) fn keep_running(self: &Arc<Self>, hub: &Arc<Hub>) {
        if self.lock().keeper.wake() {
            hub.tasks.spawn(Arc::clone(self).keep(Arc::clone(hub)));
        }
    }

    /// The state, whose keeper's phase is told to those who wait when it is let go.
    pub(super) fn lock_keeper(&self) -> KeeperGuard<'_> {
        KeeperGuard { state: self.lock(), conversation: self }
    }

    async fn keep(self: Arc<Self>, hub: Arc<Hub>) {
        loop {
            let until = match self.look_after(&hub) {
                Next::Wait(until) => until,
                Next::Search(until) => {
                    hub.tasks.spawn(Arc::clone(&self).search(Arc::clone(&hub)));
                    until
                }
                Next::Close(links) => {
                    self.close_links(&links, CloseCode::Superseded);
                    continue;
                }
                Next::CloseIdle => {
                    let links = self.lock().channel.link_ids().into_iter().map(|(id, _)| id);
                    self.close_links(&links.collect::<Vec<_>>(), CloseCode::Idle);
                    self.call_off();
                    continue;
                }
                Next::EndSearch => {
                    self.lock().overtaken.cancel();
                    None
                }
                Next::CallOff => {
                    self.call_off();
                    None
                }
                Next::GiveUp(error) => {
                    self.give_up(&error);
                    continue;
                }
                Next::Rest => return,
            };
            tokio::select! {
                () = hub.stop.cancelled() => return,
                () = self.look.notified() => {}
                () = wait_until(until) => {}
            }
        }
    }

    /// Serves what is due and decides what is next.
    fn look_after(self: &Arc<Self>, hub: &Arc<Hub>) -> Next {
        let mut events = Vec::new();
        let now = clock::now();
        let mut state = self.lock();
        let idle_too_long = state.channel.on_deadline(now, &mut events);
        state.refresh();
        let links: Vec<_> = state.links.values().cloned().collect();
        drop(state);
        self.dispatch(&mut events);
        for link in links {
            link.flush(&**self);
        }

        let mut state = self.lock_keeper();
        let view = View {
            active: state.channel.path().map(|(id, rung, _)| (id, rung)),
            links: state.channel.link_ids(),
            answers_on: state.channel.answers_on(),
            owed: !state.channel.is_idle(),
            deadline: state.channel.deadline_after(now),
            suspect: state.channel.is_linked() && state.channel.sound_rung().is_none(),
            // The peer may wait for a callback that takes longer than that.
            idle_too_long: idle_too_long && state.channel.is_idle() && state.running.is_empty(),
        };
        let next = state.keeper.decide(&view, hub.name < self.peer, now);
        state.keeper_wakes_at = None;
        match &next {
            Next::Search(until) => {
                state.gone = CancellationToken::new();
                state.overtaken = CancellationToken::new();
                state.keeper_wakes_at = *until;
            }
            Next::Wait(until) => state.keeper_wakes_at = *until,
            Next::Close(_)
            | Next::CloseIdle
            | Next::EndSearch
            | Next::CallOff
            | Next::GiveUp(_)
            | Next::Rest => {}
        }
        next
    }

    fn close_links(self: &Arc<Self>, links: &[LinkId], code: CloseCode) {
        let mut events = Vec::new();
        let now = clock::now();
        let mut state = self.lock();
        let mut closed = Vec::new();
        for &id in links {
            state.channel.close_link(id, code, now, &mut events);
            closed.extend(state.links.get(&id).cloned());
        }
        state.refresh();
        drop(state);
        self.dispatch(&mut events);
        for link in closed {
            link.flush(&**self);
        }
    }

    /// Nobody wants a link any more: attempts that go on end.
    fn call_off(&self) {
        std::mem::take(&mut self.lock().called_off).cancel();
    }

    /// No way leads to the peer: what it is owed is reported.
    fn give_up(self: &Arc<Self>, error: &OpenError) {
        let mut events = Vec::new();
        let mut state = self.lock();
        state.story.tell(clock::now(), None, format!("given up: {error}"));
        if state.channel.is_idle() {
            // Only somebody's wish fails. The session stays: the peer may owe this side something.
            return;
        }
        state.interruption = error.to_string();
        state.note_session_end();
        let fresh = self.fresh_epoch(&state);
        state.channel.reset(fresh, CloseCode::TimedOut, &mut events);
        state.refresh();
        self.settle(&mut state);
        drop(state);
        self.dispatch(&mut events);
    }
}

/// See [`Conversation::lock_keeper`].
pub(super) struct KeeperGuard<'a> {
    state: MutexGuard<'a, State>,
    conversation: &'a Conversation,
}

impl std::ops::Deref for KeeperGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for KeeperGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for KeeperGuard<'_> {
    fn drop(&mut self) {
        let new = self.state.keeper.phase();
        self.conversation.phase.send_if_modified(|phase| {
            let news = phase != new;
            if news {
                phase.clone_from(new);
            }
            news
        });
    }
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
