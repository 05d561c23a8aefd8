//! What is to be done about one peer: search for a path, climb, tidy up, give up, rest.
//!
//! - A path is searched for while something is owed to the peer or somebody wants to talk to it, and no link is
//!   up; and beside a link that is suspect, on the relay, or on a worse rung than the Room offered last. One at a time;
//!   a link that becomes suspect does not wait for the end of a search that began before, for something else.
//!   Between searches that find nothing, or links that die as soon as they are up, there are pauses.
//! - What is owed is kept for as long as the reason it cannot be delivered may pass: [`OFFLINE`], [`OUTAGE`],
//!   [`NO_PATH`]. New messages fail at once meanwhile if the peer is offline.
//! - Of two users the one whose name sorts first is the *steward*: it alone climbs by schedule and closes
//!   links that a better one has replaced, so that the two do not work against each other. A side whose own network
//!   changed climbs at once.

mod brief;

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::rung::Rung;

use self::brief::Brief;
use super::channel::LinkId;
use super::ladder::climb_after;
use crate::error::OpenError;

/// A peer that the Room calls offline may be on its way back: what it is owed is kept this long.
const OFFLINE: Duration = Duration::from_secs(60);
/// What a peer is owed is kept this long while the Room is gone and no link is up.
const OUTAGE: Duration = Duration::from_secs(180);
/// A peer that no rung leads to is given up after this long.
const NO_PATH: Duration = Duration::from_secs(20);
/// Between searches for a path, doubled each time up to [`SEARCH_MOST`].
const SEARCH_FIRST: Duration = Duration::from_millis(200);
/// The longest pause between searches.
const SEARCH_MOST: Duration = Duration::from_secs(5);
/// A link that does not carry the data is closed after a better one has done so for this long.
const SUPERSEDED_AFTER: Duration = Duration::from_secs(2);

/// Whether there is a way to the peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Nobody has asked.
    #[default]
    Closed,
    /// The Room is being asked, or a link tried.
    Opening,
    /// A link is up, or was and something is owed: what is sent is queued.
    Ready,
    /// There is none.
    Failed(OpenError),
}

/// What the channel looks like.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    /// The link that carries the data.
    pub(crate) active: Option<(LinkId, Rung)>,
    /// Every link.
    pub(crate) links: Vec<(LinkId, Rung)>,
    /// The link on which acknowledgements leave, because the peer sends there.
    pub(crate) answers_on: Option<LinkId>,
    /// Something is owed to the peer or waited for from it.
    pub(crate) owed: bool,
    /// The channel's own next deadline.
    pub(crate) deadline: Option<Instant>,
    /// The active link is suspect.
    pub(crate) suspect: bool,
    /// Nothing was said for so long that the channel is to be ended.
    pub(crate) idle_too_long: bool,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing before then.
    Wait(Option<Instant>),
    /// Ask for an introduction and try its rungs; look again at the latest then.
    Search(Option<Instant>),
    /// Close these links: a better one has replaced them.
    Close(Vec<LinkId>),
    /// Close every link: nobody has used the channel for long. The session stays, so that what the peer sends at this very
    /// moment arrives over the next link.
    CloseIdle,
    /// End the search that goes on: it was not for the link that is suspect or gone, and another is to begin.
    EndSearch,
    /// Search no more: the channel rests, and nobody wants a link.
    CallOff,
    /// Report what is owed: no way leads to the peer.
    GiveUp(OpenError),
    /// Nothing at all: the task ends.
    Rest,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    phase: Phase,
    /// The task runs.
    awake: bool,
    searching: bool,
    /// What goes on was begun because of a link that is gone or suspect, and has not led to another one yet.
    replaces: bool,
    suspect: bool,
    /// When a link that stays suspect is a reason for another search.
    suspect_again: Option<Instant>,
    /// This rung may work now.
    climb_wanted: Option<Rung>,
    /// The best rung that the Room offered last.
    best_offered: Option<Rung>,
    failures: u32,
    brief: Brief,
    error: Option<OpenError>,
    next_search: Option<Instant>,
    /// Why there has been no link, and for how long.
    failing: Option<(Discriminant<OpenError>, Instant)>,
    climbs: usize,
    climb_at: Option<Instant>,
    superseded_at: Option<Instant>,
}

impl Keeper {
    pub(crate) fn phase(&self) -> &Phase {
        &self.phase
    }

    /// True while a task looks after the peer.
    pub(crate) fn is_awake(&self) -> bool {
        self.awake
    }

    /// The task is to run. True if it did not.
    pub(crate) fn wake(&mut self) -> bool {
        !std::mem::replace(&mut self.awake, true)
    }

    /// Somebody wants a way to the peer.
    pub(crate) fn want(&mut self) {
        if !self.awake {
            *self = Self { phase: std::mem::take(&mut self.phase), ..Self::default() };
        }
        let waits_for_it = matches!(self.error, Some(OpenError::Offline(_)));
        if !waits_for_it && matches!(self.phase, Phase::Closed | Phase::Failed(_)) {
            self.phase = Phase::Opening;
        }
    }

    /// The Room has introduced the two. What is sent from now on waits for a link: only that shows whether the peer
    /// still has the session that the message would belong to.
    pub(crate) fn introduced(&mut self) {
        if matches!(self.phase, Phase::Failed(_)) {
            self.phase = Phase::Opening;
        }
    }

    /// A link came up.
    pub(crate) fn linked(&mut self) {
        self.phase = Phase::Ready;
        self.brief.came_up();
        self.replaces = false;
        self.failures = 0;
        self.error = None;
        self.next_search = None;
        self.failing = None;
        self.superseded_at = None;
    }

    /// The peer ended the channel, or this side did: what is sent from now on asks the Room again.
    pub(crate) fn ended(&mut self) {
        self.phase = Phase::Closed;
        // Its links go because they are done with.
        self.brief = Brief::default();
    }

    /// This user is gone.
    pub(crate) fn left(&mut self) {
        self.phase = Phase::Failed(OpenError::Left);
    }

    /// Data waits for an acknowledgement on the link for too long.
    pub(crate) fn suspects(&mut self) {
        self.suspect = true;
    }

    /// This rung may work now: climbs at once if the conversation is on a worse one.
    pub(crate) fn climb_now(&mut self, rung: Rung) {
        self.climb_wanted = Some(self.climb_wanted.map_or(rung, |wanted| wanted.min(rung)));
    }

    /// This is the best rung that the Room offers now.
    pub(crate) fn offered(&mut self, best: Option<Rung>) {
        self.best_offered = best;
    }

    /// A search is over.
    pub(crate) fn searched(&mut self, result: Result<(), OpenError>, now: Instant) {
        self.searching = false;
        self.suspect_again = Some(now + SEARCH_MOST);
        if let Err(error) = result {
            self.next_search = Some(now + pause_after(self.failures));
            self.failures += 1;
            let reason = discriminant(&error);
            // A reason that passed is no part of the next one's time.
            if self.failing.is_none_or(|(before, _)| before != reason) {
                self.failing = Some((reason, now));
            }
            self.error = Some(error);
        }
    }

    /// The peer came online, the Room is back, or this machine's network changed: what waits is tried now.
    pub(crate) fn try_again(&mut self, is_linked: bool, now: Instant) {
        if !self.awake {
            return;
        }
        self.failures = 0;
        self.next_search = Some(now);
        if !is_linked {
            // An old answer counts no more.
            self.error = None;
        }
        if self.climb_at.is_some() {
            self.climb_at = Some(now);
        }
    }

    /// Decides what is next.
    pub(crate) fn decide(&mut self, view: &View, steward: bool, now: Instant) -> Next {
        let next = match view.active {
            Some(_) if view.idle_too_long => Next::CloseIdle,
            Some((active, rung)) => self.with_a_link(active, rung, view, steward, now),
            None => self.without_a_link(view, now),
        };
        match &next {
            Next::Search(_) => {
                self.searching = true;
                self.replaces = self.suspect || view.suspect || view.active.is_none();
                self.suspect = false;
                self.climb_wanted = None;
            }
            Next::GiveUp(error) => {
                *self = Self { phase: Phase::Failed(error.clone()), awake: self.awake, ..Self::default() };
            }
            Next::Wait(_)
            | Next::Close(_)
            | Next::CloseIdle
            | Next::EndSearch
            | Next::CallOff
            | Next::Rest => {}
        }
        next
    }

    fn with_a_link(&mut self, active: LinkId, rung: Rung, view: &View, steward: bool, now: Instant) -> Next {
        let mut until = view.deadline;
        self.brief.is_up(now);
        // Why an earlier search failed says nothing about the next time there is no link.
        self.error = None;
        self.failing = None;
        // More may be offered by the next introduction to those who are on the relay.
        if rung == Rung::Relay || self.best_offered.is_some_and(|best| best < rung) {
            self.climb_at.get_or_insert(now + climb_after(self.climbs));
        } else {
            self.climb_at = None;
            self.climbs = 0;
        }
        let again = self.suspect_again.filter(|_| view.suspect);
        until = earliest(until, again.filter(|&at| at > now));
        self.climb_wanted = self.climb_wanted.filter(|&wanted| wanted < rung);
        let mut search = self.suspect || again.is_some_and(|at| at <= now) || self.climb_wanted.is_some();
        if let Some(at) = self.climb_at.filter(|_| steward) {
            if at <= now && !self.searching {
                self.climbs += 1;
                search = true;
                self.climb_at = Some(now + climb_after(self.climbs));
            }
            // A climb that is due while a search goes on follows it.
            until = earliest(until, self.climb_at.filter(|&at| at > now));
        }
        if search && !self.searching {
            return Next::Search(until);
        }
        if self.suspect && !self.replaces {
            // A climb, or what is left of the search that found the link, may wait for seconds where nothing answers.
            self.replaces = true;
            return Next::EndSearch;
        }
        // The peer may not believe in the link that carries this side's data, and then it sends on another.
        let in_use = |id| id == active || view.answers_on == Some(id);
        let replaced = view.links.iter().filter(|&&(id, other)| !in_use(id) && other >= rung);
        let replaced: Vec<LinkId> = replaced.map(|&(id, _)| id).collect();
        if replaced.is_empty() || !steward {
            self.superseded_at = None;
            return Next::Wait(until);
        }
        let at = *self.superseded_at.get_or_insert(now + SUPERSEDED_AFTER);
        if at > now {
            return Next::Wait(earliest(until, Some(at)));
        }
        self.superseded_at = None;
        Next::Close(replaced)
    }

    fn without_a_link(&mut self, view: &View, now: Instant) -> Next {
        if let Some(pause) = self.brief.is_gone(now) {
            self.next_search = Some(now + pause);
        }
        if self.searching {
            // A climb whose link was closed has nowhere to climb from. What it waits for may take seconds not to answer.
            let wanted = view.owed || self.phase != Phase::Ready;
            return match (wanted, std::mem::replace(&mut self.replaces, wanted)) {
                (true, true) => Next::Wait(view.deadline),
                (true, false) => Next::EndSearch,
                (false, _) => Next::CallOff,
            };
        }
        if !view.owed && self.phase != Phase::Opening {
            if self.phase == Phase::Ready {
                self.phase = Phase::Closed;
            }
            if !view.links.is_empty() {
                // Its last word waits for a socket that takes no more: it may have to be given up.
                return Next::Wait(view.deadline);
            }
            self.awake = false;
            return Next::Rest;
        }
        if let (Some(error), Some((_, since))) = (self.error.clone(), self.failing) {
            // Nobody waits long for a peer to which nothing is owed, but one failed search proves nothing.
            let patient = view.owed || matches!(error, OpenError::NoPath { .. });
            if now >= since + if patient { patience(&error) } else { Duration::ZERO } {
                return Next::GiveUp(error);
            }
            if matches!(error, OpenError::Offline(_)) {
                self.phase = Phase::Failed(error);
            }
        }
        match self.next_search {
            Some(at) if at > now => Next::Wait(earliest(view.deadline, Some(at))),
            _ => Next::Search(view.deadline),
        }
    }
}

/// How long what is owed waits for this to pass.
fn patience(error: &OpenError) -> Duration {
    match error {
        OpenError::Offline(_) => OFFLINE,
        OpenError::RoomLost(_) => OUTAGE,
        OpenError::NoPath { .. } | OpenError::Refused { why: PairRefusal::Busy { .. }, .. } => NO_PATH,
        OpenError::NoSuchPeer(_)
        | OpenError::Refused { .. }
        | OpenError::IdentityChanged { .. }
        | OpenError::BadIntroduction { .. }
        | OpenError::Left => Duration::ZERO,
    }
}

/// How long no search is begun after so many that failed before the latest.
fn pause_after(failures: u32) -> Duration {
    (SEARCH_FIRST * 2u32.pow(failures.min(5))).min(SEARCH_MOST)
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}

#[cfg(test)]
mod tests;
