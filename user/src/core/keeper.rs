//! What is to be done about one peer: search for a path, climb, tidy up, give up, rest.
//!
//! - A path is searched for while something is owed to the peer or somebody wants to talk to it, and no link is
//!   up; and beside a link that is suspect, on the relay, or on a worse rung than the Room offered last. One at a time;
//!   a link that becomes suspect does not wait for the end of a search that began before, for something else.
//! - What is owed is kept for as long as the reason it cannot be delivered may pass: [`OFFLINE`], [`OUTAGE`],
//!   [`NO_PATH`]. New messages fail at once meanwhile if the peer is offline.
//! - Of two users the one whose name sorts first is the *steward*: it alone climbs by schedule and closes
//!   links that a better one has replaced, so that the two do not work against each other. A side whose own network
//!   changed climbs at once.

use std::mem::{Discriminant, discriminant};
use std::time::{Duration, Instant};

use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::rung::Rung;

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
    /// End the search that goes on: it was not for the link that is suspect, and another is to begin.
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
            let wait = SEARCH_FIRST * 2u32.pow(self.failures.min(5));
            self.failures += 1;
            self.next_search = Some(now + wait.min(SEARCH_MOST));
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
        if self.searching {
            // A climb whose link was closed has nowhere to climb from.
            let wanted = view.owed || self.phase != Phase::Ready;
            return if wanted { Next::Wait(view.deadline) } else { Next::CallOff };
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

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    [a, b].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAY: (LinkId, Rung) = (LinkId(1), Rung::Relay);
    const LAN: (LinkId, Rung) = (LinkId(2), Rung::Lan);
    const PUBLIC: (LinkId, Rung) = (LinkId(3), Rung::Public);

    #[expect(clippy::disallowed_methods, reason = "a starting point for the virtual clock")]
    fn start() -> Instant {
        Instant::now()
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn on(active: (LinkId, Rung), links: &[(LinkId, Rung)]) -> View {
        View { active: Some(active), links: links.to_vec(), ..View::default() }
    }

    fn owing() -> View {
        View { owed: true, ..View::default() }
    }

    fn offline() -> OpenError {
        OpenError::Offline("Bar".parse().unwrap())
    }

    fn wanted() -> Keeper {
        let mut keeper = Keeper::default();
        keeper.want();
        keeper.wake();
        keeper
    }

    #[test]
    fn a_wanted_peer_is_searched_for_and_an_offline_one_is_given_up_at_once() {
        let (mut keeper, now) = (wanted(), start());
        assert_eq!(*keeper.phase(), Phase::Opening);
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Search(None));
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Wait(None), "one search at a time");
        keeper.searched(Err(offline()), now);
        assert_eq!(keeper.decide(&View::default(), true, now), Next::GiveUp(offline()));
        assert_eq!(*keeper.phase(), Phase::Failed(offline()));
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Rest);
        assert!(!keeper.is_awake());
    }

    #[test]
    fn what_is_owed_to_an_offline_peer_waits_a_minute_while_new_messages_fail() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        assert_eq!(keeper.decide(&owing(), true, now), Next::Search(None));
        keeper.searched(Err(offline()), now);
        assert!(matches!(keeper.decide(&owing(), true, now), Next::Wait(Some(_))));
        assert_eq!(*keeper.phase(), Phase::Failed(offline()));
        keeper.want();
        assert_eq!(*keeper.phase(), Phase::Failed(offline()), "it is known to be offline");
        let later = now + seconds(59);
        assert_eq!(keeper.decide(&owing(), true, later), Next::Search(None));
        keeper.searched(Err(offline()), later);
        assert_eq!(keeper.decide(&owing(), true, now + seconds(60)), Next::GiveUp(offline()));
    }

    #[test]
    fn the_time_that_the_room_was_gone_does_not_count_against_a_peer_that_comes_back_after_it() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.decide(&owing(), true, now);
        keeper.searched(Err(OpenError::RoomLost("Bar".parse().unwrap())), now);
        let back = now + seconds(110);
        keeper.try_again(false, back);
        assert_eq!(keeper.decide(&owing(), true, back), Next::Search(None));
        keeper.searched(Err(offline()), back);
        assert!(matches!(keeper.decide(&owing(), true, back), Next::Wait(Some(_))));
        assert_eq!(keeper.decide(&owing(), true, back + seconds(60)), Next::GiveUp(offline()));
    }

    #[test]
    fn a_peer_that_comes_back_is_searched_for_at_once() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.decide(&owing(), true, now);
        for _ in 0..6 {
            keeper.searched(Err(offline()), now);
        }
        assert!(matches!(keeper.decide(&owing(), true, now), Next::Wait(Some(_))));
        keeper.try_again(false, now);
        assert_eq!(keeper.decide(&owing(), true, now), Next::Search(None));
    }

    #[test]
    fn only_the_steward_climbs_and_ever_more_rarely() {
        let (mut steward, mut other, mut now) = (wanted(), wanted(), start());
        steward.linked();
        other.linked();
        for wait in [5, 15, 60, 300, 300] {
            let view = on(RELAY, &[RELAY]);
            assert!(matches!(steward.decide(&view, true, now), Next::Wait(Some(_))));
            now += seconds(wait);
            assert!(matches!(steward.decide(&view, true, now), Next::Search(_)), "after {wait} s");
            assert!(matches!(other.decide(&view, false, now), Next::Wait(None)));
            steward.searched(Ok(()), now);
        }
    }

    #[test]
    fn a_side_whose_network_changed_climbs_at_once_from_a_worse_rung_only() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        for (rung, on_which, climbs) in [
            (Rung::Public, RELAY, true),
            (Rung::Public, PUBLIC, false),
            (Rung::Public, LAN, false),
            (Rung::Lan, PUBLIC, true),
            (Rung::Lan, LAN, false),
        ] {
            keeper.climb_now(rung);
            let next = keeper.decide(&on(on_which, &[on_which]), false, now);
            assert_eq!(matches!(next, Next::Search(_)), climbs, "to {rung} from {on_which:?}");
            keeper.searched(Ok(()), now);
            assert!(matches!(keeper.decide(&on(RELAY, &[RELAY]), false, now), Next::Wait(_)));
        }
    }

    #[test]
    fn a_direct_rung_that_is_worse_than_what_is_offered_is_climbed_from_too() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.offered(Some(Rung::Public));
        assert_eq!(keeper.decide(&on(PUBLIC, &[PUBLIC]), true, now), Next::Wait(None));
        keeper.offered(Some(Rung::Lan));
        assert_eq!(keeper.decide(&on(PUBLIC, &[PUBLIC]), true, now), Next::Wait(Some(now + seconds(5))));
        assert!(matches!(keeper.decide(&on(PUBLIC, &[PUBLIC]), true, now + seconds(5)), Next::Search(_)));
        keeper.searched(Ok(()), now);
        assert_eq!(keeper.decide(&on(LAN, &[LAN]), true, now + seconds(6)), Next::Wait(None));
    }

    #[test]
    fn a_climb_from_a_link_that_was_closed_is_called_off_unless_something_is_owed() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.climb_now(Rung::Public);
        assert!(matches!(keeper.decide(&on(RELAY, &[RELAY]), true, now), Next::Search(_)));
        assert_eq!(keeper.decide(&owing(), true, now), Next::Wait(None));
        assert_eq!(keeper.decide(&View::default(), true, now), Next::CallOff);
        keeper.searched(Ok(()), now);
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Rest);
    }

    #[test]
    fn a_channel_that_nobody_uses_loses_its_links_and_then_its_keeper() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        let idle = View { idle_too_long: true, ..on(LAN, &[LAN]) };
        assert_eq!(keeper.decide(&idle, true, now), Next::CloseIdle);
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Rest);
        assert_eq!(*keeper.phase(), Phase::Closed);
    }

    #[test]
    fn replaced_links_are_closed_by_the_steward_after_two_seconds() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        let view = on(LAN, &[RELAY, LAN]);
        assert_eq!(keeper.decide(&view, true, now), Next::Wait(Some(now + seconds(2))));
        assert_eq!(keeper.decide(&view, true, now + seconds(2)), Next::Close(vec![RELAY.0]));
        assert_eq!(keeper.decide(&view, false, now + seconds(9)), Next::Wait(None));
    }

    #[test]
    fn a_replaced_link_on_which_the_peer_still_sends_is_not_closed() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        let view = View { answers_on: Some(RELAY.0), ..on(LAN, &[RELAY, LAN]) };
        for second in 0..5 {
            assert!(!matches!(keeper.decide(&view, true, now + seconds(second)), Next::Close(_)));
        }
        let agreed = View { answers_on: Some(LAN.0), ..view };
        keeper.decide(&agreed, true, now + seconds(5));
        assert_eq!(keeper.decide(&agreed, true, now + seconds(7)), Next::Close(vec![RELAY.0]));
    }

    #[test]
    fn a_better_link_that_is_suspect_is_not_closed_for_the_worse_one() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        let view = on(RELAY, &[RELAY, LAN]);
        for second in 0..5 {
            assert!(!matches!(keeper.decide(&view, true, now + seconds(second)), Next::Close(_)));
        }
    }

    #[test]
    fn a_suspect_link_starts_one_search() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.suspects();
        assert!(matches!(keeper.decide(&on(LAN, &[LAN]), true, now), Next::Search(_)));
        assert!(matches!(keeper.decide(&on(LAN, &[LAN]), true, now), Next::Wait(_)));
        keeper.searched(Ok(()), now);
        assert!(matches!(keeper.decide(&on(LAN, &[LAN]), true, now), Next::Wait(_)));
    }

    #[test]
    fn a_suspicion_ends_a_search_for_something_else_and_not_one_that_serves_it() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.climb_now(Rung::Lan);
        let relayed = on(RELAY, &[RELAY]);
        assert!(matches!(keeper.decide(&relayed, true, now), Next::Search(_)));
        keeper.suspects();
        assert_eq!(keeper.decide(&relayed, true, now), Next::EndSearch);
        assert!(matches!(keeper.decide(&relayed, true, now), Next::Wait(_)), "it is ended once");
        keeper.searched(Ok(()), now);
        assert!(matches!(keeper.decide(&relayed, true, now), Next::Search(_)));
        keeper.suspects();
        assert!(matches!(keeper.decide(&relayed, true, now), Next::Wait(_)), "it is under way");
        // It finds a link, goes on for a better one, and that link falls silent, too.
        keeper.linked();
        assert_eq!(keeper.decide(&relayed, true, now), Next::EndSearch);
    }

    #[test]
    fn a_link_that_stays_suspect_is_a_reason_to_search_again_every_five_seconds() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.suspects();
        let view = View { suspect: true, ..on(LAN, &[LAN]) };
        assert!(matches!(keeper.decide(&view, true, now), Next::Search(_)));
        keeper.searched(Ok(()), now);
        assert_eq!(keeper.decide(&view, true, now), Next::Wait(Some(now + seconds(5))));
        assert!(matches!(keeper.decide(&view, true, now + seconds(5)), Next::Search(_)));
        keeper.searched(Err(offline()), now + seconds(5));
        let sound = on(LAN, &[LAN]);
        assert_eq!(keeper.decide(&sound, true, now + seconds(60)), Next::Wait(None));
    }

    #[test]
    fn a_changed_identity_is_final_even_if_something_is_owed() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.decide(&owing(), true, now);
        let key = parlor_protocol::identity::PublicIdentity([1; 32]).fingerprint();
        let error = OpenError::IdentityChanged { peer: "Bar".parse().unwrap(), pinned: key, seen: key };
        keeper.searched(Err(error.clone()), now);
        assert_eq!(keeper.decide(&owing(), true, now), Next::GiveUp(error));
    }

    #[test]
    fn a_link_that_cannot_say_its_last_word_is_looked_after_until_it_is_gone() {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        let dead = now + seconds(45);
        let closing = View { links: vec![LAN], deadline: Some(dead), ..View::default() };
        assert_eq!(keeper.decide(&closing, true, now), Next::Wait(Some(dead)));
        assert_eq!(*keeper.phase(), Phase::Closed);
        assert_eq!(keeper.decide(&View::default(), true, dead), Next::Rest);
    }

    #[test]
    fn nobody_is_looked_after_without_a_reason() {
        let (mut keeper, now) = (Keeper::default(), start());
        keeper.wake();
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Rest);
        keeper.wake();
        keeper.linked();
        assert_eq!(keeper.decide(&View::default(), true, now), Next::Rest);
        assert_eq!(*keeper.phase(), Phase::Closed);
    }
}
