//! A conversation without its tasks: what `conversation/{mod,keeper}.rs` do, in their order.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::session::Progress;
use parlor_protocol::wire::peer::Status;

use super::attempts::Search;
use super::ledger::{CallNo, MessageNo};
use super::network::ConnKey;
use super::note;
use super::workload::Senders;
use super::world::{What, World};
use crate::core::channel::{Channel, Event, LinkId};
use crate::core::keeper::{Keeper, Next, View};
use crate::error::OpenError;

pub(super) type Chan = Channel<CallNo, MessageNo>;
pub(super) type Events = Vec<Event<CallNo, MessageNo>>;

/// As in `conversation/mod.rs`.
const ENDED_SESSIONS: usize = 16;
pub(super) struct Conversation {
    pub(super) channel: Chan,
    pub(super) keeper: Keeper,
    pub(super) links: BTreeMap<LinkId, ConnKey>,
    /// Counts sessions, and where the latest ended ones stood.
    pub(super) session: u64,
    pub(super) ended: VecDeque<(u64, Progress)>,
    /// How often another link, or none, has taken over; how many records have left.
    pub(super) switches: u64,
    pub(super) records: u64,
    /// Session, switches and acknowledgement when the active link was last found to be stuck.
    pub(super) watched: Option<(u64, u64, u64)>,
    /// Bytes that the channel keeps, as the budget knows.
    pub(super) kept: usize,
    /// When this session was first bound to a link.
    pub(super) bound_at: Option<Instant>,
    pub(super) ended_bound_at: Option<Instant>,
    /// Calls of the peer that run here, and which run of which call each is.
    pub(super) running: BTreeMap<u32, u64>,
    pub(super) next_running: u64,
    /// Answers that wait for room, of this session.
    pub(super) answers: VecDeque<(u32, Status, Bytes)>,
    pub(super) search: Option<Search>,
    pub(super) busy: u32,
    looks: bool,
    wake: u64,
    keeper_wakes_at: Option<Instant>,
    pub(super) senders: Senders,
    /// Bytes of this session, and of all, that the application has not consumed.
    pub(super) unconsumed: u64,
    pub(super) unread: u64,
    pub(super) most_held: usize,
    /// Messages, with the session of each, that an application which has stopped will take when it goes on.
    pub(super) stopped: Vec<(u64, u64)>,
}

impl Conversation {
    fn new(epoch: Epoch, now: Instant) -> Self {
        Self {
            channel: Channel::new(epoch, 1 << 20, now),
            keeper: Keeper::default(),
            links: BTreeMap::new(),
            session: 0,
            ended: VecDeque::new(),
            switches: 0,
            records: 0,
            watched: None,
            kept: 0,
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
            stopped: Vec::new(),
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

    /// The link that carries acknowledgements and credit.
    pub(super) fn answers_on(&self) -> Option<ConnKey> {
        self.channel.answers_on().and_then(|id| self.links.get(&id).copied())
    }

    pub(super) fn sleeps_too_long(&self) -> bool {
        match (self.channel.deadline(), self.keeper_wakes_at) {
            (Some(due), Some(wakes)) => due < wakes,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    pub(super) fn note_session_end(&mut self, progress: Progress) {
        if self.ended.len() == ENDED_SESSIONS {
            self.ended.pop_front();
        }
        self.ended.push_back((self.session, progress));
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

    pub(super) fn fresh_epoch(&mut self, user: usize, run: u32, peer: usize) -> Option<Epoch> {
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

    /// This user may be reachable on a better rung now.
    pub(super) fn climb_now(&mut self, user: usize, run: u32, peer: usize, rung: Rung) {
        if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.keeper.climb_now(rung);
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
                    self.close_links(user, run, peer, &links, CloseCode::Superseded);
                    continue;
                }
                Some(Next::CloseIdle) => {
                    let Some(conversation) = self.conversation(user, run, peer) else { return };
                    let links: Vec<LinkId> =
                        conversation.channel.link_ids().into_iter().map(|(id, _)| id).collect();
                    self.close_links(user, run, peer, &links, CloseCode::Idle);
                    self.call_off(user, run, peer);
                    continue;
                }
                Some(Next::EndSearch) => {
                    if self.conversation(user, run, peer).is_some_and(|c| c.search.is_some()) {
                        self.searched(user, run, peer, Ok(()));
                    }
                    None
                }
                Some(Next::CallOff) => {
                    self.call_off(user, run, peer);
                    None
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
        let deadline = conversation.channel.deadline_after(now);
        let view = View {
            active: conversation.channel.path().map(|(id, rung, _)| (id, rung)),
            links: conversation.channel.link_ids(),
            answers_on: conversation.channel.answers_on(),
            owed: !conversation.channel.is_idle(),
            deadline,
            suspect: conversation.channel.is_linked() && conversation.channel.sound_rung().is_none(),
            idle_too_long: idle_too_long && conversation.channel.is_idle(),
        };
        let next = conversation.keeper.decide(&view, steward, now);
        conversation.keeper_wakes_at = match &next {
            Next::Search(until) | Next::Wait(until) => *until,
            Next::Close(_)
            | Next::CloseIdle
            | Next::EndSearch
            | Next::CallOff
            | Next::GiveUp(_)
            | Next::Rest => None,
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

    fn close_links(&mut self, user: usize, run: u32, peer: usize, links: &[LinkId], code: CloseCode) {
        let now = self.now;
        let mut events = Vec::new();
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let mut closed = Vec::new();
        for &id in links {
            conversation.channel.close_link(id, code, now, &mut events);
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
        let progress = conversation.channel.progress();
        conversation.note_session_end(progress);
        conversation.channel.reset(fresh, CloseCode::TimedOut, &mut events);
        self.settle(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
    }

    /// Ends the channel from this side.
    pub(super) fn end(&mut self, user: usize, run: u32, peer: usize, code: CloseCode) {
        let mut events = Vec::new();
        let Some(fresh) = self.fresh_epoch(user, run, peer) else { return };
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let progress = conversation.channel.progress();
        conversation.note_session_end(progress);
        conversation.channel.end(code, fresh, &mut events);
        conversation.keeper.ended();
        let links: Vec<ConnKey> = conversation.links.values().copied().collect();
        for conn in links {
            self.flush(user, run, conn);
        }
        self.settle(user, run, peer);
        self.phase_changed(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
        self.look(user, run, peer);
    }
}
