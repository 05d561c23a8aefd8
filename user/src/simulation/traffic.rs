//! What leaves: what `conversation/{traffic,links}.rs` do about records, in their order; and what excuses that
//! something never arrives.

use std::time::Duration;

use parlor_protocol::limits::{UNACKED_CHANNEL, UNACKED_USER};

use super::ledger::CallNo;
use super::network::{ConnKey, End, Role};
use super::note;
use super::workload::{ALWAYS, LARGEST};
use super::world::World;
use crate::core::channel::LinkId;

/// One end may hear of the other's new session this much after it has bound a link to the old one.
const LATE_NEWS: Duration = Duration::from_secs(60);

impl World {
    /// Tells the budget what the channel keeps now, and those who wait for room.
    pub(super) fn settle(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let (before, now) = (conversation.kept, conversation.channel.buffered());
        conversation.kept = now;
        let Some(process) = self.process(user, run) else { return };
        let spent = process.kept >= UNACKED_USER;
        process.kept = process.kept - before + now;
        let most = UNACKED_USER + process.peers.len() * (ALWAYS + (1 << 20) + LARGEST as usize + 64 * 1024);
        assert!(process.kept <= most, "{user} keeps {} bytes in all", process.kept);
        if spent && process.kept < UNACKED_USER {
            for peer in process.peers.keys().copied().collect::<Vec<_>>() {
                self.work_later(user, run, peer);
            }
        } else if before >= ALWAYS && now < ALWAYS {
            self.work_later(user, run, peer);
        }
    }

    /// A call that ended without an answer was said to have run, or not. If nothing has left for the peer since it
    /// was made, it has not.
    pub(super) fn check_executed(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        number: CallNo,
        maybe_executed: bool,
    ) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let left = conversation.records > self.ledger.records_before(number);
        assert!(left || !maybe_executed, "{number:?} never left and may have been executed");
    }

    /// Sees to it that what was pushed leaves.
    pub(super) fn sent(&mut self, user: usize, run: u32, peer: usize) {
        self.settle(user, run, peer);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let held = conversation.channel.buffered();
        conversation.most_held = conversation.most_held.max(held);
        let most = UNACKED_CHANNEL + (1 << 20) + LARGEST as usize + 64 * 1024;
        assert!(held <= most, "{user} holds {held} bytes for {peer}");
        match conversation.active() {
            // The keeper may have gone to rest.
            None => self.open(user, run, peer),
            Some(conn) => {
                self.flush(user, run, conn);
                self.watch_if_stuck(conn, self.end_of(user, run, conn));
            }
        }
    }

    pub(super) fn end_of(&self, user: usize, run: u32, conn: ConnKey) -> usize {
        let me = End::User(user, run);
        self.network.conns.get(&conn).map_or(0, |c| usize::from(c.ends[0] != me))
    }

    pub(super) fn flush(&mut self, user: usize, run: u32, conn: ConnKey) {
        let end = self.end_of(user, run, conn);
        self.pump(conn, end);
    }

    /// Answers and acknowledgements leave together, after what was read has been handled.
    pub(super) fn after_reading(&mut self, user: usize, run: u32, peer: usize, conn: ConnKey) {
        let (now, role) = (self.now, self.role(conn, self.end_of(user, run, conn)));
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let says = matches!(role, Role::Link { id, .. } if conversation.says(id, now));
        let active = conversation.active();
        let sleeps_too_long = !says && conversation.sleeps_too_long();
        if says {
            self.flush(user, run, conn);
        }
        if let Some(active) = active.filter(|active| *active != conn) {
            self.flush(user, run, active);
        }
        if sleeps_too_long {
            self.look(user, run, peer);
        }
    }

    /// A link is over: the next best carries on, or the keeper looks for another.
    pub(super) fn drop_link(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        id: LinkId,
        conn: ConnKey,
        end: usize,
    ) {
        self.close(conn, end);
        let now = self.now;
        let mut events = Vec::new();
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.links.remove(&id);
        conversation.channel.unlink(id, now, &mut events);
        note!(self, "{user}>{peer} drops {id:?}");
        self.dispatch(user, run, peer, &mut events);
        self.look(user, run, peer);
    }

    /// The link is over from this side.
    pub(super) fn on_over(&mut self, conn: ConnKey, end: usize) {
        if let Role::Link { peer, id } = self.role(conn, end)
            && let Some(End::User(user, run)) = self.network.conns.get(&conn).map(|c| c.ends[end])
        {
            self.drop_link(user, run, peer, id, conn, end);
        }
    }

    // What excuses an interruption.

    /// From now on what the two said to each other may be interrupted.
    pub(super) fn excuse(&mut self, a: usize, b: usize) {
        self.excused.insert((a.min(b), a.max(b)), self.now);
    }

    pub(super) fn excuse_all(&mut self, user: usize) {
        for peer in 0..self.users.len() {
            if peer != user {
                self.excuse(user, peer);
            }
        }
    }

    /// True if something happened since the session that just ended began that may end it.
    pub(super) fn is_excused(&mut self, user: usize, run: u32, peer: usize) -> bool {
        let excused = self.excused.get(&(user.min(peer), user.max(peer))).copied();
        let bound = self.conversation(user, run, peer).and_then(|c| c.ended_bound_at);
        excused.is_some_and(|at| bound.is_none_or(|bound| at + LATE_NEWS >= bound))
    }
}
