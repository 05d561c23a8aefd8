//! Which link carries the data, and which go.

use super::*;

#[test]
fn a_better_link_takes_over_and_a_worse_one_does_not() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Relay).unwrap();
    pair.link(2, Rung::Lan).unwrap();
    assert_eq!(pair.a.path().unwrap().1, Rung::Lan);
    pair.link(3, Rung::Public).unwrap();
    assert_eq!(pair.a.path().unwrap().1, Rung::Lan);
    pair.cut(2);
    assert_eq!(pair.a.path().unwrap().1, Rung::Public);
    pair.send("x", 1);
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["x"]);
}

#[test]
fn a_link_that_acknowledges_nothing_becomes_suspect_and_the_next_best_carries_on() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.link(2, Rung::Relay).unwrap();
    pair.settle();
    pair.send("lost on the way", 1);
    pair.fill();
    pair.links[0].1.clear();
    pair.wait(Duration::from_millis(999));
    assert_eq!(pair.a.path().unwrap().1, Rung::Lan);
    pair.wait(Duration::from_millis(1));
    assert!(pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { link: LinkId(1) })));
    assert_eq!(pair.a.path().unwrap().1, Rung::Relay);
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["lost on the way"]);
}

#[test]
fn who_only_receives_acknowledges_where_the_sender_sends_although_a_better_link_seems_to_work() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    pair.send("lost on the way", 1);
    pair.settle_without(1);
    pair.wait(Duration::from_secs(1));
    assert!(pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { link: LinkId(1) })));
    pair.link(2, Rung::Relay).unwrap();
    for _ in 0..3 {
        pair.settle_without(1);
        pair.wait(Duration::from_millis(25));
    }
    assert_eq!(pair.b.path().unwrap().1, Rung::Lan, "nothing tells it otherwise");
    assert_eq!(pair.texts_at_b(), ["lost on the way"]);
    assert_eq!(pair.receipts().0, [1]);
}

#[test]
fn an_acknowledgement_that_comes_with_another_link_says_nothing_for_the_one_that_is_suspect() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Relay).unwrap();
    pair.settle();
    pair.send("arrives, but its acknowledgement does not", 1);
    pair.fill();
    let arrives = pair.links[0].1.pop_front().unwrap();
    pair.b.on_record(LinkId(1), &arrives, pair.now, &mut pair.seen_b).unwrap();
    pair.send("lost on the way", 2);
    pair.settle_without(1);
    pair.wait(Duration::from_secs(1));
    pair.settle_without(1);
    pair.link(2, Rung::Relay).unwrap();
    assert_eq!(pair.a.path().unwrap().0, LinkId(2));
}

#[test]
fn two_links_that_fall_silent_together_are_found_out_together() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Relay).unwrap();
    pair.link(2, Rung::Relay).unwrap();
    pair.settle();
    pair.send("lost on the way", 1);
    pair.fill();
    pair.lose_all();
    pair.wait(Duration::from_secs(1));
    assert_eq!((pair.a.path().unwrap().0, pair.a.sound_rung()), (LinkId(2), None));
    pair.fill();
    pair.lose_all();
    pair.wait(Duration::from_millis(10));
    pair.link(3, Rung::Relay).unwrap();
    assert_eq!((pair.a.path().unwrap().0, pair.a.sound_rung()), (LinkId(3), Some(Rung::Relay)));
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["lost on the way"]);
}

#[test]
fn a_link_that_shows_life_after_another_fell_silent_carries_the_data_again() {
    let mut pair = Pair::new();
    pair.link(1, Rung::SameHost).unwrap();
    pair.link(2, Rung::Lan).unwrap();
    pair.settle();
    pair.send("lost on the way", 1);
    pair.settle_without(1);
    pair.wait(Duration::from_secs(1));
    pair.link(3, Rung::Relay).unwrap();
    assert_eq!(pair.a.path().unwrap().1, Rung::Relay, "it was proved since");
    pair.wait(Duration::from_millis(1));
    pair.settle_without(1);
    assert_eq!(pair.a.path().unwrap().1, Rung::Lan, "its pong came");
    assert_eq!(pair.texts_at_b(), ["lost on the way"]);
}

#[test]
fn a_ping_that_waited_out_an_outage_does_not_make_the_next_one_last_as_long() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Relay).unwrap();
    pair.settle();
    for outage in [5, 20] {
        // The ping leaves before anybody knows, or while the link is suspect already.
        for suspect_first in [false, true] {
            pair.send("waits", 1);
            if !suspect_first {
                pair.a.ping(1);
            }
            pair.fill();
            pair.wait(Duration::from_secs(3));
            pair.a.ping(2);
            pair.fill();
            pair.wait(Duration::from_secs(outage));
            pair.settle();
            pair.wait(Duration::from_millis(25));
            pair.settle();
        }
    }
    // Nobody suspects a link on which no data waits, so such a ping does count.
    pair.a.ping(3);
    pair.fill();
    pair.wait(Duration::from_secs(20));
    pair.settle();
    pair.seen_a.clear();
    pair.send("lost on the way", 2);
    pair.fill();
    pair.wait(Duration::from_secs(3));
    assert!(pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { .. })));
}

#[test]
fn a_link_that_came_up_on_a_busy_machine_is_suspect_as_soon_as_any_other_once_data_has_gone_over_it() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Relay).unwrap();
    pair.fill();
    pair.wait(Duration::from_millis(700));
    pair.settle();
    for _ in 0..3 {
        pair.send("arrives", 1);
        pair.settle();
        pair.wait(Duration::from_millis(50));
    }
    pair.seen_a.clear();
    pair.send("lost on the way", 2);
    pair.fill();
    pair.wait(Duration::from_secs(1));
    assert!(pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { .. })));
}

#[test]
fn a_link_whose_round_trips_are_long_is_asked_for_them_now_and_then_and_no_other_is() {
    for (rtt, pings) in [(50, 0), (700, 1)] {
        let mut pair = Pair::new();
        pair.link(1, Rung::Relay).unwrap();
        pair.fill();
        pair.wait(Duration::from_millis(rtt));
        pair.settle();
        pair.wait(Duration::from_millis(150));
        pair.seen_a.clear();
        for receipt in 0..3 {
            pair.send("one of many", receipt);
            pair.fill();
        }
        let under_way = pair.a.links.iter().map(|link| link.pinged.len()).sum::<usize>();
        assert_eq!(under_way, pings, "round trips of {rtt} ms");
    }
}

#[test]
fn an_idle_link_is_never_suspect_and_dies_when_nothing_comes_for_long() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    pair.wait(Duration::from_secs(24));
    assert!(!pair.fill());
    pair.wait(Duration::from_secs(1));
    assert!(pair.fill(), "a keepalive");
    pair.wait(Duration::from_secs(20));
    assert!(!pair.a.is_linked());
    assert!(pair.seen_a.iter().any(|e| matches!(e, Event::LinkEnded { code: CloseCode::TimedOut, .. })));
    assert!(!pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { .. })));
}

#[test]
fn a_ping_comes_back_with_its_round_trip_and_rung() {
    let mut pair = Pair::new();
    assert!(!pair.a.ping(42));
    pair.link(1, Rung::Public).unwrap();
    pair.settle();
    assert!(pair.a.ping(42));
    pair.fill();
    pair.now += Duration::from_millis(30);
    pair.settle();
    let pong = pair.seen_a.iter().find_map(|e| match e {
        Event::Pong { rung, id: 42, rtt } => Some((*rung, *rtt)),
        _ => None,
    });
    assert_eq!(pong, Some((Rung::Public, Duration::from_millis(30))));
}

#[test]
fn what_waits_for_a_full_socket_is_no_reason_to_look_again() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    pair.send("text", 1);
    pair.fill();
    for (id, to_b, _) in &mut pair.links {
        while let Some(record) = to_b.pop_front() {
            pair.b.on_record(*id, &record, pair.now, &mut pair.seen_b).unwrap();
        }
    }
    let due = pair.b.deadline().unwrap();
    assert_eq!(pair.b.deadline_after(pair.now), Some(due));
    // Nothing that is due can be written.
    pair.wait(due - pair.now);
    assert_eq!(pair.b.deadline(), Some(due));
    assert!(pair.b.deadline_after(pair.now).unwrap() >= pair.now + Duration::from_secs(20));
}

#[test]
fn a_peer_that_opens_link_after_link_has_eight() {
    let mut pair = Pair::new();
    for number in 0..20 {
        pair.link(number, Rung::Lan).unwrap();
    }
    assert_eq!(pair.a.link_ids().len(), 8);
    let ended = pair.seen_b.iter().filter(|e| matches!(e, Event::LinkEnded { .. })).count();
    assert_eq!(ended, 12);
}

#[test]
fn who_only_receives_keeps_the_link_on_which_the_data_comes_when_others_fill_the_places() {
    let mut pair = Pair::new();
    for number in 1..=7 {
        pair.link(number, Rung::Lan).unwrap();
    }
    pair.settle();
    pair.wait(Duration::from_secs(10));
    pair.settle();
    pair.send("lost on the way", 1);
    for _ in 0..2 {
        // The seven fall silent, and the sender comes by the relay.
        pair.fill();
        pair.lose_all();
        pair.wait(Duration::from_secs(1));
    }
    pair.link(8, Rung::Relay).unwrap();
    for _ in 0..2 {
        pair.fill();
        let (id, to_b, _) = pair.links.last_mut().unwrap();
        while let Some(record) = to_b.pop_front() {
            pair.b.on_record(*id, &record, pair.now, &mut pair.seen_b).unwrap();
        }
        pair.lose_all();
    }
    assert_eq!(pair.texts_at_b(), ["lost on the way"]);
    pair.link(9, Rung::Relay).unwrap();
    assert!(pair.b.link_ids().contains(&(LinkId(8), Rung::Relay)), "{:?}", pair.b.link_ids());
}
