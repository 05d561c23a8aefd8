use super::brief::{FREE, LASTED};
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
fn a_climb_from_a_link_that_is_gone_ends_for_another_search_if_something_is_owed_and_else_for_good() {
    for owed in [true, false] {
        let (mut keeper, now) = (wanted(), start());
        keeper.linked();
        keeper.climb_now(Rung::Public);
        assert!(matches!(keeper.decide(&on(RELAY, &[RELAY]), true, now), Next::Search(_)));
        let gone = now + seconds(1);
        let (view, ends, then) = if owed {
            (owing(), Next::EndSearch, Next::Search(None))
        } else {
            (View::default(), Next::CallOff, Next::Rest)
        };
        assert_eq!(keeper.decide(&view, true, gone), ends);
        if owed {
            assert_eq!(keeper.decide(&view, true, gone), Next::Wait(None), "once is enough");
        }
        keeper.searched(Ok(()), gone);
        assert_eq!(keeper.decide(&view, true, gone), then);
    }
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

/// What is done about a peer to which each link lasts for so long, in a minute: searches, and the longest time without one.
fn with_links_that_last(life: Duration) -> (u32, Duration) {
    let (mut keeper, mut now) = (wanted(), start());
    let (end, mut searches, mut longest) = (now + seconds(60), 0, Duration::ZERO);
    while now < end {
        let before = now;
        while let Next::Wait(until) = keeper.decide(&owing(), true, now) {
            now = until.expect("it searches some time");
        }
        longest = longest.max(now - before);
        searches += 1;
        keeper.linked();
        keeper.searched(Ok(()), now);
        assert!(matches!(keeper.decide(&on(LAN, &[LAN]), true, now), Next::Wait(_)));
        now += life;
    }
    (searches, longest)
}

#[test]
fn links_that_die_as_soon_as_they_are_up_are_sought_ever_more_rarely() {
    let (searches, longest) = with_links_that_last(Duration::from_millis(10));
    assert!((15..25).contains(&searches), "{searches} searches in a minute");
    assert_eq!(longest, SEARCH_MOST);
}

#[test]
fn a_link_that_lasted_is_followed_by_another_at_once() {
    let (searches, longest) = with_links_that_last(LASTED);
    assert_eq!((searches, longest), (300, Duration::ZERO));
}

#[test]
fn a_link_that_was_gone_before_anybody_looked_counts_as_one_that_died_at_once() {
    let (mut keeper, now) = (wanted(), start());
    for _ in 0..FREE {
        assert!(matches!(keeper.decide(&owing(), true, now), Next::Search(_)));
        keeper.linked();
        keeper.searched(Ok(()), now);
    }
    assert_eq!(keeper.decide(&owing(), true, now), Next::Search(None), "the first few cost nothing");
    keeper.linked();
    keeper.searched(Ok(()), now);
    let pause = Next::Wait(Some(now + SEARCH_FIRST));
    assert_eq!(keeper.decide(&owing(), true, now), pause);
    keeper.try_again(false, now);
    assert_eq!(keeper.decide(&owing(), true, now), Next::Search(None), "the Room has news");
}

#[test]
fn a_peer_whose_programs_say_a_word_and_leave_is_searched_for_at_once() {
    let (mut keeper, now) = (wanted(), start());
    for _ in 0..10 {
        keeper.linked();
        keeper.ended();
        assert!(!matches!(keeper.decide(&View::default(), true, now), Next::Search(_)));
        keeper.wake();
    }
    assert_eq!(keeper.decide(&owing(), true, now), Next::Search(None));
}
