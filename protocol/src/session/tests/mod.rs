//! A sender and a receiver over links that lose what they carry.

mod turns;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Arrived, Full, Given, Inbound, Outbound, Placed, Taken};
use crate::limits::{BODY, BODY_MOST, RECEIVE_WINDOW};
use crate::wire::peer::{Head, MESSAGE_COST, PeerMisbehaved, Status, kind, write_frame_head};

const RECORD: usize = 65_494;

/// What arrived, each message for itself.
#[derive(Debug)]
enum Got {
    Message { event: Option<Bytes>, body: Bytes, cost: u64 },
    Call { call: u32, body: Bytes },
    Answer { call: u32, body: Bytes },
    Cancelled,
}

impl Got {
    fn of(arrived: Arrived) -> Vec<Self> {
        match arrived {
            Arrived::Messages(mut messages) => {
                let (event, mut got, all) = (messages.event().cloned(), Vec::new(), messages.cost());
                for (body, cost) in messages.by_ref() {
                    got.push(Got::Message { event: event.clone(), body, cost });
                }
                assert!(messages.is_empty() && messages.cost() == 0 && all > 0);
                got
            }
            Arrived::Call { call, body, .. } => vec![Got::Call { call, body }],
            Arrived::Answer { call, body, .. } => vec![Got::Answer { call, body }],
            Arrived::Cancelled { .. } => vec![Got::Cancelled],
        }
    }
}

/// One direction of a conversation: what was pushed on one side must come out on the other.
struct Conversation {
    outbound: Outbound<u64>,
    inbound: Inbound,
    /// Records under way on the current link, and the acknowledgements under way back.
    records: VecDeque<(u64, Vec<u8>)>,
    arrived: Vec<Got>,
    receipts: Vec<u64>,
}

impl Conversation {
    fn new(limit: usize) -> Self {
        Self {
            outbound: Outbound::new(limit),
            inbound: Inbound::new(BODY_MOST as u32),
            records: VecDeque::new(),
            arrived: Vec::new(),
            receipts: Vec::new(),
        }
    }

    fn push(&mut self, head: &Head<Bytes>, body: &[u8], receipt: Option<u64>) -> Result<Placed, Full> {
        let placed = self.outbound.push(head, Given::Borrowed(body))?;
        if let Some(receipt) = receipt {
            self.receipts.extend(self.outbound.watch(placed, receipt));
        }
        Ok(placed)
    }

    fn transmit(&mut self) -> bool {
        let mut out = Vec::new();
        let first = self.outbound.transmit(&mut out, RECORD);
        assert!(out.len() <= RECORD);
        if let Some(first) = first {
            self.records.push_back((first, out));
        }
        first.is_some()
    }

    fn deliver(&mut self) {
        let Some((mut seq, record)) = self.records.pop_front() else { return };
        let record = Bytes::from(record);
        let mut at = 0;
        while at < record.len() {
            let taken = self.inbound.take(seq, &record, at).unwrap();
            (seq, at) = (seq + taken.frames, taken.end);
            self.arrived.extend(taken.arrived.into_iter().flat_map(Got::of));
        }
    }

    fn acknowledge(&mut self) {
        self.outbound.ack(self.inbound.next(), &mut self.receipts).unwrap();
    }

    fn cut(&mut self) {
        self.records.clear();
        self.acknowledge();
        self.outbound.rewind();
    }

    fn consume_all(&mut self) {
        for arrived in &self.arrived {
            if let Got::Message { cost, .. } = arrived {
                self.inbound.consume(*cost);
            }
        }
        self.outbound.credit(self.inbound.grant());
    }

    /// Lets everything through; `seen` says what was consumed before.
    fn drain(&mut self) {
        let mut consumed = 0;
        loop {
            while self.transmit() {
                self.deliver();
            }
            self.deliver();
            self.acknowledge();
            for arrived in &self.arrived[consumed..] {
                if let Got::Message { cost, .. } = arrived {
                    self.inbound.consume(*cost);
                }
            }
            consumed = self.arrived.len();
            self.outbound.credit(self.inbound.grant());
            if !self.outbound.has_work() && self.records.is_empty() {
                break;
            }
        }
        self.acknowledge();
    }
}

fn message(event: &'static str) -> Head<Bytes> {
    Head::Send { event: (!event.is_empty()).then(|| Bytes::from_static(event.as_bytes())) }
}

fn call(number: u32) -> Head<Bytes> {
    Head::Get { call: number, timeout_ms: 0, name: Bytes::from_static(b"f") }
}

#[test]
fn a_small_call_passes_between_the_pieces_of_a_large_message() {
    let mut c = Conversation::new(8 << 20);
    c.push(&message("file"), &vec![1; 1_000_000], None).unwrap();
    assert!(c.transmit());
    c.push(&call(1), b"now", None).unwrap();
    c.push(&message("chat"), b"hi", None).unwrap();
    for _ in 0..3 {
        c.transmit();
    }
    while !c.records.is_empty() {
        c.deliver();
    }
    assert!(matches!(c.arrived[0], Got::Call { call: 1, .. }));
    assert!(matches!(&c.arrived[1], Got::Message { event: Some(e), .. } if &e[..] == b"chat"));
}

#[test]
fn small_messages_pass_a_message_of_64_mib_and_so_do_calls() {
    let mut c = Conversation::new(8 << 20);
    c.push(&message("file"), &vec![1; BODY_MOST], None).unwrap();
    for round in 0..40 {
        for _ in 0..10 {
            assert!(c.transmit());
        }
        c.push(&message("chat"), &vec![round; 60_000], None).unwrap();
        c.push(&call(u32::from(round)), b"now", None).unwrap();
        for _ in 0..4 {
            c.transmit();
        }
        while !c.records.is_empty() {
            c.deliver();
        }
        c.acknowledge();
        assert_eq!(c.arrived.len(), 2 * (usize::from(round) + 1), "both are there, and the large one is not");
        let cost = 60_000 + MESSAGE_COST;
        c.inbound.consume(cost);
        if c.inbound.grant_is_due() {
            c.outbound.credit(c.inbound.grant());
        }
        assert!(c.outbound.bytes() < 8 << 20);
    }
    c.push(&message("file"), &vec![2; BODY_MOST], None).unwrap_err();
    c.drain();
    assert!(c.arrived.iter().any(|got| matches!(got, Got::Message { body, .. } if body.len() == BODY_MOST)));
    assert!(c.outbound.is_empty() && c.outbound.bytes() == 0);
    c.push(&message("file"), &vec![2; BODY_MOST], None).unwrap();
}

#[test]
fn one_message_longer_than_most_of_the_window_is_under_way_at_a_time_and_costs_all_of_it() {
    let mut c = Conversation::new(8 << 20);
    for (event, len) in [("a", 900_000), ("b", BODY)] {
        c.push(&message(event), &vec![1; len], None).unwrap();
    }
    // 148,512 bytes are left when the first is whole, and the second may begin.
    while c.transmit() {
        c.deliver();
    }
    assert_eq!(c.arrived.len(), 2);
    c.consume_all();
    assert_eq!(c.inbound.window(), RECEIVE_WINDOW + 900_000 + BODY as u64 + 2 * MESSAGE_COST);
    c.arrived.clear();
    c.push(&message("b"), &vec![1; BODY], None).unwrap();
    c.push(&message("c"), b"passes it", None).unwrap();
    c.push(&message("b"), b"when that one is taken", None).unwrap();
    while c.transmit() {
        c.deliver();
    }
    assert_eq!(c.arrived.len(), 2, "the one that passes, and the long one");
    assert!(!c.outbound.has_work() && !c.outbound.is_empty());
    let small = Bytes::from_static(&[16, 2, 0, 0, b'x']);
    assert_eq!(c.inbound.take(c.inbound.next(), &small, 0), Err(PeerMisbehaved::Window));
}

#[test]
fn a_peer_that_has_two_such_messages_under_way_is_found_out() {
    let begin = |stream: u32| {
        let mut frame = Vec::new();
        let head = message("a");
        write_frame_head(&mut frame, kind::BEGIN, 9 + head.encoded_len());
        frame.extend_from_slice(&stream.to_le_bytes());
        frame.extend_from_slice(&800_000u32.to_le_bytes());
        frame.push(head.kind());
        head.write(&mut frame);
        Bytes::from(frame)
    };
    let mut inbound = Inbound::new(BODY as u32);
    inbound.take(0, &begin(1), 0).unwrap();
    assert_eq!(inbound.take(1, &begin(2), 0), Err(PeerMisbehaved::Window));
}

#[test]
fn messages_of_one_event_never_pass_each_other() {
    let mut c = Conversation::new(8 << 20);
    c.push(&message("file"), &vec![1; 500_000], None).unwrap();
    c.push(&message("file"), b"done", None).unwrap();
    c.push(&message("other"), b"x", None).unwrap();
    c.drain();
    let bodies: Vec<usize> =
        c.arrived.iter().map(|a| if let Got::Message { body, .. } = a { body.len() } else { 0 }).collect();
    assert_eq!(bodies, [1, 500_000, 4]);
}

#[test]
fn messages_wait_for_the_window_and_calls_do_not() {
    let mut c = Conversation::new(8 << 20);
    let body = vec![7; 30_000];
    for _ in 0..60 {
        c.push(&message(""), &body, None).unwrap();
    }
    c.push(&call(9), b"", None).unwrap();
    while c.transmit() {
        c.deliver();
    }
    let messages = c.arrived.iter().filter(|a| matches!(a, Got::Message { .. })).count();
    assert!(messages as u64 * 30_000 <= RECEIVE_WINDOW + 30_000 && messages > 30, "{messages}");
    assert!(c.arrived.iter().any(|a| matches!(a, Got::Call { call: 9, .. })));
    c.consume_all();
    while c.transmit() {
        c.deliver();
    }
    assert_eq!(c.arrived.iter().filter(|a| matches!(a, Got::Message { .. })).count(), 60);
}

#[test]
fn a_peer_that_ignores_the_window_is_found_out() {
    let mut c = Conversation::new(64 << 20);
    c.outbound.credit(u64::MAX);
    for _ in 0..40 {
        c.push(&message(""), &vec![7; 30_000], None).unwrap();
    }
    let mut refused = None;
    while refused.is_none() && c.transmit() {
        let (mut seq, record) = c.records.pop_front().unwrap();
        let (record, mut at) = (Bytes::from(record), 0);
        while at < record.len() && refused.is_none() {
            match c.inbound.take(seq, &record, at) {
                Ok(taken) => (seq, at) = (seq + taken.frames, taken.end),
                Err(misbehaved) => refused = Some(misbehaved),
            }
        }
    }
    assert_eq!(refused, Some(PeerMisbehaved::Window));
}

#[test]
fn a_gap_in_the_numbers_is_refused_and_a_repeat_is_dropped() {
    let mut inbound = Inbound::new(1024);
    let frame = Bytes::from_static(&[16, 2, 0, 0, b'x']);
    let first = inbound.take(0, &frame, 0).unwrap();
    assert!(matches!(first, Taken { arrived: Some(Arrived::Messages(_)), frames: 1, end: 5 }));
    assert_eq!(inbound.take(0, &frame, 0), Ok(Taken { arrived: None, frames: 1, end: 5 }));
    assert_eq!(inbound.take(2, &frame, 0), Err(PeerMisbehaved::Gap { expected: 1, found: 2 }));
    assert_eq!(inbound.next(), 1);
}

#[test]
fn a_full_buffer_refuses_messages_and_still_takes_calls() {
    let mut c = Conversation::new(100_000);
    while c.push(&message(""), &[0; 1000], None).is_ok() {}
    assert!(c.outbound.bytes() >= 100_000 && c.outbound.bytes() < 102_000);
    assert!(c.push(&call(1), b"", None).is_ok());
    c.drain();
    assert_eq!(c.outbound.bytes(), 0);
    assert!(c.push(&message(""), &[0; 1000], None).is_ok());
}

#[test]
fn a_large_call_that_is_cancelled_half_way_leaves_nothing_behind() {
    let mut c = Conversation::new(8 << 20);
    let placed = c.push(&call(1), &vec![1; 800_000], None).unwrap();
    assert!(!c.outbound.was_sent(placed));
    c.transmit();
    assert!(c.outbound.was_sent(placed));
    c.outbound.cancel(1, placed);
    c.drain();
    assert!(c.arrived.is_empty());
    assert!(c.outbound.is_empty());
    c.push(&call(2), b"", None).unwrap();
    c.drain();
    assert_eq!(c.arrived.len(), 1);
}

#[test]
fn what_was_not_taken_over_is_reported_once_when_the_session_ends() {
    let mut c = Conversation::new(8 << 20);
    for receipt in 0..5 {
        c.push(&message(""), b"x", Some(receipt)).unwrap();
    }
    c.push(&message("big"), &vec![1; 100_000], Some(5)).unwrap();
    c.push(&message("big"), b"after", Some(6)).unwrap();
    let mut out = Vec::new();
    c.outbound.transmit(&mut out, 10);
    c.outbound.ack(2, &mut c.receipts).unwrap();
    assert_eq!(c.receipts, [0, 1]);
    let mut rest = c.outbound.abandon();
    rest.sort_unstable();
    assert_eq!(rest, [2, 3, 4, 5, 6]);
    assert!(c.outbound.is_empty());
}

#[test]
fn a_message_that_waited_is_known_to_be_taken_over_when_its_frame_is() {
    let mut c = Conversation::new(8 << 20);
    while let Placed::Sequenced(_) = c.push(&message(""), &[7; 1000], None).unwrap() {}
    let waits: Vec<_> = (0..100).map(|_| c.push(&message(""), &[8; 100], None).unwrap()).collect();
    let large = c.push(&message("big"), &vec![9; 100_000], None).unwrap();
    while c.transmit() {
        c.deliver();
    }
    c.acknowledge();
    assert!(!waits.iter().any(|&placed| c.outbound.progress().covers(placed)));
    assert!(c.outbound.owes_messages());
    // Somebody asks while it waits, another after it has left and before it is acknowledged.
    assert_eq!(c.outbound.watch(waits[50], 50), None);
    c.consume_all();
    assert!(c.transmit());
    assert_eq!(c.outbound.watch(waits[20], 20), None);
    assert!(c.receipts.is_empty());
    c.deliver();
    c.acknowledge();
    assert_eq!(c.receipts, [20, 50]);
    assert!(waits.iter().all(|&placed| c.outbound.progress().covers(placed)));
    assert!(!c.outbound.progress().covers(large));
    assert_eq!(c.outbound.watch(waits[99], 99), Some(99));
    assert_eq!(c.outbound.watch(large, 1000), None);
    c.drain();
    assert_eq!(c.receipts, [20, 50, 1000]);
    assert!(c.outbound.progress().covers(large) && !c.outbound.owes_messages());
}

#[test]
fn small_messages_arrive_together_in_little_memory_and_each_event_by_itself() {
    let mut c = Conversation::new(8 << 20);
    for event in ["", "", "a", "a", "a", "b", ""] {
        c.push(&message(event), &[7; 10], None).unwrap();
    }
    for _ in 0..500 {
        c.push(&message(""), &[7; 100], None).unwrap();
    }
    assert!(c.transmit());
    let (seq, record) = c.records.pop_front().unwrap();
    let (record, mut at, mut frames, mut together) = (Bytes::from(record), 0, 0, Vec::new());
    while at < record.len() {
        let taken = c.inbound.take(seq + frames, &record, at).unwrap();
        (frames, at) = (frames + taken.frames, taken.end);
        together.push(taken.frames);
        let Some(Arrived::Messages(messages)) = taken.arrived else { panic!("messages come") };
        assert!(messages.map(|(body, _)| body.len()).sum::<usize>() <= 4096);
    }
    assert_eq!(together[..3], [2, 3, 1]);
    assert_eq!((frames, together.len()), (507, 3 + 13));
}

#[test]
fn a_body_that_waits_holds_little_more_memory_than_it_is_counted_for() {
    let mut c = Conversation::new(8 << 20);
    let mut wait = || {
        while let Placed::Sequenced(_) = c.push(&message(""), &[7; 1000], None).unwrap() {}
        let mut buffer = Vec::with_capacity(1 << 20);
        buffer.resize(5000, 8);
        let placed = c.outbound.push(&message(""), Given::Owned(&mut buffer)).unwrap();
        assert!(matches!(placed, Placed::Waiting(_)));
        c.drain();
        buffer
    };
    wait();
    // In its place comes the memory of the one before, which was taken over.
    let spare = wait();
    assert!((5000..=10_000).contains(&spare.capacity()), "{}", spare.capacity());
}

#[test]
fn a_message_keeps_nothing_of_the_record_it_came_in() {
    let mut c = Conversation::new(8 << 20);
    for len in [100, 5000, 30_000] {
        c.push(&message("event"), &vec![7; len], None).unwrap();
        c.transmit();
        let (seq, record) = c.records.pop_front().unwrap();
        let mut record = Bytes::from(record);
        let taken = c.inbound.take(seq, &record, 0).unwrap();
        assert!(matches!(taken.arrived, Some(Arrived::Messages(_))));
        // Nobody else holds it, or this would be a copy.
        let at = record.as_ptr();
        record = Bytes::from(Vec::from(record));
        assert_eq!(record.as_ptr(), at, "{len} bytes");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Message { event: u8, len: usize },
    Call { len: usize },
    Answer { len: usize },
    Transmit,
    Deliver,
    Acknowledge,
    Consume,
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![8 => 0usize..300, 2 => 10_000usize..33_000, 1 => 33_000usize..200_000];
    prop_oneof![
        6 => (0u8..3, len()).prop_map(|(event, len)| Step::Message { event, len }),
        2 => len().prop_map(|len| Step::Call { len }),
        2 => len().prop_map(|len| Step::Answer { len }),
        6 => Just(Step::Transmit),
        6 => Just(Step::Deliver),
        2 => Just(Step::Acknowledge),
        1 => Just(Step::Consume),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    #[test]
    fn everything_arrives_once_and_in_order_over_links_that_are_cut(
        steps in proptest::collection::vec(step(), 1..150)
    ) {
        let mut c = Conversation::new(1 << 20);
        let mut sent: HashMap<&str, Vec<(u32, usize)>> = HashMap::new();
        let mut calls = Vec::new();
        let mut number = 0u32;
        let mut expected_receipts = 0;
        let body = |number: u32, len: usize| {
            let mut body = vec![number as u8; len + 4];
            body[..4].copy_from_slice(&number.to_le_bytes());
            body
        };
        let mut consumed = 0;
        for step in steps {
            number += 1;
            match step {
                Step::Message { event, len } => {
                    let event = ["", "a", "b"][usize::from(event)];
                    if c.push(&message(event), &body(number, len), Some(u64::from(number))).is_ok() {
                        sent.entry(event).or_default().push((number, len + 4));
                        expected_receipts += 1;
                    }
                }
                Step::Call { len } => {
                    c.push(&call(number), &body(number, len), None).unwrap();
                    calls.push(number);
                }
                Step::Answer { len } => {
                    let head = Head::Answer { call: number, status: Status::Ok };
                    c.push(&head, &body(number, len), None).unwrap();
                    calls.push(number);
                }
                Step::Transmit => { c.transmit(); }
                Step::Deliver => c.deliver(),
                Step::Acknowledge => c.acknowledge(),
                Step::Consume => {
                    for arrived in &c.arrived[consumed..] {
                        if let Got::Message { cost, .. } = arrived { c.inbound.consume(*cost); }
                    }
                    consumed = c.arrived.len();
                    c.outbound.credit(c.inbound.grant());
                }
                Step::Cut => c.cut(),
            }
        }
        for arrived in &c.arrived[consumed..] {
            if let Got::Message { cost, .. } = arrived { c.inbound.consume(*cost); }
        }
        c.outbound.credit(c.inbound.grant());
        c.cut();
        let before = c.arrived.len();
        let all = std::mem::take(&mut c.arrived);
        c.drain();
        let rest = std::mem::replace(&mut c.arrived, all);
        c.arrived.extend(rest);
        prop_assert!(c.arrived.len() >= before);

        let number_of = |body: &Bytes| u32::from_le_bytes(body[..4].try_into().unwrap());
        let mut got: HashMap<String, Vec<(u32, usize)>> = HashMap::new();
        let mut got_calls = Vec::new();
        for arrived in &c.arrived {
            match arrived {
                Got::Message { event, body, .. } => {
                    let event = String::from_utf8(event.clone().unwrap_or_default().to_vec()).unwrap();
                    got.entry(event).or_default().push((number_of(body), body.len()));
                }
                Got::Call { body, call } | Got::Answer { body, call } => {
                    prop_assert_eq!(number_of(body), *call);
                    got_calls.push(*call);
                }
                Got::Cancelled => prop_assert!(false, "nothing was cancelled"),
            }
        }
        for (event, sent) in sent {
            prop_assert_eq!(got.remove(event).unwrap_or_default(), sent);
        }
        prop_assert!(got.is_empty());
        got_calls.sort_unstable();
        prop_assert_eq!(got_calls, calls);
        c.acknowledge();
        prop_assert_eq!(c.receipts.len(), expected_receipts);
        prop_assert!(c.outbound.is_empty());
        prop_assert_eq!(c.outbound.bytes(), 0);
    }
}
