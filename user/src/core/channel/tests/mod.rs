//! Two channels under a clock that stands still unless told.

mod credit;
mod links;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_protocol::identity::InstanceId;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::session::{Given, Placed};
use parlor_protocol::wire::peer::{PeerMisbehaved, RecordHeader, Status, kind, write_frame_head};

use super::{Channel, Event, LinkId, Stale, Terms};

type Chan = Channel<u32, u32>;
type Events = Vec<Event<u32, u32>>;

/// Two ends and the links between them; a link has the same number at both ends.
struct Pair {
    now: Instant,
    a: Chan,
    b: Chan,
    links: Vec<(LinkId, VecDeque<Bytes>, VecDeque<Bytes>)>,
    seen_a: Events,
    seen_b: Events,
}

fn epoch(run: u8, generation: u32) -> Epoch {
    Epoch { instance: InstanceId([run; 16]), generation }
}

#[expect(clippy::disallowed_methods, reason = "a starting point for the virtual clock")]
fn start() -> Instant {
    Instant::now()
}

impl Pair {
    fn new() -> Self {
        let now = start();
        Self {
            now,
            a: Channel::new(epoch(1, 0), 1 << 20, now),
            b: Channel::new(epoch(2, 0), 1 << 20, now),
            links: Vec::new(),
            seen_a: Vec::new(),
            seen_b: Vec::new(),
        }
    }

    /// `a` opens a link to `b`.
    fn link(&mut self, number: u64, rung: Rung) -> Result<(), Stale> {
        let id = LinkId(number);
        let hello = self.a.hello();
        let (accept, terms_b) = self.b.judge(&hello)?;
        self.a.bind(id, rung, &Chan::terms_of(&hello, &accept), self.now, &mut self.seen_a)?;
        self.b.bind(id, rung, &terms_b, self.now, &mut self.seen_b)?;
        self.links.push((id, VecDeque::new(), VecDeque::new()));
        Ok(())
    }

    fn fill(&mut self) -> bool {
        let mut any = false;
        for (id, to_b, to_a) in &mut self.links {
            for (channel, queue) in [(&mut self.a, to_b), (&mut self.b, to_a)] {
                let mut out = Vec::new();
                while channel.fill(*id, &mut out, false, self.now).is_some() {
                    queue.push_back(Bytes::from(std::mem::take(&mut out)));
                    any = true;
                }
            }
        }
        any
    }

    /// Delivers everything, and everything that follows from it.
    fn settle(&mut self) {
        loop {
            let mut any = self.fill();
            for (id, to_b, to_a) in &mut self.links {
                while let Some(record) = to_b.pop_front() {
                    self.b.on_record(*id, &record, self.now, &mut self.seen_b).unwrap();
                    any = true;
                }
                while let Some(record) = to_a.pop_front() {
                    self.a.on_record(*id, &record, self.now, &mut self.seen_a).unwrap();
                    any = true;
                }
            }
            if !any {
                return;
            }
        }
    }

    /// What is under way vanishes.
    fn lose_all(&mut self) {
        for (_, to_b, to_a) in &mut self.links {
            to_b.clear();
            to_a.clear();
        }
    }

    /// Everything arrives but what this link carries, which vanishes.
    fn settle_without(&mut self, dead: u64) {
        loop {
            let mut any = self.fill();
            for (id, to_b, to_a) in &mut self.links {
                if *id == LinkId(dead) {
                    to_b.clear();
                    to_a.clear();
                }
                while let Some(record) = to_b.pop_front() {
                    self.b.on_record(*id, &record, self.now, &mut self.seen_b).unwrap();
                }
                while let Some(record) = to_a.pop_front() {
                    self.a.on_record(*id, &record, self.now, &mut self.seen_a).unwrap();
                }
                any |= !(to_b.is_empty() && to_a.is_empty());
            }
            if !any {
                return;
            }
        }
    }

    fn cut(&mut self, number: u64) {
        let id = LinkId(number);
        self.links.retain(|(link, _, _)| *link != id);
        self.a.unlink(id, self.now, &mut self.seen_a);
        self.b.unlink(id, self.now, &mut self.seen_b);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.a.on_deadline(self.now, &mut self.seen_a);
        self.b.on_deadline(self.now, &mut self.seen_b);
    }

    fn send(&mut self, text: &'static str, receipt: u32) {
        let placed = self.a.send(None, Given::Borrowed(text.as_bytes())).unwrap();
        assert!(matches!(placed, Placed::Sequenced(_)), "a small message waits for nothing");
        assert_eq!(self.a.watch(placed, receipt), None);
    }

    fn texts_at_b(&self) -> Vec<String> {
        self.seen_b
            .iter()
            .filter_map(|e| match e {
                Event::Messages(messages) => Some(messages.clone()),
                _ => None,
            })
            .flatten()
            .map(|(body, _)| String::from_utf8(body.to_vec()).unwrap())
            .collect()
    }

    fn receipts(&self) -> (Vec<u32>, Vec<u32>) {
        let delivered = |e: &Event<u32, u32>| match e {
            Event::Delivered { receipt } => Some(*receipt),
            _ => None,
        };
        let interrupted = |e: &Event<u32, u32>| match e {
            Event::Interrupted { receipt } => Some(*receipt),
            _ => None,
        };
        let a = &self.seen_a;
        (a.iter().filter_map(delivered).collect(), a.iter().filter_map(interrupted).collect())
    }
}

#[test]
fn a_message_that_waited_for_the_first_link_arrives_and_its_receipt_comes_back() {
    let mut pair = Pair::new();
    pair.send("hello", 1);
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["hello"]);
    pair.wait(Duration::from_millis(25));
    pair.settle();
    assert_eq!(pair.receipts(), (vec![1], vec![]));
    assert!(pair.a.is_idle());
}

#[test]
fn a_call_is_answered_and_the_answer_acknowledges_it() {
    let mut pair = Pair::new();
    pair.link(1, Rung::SameHost).unwrap();
    let call = pair.a.get(b"up", 0, Given::Borrowed(b"x"), 7, pair.now).unwrap();
    pair.settle();
    assert!(matches!(pair.seen_b.last(), Some(Event::Call { name, .. }) if &name[..] == b"up"));
    pair.b.answer(call, Status::Ok, Given::Borrowed(b"y")).unwrap();
    pair.settle();
    assert!(pair.seen_a.iter().any(|e| matches!(e, Event::Answered { token: 7, status: Status::Ok, .. })));
    assert!(pair.a.is_quiet());
}

#[test]
fn what_was_under_way_on_a_cut_link_arrives_on_the_next_once_and_in_order() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.send("one", 1);
    pair.settle();
    pair.send("two", 2);
    pair.fill();
    pair.cut(1);
    pair.send("three", 3);
    pair.link(2, Rung::Relay).unwrap();
    pair.settle();
    pair.wait(Duration::from_millis(25));
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["one", "two", "three"]);
    assert_eq!(pair.receipts().0, [1, 2, 3]);
}

#[test]
fn a_peer_that_restarted_interrupts_what_it_had_not_taken_over() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.send("taken", 1);
    pair.settle();
    pair.wait(Duration::from_millis(25));
    pair.settle();
    pair.send("not taken", 2);
    pair.a.get(b"f", 0, Given::Borrowed(b""), 9, pair.now).unwrap();
    pair.fill();
    pair.cut(1);
    pair.b = Channel::new(epoch(3, 0), 1 << 20, pair.now);
    pair.link(2, Rung::Lan).unwrap();
    pair.settle();
    assert_eq!(pair.receipts(), (vec![1], vec![2]));
    let interrupted =
        pair.seen_a.iter().any(|e| matches!(e, Event::CallInterrupted { token: 9, maybe_executed: true }));
    assert!(interrupted);
    pair.send("again", 3);
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["taken", "again"]);
    assert_eq!(pair.b.peer_epoch(), Some(epoch(1, 0)));
}

#[test]
fn this_side_restarting_is_noticed_by_the_peer() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    let placed = pair.b.send(None, Given::Borrowed(b"to the old run")).unwrap();
    assert_eq!(pair.b.watch(placed, 5), None);
    pair.cut(1);
    pair.a = Channel::new(epoch(9, 0), 1 << 20, pair.now);
    pair.link(2, Rung::Lan).unwrap();
    assert!(pair.seen_b.iter().any(|e| matches!(e, Event::Interrupted { receipt: 5 })));
    pair.send("new run", 1);
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["new run"]);
}

#[test]
fn a_handshake_of_an_earlier_session_is_stale() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    let old = pair.a.hello();
    pair.a.end(CloseCode::Idle, epoch(1, 1), &mut pair.seen_a);
    pair.settle();
    assert!(pair.seen_b.iter().any(|e| matches!(e, Event::Ended { code: CloseCode::Idle, .. })));
    pair.b.reset(epoch(2, 1), CloseCode::Idle, &mut pair.seen_b);
    pair.links.clear();
    pair.link(2, Rung::Lan).unwrap();
    assert_eq!(pair.b.judge(&old).unwrap_err(), Stale);
    pair.send("after", 1);
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["after"]);
}

#[test]
fn both_ends_opening_at_once_end_up_in_one_session() {
    let mut pair = Pair::new();
    let (hello_a, hello_b) = (pair.a.hello(), pair.b.hello());
    let (accept_b, terms_b) = pair.b.judge(&hello_a).unwrap();
    let (accept_a, terms_a) = pair.a.judge(&hello_b).unwrap();
    let now = pair.now;
    pair.a.bind(LinkId(1), Rung::Lan, &Chan::terms_of(&hello_a, &accept_b), now, &mut pair.seen_a).unwrap();
    pair.b.bind(LinkId(2), Rung::Lan, &Chan::terms_of(&hello_b, &accept_a), now, &mut pair.seen_b).unwrap();
    pair.b.bind(LinkId(1), Rung::Lan, &terms_b, now, &mut pair.seen_b).unwrap();
    pair.a.bind(LinkId(2), Rung::Lan, &terms_a, now, &mut pair.seen_a).unwrap();
    pair.links.push((LinkId(1), VecDeque::new(), VecDeque::new()));
    pair.links.push((LinkId(2), VecDeque::new(), VecDeque::new()));
    pair.send("x", 1);
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["x"]);
    assert!(!pair.seen_a.iter().chain(&pair.seen_b).any(|e| matches!(e, Event::SessionReset { .. })));
}

#[test]
fn a_handshake_that_is_behind_what_was_acknowledged_since_makes_a_link_all_the_same() {
    let mut pair = Pair::new();
    let hello_b = pair.b.hello();
    pair.link(1, Rung::Lan).unwrap();
    pair.b.send(None, Given::Borrowed(b"x")).unwrap();
    pair.send("y", 1);
    pair.settle();
    pair.wait(Duration::from_millis(25));
    pair.settle();
    let (accept, terms) = pair.a.judge(&hello_b).unwrap();
    let now = pair.now;
    assert_eq!(pair.a.bind(LinkId(2), Rung::Lan, &terms, now, &mut pair.seen_a), Ok(()));
    let terms = Chan::terms_of(&hello_b, &accept);
    assert_eq!(pair.b.bind(LinkId(2), Rung::Lan, &terms, now, &mut pair.seen_b), Ok(()));
}

#[test]
fn a_peer_that_claims_to_have_received_what_was_never_sent_is_refused() {
    let mut pair = Pair::new();
    let mut hello = pair.a.hello();
    hello.peer_epoch = Some(pair.b.epoch());
    hello.recv_next = 5;
    let (_, terms) = pair.b.judge(&hello).unwrap();
    assert_eq!(pair.b.bind(LinkId(1), Rung::Lan, &terms, pair.now, &mut pair.seen_b), Err(Stale));
    let forged = Terms { peer_recv_next: 0, ..terms };
    assert_eq!(pair.b.bind(LinkId(1), Rung::Lan, &forged, pair.now, &mut pair.seen_b), Ok(()));
}

#[test]
fn a_link_goes_on_with_the_session_unless_one_end_is_new_to_it() {
    fn goes_on(pair: &Pair) -> [bool; 2] {
        let hello = pair.a.hello();
        let (accept, terms_b) = pair.b.judge(&hello).unwrap();
        [pair.a.goes_on(&Chan::terms_of(&hello, &accept)), pair.b.goes_on(&terms_b)]
    }
    let mut pair = Pair::new();
    assert_eq!(goes_on(&pair), [false; 2], "the first one");
    pair.link(1, Rung::Lan).unwrap();
    assert_eq!(goes_on(&pair), [true; 2]);
    pair.cut(1);
    assert_eq!(goes_on(&pair), [true; 2], "it outlives its links");
    pair.a = Channel::new(epoch(3, 0), 1 << 20, pair.now);
    assert_eq!(goes_on(&pair), [false; 2], "a program that was started again");
    pair.link(2, Rung::Lan).unwrap();
    pair.b.reset(epoch(2, 9), CloseCode::TimedOut, &mut pair.seen_b);
    assert_eq!(goes_on(&pair), [false; 2], "a peer that gave up");
}

#[test]
fn behind_the_word_that_the_key_changes_only_a_last_word_may_stand() {
    for (second, refused) in
        [(kind::PING, true), (kind::REKEY, true), (kind::CLOSE, false), (kind::END, false)]
    {
        let mut pair = Pair::new();
        pair.link(1, Rung::Lan).unwrap();
        let mut record = Vec::new();
        RecordHeader::default().write(&mut record);
        write_frame_head(&mut record, kind::REKEY, 0);
        let payload: &[u8] = match second {
            kind::PING => &[1; 8],
            kind::REKEY => &[],
            _ => &[1, 0],
        };
        write_frame_head(&mut record, second, payload.len());
        record.extend_from_slice(payload);
        let taken = pair.b.on_record(LinkId(1), &record.into(), pair.now, &mut pair.seen_b);
        assert_eq!(taken.is_err(), refused, "kind {second}");
        if refused {
            assert_eq!(taken.err(), Some(PeerMisbehaved::BehindRekey(second)));
        }
    }
}

#[test]
fn a_cancelled_call_tells_the_callee_and_its_late_answer_is_nobodys() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    let call = pair.a.get(b"f", 0, Given::Borrowed(b""), 1, pair.now).unwrap();
    pair.settle();
    pair.b.answer(call, Status::Ok, Given::Borrowed(b"late")).unwrap();
    assert_eq!(pair.a.cancel(call), Some(true));
    assert_eq!(pair.a.cancel(call), None);
    pair.settle();
    assert!(pair.seen_b.iter().any(|e| matches!(e, Event::Cancelled { .. })));
    assert!(!pair.seen_a.iter().any(|e| matches!(e, Event::Answered { .. })));
}

#[test]
fn a_call_that_takes_too_long_ends_for_its_caller_and_its_callee() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.a.get(b"f", 300, Given::Borrowed(b""), 1, pair.now).unwrap();
    pair.a.get(b"f", 0, Given::Borrowed(b""), 2, pair.now).unwrap();
    pair.settle();
    pair.wait(Duration::from_millis(299));
    assert!(!pair.seen_a.iter().any(|e| matches!(e, Event::CallTimedOut { .. })));
    pair.wait(Duration::from_millis(1));
    pair.settle();
    let timed_out = |e: &Event<u32, u32>| matches!(e, Event::CallTimedOut { token: 1, maybe_executed: true });
    assert_eq!(pair.seen_a.iter().filter(|e| timed_out(e)).count(), 1);
    assert!(pair.seen_b.iter().any(|e| matches!(e, Event::Cancelled { .. })));
}

#[test]
fn a_channel_that_was_idle_for_long_is_not_ended_when_it_is_linked_again() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    pair.cut(1);
    pair.now += Duration::from_secs(3600);
    pair.link(2, Rung::Lan).unwrap();
    assert!(!pair.a.on_deadline(pair.now, &mut pair.seen_a));
    assert!(!pair.b.on_deadline(pair.now, &mut pair.seen_b));
}

#[test]
fn what_crosses_the_closing_of_an_idle_link_arrives_over_the_next_one() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.send("before", 1);
    pair.settle();
    pair.b.close_link(LinkId(1), CloseCode::Idle, pair.now, &mut pair.seen_b);
    pair.send("crossing", 2);
    pair.settle();
    assert!(!pair.a.is_linked() && !pair.b.is_linked());
    assert_eq!(pair.texts_at_b(), ["before"]);
    pair.links.clear();
    pair.link(2, Rung::Lan).unwrap();
    pair.settle();
    assert_eq!(pair.texts_at_b(), ["before", "crossing"]);
    assert_eq!(pair.receipts(), (vec![1, 2], vec![]));
}

#[test]
fn who_numbered_nothing_is_owed_no_acknowledgement() {
    let mut pair = Pair::new();
    pair.link(1, Rung::Lan).unwrap();
    pair.settle();
    let mut record = Vec::new();
    RecordHeader { seq: Some(0), ..RecordHeader::default() }.write(&mut record);
    pair.b.on_record(LinkId(1), &Bytes::from(record), pair.now, &mut pair.seen_b).unwrap();
    pair.wait(Duration::from_millis(25));
    let mut out = Vec::new();
    let fills = (0..100).take_while(|_| pair.b.fill(LinkId(1), &mut out, false, pair.now).is_some());
    assert_eq!(fills.count(), 0, "records without an end");
}
