//! Room at the peer, and what becomes of it when links go.

use super::*;

#[test]
fn an_acknowledgement_and_a_grant_that_were_lost_with_a_link_are_said_again_on_the_other() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.link(2, Rung::Lan).unwrap();
    pair.settle();
    pair.send("x", 1);
    pair.fill();
    let record = pair.links[0].1.pop_front().unwrap();
    pair.b.on_record(LinkId(1), &record, pair.now, &mut pair.seen_b).unwrap();
    // The acknowledgement leaves on the first link, which is lost with it.
    pair.b.links.owe_pong(LinkId(1), 7);
    let mut lost = Vec::new();
    assert!(pair.b.fill(LinkId(1), &mut lost, false, pair.now).is_some());
    pair.cut(1);
    pair.settle();
    assert_eq!(pair.receipts().0, [1]);
}

#[test]
fn an_answer_that_waits_for_room_finds_some_although_the_peer_takes_no_messages() {
    let (mut pair, message, answer) = (Pair::new(), vec![1; 60_000], vec![2; 30_000]);
    pair.link(1, Rung::Lan).unwrap();
    while pair.a.send(Some(b"unread"), Given::Borrowed(&message)).is_ok() {
        pair.settle();
        pair.wait(Duration::from_millis(25));
        pair.settle();
    }
    let waiting = pair.a.buffered();
    while pair.a.answer(1, Status::Ok, Given::Borrowed(&answer)).is_ok() {}
    pair.seen_a.clear();
    pair.settle();
    pair.wait(Duration::from_millis(25));
    pair.settle();
    assert_eq!(pair.a.buffered(), waiting, "the answers have left, and no message has");
    assert!(pair.seen_a.iter().any(|event| matches!(event, Event::Room)));
    pair.a.answer(1, Status::Ok, Given::Borrowed(&answer)).unwrap();
}

/// What messages that came to `b` cost.
fn came(pair: &Pair) -> u64 {
    let cost = |event: &Event<u32, u32>| match event {
        Event::Messages(messages) => messages.cost(),
        _ => 0,
    };
    pair.seen_b.iter().map(cost).sum()
}

/// What a message of these tests costs, and how many there are: more than the window holds.
const COST: u64 = 30_064;
const MANY: u64 = 60;

fn send_more_than_the_window(pair: &mut Pair) {
    for _ in 0..MANY {
        pair.a.send(None, Given::Borrowed(&vec![7; 30_000])).unwrap();
    }
}

/// Lets everything through but what the link carries, and b's application take what comes, until all has come.
fn rounds_without(dead: u64, pair: &mut Pair, mut taken: u64) -> Duration {
    let began = pair.now;
    while taken < MANY * COST {
        pair.settle_without(dead);
        pair.b.consume(came(pair) - taken);
        taken = came(pair);
        pair.wait(Duration::from_millis(250));
        assert!(pair.now - began < Duration::from_secs(60), "{taken} of {} came", MANY * COST);
    }
    pair.now - began
}

#[test]
fn a_grant_that_a_dead_link_swallowed_is_said_again_where_the_data_comes_then() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.link(2, Rung::Relay).unwrap();
    pair.settle();
    send_more_than_the_window(&mut pair);
    let (mut out, mut records) = (Vec::new(), Vec::new());
    while pair.a.fill(LinkId(1), &mut out, false, pair.now).is_some() {
        records.push(Bytes::from(std::mem::take(&mut out)));
    }
    // The link swallows the last record, and what b says then.
    records.pop();
    for record in &records {
        pair.b.on_record(LinkId(1), record, pair.now, &mut pair.seen_b).unwrap();
    }
    assert!(pair.b.consume(20 * COST));
    assert!(pair.b.fill(LinkId(1), &mut out, false, pair.now).is_some());
    pair.wait(Duration::from_secs(1));
    assert_eq!(pair.a.path().unwrap().1, Rung::Relay);
    assert!(rounds_without(1, &mut pair, 20 * COST) < Duration::from_secs(2));
}

#[test]
fn who_waits_for_credit_alone_notices_that_the_link_is_dead() {
    for other in [None, Some(Rung::Relay)] {
        let mut pair = Pair::new();
        pair.link(1, Rung::Lan).unwrap();
        if let Some(rung) = other {
            pair.link(2, rung).unwrap();
        }
        pair.settle();
        send_more_than_the_window(&mut pair);
        for _ in 0..2 {
            pair.settle();
            pair.wait(Duration::from_millis(25));
        }
        assert!(!pair.a.out.in_flight() && pair.a.out.waits_for_credit());
        // b's application takes everything, and from now on the link swallows what either says.
        let taken = came(&pair);
        pair.b.consume(taken);
        let began = pair.now;
        while !pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { link: LinkId(1) })) {
            pair.settle_without(1);
            pair.wait(Duration::from_millis(100));
            assert!(pair.now - began < Duration::from_millis(2300), "nobody noticed");
        }
        if other.is_none() {
            pair.link(2, Rung::Relay).unwrap();
        }
        assert!(rounds_without(1, &mut pair, taken) < Duration::from_secs(1));
    }
}

#[test]
fn who_waits_for_credit_from_a_peer_that_takes_nothing_asks_now_and_then_and_suspects_nothing() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    send_more_than_the_window(&mut pair);
    let mut records = 0;
    for _ in 0..600 {
        pair.settle();
        pair.wait(Duration::from_millis(100));
        records += usize::from(pair.a.has_record(LinkId(1), pair.now));
    }
    assert!(!pair.seen_a.iter().any(|e| matches!(e, Event::Suspect { .. })));
    assert!((20..80).contains(&records), "{records} records in a minute");
}

#[test]
fn a_better_link_is_where_credit_is_said_from_when_it_is_taken_into_use() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Relay).unwrap();
    pair.settle();
    // The window is used up, and nothing waits.
    for _ in 0..35 {
        pair.a.send(None, Given::Borrowed(&vec![7; 30_000])).unwrap();
    }
    pair.settle();
    pair.wait(Duration::from_millis(25));
    pair.settle();
    pair.link(2, Rung::Lan).unwrap();
    pair.settle();
    // The first link falls silent before the application has taken anything, and the peer talks on the second.
    let taken = came(&pair);
    pair.b.consume(taken);
    pair.a.send(None, Given::Borrowed(&vec![7; 30_000])).unwrap();
    for _ in 0..4 {
        pair.b.send(None, Given::Borrowed(b"chat")).unwrap();
        pair.settle_without(1);
        pair.wait(Duration::from_millis(250));
    }
    assert_eq!(came(&pair), taken + COST);
}
