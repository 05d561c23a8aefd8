//! Whose records are taken in.
//!
//! While a conversation moves from one link to another both are read, each by a task of its own. What a record brings is acted on
//! after the lock is given back, so a record that was taken in later could be acted on first, and messages would change
//! places. Therefore one link at a time takes records in and acts on them; the other leaves its own where they are until then.

use tokio::sync::Notify;

use super::Conversation;
use crate::core::channel::LinkId;

/// Held by a link from its first record on until it has acted on all that it has read, and never across a wait.
#[derive(Default)]
pub(super) struct Turn {
    holder: Option<LinkId>,
    awaited: bool,
}

impl Turn {
    /// True if it is this link's now.
    pub(super) fn take(&mut self, link: LinkId) -> bool {
        *self.holder.get_or_insert(link) == link
    }

    /// True if some link has it. Who asks is told when that is over.
    fn is_awaited(&mut self) -> bool {
        self.awaited |= self.holder.is_some();
        self.holder.is_some()
    }

    /// It is this link's no more, if it was. `over` tells who waits for that.
    pub(super) fn give_up(&mut self, link: LinkId, over: &Notify) {
        if self.holder == Some(link) {
            self.holder = None;
            if std::mem::take(&mut self.awaited) {
                over.notify_waiters();
            }
        }
    }
}

/// Gives a link's turn up when it is dropped.
pub(super) struct TurnOf<'a> {
    pub(super) conversation: &'a Conversation,
    pub(super) link: LinkId,
}

impl Drop for TurnOf<'_> {
    fn drop(&mut self) {
        self.conversation.lock().turn.give_up(self.link, &self.conversation.turn_over);
    }
}

impl Conversation {
    /// Waits until no link has its turn.
    pub(super) async fn turn_is_over(&self) {
        let over = self.turn_over.notified();
        tokio::pin!(over);
        // Interest is noted before another look, so that nothing slips in between.
        over.as_mut().enable();
        let is_held = self.lock().turn.is_awaited();
        if is_held {
            over.await;
        }
    }
}
