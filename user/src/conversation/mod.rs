//! One peer, seen from this user: the channel's core with its links, tasks and waiting callers around it.
//!
//! The channel is behind one mutex that is held for the time of a decision, never across an await. What the
//! channel reports is acted on after the mutex is free: callbacks run, callers wake, links are flushed.
//!
//! While there is a link, something owed, or a search for a path, one *keeper* task looks after the peer: it
//! serves the channel's deadlines, asks the Room for introductions, climbs from the relay, and gives up in
//! time.

mod answering;
mod callers;
mod climb;
mod dispatch;
mod keeper;
mod links;
#[cfg(test)]
mod tests;
mod traffic;
mod turn;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use parlor_protocol::limits::{RECEIVE_WINDOW, UNACKED_USER};
use parlor_protocol::name::{EventName, UserName};
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::session::{Placed, Progress};
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::core::channel::{After, Channel, Event as ChannelEvent, LinkId};
use crate::core::keeper::{Keeper, Phase};
use crate::core::ladder::Story;
use crate::error::{Interrupted, OpenError};
use crate::hub::Hub;
use crate::net::link::{Link, Source};

use self::callers::{Callers, Seat};
use self::turn::Turn;

pub(crate) use self::callers::{CallEnd, Called, Calling};
pub(crate) use self::links::{Incoming, turn_away};

pub(crate) type ReceiptToken = oneshot::Sender<Result<(), Interrupted>>;
type Events = Vec<ChannelEvent<Seat, ReceiptToken>>;

/// Sessions with this peer whose end is remembered for receipts that are asked for late.
const ENDED_SESSIONS: usize = 16;
/// A channel may keep this many bytes whatever the other channels keep.
const ALWAYS: usize = 256 * 1024;
/// Unread messages of one peer over all its sessions, in bytes, above which it gets no new session.
const UNREAD: u64 = 2 * RECEIVE_WINDOW;

/// See the module.
pub(crate) struct Conversation {
    pub(crate) peer: UserName,
    hub: Weak<Hub>,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    /// The largest body that this user sends, in bytes.
    max_body: usize,
    /// There is room in the send buffer again, a call has ended, or the path has changed.
    room: Notify,
    budget: Arc<Budget>,
    /// Answers that wait for room.
    answers_waiting: AtomicUsize,
    /// The keeper is to look again.
    look: Notify,
    /// A link has taken in what it had read, and another waits for that.
    turn_over: Notify,
}

struct State {
    channel: Channel<Seat, ReceiptToken>,
    callers: Callers,
    links: HashMap<LinkId, Arc<Link>>,
    turn: Turn,
    active: Option<Arc<Link>>,
    /// Counts sessions, and where the latest ended ones stood.
    session: u64,
    ended: VecDeque<(u64, Progress, String)>,
    interruption: String,
    /// Calls of the peer in this session that run in tasks of their own, or whose answers wait for room.
    running: HashMap<u32, CancellationToken>,
    /// Messages by event that wait for their handler.
    lanes: HashMap<EventName, dispatch::Lane>,
    pings: HashMap<u64, oneshot::Sender<(Rung, Duration)>>,
    next_ping: u64,
    story: Story,
    /// The writing task was asked to send what there is, and has not looked yet.
    nudged: bool,
    /// The last record answered several callers, who are likely to call again together.
    crowd: bool,
    /// What the peer has sent and the application has not taken, over all sessions.
    unread: u64,
    /// Bytes that the channel keeps, as the budget knows.
    kept: usize,
    keeper: Keeper,
    keeper_wakes_at: Option<Instant>,
    /// Cancelled when the Room says that the peer a search is for is gone.
    gone: CancellationToken,
    /// Cancelled when another search is to take the place of the one that goes on.
    overtaken: CancellationToken,
    /// Cancelled when the attempts that go on are for nobody any more.
    called_off: CancellationToken,
    /// This user is gone: nothing is pushed any more, since nothing would tell what became of it.
    left: bool,
}

/// What all channels of a user keep for their peers, in bytes.
#[derive(Default)]
pub(crate) struct Budget {
    kept: AtomicUsize,
    /// There is room again after there was none.
    room: Notify,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.kept.load(Ordering::Relaxed) >= UNACKED_USER
    }

    /// A channel keeps `now` bytes where it kept `before`.
    fn settle(&self, before: &mut usize, now: usize) {
        let old = std::mem::replace(before, now);
        if now >= old {
            self.kept.fetch_add(now - old, Ordering::Relaxed);
        } else if self.kept.fetch_sub(old - now, Ordering::Relaxed) >= UNACKED_USER && !self.is_spent() {
            self.room.notify_waiters();
        }
    }
}

/// What messages occupy of their sender's window in one session, until the application takes them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) cost: u64,
    pub(crate) session: u64,
}

/// A message's way to its receipt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    session: u64,
    placed: Placed,
}

impl Conversation {
    pub(crate) fn new(peer: UserName, hub: &Arc<Hub>) -> Arc<Self> {
        let epoch = hub.next_epoch();
        Arc::new(Self {
            peer,
            hub: Arc::downgrade(hub),
            state: Mutex::new(State {
                channel: Channel::new(epoch, hub.settings.max_body, clock::now()),
                callers: Callers::default(),
                links: HashMap::new(),
                turn: Turn::default(),
                active: None,
                session: 0,
                ended: VecDeque::new(),
                interruption: String::new(),
                running: HashMap::new(),
                lanes: HashMap::new(),
                pings: HashMap::new(),
                next_ping: 0,
                story: Story::default(),
                nudged: false,
                crowd: false,
                unread: 0,
                kept: 0,
                keeper: Keeper::default(),
                keeper_wakes_at: None,
                gone: CancellationToken::new(),
                overtaken: CancellationToken::new(),
                called_off: CancellationToken::new(),
                left: false,
            }),
            phase: watch::channel(Phase::Closed).0,
            max_body: hub.settings.max_body as usize,
            room: Notify::new(),
            budget: Arc::clone(&hub.budget),
            answers_waiting: AtomicUsize::new(0),
            look: Notify::new(),
            turn_over: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hub(&self) -> Result<Arc<Hub>, OpenError> {
        let there = |hub: &Arc<Hub>| !hub.stop.is_cancelled() && !hub.has_left();
        self.hub.upgrade().filter(there).ok_or(OpenError::Left)
    }

    /// Waits until what is sent has a way to go, or it is clear that it has none.
    pub(crate) async fn ready(self: &Arc<Self>) -> Result<(), OpenError> {
        let mut phase = self.phase.subscribe();
        if *phase.borrow_and_update() == Phase::Ready {
            return Ok(());
        }
        self.open()?;
        loop {
            match &*phase.borrow_and_update() {
                Phase::Ready => return Ok(()),
                Phase::Failed(error) => return Err(error.clone()),
                Phase::Closed | Phase::Opening => {}
            }
            // It may have closed again meanwhile.
            self.open_if_closed()?;
            if phase.changed().await.is_err() {
                return Err(OpenError::Left);
            }
        }
    }

    /// True if nothing happens here: no link, nothing owed, nobody waiting.
    pub(crate) fn is_at_rest(&self) -> bool {
        let state = self.lock();
        !state.keeper.is_awake() && !state.channel.is_linked() && state.lanes.is_empty()
    }

    /// The rung that carries the data and its smoothed round trip.
    pub(crate) fn path(&self) -> Option<(Rung, Option<Duration>)> {
        self.lock().channel.path().map(|(_, rung, rtt)| (rung, rtt))
    }

    /// How the channel's records are protected, if it has a link.
    pub(crate) fn cipher(&self) -> Option<parlor_protocol::introduction::Cipher> {
        self.lock().active.as_ref().map(|link| link.cipher)
    }

    /// Sends a ping on the link that carries the data; the receiver gets its rung and round trip.
    pub(crate) fn ping(self: &Arc<Self>) -> Option<oneshot::Receiver<(Rung, Duration)>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        state.pings.retain(|_, waiting| !waiting.is_closed());
        state.next_ping += 1;
        let id = state.next_ping;
        if !state.channel.ping(id) {
            return None;
        }
        state.pings.insert(id, sender);
        let link = state.active.clone();
        drop(state);
        if let Some(link) = link {
            link.flush(&**self);
        }
        Some(receiver)
    }

    /// What happened on the way to this peer.
    pub(crate) fn story(&self) -> Vec<crate::core::ladder::Step> {
        self.lock().story.steps().cloned().collect()
    }

    /// Waits until some link is up. An error says why there will be none.
    pub(crate) async fn linked(self: &Arc<Self>) -> Result<(), OpenError> {
        loop {
            let mut phase = self.phase.subscribe();
            phase.borrow_and_update();
            let changed = self.room.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // A link that only waits to say its last word is none.
            if self.path().is_some() {
                return Ok(());
            }
            self.ready().await?;
            if self.path().is_some() {
                return Ok(());
            }
            tokio::select! {
                () = changed => {}
                _ = phase.changed() => {}
            }
        }
    }

    /// Tells the budget what the channel keeps now.
    fn settle(&self, state: &mut State) {
        let (before, now) = (state.kept, state.channel.buffered());
        self.budget.settle(&mut state.kept, now);
        if before >= ALWAYS && now < ALWAYS {
            // What may always be kept is free here, whatever the other channels keep.
            self.room.notify_waiters();
        }
    }

    /// True if the keeper sleeps past the channel's next deadline.
    fn sleeps_too_long(state: &State) -> bool {
        match (state.channel.deadline(), state.keeper_wakes_at) {
            (Some(due), Some(wakes)) => due < wakes,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// The epoch of the next session with this peer.
    fn fresh_epoch(&self, state: &State) -> Epoch {
        let mut fresh = state.channel.epoch();
        let Some(hub) = self.hub.upgrade() else {
            // Nobody is left to talk to under it.
            return fresh;
        };
        let last = fresh.generation;
        while fresh.generation <= last {
            fresh = hub.next_epoch();
        }
        fresh
    }

    /// This user is gone: who waits for a way to the peer waits no more.
    pub(crate) fn leave(self: &Arc<Self>) {
        // What is pushed before is ended with the rest, and nothing is pushed after.
        self.lock().left = true;
        self.end(CloseCode::Done, "this user left");
        self.lock_keeper().keeper.left();
        self.room.notify_waiters();
        self.look.notify_one();
    }

    /// Ends the channel from this side; what the peer has not taken over is reported as interrupted.
    pub(crate) fn end(self: &Arc<Self>, code: CloseCode, why: &str) {
        let mut events = Vec::new();
        let mut state = self.lock_keeper();
        why.clone_into(&mut state.interruption);
        let fresh = self.fresh_epoch(&state);
        state.note_session_end();
        state.channel.end(code, fresh, &mut events);
        self.settle(&mut state);
        state.active = None;
        state.keeper.ended();
        let links: Vec<_> = state.links.values().cloned().collect();
        drop(state);
        for link in links {
            link.flush(&**self);
        }
        self.dispatch(&mut events);
        self.look.notify_one();
    }

    /// Waits until everything that was sent has been taken over. A channel without a link has nowhere to send.
    pub(crate) async fn flushed(self: &Arc<Self>) {
        loop {
            let news = self.room.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            {
                let state = self.lock();
                if state.channel.is_flushed() || !state.keeper.is_awake() {
                    return;
                }
            }
            // Acknowledgements come within a quarter of a second while the link lives.
            let _ = tokio::time::timeout(Duration::from_millis(10), news).await;
        }
    }

    /// An error if what is sent has no way to go.
    pub(crate) fn is_open(&self) -> Result<(), OpenError> {
        match &*self.phase.borrow() {
            Phase::Ready => Ok(()),
            Phase::Failed(error) => Err(error.clone()),
            Phase::Closed | Phase::Opening => Err(OpenError::NoPath {
                peer: self.peer.clone(),
                tried: "the channel is not open yet; `send` or `connect` opens it".to_owned(),
            }),
        }
    }
}

impl State {
    fn has_not_left(&self) -> Result<(), OpenError> {
        if self.left { Err(OpenError::Left) } else { Ok(()) }
    }

    /// The session ends now: remembers how far it came.
    fn note_session_end(&mut self) {
        self.note_session_end_at(self.channel.progress());
    }

    fn note_session_end_at(&mut self, progress: Progress) {
        if self.ended.len() == ENDED_SESSIONS {
            self.ended.pop_front();
        }
        self.ended.push_back((self.session, progress, self.interruption.clone()));
        self.session += 1;
        // Nobody waits for the calls that run here, and their numbers may be other calls' from now on.
        for token in std::mem::take(&mut self.running).into_values() {
            token.cancel();
        }
    }

    /// A call of this session runs until this token is cancelled. False if the session is over.
    fn start_running(&mut self, session: u64, call: u32, token: &CancellationToken) -> bool {
        let there = self.session == session;
        if there {
            self.running.insert(call, token.clone());
        }
        there
    }

    /// The call of this session runs no more.
    fn stop_running(&mut self, session: u64, call: u32) -> Option<CancellationToken> {
        if self.session == session { self.running.remove(&call) } else { None }
    }
}

impl Source for Conversation {
    fn fill(&self, link: LinkId, out: &mut Vec<u8>, rekey: bool, now: Instant) -> Option<After> {
        let mut state = self.lock();
        state.nudged = false;
        let after = state.channel.fill(link, out, rekey, now)?;
        // What is under way from now on may be missed soon.
        self.keep_awake(&state);
        Some(after)
    }

    fn waiting(&self) -> usize {
        self.lock().channel.unsent()
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.budget.settle(&mut state.kept, 0);
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conversation({:?})", self.peer)
    }
}
