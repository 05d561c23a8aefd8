//! What was sent and called, what became of it, and what must never happen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_protocol::wire::peer::Status;

/// A call may be reported this much after its time was up.
const LATE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MessageNo(pub(super) usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CallNo(pub(super) usize);

/// One event from one run of a program to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    pub(super) from: (usize, u32),
    pub(super) to: usize,
    pub(super) event: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    None,
    Delivered,
    Interrupted,
}

#[derive(Debug)]
struct Message {
    lane: Lane,
    len: usize,
    session: u64,
    at: Instant,
    delivered: u32,
    report: Report,
    /// A later message of its session's lane was delivered without it.
    skipped: bool,
}

#[derive(Debug)]
struct Call {
    from: (usize, u32),
    to: usize,
    answer: usize,
    due: Option<Instant>,
    executed: u32,
    overloaded: bool,
    ended: bool,
    never_executed: bool,
    /// Records that had left for the peer when the call was made.
    records: u64,
}

pub(super) enum Ended<'a> {
    Answered(Status, &'a [u8]),
    Interrupted { maybe_executed: bool, justified: bool },
    TimedOut { maybe_executed: bool },
    Cancelled { maybe_executed: bool },
}

#[derive(Default)]
struct Order {
    sent: Vec<MessageNo>,
    /// How many of them have been delivered or passed over.
    passed: usize,
}

#[derive(Default)]
pub(super) struct Ledger {
    messages: Vec<Message>,
    calls: Vec<Call>,
    lanes: BTreeMap<Lane, Order>,
    dead: Vec<(usize, u32)>,
    pub(super) give_ups: u64,
    pub(super) links: u64,
    pub(super) interrupted: u64,
    pub(super) delivered: u64,
    pub(super) executed: u64,
    /// What was delivered when, in worlds that are about time.
    pub(super) times: Option<Vec<Delivery>>,
}

/// A message that was delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) at: Instant,
    pub(super) sent: Instant,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// Bytes of a body are a piece of this, after the number of what they belong to.
fn pattern(number: usize, len: usize) -> Bytes {
    let mut body = Vec::with_capacity(len);
    let number = (number as u64).to_le_bytes();
    body.extend_from_slice(&number[..len.min(8)]);
    body.resize(len, number[0] ^ 0x5a);
    body.into()
}

fn number_in(body: &[u8]) -> usize {
    u64::from_le_bytes(body[..8].try_into().unwrap()) as usize
}

/// The event name of a lane; a message without a body is known by an event of its own.
pub(super) fn event_name(event: u32, number: usize, len: usize) -> Option<Bytes> {
    match (event, len) {
        (_, 0) => Some(format!("empty-{number}").into()),
        (0, _) => None,
        (event, _) => Some(format!("event-{event}").into()),
    }
}

impl Ledger {
    pub(super) fn message(&mut self, lane: Lane, len: usize) -> (MessageNo, Option<Bytes>, Bytes) {
        let number = self.messages.len();
        let event = event_name(lane.event, number, len);
        (MessageNo(number), event, pattern(number, len))
    }

    pub(super) fn sent(&mut self, number: MessageNo, lane: Lane, len: usize, session: u64, at: Instant) {
        assert_eq!(number.0, self.messages.len());
        let message = Message { lane, len, session, at, delivered: 0, report: Report::None, skipped: false };
        self.messages.push(message);
        if len > 0 {
            self.lanes.entry(lane).or_default().sent.push(number);
        }
    }

    pub(super) fn delivered(&mut self, to: (usize, u32), event: Option<&Bytes>, body: &Bytes, now: Instant) {
        let name = event.map(|event| std::str::from_utf8(event).unwrap());
        let empty = name.and_then(|name| name.strip_prefix("empty-"));
        let number = empty.map_or_else(|| number_in(body), |digits| digits.parse().unwrap());
        let message = &mut self.messages[number];
        let lane = message.lane;
        assert_eq!(lane.to, to.0, "message {number} was delivered to another user");
        assert_eq!(message.len, body.len(), "message {number} has another length");
        assert_eq!(pattern(number, message.len), *body, "message {number} has another body");
        assert_eq!(event_name(lane.event, number, message.len).as_ref(), event);
        message.delivered += 1;
        if let Some(times) = &mut self.times {
            times.push(Delivery { at: now, sent: message.at, from: lane.from.0, to: lane.to });
        }
        self.delivered += 1;
        assert_eq!(message.delivered, 1, "message {number} of {lane:?} was delivered twice");
        assert!(!message.skipped, "message {number} of {lane:?} was delivered after a later one");
        let session = message.session;
        if message.len == 0 {
            return;
        }
        let Some(order) = self.lanes.get_mut(&lane) else { return };
        while order.passed < order.sent.len() {
            let next = order.sent[order.passed];
            order.passed += 1;
            if next.0 == number {
                return;
            }
            let passed_over = &mut self.messages[next.0];
            assert!(
                passed_over.session < session,
                "message {number} of {lane:?} was delivered before message {} of its session",
                next.0
            );
            passed_over.skipped = true;
        }
        panic!("message {number} of {lane:?} was delivered after a later one");
    }

    pub(super) fn reported_delivered(&mut self, number: MessageNo) {
        let message = &mut self.messages[number.0];
        assert_eq!(message.report, Report::None, "message {} was reported twice", number.0);
        assert_eq!(message.delivered, 1, "message {} was reported delivered and was not", number.0);
        message.report = Report::Delivered;
    }

    pub(super) fn reported_interrupted(&mut self, number: MessageNo, justified: bool) {
        let message = &mut self.messages[number.0];
        assert_eq!(message.report, Report::None, "message {} was reported twice", number.0);
        assert!(justified, "message {} of {:?} was interrupted for no reason", number.0, message.lane);
        message.report = Report::Interrupted;
        self.interrupted += 1;
    }

    pub(super) fn call(&mut self) -> (CallNo, Bytes) {
        (CallNo(self.calls.len()), pattern(self.calls.len(), 16))
    }

    pub(super) fn calling(
        &mut self,
        number: CallNo,
        from: (usize, u32),
        to: usize,
        answer: usize,
        due: Option<Instant>,
        records: u64,
    ) {
        assert_eq!(number.0, self.calls.len());
        let (executed, overloaded, ended, never_executed) = (0, false, false, false);
        self.calls.push(Call { from, to, answer, due, executed, overloaded, ended, never_executed, records });
    }

    pub(super) fn called(&mut self, at: (usize, u32), body: &[u8]) -> CallNo {
        let number = number_in(body);
        assert_eq!(self.calls[number].to, at.0, "call {number} came to another user");
        CallNo(number)
    }

    pub(super) fn overloaded(&mut self, number: CallNo) {
        let call = &mut self.calls[number.0];
        assert!(!call.overloaded && call.executed == 0, "call {} came twice", number.0);
        call.overloaded = true;
    }

    pub(super) fn executed(&mut self, number: CallNo) {
        let call = &mut self.calls[number.0];
        call.executed += 1;
        self.executed += 1;
        assert_eq!(call.executed, 1, "call {} was executed twice", number.0);
        assert!(!call.overloaded, "call {} came twice", number.0);
        assert!(!call.never_executed, "call {} was executed after its caller heard it never was", number.0);
    }

    pub(super) fn answer_of(&self, number: CallNo) -> Bytes {
        pattern(number.0, self.calls[number.0].answer.max(8))
    }

    pub(super) fn has_ended(&self, number: CallNo) -> bool {
        self.calls[number.0].ended
    }

    /// Records that had left when a call was made.
    pub(super) fn records_before(&self, number: CallNo) -> u64 {
        self.calls[number.0].records
    }

    pub(super) fn call_ended(&mut self, number: CallNo, ended: Ended<'_>, now: Instant) {
        let answer = self.answer_of(number);
        let call = &mut self.calls[number.0];
        let n = number.0;
        assert!(!call.ended, "call {n} ended twice");
        call.ended = true;
        if let Some(due) = call.due {
            assert!(now <= due + LATE, "call {n} ended {:?} after its time was up", now - due);
        }
        match ended {
            Ended::Answered(Status::Ok, body) => {
                assert_eq!(call.executed, 1, "call {n} was answered and never executed");
                assert!(answer == *body, "call {n} got another call's answer");
            }
            Ended::Answered(Status::Overloaded, _) => assert!(call.overloaded, "call {n} was not overloaded"),
            Ended::Answered(Status::TimedOut, _) => assert_eq!(call.executed, 1),
            Ended::Answered(status, _) => panic!("call {n} was answered {status:?}"),
            Ended::Interrupted { maybe_executed, justified } => {
                assert!(justified, "call {n} was interrupted for no reason");
                call.never_executed = !maybe_executed;
            }
            Ended::TimedOut { maybe_executed } => {
                assert!(call.due.is_some_and(|due| now >= due), "call {n} timed out before its time");
                call.never_executed = !maybe_executed;
            }
            Ended::Cancelled { maybe_executed } => call.never_executed = !maybe_executed,
        }
        assert!(
            !call.never_executed || call.executed == 0,
            "call {n} was executed and its caller heard it never was"
        );
    }

    /// What this run of a program owed and waited for is nobody's any more.
    pub(super) fn died(&mut self, user: usize, run: u32) {
        self.dead.push((user, run));
    }

    /// Everything that a living program sent or called has been settled.
    pub(super) fn check_settled(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            if self.dead.contains(&message.lane.from) {
                continue;
            }
            let (lane, delivered) = (message.lane, message.delivered);
            assert_ne!(
                message.report,
                Report::None,
                "message {number} of {lane:?} was never reported; delivered: {delivered}"
            );
        }
        for (number, call) in self.calls.iter().enumerate() {
            assert!(call.ended || self.dead.contains(&call.from), "call {number} never ended: {call:?}");
        }
    }

    /// Nothing was interrupted.
    pub(super) fn check_nothing_lost(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            assert_eq!(message.report, Report::Delivered, "message {number} of {:?}", message.lane);
        }
    }

    /// Nothing was interrupted or passed over yet.
    pub(super) fn check_nothing_lost_so_far(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            let lost = message.skipped || message.report == Report::Interrupted;
            assert!(!lost, "message {number} of {:?} is lost", message.lane);
        }
    }

    pub(super) fn was_delivered(&self, number: MessageNo) -> bool {
        self.messages[number.0].report == Report::Delivered
    }

    pub(super) fn totals(&self) -> (usize, usize) {
        (self.messages.len(), self.calls.len())
    }
}
