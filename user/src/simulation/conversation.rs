//! A conversation without its tasks: what `conversation/{mod,keeper,dispatch}.rs` do, in their order.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_protocol::limits::{CALLS_RUNNING, RECEIVE_WINDOW, UNACKED_CHANNEL};
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::peer::Status;

use super::attempts::Search;
use super::ledger::{CallNo, Ended, MessageNo};
use super::network::{ConnKey, Role};
use super::note;
use super::workload::{LARGEST, Senders};
use super::world::{What, World};
use crate::core::channel::{Channel, Event, LinkId};
use crate::core::keeper::{Keeper, Next, View};
use crate::error::OpenError;

pub(super) type Chan = Channel<CallNo, MessageNo>;
pub(super) type Events = Vec<Event<CallNo, MessageNo>>;

/// As in `conversation/keeper.rs`.
const PAUSE: Duration = Duration::from_millis(10);
/// As in `conversation/mod.rs`.
const ENDED_SESSIONS: usize = 16;
/// One end may hear of the other's new session this much after it has bound a link to the old one.
const LATE_NEWS: Duration = Duration::from_secs(60);

pub(super) struct Conversation {
    pub(super) channel: Chan,
    pub(super) keeper: Keeper,
    pub(super) links: BTreeMap<LinkId, ConnKey>,
    /// Counts sessions, and where the latest ended ones stood.
    pub(super) session: u64,
    pub(super) ended: VecDeque<(u64, u64)>,
    /// When this session was first bound to a link.
    pub(super) bound_at: Option<Instant>,
    ended_bound_at: Option<Instant>,
    /// Calls of the peer that run here, and which run of which call each is.
    pub(super) running: BTreeMap<u32, u64>,
    next_running: u64,
    /// Answers that wait for room, of this session.
    pub(super) answers: VecDeque<(u32, Status, Bytes)>,
    pub(super) search: Option<Search>,
    pub(super) busy: u32,
    looks: bool,
    wake: u64,
    keeper_wakes_at: Option<Instant>,
    pub(super) senders: Senders,
    /// Bytes of this session, and of all, that the application has not consumed.
    unconsumed: u64,
    pub(super) unread: u64,
    pub(super) most_held: usize,
}

impl Conversation {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            channel: Channel::new(epoch, 1 << 20, now),
            keeper: Keeper::default(),
            links: BTreeMap::new(),
            session: 0,
            ended: VecDeque::new(),
            bound_at: None,
            ended_bound_at: None,
            running: BTreeMap::new(),
            next_running: 0,
            answers: VecDeque::new(),
            search: None,
            busy: 0,
            looks: false,
            wake: 0,
            keeper_wakes_at: None,
            senders: Senders::default(),
            unconsumed: 0,
            unread: 0,
            most_held: 0,
        }
    }

    pub(super) fn says(&mut self, id: LinkId, now: Instant) -> bool {
        self.channel.has_record(id, now)
    }

    pub(super) fn best(&self) -> Option<Rung> {
        self.channel.path().map(|(_, rung, _)| rung)
    }

    /// The rung that needs no help.
    pub(super) fn sound_rung(&self, asked: bool, began: Instant) -> Option<Rung> {
        if asked { self.channel.rung_heard_since(began) } else { self.channel.sound_rung() }
    }

    /// The connection of the link that carries the data.
    pub(super) fn active(&self) -> Option<ConnKey> {
        self.channel.path().and_then(|(id, ..)| self.links.get(&id).copied())
    }

    fn sleeps_too_long(&self) -> bool {
        match (self.channel.deadline(), self.keeper_wakes_at) {
            (Some(due), Some(wakes)) => due < wakes,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    pub(super) fn note_session_end(&mut self, acked: u64) {
        if self.ended.len() == ENDED_SESSIONS {
            self.ended.pop_front();
        }
        self.ended.push_back((self.session, acked));
        self.session += 1;
        self.ended_bound_at = self.bound_at.take();
        self.unconsumed = 0;
    }
}

impl World {
    pub(super) fn conversation(&mut self, user: usize, run: u32, peer: usize) -> Option<&mut Conversation> {
        self.process(user, run)?.peers.get_mut(&peer)
    }

    pub(super) fn ensure_conversation(&mut self, user: usize, run: u32, peer: usize) {
        let now = self.now;
        let Some(process) = self.process(user, run) else { return };
        if !process.peers.contains_key(&peer) {
            let epoch = process.next_epoch();
            process.peers.insert(peer, Conversation::new(epoch, now));
        }
    }

    fn fresh_epoch(&mut self, user: usize, run: u32, peer: usize) -> Option<Epoch> {
        let last = self.conversation(user, run, peer)?.channel.epoch().generation;
        let process = self.process(user, run)?;
        loop {
            let fresh = process.next_epoch();
            if fresh.generation > last {
                return Some(fresh);
            }
        }
    }

    // The keeper.

    /// Somebody wants a way to the peer.
    pub(super) fn open(&mut self, user: usize, run: u32, peer: usize) {
        if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.keeper.want();
            conversation.keeper.wake();
        }
        self.look(user, run, peer);
    }

    pub(super) fn try_again(&mut self, user: usize, run: u32, peer: usize) {
        let now = self.now;
        if let Some(conversation) = self.conversation(user, run, peer) {
            let linked = conversation.channel.is_linked();
            conversation.keeper.try_again(linked, now);
        }
        self.look(user, run, peer);
    }

    /// The Room says that the peer is gone.
    pub(super) fn peer_left(&mut self, user: usize, run: u32, peer: usize) {
        let name = self.users[peer].name.clone();
        if self.conversation(user, run, peer).is_some_and(|c| c.search.is_some() && !c.channel.is_linked()) {
            self.searched(user, run, peer, Err(OpenError::Offline(name)));
        }
    }

    /// The keeper is to look again, if it is awake.
    pub(super) fn look(&mut self, user: usize, run: u32, peer: usize) {
        let at = self.now;
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        if conversation.keeper.is_awake() && !conversation.looks {
            conversation.looks = true;
            self.schedule(at, What::Look { user, run, peer, wake: None });
        }
    }

    pub(super) fn on_look(&mut self, user: usize, run: u32, peer: usize, wake: Option<u64>) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        match wake {
            Some(wake) if wake != conversation.wake => return,
            Some(_) => {}
            None => conversation.looks = false,
        }
        if !conversation.keeper.is_awake() {
            return;
        }
        for round in 0.. {
            assert!(round < 20, "the keeper of {user} for {peer} does not come to rest");
            let until = match self.look_after(user, run, peer) {
                None | Some(Next::Rest) => return,
                Some(Next::Wait(until)) => until,
                Some(Next::Search(until)) => {
                    self.begin_search(user, run, peer);
                    until
                }
                Some(Next::Close(links)) => {
                    self.close_links(user, run, peer, &links);
                    continue;
                }
                Some(Next::EndIdle) => {
                    note!(self, "{user}>{peer} ends: idle");
                    self.excuse(user, peer);
                    self.end(user, run, peer, CloseCode::Idle);
                    continue;
                }
                Some(Next::GiveUp(error)) => {
                    self.give_up(user, run, peer, &error);
                    continue;
                }
            };
            let Some(conversation) = self.conversation(user, run, peer) else { return };
            conversation.wake += 1;
            if let Some(at) = until {
                let wake = Some(conversation.wake);
                let at = at.max(self.now);
                self.schedule(at, What::Look { user, run, peer, wake });
            }
            return;
        }
    }

    fn look_after(&mut self, user: usize, run: u32, peer: usize) -> Option<Next> {
        let now = self.now;
        let steward = self.users[user].name < self.users[peer].name;
        let mut events = Vec::new();
        let conversation = self.conversation(user, run, peer)?;
        let idle_too_long = conversation.channel.on_deadline(now, &mut events);
        let links: Vec<ConnKey> = conversation.links.values().copied().collect();
        self.dispatch(user, run, peer, &mut events);
        for conn in links {
            self.flush(user, run, conn);
        }

        let start = self.start;
        let conversation = self.conversation(user, run, peer)?;
        let deadline = conversation.channel.deadline().map(|at| if at > now { at } else { now + PAUSE });
        let view = View {
            active: conversation.channel.path().map(|(id, rung, _)| (id, rung)),
            links: conversation.channel.link_ids(),
            owed: !conversation.channel.is_idle(),
            deadline,
            suspect: conversation.channel.is_linked() && conversation.channel.sound_rung().is_none(),
            idle_too_long: idle_too_long && conversation.channel.is_idle(),
        };
        let next = conversation.keeper.decide(&view, steward, now);
        conversation.keeper_wakes_at = match &next {
            Next::Search(until) | Next::Wait(until) => *until,
            Next::Close(_) | Next::EndIdle | Next::GiveUp(_) | Next::Rest => None,
        };
        if !matches!(next, Next::Wait(_)) {
            let words = match &next {
                Next::Search(until) => format!("Search until {:?}", until.map(|at| at - start)),
                next => format!("{next:?}"),
            };
            note!(
                self,
                "{user}>{peer} active {:?} of {:?}, owed {} -> {words}",
                view.active,
                view.links,
                view.owed
            );
        }
        self.phase_changed(user, run, peer);
        Some(next)
    }

    fn close_links(&mut self, user: usize, run: u32, peer: usize, links: &[LinkId]) {
        let now = self.now;
        let mut events = Vec::new();
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let mut closed = Vec::new();
        for &id in links {
            conversation.channel.close_link(id, CloseCode::Superseded, now, &mut events);
            closed.extend(conversation.links.get(&id).copied());
        }
        self.dispatch(user, run, peer, &mut events);
        for conn in closed {
            self.flush(user, run, conn);
        }
    }

    fn give_up(&mut self, user: usize, run: u32, peer: usize, error: &OpenError) {
        note!(self, "{user}>{peer} gives up: {error}");
        if self.conversation(user, run, peer).is_none_or(|c| c.channel.is_idle()) {
            return;
        }
        self.ledger.give_ups += 1;
        self.excuse(user, peer);
        let mut events = Vec::new();
        let Some(fresh) = self.fresh_epoch(user, run, peer) else { return };
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let acked = conversation.channel.acked_seq();
        conversation.note_session_end(acked);
        conversation.channel.reset(fresh, CloseCode::TimedOut, &mut events);
        self.dispatch(user, run, peer, &mut events);
    }

    /// Ends the channel from this side.
    pub(super) fn end(&mut self, user: usize, run: u32, peer: usize, code: CloseCode) {
        let mut events = Vec::new();
        let Some(fresh) = self.fresh_epoch(user, run, peer) else { return };
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let acked = conversation.channel.acked_seq();
        conversation.note_session_end(acked);
        conversation.channel.end(code, fresh, &mut events);
        conversation.keeper.ended();
        let links: Vec<ConnKey> = conversation.links.values().copied().collect();
        for conn in links {
            self.flush(user, run, conn);
        }
        self.phase_changed(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
        self.look(user, run, peer);
    }

    // What the channel reports.

    pub(super) fn dispatch(&mut self, user: usize, run: u32, peer: usize, events: &mut Events) {
        for event in events.drain(..) {
            match event {
                Event::Message { event, body, cost } => {
                    self.on_message(user, run, peer, event.as_ref(), &body, cost);
                }
                Event::Call { call, timeout_ms, name: _, body } => {
                    self.on_call(user, run, peer, call, timeout_ms, &body);
                }
                Event::Cancelled { call } => {
                    if let Some(conversation) = self.conversation(user, run, peer) {
                        conversation.running.remove(&call);
                    }
                }
                Event::Answered { token, status, body } => {
                    self.ledger.call_ended(token, Ended::Answered(status, &body), self.now);
                    self.room_notified(user, run, peer);
                }
                Event::CallInterrupted { token, maybe_executed } => {
                    let justified = self.is_excused(user, run, peer);
                    self.ledger.call_ended(token, Ended::Interrupted { maybe_executed, justified }, self.now);
                }
                Event::CallTimedOut { token, maybe_executed } => {
                    self.ledger.call_ended(token, Ended::TimedOut { maybe_executed }, self.now);
                    self.room_notified(user, run, peer);
                }
                Event::Delivered { receipt } => self.ledger.reported_delivered(receipt),
                Event::Interrupted { receipt } => {
                    let justified = self.is_excused(user, run, peer);
                    self.ledger.reported_interrupted(receipt, justified);
                }
                Event::SessionReset => {
                    note!(self, "{user}>{peer} session reset");
                    if let Some(conversation) = self.conversation(user, run, peer) {
                        conversation.running.clear();
                        conversation.answers.clear();
                    }
                    self.room_notified(user, run, peer);
                }
                Event::Room => self.room_notified(user, run, peer),
                Event::Pong { .. } => {}
                Event::Active => {
                    note!(self, "{user}>{peer} another link carries the data");
                    self.room_notified(user, run, peer);
                    self.look(user, run, peer);
                }
                Event::Suspect { link } => {
                    note!(self, "{user}>{peer} suspects {link:?}");
                    if let Some(conversation) = self.conversation(user, run, peer) {
                        conversation.keeper.suspects();
                    }
                    self.look(user, run, peer);
                }
                Event::LinkEnded { link, code } => {
                    note!(self, "{user}>{peer} {link:?} ended: {code}");
                    let conn = self
                        .conversation(user, run, peer)
                        .and_then(|conversation| conversation.links.remove(&link));
                    if let Some(conn) = conn {
                        let end = self.end_of(user, run, conn);
                        self.schedule(self.now, What::Over { conn, end });
                    }
                    self.look(user, run, peer);
                }
                Event::Ended { code, ours } => self.on_ended(user, run, peer, code, ours),
            }
        }
    }

    /// The peer ended the channel.
    fn on_ended(&mut self, user: usize, run: u32, peer: usize, code: CloseCode, ours: Epoch) {
        if self.conversation(user, run, peer).is_none_or(|c| c.channel.epoch() != ours) {
            // Another link brought the same news.
            return;
        }
        note!(self, "{user}>{peer} is ended by the peer: {code}");
        let mut events = Vec::new();
        let Some(fresh) = self.fresh_epoch(user, run, peer) else { return };
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let acked = conversation.channel.acked_seq();
        conversation.note_session_end(acked);
        conversation.channel.reset(fresh, code, &mut events);
        conversation.keeper.ended();
        self.phase_changed(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
        self.look(user, run, peer);
    }

    // Messages and calls from the peer.

    fn on_message(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        event: Option<&Bytes>,
        body: &Bytes,
        cost: u64,
    ) {
        self.ledger.delivered((user, run), event, body);
        let after = self.consumption(user);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.unconsumed += cost;
        conversation.unread += cost;
        let held = conversation.unconsumed;
        assert!(
            held <= RECEIVE_WINDOW + LARGEST + 64,
            "{user} holds {held} bytes of {peer} that nobody took"
        );
        let session = conversation.session;
        let at = self.now + after;
        self.schedule(at, What::Consume { user, run, peer, cost, session });
    }

    pub(super) fn on_consume(&mut self, user: usize, run: u32, peer: usize, cost: u64, session: u64) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.unread -= cost;
        // What an earlier session sent is nothing to this one's window.
        if conversation.session != session {
            return;
        }
        conversation.unconsumed -= cost;
        let due = conversation.channel.consume(cost);
        let active = conversation.active();
        if let (true, Some(conn)) = (due, active) {
            self.flush(user, run, conn);
        }
    }

    fn on_call(&mut self, user: usize, run: u32, peer: usize, call: u32, timeout_ms: u32, body: &Bytes) {
        let number = self.ledger.called((user, run), body);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        assert!(!conversation.running.contains_key(&call), "a number was used again for call {number:?}");
        if conversation.running.len() >= CALLS_RUNNING {
            self.ledger.overloaded(number);
            return self.answer(
                user,
                run,
                peer,
                call,
                Status::Overloaded,
                Bytes::from_static(&[100, 0, 0, 0]),
            );
        }
        conversation.next_running += 1;
        let running = conversation.next_running;
        conversation.running.insert(call, running);
        self.ledger.executed(number);
        let after = self.execution();
        let deadline = Duration::from_millis(timeout_ms.into());
        let timed_out = timeout_ms > 0 && deadline < after;
        let at = self.now + if timed_out { deadline } else { after };
        self.schedule(at, What::Executed { user, run, peer, call, running, number, timed_out });
    }

    pub(super) fn on_executed(
        &mut self,
        (user, run, peer): (usize, u32, usize),
        call: u32,
        running: u64,
        number: CallNo,
        timed_out: bool,
    ) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        // A call that was cancelled has nobody to answer to.
        if conversation.running.get(&call) != Some(&running) {
            return;
        }
        conversation.running.remove(&call);
        let (status, body) = if timed_out {
            (Status::TimedOut, Bytes::new())
        } else {
            (Status::Ok, self.ledger.answer_of(number))
        };
        self.answer(user, run, peer, call, status, body);
    }

    fn answer(&mut self, user: usize, run: u32, peer: usize, call: u32, status: Status, body: Bytes) {
        if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.answers.push_back((call, status, body));
        }
        self.answer_what_waits(user, run, peer);
    }

    /// Answers go out as far as there is room for them.
    pub(super) fn answer_what_waits(&mut self, user: usize, run: u32, peer: usize) {
        let now = self.now;
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let mut any = false;
        while let Some((call, status, body)) = conversation.answers.pop_front() {
            if conversation.channel.answer(call, status, &body, || body.clone(), now).is_err() {
                conversation.answers.push_front((call, status, body));
                break;
            }
            any = true;
        }
        if any {
            self.sent(user, run, peer);
        }
    }

    // Leaving this side.

    /// Sees to it that what was pushed leaves.
    pub(super) fn sent(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let held = conversation.channel.buffered();
        conversation.most_held = conversation.most_held.max(held);
        let most = UNACKED_CHANNEL + (1 << 20) + LARGEST as usize + 64 * 1024;
        assert!(held <= most, "{user} holds {held} bytes for {peer}");
        let active = conversation.active();
        let sleeps_too_long = conversation.sleeps_too_long();
        match active {
            // The keeper may have gone to rest.
            None => self.open(user, run, peer),
            Some(conn) => {
                self.flush(user, run, conn);
                if sleeps_too_long {
                    self.look(user, run, peer);
                }
            }
        }
    }

    pub(super) fn end_of(&self, user: usize, run: u32, conn: ConnKey) -> usize {
        let me = super::network::End::User(user, run);
        self.network.conns.get(&conn).map_or(0, |c| usize::from(c.ends[0] != me))
    }

    pub(super) fn flush(&mut self, user: usize, run: u32, conn: ConnKey) {
        let end = self.end_of(user, run, conn);
        self.pump(conn, end);
    }

    /// Answers and acknowledgements leave together, after what was read has been handled.
    pub(super) fn after_reading(&mut self, user: usize, run: u32, peer: usize, conn: ConnKey) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let active = conversation.active();
        let sleeps_too_long = conversation.sleeps_too_long();
        self.flush(user, run, conn);
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
            && let Some(super::network::End::User(user, run)) =
                self.network.conns.get(&conn).map(|c| c.ends[end])
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
    fn is_excused(&mut self, user: usize, run: u32, peer: usize) -> bool {
        let excused = self.excused.get(&(user.min(peer), user.max(peer))).copied();
        let bound = self.conversation(user, run, peer).and_then(|c| c.ended_bound_at);
        excused.is_some_and(|at| bound.is_none_or(|bound| at + LATE_NEWS >= bound))
    }
}
