//! The task that looks after one peer while there is something to look after.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::{Conversation, Phase, State};
use crate::clock;
use crate::core::ladder::climb_after;
use crate::error::OpenError;
use crate::hub::Hub;

/// A peer that the Room calls offline may be on its way back: what it is owed is kept this long.
const OFFLINE: Duration = Duration::from_secs(60);
/// What a peer is owed is kept this long while the Room is gone and no link is up.
const OUTAGE: Duration = Duration::from_secs(180);
/// A peer that no rung leads to is given up after this long.
const NO_PATH: Duration = Duration::from_secs(20);
/// Between searches for a path, doubled each time up to [`SEARCH_MOST`].
const SEARCH_FIRST: Duration = Duration::from_millis(200);
const SEARCH_MOST: Duration = Duration::from_secs(5);
/// A link that does not carry the data is closed after the better one has done so for this long.
const SUPERSEDED_AFTER: Duration = Duration::from_secs(2);
/// The keeper looks at least this often while it searches.
const SEARCH_LOOK: Duration = Duration::from_secs(1);

/// The search for a path.
#[derive(Debug, Default)]
pub(super) struct Search {
    pub(super) running: bool,
    pub(super) suspect: bool,
    /// Cancelled when the Room says that the peer is gone.
    pub(super) gone: CancellationToken,
    failures: u32,
    error: Option<OpenError>,
    next_at: Option<Instant>,
    unlinked_since: Option<Instant>,
    climbs: usize,
    climb_at: Option<Instant>,
    superseded_at: Option<Instant>,
}

impl Search {
    /// A link came up.
    pub(super) fn linked(&mut self) {
        self.failures = 0;
        self.error = None;
        self.next_at = None;
        self.unlinked_since = None;
        self.superseded_at = None;
    }

    pub(super) fn finished(&mut self, result: Result<(), OpenError>, now: Instant) {
        self.running = false;
        if let Err(error) = result {
            let wait = SEARCH_FIRST * 2u32.pow(self.failures.min(5));
            self.failures += 1;
            self.next_at = Some(now + wait.min(SEARCH_MOST));
            self.error = Some(error);
        }
    }
}

/// What the keeper does next.
enum Next {
    Wait(Option<Instant>),
    Search(Option<Instant>),
    EndIdle,
    GiveUp(OpenError),
    Rest,
}

impl Conversation {
    /// Somebody wants a way to the peer.
    pub(super) fn open(self: &Arc<Self>) -> Result<(), OpenError> {
        let hub = self.hub()?;
        let mut state = self.lock();
        let lingering = state.keeper && matches!(state.search.error, Some(OpenError::Offline(_)));
        if !lingering {
            if !state.keeper {
                state.search = Search::default();
            }
            self.phase.send_if_modified(|phase| {
                let asked = matches!(phase, Phase::Closed | Phase::Failed(_));
                if asked {
                    *phase = Phase::Opening;
                }
                asked
            });
        }
        drop(state);
        self.keep_running(&hub);
        self.look.notify_one();
        Ok(())
    }

    pub(super) fn open_if_closed(self: &Arc<Self>) -> Result<(), OpenError> {
        if *self.phase.borrow() == Phase::Closed { self.open() } else { Ok(()) }
    }

    /// The peer came online, or the Room is back: what waits for it is tried now.
    pub(crate) fn try_again(&self) {
        let mut state = self.lock();
        if state.keeper {
            state.search.next_at = Some(clock::now());
            state.search.failures = 0;
            if !state.channel.is_linked() {
                // An old answer counts no more.
                state.search.error = None;
            }
            if state.search.climb_at.is_some() {
                state.search.climb_at = Some(clock::now());
            }
        }
        drop(state);
        self.look.notify_one();
    }

    /// The Room says that the peer is gone: a search that goes on would find nobody.
    pub(crate) fn peer_left(&self) {
        let state = self.lock();
        if !state.channel.is_linked() {
            state.search.gone.cancel();
        }
    }

    /// Sees to it that the keeper runs.
    pub(super) fn keep_running(self: &Arc<Self>, hub: &Arc<Hub>) {
        let mut state = self.lock();
        if !state.keeper {
            state.keeper = true;
            hub.tasks.spawn(Arc::clone(self).keep(Arc::clone(hub)));
        }
    }

    async fn keep(self: Arc<Self>, hub: Arc<Hub>) {
        loop {
            let until = match self.look_after(&hub) {
                Next::Wait(until) => until,
                Next::Search(until) => {
                    hub.tasks.spawn(Arc::clone(&self).search(Arc::clone(&hub)));
                    until
                }
                Next::EndIdle => {
                    self.end(CloseCode::Idle, "the conversation was idle");
                    continue;
                }
                Next::GiveUp(error) => {
                    self.give_up(&hub, error);
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
        let idle = state.channel.on_deadline(now, &mut events);
        state.refresh();
        let next = if state.channel.is_linked() {
            if idle { Next::EndIdle } else { self.look_after_links(hub, &mut state, now, &mut events) }
        } else {
            self.look_for_a_link(&mut state, now)
        };
        if let Next::Search(_) = next {
            state.search.running = true;
            state.search.suspect = false;
            state.search.gone = CancellationToken::new();
        }
        state.keeper_wakes_at = match &next {
            Next::Wait(until) | Next::Search(until) => *until,
            Next::EndIdle | Next::GiveUp(_) | Next::Rest => None,
        };
        let links: Vec<_> = state.links.values().cloned().collect();
        drop(state);
        self.dispatch(&mut events);
        for link in links {
            link.flush(&**self);
        }
        next
    }

    fn look_after_links(
        &self,
        hub: &Hub,
        state: &mut State,
        now: Instant,
        events: &mut super::Events,
    ) -> Next {
        let mut until = state.channel.deadline();
        let mut sooner = |at: Instant| until = Some(until.map_or(at, |until| until.min(at)));
        let mut search = false;
        let Some((active, rung, _)) = state.channel.path() else { return Next::Wait(until) };
        if rung == Rung::Relay && state.search.climb_at.is_none() {
            state.search.climb_at = Some(now + climb_after(state.search.climbs));
        } else if rung != Rung::Relay {
            state.search.climb_at = None;
            state.search.climbs = 0;
        }
        // One of the two climbs and tidies up, so that they do not do it twice.
        let steward = hub.name < self.peer;
        if let Some(at) = state.search.climb_at.filter(|_| steward) {
            if at <= now && !state.search.running {
                state.search.climbs += 1;
                state.search.climb_at = Some(now + climb_after(state.search.climbs));
                search = true;
            }
            sooner(state.search.climb_at.unwrap_or(at));
        }
        if state.search.suspect && !state.search.running {
            search = true;
        }
        let others: Vec<_> = state
            .channel
            .link_ids()
            .into_iter()
            .filter(|&(id, other)| id != active && other >= rung)
            .collect();
        if others.is_empty() || !steward {
            state.search.superseded_at = None;
        } else {
            let at = *state.search.superseded_at.get_or_insert(now + SUPERSEDED_AFTER);
            if at <= now {
                state.search.superseded_at = None;
                for (id, _) in others {
                    state.channel.close_link(id, CloseCode::Superseded, now, events);
                }
            } else {
                sooner(at);
            }
        }
        if search { Next::Search(until) } else { Next::Wait(until) }
    }

    fn look_for_a_link(&self, state: &mut State, now: Instant) -> Next {
        let owed = !state.channel.is_idle();
        let wanted = *self.phase.borrow() == Phase::Opening;
        let deadline = state.channel.deadline();
        if state.search.running {
            return Next::Wait(earliest(deadline, Some(now + SEARCH_LOOK)));
        }
        if !owed && !wanted {
            state.keeper = false;
            self.phase.send_if_modified(|phase| {
                let was_ready = *phase == Phase::Ready;
                if was_ready {
                    *phase = Phase::Closed;
                }
                was_ready
            });
            return Next::Rest;
        }
        let since = *state.search.unlinked_since.get_or_insert(now);
        if let Some(error) = state.search.error.clone() {
            let patient = owed || matches!(error, OpenError::NoPath { .. });
            let patience = if patient { patience(&error) } else { Duration::ZERO };
            if now >= since + patience {
                return Next::GiveUp(error);
            }
            if matches!(error, OpenError::Offline(_)) {
                // New messages fail at once; those already taken wait for the peer to come back.
                self.phase.send_replace(Phase::Failed(error));
            }
        }
        match state.search.next_at {
            Some(at) if at > now => Next::Wait(earliest(deadline, Some(at))),
            _ => Next::Search(earliest(deadline, Some(now + SEARCH_LOOK))),
        }
    }

    /// No way leads to the peer: what it is owed is reported, who waits is told.
    fn give_up(self: &Arc<Self>, hub: &Arc<Hub>, error: OpenError) {
        let mut events = Vec::new();
        let mut state = self.lock();
        state.interruption = error.to_string();
        state.note_session_end();
        let fresh = state.next_epoch(Some(hub));
        state.channel.reset(fresh, CloseCode::TimedOut, &mut events);
        state.refresh();
        state.search = Search::default();
        state.story.tell(clock::now(), None, format!("given up: {error}"));
        drop(state);
        self.phase.send_replace(Phase::Failed(error));
        self.dispatch(&mut events);
    }
}

/// How long what is owed waits for this to pass.
fn patience(error: &OpenError) -> Duration {
    match error {
        OpenError::Offline(_) => OFFLINE,
        OpenError::RoomLost(_) => OUTAGE,
        OpenError::NoPath { .. } => NO_PATH,
        OpenError::NoSuchPeer(_)
        | OpenError::Refused { .. }
        | OpenError::IdentityChanged { .. }
        | OpenError::BadIntroduction { .. }
        | OpenError::Left => Duration::ZERO,
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}

async fn wait_until(until: Option<Instant>) {
    match until {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
