//! Two honest sessions, and a network between them that ends their links at any moment.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use parlor_protocol::limits::RECEIVE_WINDOW;
use parlor_protocol::session::{Arrived, Given, Inbound, Outbound};
use parlor_protocol::wire::peer::{FRAME_HEAD, Head, MESSAGE_COST};

use super::{LIMIT, LONGEST, RECORD, STEPS, body, head};

/// How long bodies are.
pub(super) struct Scale {
    /// The longest, in bytes.
    longest: usize,
    /// The length of one.
    length: fn(&mut Unstructured<'_>) -> Result<usize>,
    steps: usize,
}

/// Of several pieces at most.
pub(super) const SHORT: Scale =
    Scale { longest: LONGEST, length: |script| Ok(body(script)?.len()), steps: STEPS };

/// Around the lengths from which on a body is counted in another way, and up to two windows.
pub(super) const LONG: Scale = Scale { longest: 2 * WINDOW, length: long, steps: 60 };

const WINDOW: usize = RECEIVE_WINDOW as usize;

/// What one long body may cost of the window before it is whole, as `docs/PROTOCOL.md` says, in bytes.
const OPENING: usize = WINDOW / 4 * 3;

fn long(script: &mut Unstructured<'_>) -> Result<usize> {
    let near = match script.int_in_range(0..=5)? {
        0 | 1 => return script.int_in_range(0..=300),
        2 => OPENING,
        3 => LIMIT / 2,
        4 => WINDOW,
        _ => return script.int_in_range(0..=2 * WINDOW),
    };
    Ok(near - 40 + script.int_in_range(0..=80)?)
}

struct Network {
    outbound: Outbound<u64>,
    inbound: Inbound,
    records: Vec<(u64, Bytes)>,
    arrived: Vec<(Head<Bytes>, Bytes)>,
    /// What the messages cost that the application has not taken yet.
    unread: u64,
    done: Vec<u64>,
    longest: usize,
}

/// Everything arrives once, and each event's messages in order; what the application has not taken stays within the
/// window and one message; and nothing waits for ever, though the window is told only when that is due.
pub(super) fn carry(script: &mut Unstructured<'_>, scale: &Scale) -> Result<bool> {
    let mut network = Network::new(scale.longest);
    let mut sent = Vec::new();
    for _ in 0..scale.steps {
        if script.is_empty() {
            break;
        }
        match script.int_in_range(0..=6)? {
            0 | 1 => {
                let head = head(script)?;
                let body = Bytes::from(vec![script.arbitrary()?; (scale.length)(script)?]);
                let receipt = sent.len() as u64;
                if let Ok(placed) = network.outbound.push(&head, Given::Owned(&mut body.to_vec())) {
                    network.done.extend(network.outbound.watch(placed, receipt));
                    sent.push((head, body));
                }
            }
            2 | 3 => network.transmit(script.int_in_range(FRAME_HEAD..=RECORD)?),
            4 => network.deliver(),
            5 => {
                let most = network.unread;
                network.read(script.int_in_range(0..=most)?);
                network.answer();
            }
            _ => network.cut(),
        }
    }
    network.finish();
    let Network { outbound, inbound, arrived, mut done, .. } = network;
    assert!(outbound.is_empty() && outbound.bytes() == 0);
    done.sort_unstable();
    assert!(done.into_iter().eq(0..sent.len() as u64), "every receipt comes back, and once");
    same(sent, arrived);
    Ok(inbound.next() > 0)
}

impl Network {
    fn new(longest: usize) -> Self {
        Self {
            outbound: Outbound::new(LIMIT),
            inbound: Inbound::new(longest as u32),
            records: Vec::new(),
            arrived: Vec::new(),
            unread: 0,
            done: Vec::new(),
            longest,
        }
    }

    fn transmit(&mut self, room: usize) {
        let mut record = Vec::new();
        if let Some(first) = self.outbound.transmit(&mut record, room) {
            self.records.push((first, record.into()));
        }
    }

    /// The oldest record under way comes to the peer.
    fn deliver(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let (mut seq, record) = self.records.remove(0);
        let mut at = 0;
        while at < record.len() {
            let Ok(taken) = self.inbound.take(seq, &record, at) else { panic!("an honest sender's frame") };
            (seq, at) = (seq + taken.frames, taken.end);
            if let Some(arrived) = taken.arrived {
                self.take(arrived);
            }
        }
        let most = RECEIVE_WINDOW + self.longest as u64 + MESSAGE_COST;
        assert!(self.unread < most, "{} bytes are not read", self.unread);
    }

    fn take(&mut self, arrived: Arrived) {
        match arrived {
            Arrived::Messages(messages) => {
                self.unread += messages.cost();
                let event = messages.event().cloned();
                self.arrived.extend(messages.map(|(body, _)| (Head::Send { event: event.clone() }, body)));
            }
            Arrived::Call { call, timeout_ms, name, body } => {
                self.arrived.push((Head::Get { call, timeout_ms, name }, body));
            }
            Arrived::Answer { call, status, body } => {
                self.arrived.push((Head::Answer { call, status }, body));
            }
            Arrived::Cancelled { call } => panic!("nobody cancelled {call}"),
        }
    }

    /// The application takes messages that cost this much.
    fn read(&mut self, cost: u64) {
        self.inbound.consume(cost);
        self.unread -= cost;
    }

    /// The peer acknowledges, and tells its window if that is due.
    fn answer(&mut self) {
        assert_eq!(self.outbound.ack(self.inbound.next(), &mut self.done), Ok(()));
        if self.inbound.grant_is_due() {
            self.outbound.credit(self.inbound.grant());
        }
    }

    /// The link ends, and on the next one the peer says what it has, and its window.
    fn cut(&mut self) {
        self.records.clear();
        assert_eq!(self.outbound.ack(self.inbound.next(), &mut self.done), Ok(()));
        self.outbound.credit(self.inbound.grant());
        self.outbound.rewind();
    }

    /// Lets through what is under way and what waits.
    fn finish(&mut self) {
        loop {
            while !self.records.is_empty() {
                self.deliver();
            }
            self.read(self.unread);
            self.answer();
            if self.outbound.is_empty() {
                break;
            }
            // All is read and said: there must be something that may leave.
            self.transmit(RECORD);
            assert!(!self.records.is_empty(), "it stands still");
        }
    }
}

/// The same things, those of one event in the same order.
fn same(sent: Vec<(Head<Bytes>, Bytes)>, mut arrived: Vec<(Head<Bytes>, Bytes)>) {
    for one in sent {
        // Calls and answers may pass each other, also under one number.
        let candidate = |other: &(Head<Bytes>, Bytes)| match &one.0 {
            Head::Send { .. } => other.0 == one.0,
            Head::Get { .. } | Head::Answer { .. } => *other == one,
        };
        let Some(at) = arrived.iter().position(candidate) else { panic!("{:?} did not arrive", one.0) };
        assert!(arrived.remove(at) == one, "{:?} is not as it was sent, or out of order", one.0);
    }
    assert!(arrived.is_empty(), "more arrived than was sent");
}
