//! What goes out: messages, calls, receipts, and who writes them.

use std::sync::{Arc, MutexGuard};

use parlor_protocol::session::Given;
use tokio::sync::oneshot;

use super::{ALWAYS, Conversation, Sent, Share, State};
use crate::core::channel::PushError;
use crate::core::keeper::Phase;
use crate::error::{Interrupted, SendError};

/// From this many bytes on the caller's own task seals and writes what waits.
const WRITE_FROM: usize = 32 * 1024;

impl Conversation {
    /// Takes a message if there is room. A large body is taken out of its buffer.
    pub(crate) fn try_send(
        self: &Arc<Self>,
        event: Option<&str>,
        body: &mut Vec<u8>,
    ) -> Result<Sent, SendError> {
        self.try_send_if(event, body, |_| true)?.ok_or(SendError::Full)
    }

    /// Takes a message, waiting for room.
    pub(crate) async fn send(
        self: &Arc<Self>,
        event: Option<&str>,
        body: &mut Vec<u8>,
    ) -> Result<Sent, SendError> {
        // Mostly there is a way and room, and nothing to wait for.
        let is_ready = |state: &State| *state.keeper.phase() == Phase::Ready;
        match self.try_send_if(event, body, is_ready) {
            Ok(Some(sent)) => return Ok(sent),
            Ok(None) | Err(SendError::Full) => {}
            Err(error) => return Err(error),
        }
        self.when_there_is_room(|| match self.try_send(event, body) {
            Err(SendError::Full) => Ok(None),
            done => done.map(Some),
        })
        .await
    }

    fn try_send_if(
        self: &Arc<Self>,
        event: Option<&str>,
        body: &mut Vec<u8>,
        may: impl FnOnce(&State) -> bool,
    ) -> Result<Option<Sent>, SendError> {
        let mut state = self.lock();
        if !may(&state) {
            return Ok(None);
        }
        state.has_not_left()?;
        // Peers that take nothing must not stop what goes to the others.
        if self.budget.is_spent() && state.kept >= ALWAYS {
            return Err(SendError::Full);
        }
        let quiet = state.channel.is_quiet();
        let placed = match state.channel.send(event.map(str::as_bytes), Given::Owned(body)) {
            Ok(placed) => placed,
            Err(PushError::Full(_) | PushError::TooManyCalls) => return Err(SendError::Full),
            Err(PushError::TooLarge { len, limit }) => return Err(SendError::TooLarge { len, limit }),
        };
        let session = state.session;
        if state.channel.waits_for_credit_alone() {
            self.keep_awake(&state);
        }
        self.sent(state, quiet);
        Ok(Some(Sent { session, placed }))
    }

    /// Tries until there is room, or no way to the peer.
    pub(super) async fn when_there_is_room<T>(
        self: &Arc<Self>,
        mut attempt: impl FnMut() -> Result<Option<T>, SendError>,
    ) -> Result<T, SendError> {
        loop {
            if *self.phase.borrow() != Phase::Ready {
                self.ready().await?;
            }
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            // Interest is noted before another look, so that no room slips by.
            let (here, anywhere) = (self.room.notified(), self.budget.room.notified());
            tokio::pin!(here, anywhere);
            here.as_mut().enable();
            anywhere.as_mut().enable();
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            tokio::select! {
                () = here => {}
                () = anywhere => {}
            }
        }
    }

    /// Waits until the peer has taken a message over.
    pub(crate) async fn delivered(self: &Arc<Self>, sent: Sent) -> Result<(), Interrupted> {
        let waiting = {
            let mut state = self.lock();
            if state.session != sent.session {
                return match state.ended.iter().find(|(session, ..)| *session == sent.session) {
                    Some((_, progress, _)) if progress.covers(sent.placed) => Ok(()),
                    Some((_, _, why)) => Err(Interrupted { why: why.clone() }),
                    None => Err(Interrupted { why: "the conversation ended long ago".to_owned() }),
                };
            }
            let (token, receiver) = oneshot::channel();
            if state.channel.watch(sent.placed, token).is_some() {
                return Ok(());
            }
            drop(state);
            // The answer to a ping brings the acknowledgement along, which else waits for data to ride on.
            self.probe();
            receiver
        };
        waiting.await.unwrap_or_else(|_| Err(Interrupted { why: "this user has left the room".to_owned() }))
    }

    /// The application has taken a message.
    pub(crate) fn consumed(&self, share: Share) {
        let mut state = self.lock();
        state.unread -= share.cost;
        // What an earlier session sent is nothing to this one's window.
        if share.session != state.session || !state.channel.consume(share.cost) {
            return;
        }
        let link = state.channel.answers_on().and_then(|id| state.links.get(&id).cloned());
        drop(state);
        if let Some(link) = link {
            link.nudge();
        }
    }

    /// Sees to it that what was pushed leaves. Alone, it leaves at once from this task; otherwise it shares
    /// records with what comes after it.
    pub(super) fn sent(self: &Arc<Self>, mut state: MutexGuard<'_, State>, was_quiet: bool) {
        self.settle(&mut state);
        if state.active.is_none() {
            // The keeper may have gone to rest since its phase was looked at.
            state.keeper.want();
            drop(state);
            if let Ok(hub) = self.hub() {
                self.keep_running(&hub);
            }
            self.look.notify_one();
            return;
        }
        let writes = state.channel.unsent() >= WRITE_FROM || (was_quiet && !state.crowd);
        // Once is enough until it looks.
        let nudges = !writes && !std::mem::replace(&mut state.nudged, true);
        if !(writes || nudges) {
            return;
        }
        let link = state.active.clone();
        drop(state);
        match link {
            Some(link) if writes => link.flush(&**self),
            Some(link) => link.nudge(),
            None => {}
        }
    }

    /// The keeper looks again if it sleeps past what is due now.
    pub(super) fn keep_awake(&self, state: &State) {
        if Self::sleeps_too_long(state) {
            self.look.notify_one();
        }
    }
}
