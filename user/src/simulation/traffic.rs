//! What leaves: what `conversation/{traffic,links}.rs` do about records, in their order; and what excuses that
//! something never arrives.

use std::time::Duration;

use parlor_protocol::limits::UNACKED_CHANNEL;

use super::network::{ConnKey, End, Role};
use super::note;
use super::workload::LARGEST;
use super::world::World;
use crate::core::channel::LinkId;

/// One end may hear of the other's new session this much after it has bound a link to the old one.
const LATE_NEWS: Duration = Duration::from_secs(60);

impl World {
    /// Sees to it that what was pushed leaves.
    pub(super) fn sent(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let held = conversation.channel.buffered();
        conversation.most_held = conversation.most_held.max(held);
        let most = UNACKED_CHANNEL + (1 << 20) + LARGEST as usize + 64 * 1024;
        assert!(held <= most, "{user} holds {held} bytes for {peer}");
        match conversation.active() {
            // The keeper may have gone to rest.
            None => self.open(user, run, peer),
            Some(conn) => self.flush(user, run, conn),
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
