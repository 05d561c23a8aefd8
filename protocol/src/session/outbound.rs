//! The sending half of a session.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::retained::{Body, Retained};
use crate::limits::{PIECE, RECEIVE_WINDOW, STREAMS};
use crate::wire::peer::{BODY_IN_ONE_FRAME, Head, MESSAGE_COST, PeerMisbehaved, kind};

/// Bodies in pieces are cut as far ahead of the link as this, in bytes.
const AHEAD: usize = 64 * 1024;
/// Calls and answers may use this many bytes beyond what messages may, so that a full buffer of messages
/// does not stop them.
const CALLS_BESIDE: usize = 1024 * 1024;

/// The buffer is full. The sender waits until the peer has taken some of it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the send buffer is full")]
pub struct Full;

/// What a body belongs to: messages wait for the peer's receive window and for their event's order; calls and
/// answers wait for neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A message.
    Message,
    /// A call or an answer.
    Call,
}

/// Where something that was pushed has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It has this sequence number.
    Sequenced(u64),
    /// It waits, or goes in pieces, under this number.
    Waiting(u64),
}

/// Frames on their way to the peer. `R` is what the caller wants back when a message was taken over.
#[derive(Debug)]
pub struct Outbound<R> {
    retained: Retained,
    /// Receipts of sequenced messages, by the number of their last frame.
    receipts: VecDeque<(u64, R)>,
    messages: VecDeque<Waiting<R>>,
    calls: VecDeque<Waiting<R>>,
    streams: VecDeque<Stream<R>>,
    /// Events that have messages in `messages` or `streams`, and how many.
    lanes: HashMap<Option<Bytes>, u32>,
    waiting_bytes: usize,
    next_waiting: u64,
    next_stream: u32,
    credit_used: u64,
    credit_limit: u64,
    limit: usize,
}

#[derive(Debug)]
struct Waiting<R> {
    number: u64,
    head: Head<Bytes>,
    body: Bytes,
    receipt: Option<R>,
}

#[derive(Debug)]
struct Stream<R> {
    id: u32,
    waiting: Waiting<R>,
    offset: usize,
}

impl<R> Waiting<R> {
    fn lane(&self) -> Option<&Option<Bytes>> {
        lane(&self.head)
    }
}

/// The order a message belongs to: its event's. Calls belong to none.
fn lane(head: &Head<Bytes>) -> Option<&Option<Bytes>> {
    match head {
        Head::Send { event } => Some(event),
        Head::Get { .. } | Head::Answer { .. } => None,
    }
}

impl<R> Outbound<R> {
    /// An empty one that takes messages while it holds fewer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            retained: Retained::default(),
            receipts: VecDeque::new(),
            messages: VecDeque::new(),
            calls: VecDeque::new(),
            streams: VecDeque::new(),
            lanes: HashMap::new(),
            waiting_bytes: 0,
            next_waiting: 0,
            next_stream: 0,
            credit_used: 0,
            credit_limit: RECEIVE_WINDOW,
            limit,
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.retained.bytes() + self.waiting_bytes
    }

    /// True if something of `class` would be taken now.
    pub fn has_room(&self, class: Class) -> bool {
        match class {
            Class::Message => self.bytes() < self.limit,
            Class::Call => self.bytes() < self.limit + CALLS_BESIDE,
        }
    }

    /// The next sequence number that the peer has not taken over.
    pub fn acked(&self) -> u64 {
        self.retained.acked()
    }

    /// True if everything that was pushed has been taken over.
    pub fn is_empty(&self) -> bool {
        self.retained.acked() == self.retained.next() && !self.has_waiting()
    }

    /// True if frames were handed to a link and not taken over yet.
    pub fn in_flight(&self) -> bool {
        self.retained.acked() < self.retained.sent()
    }

    /// Bytes that the next records would take at once.
    pub fn unsent(&self) -> usize {
        self.retained.unsent()
    }

    /// True if a record could be filled now.
    pub fn has_work(&self) -> bool {
        self.retained.sent() < self.retained.next()
            || !self.streams.is_empty()
            || self.can_start_message()
            || self.can_start_call()
    }

    /// True if the thing that was placed may have reached the peer.
    pub fn was_sent(&self, placed: Placed) -> bool {
        match placed {
            Placed::Sequenced(seq) => self.retained.was_sent(seq),
            Placed::Waiting(number) => !self.calls.iter().any(|w| w.number == number),
        }
    }

    /// Takes a message, call or answer whose body is copied if it is small.
    ///
    /// `small` is the body where it lies; `whole` makes it one's own. `whole` and `receipt` are called only if it
    /// does not fit into one frame or has to wait; a receipt for what was [`Placed::Sequenced`] at once is asked
    /// for with [`watch`](Self::watch).
    pub fn push(
        &mut self,
        head: &Head<Bytes>,
        small: &[u8],
        whole: impl FnOnce() -> Bytes,
        receipt: impl FnOnce() -> Option<R>,
    ) -> Result<Placed, Full> {
        let class = if matches!(head, Head::Send { .. }) { Class::Message } else { Class::Call };
        if !self.has_room(class) {
            return Err(Full);
        }
        let at_once = small.len() <= BODY_IN_ONE_FRAME
            && match class {
                Class::Message => self.credit_used < self.credit_limit && !self.lane_is_busy(head),
                Class::Call => true,
            };
        if at_once {
            if class == Class::Message {
                self.credit_used += small.len() as u64 + MESSAGE_COST;
            }
            return Ok(Placed::Sequenced(self.sequence(head, &Body::Borrowed(small), None)));
        }
        let number = self.next_waiting;
        self.next_waiting += 1;
        let waiting = Waiting { number, head: head.clone(), body: whole(), receipt: receipt() };
        self.waiting_bytes += waiting.body.len() + MESSAGE_COST as usize;
        match class {
            Class::Message => {
                if let Some(lane) = waiting.lane() {
                    *self.lanes.entry(lane.clone()).or_default() += 1;
                }
                self.messages.push_back(waiting);
            }
            Class::Call => self.calls.push_back(waiting),
        }
        Ok(Placed::Waiting(number))
    }

    /// Wants `receipt` back when the peer has taken over frame `seq`. Gives it back at once if it has.
    pub fn watch(&mut self, seq: u64, receipt: R) -> Option<R> {
        if seq < self.retained.acked() {
            return Some(receipt);
        }
        let at = self.receipts.partition_point(|&(other, _)| other <= seq);
        self.receipts.insert(at, (seq, receipt));
        None
    }

    /// Tells the callee that nobody waits for this call any more. What of it has not left does not leave.
    pub fn cancel(&mut self, call: u32, placed: Placed) {
        if let Placed::Sequenced(seq) = placed
            && self.retained.replace_unsent(seq, kind::CANCEL, &call.to_le_bytes())
        {
            return;
        }
        if let Placed::Waiting(number) = placed {
            if let Some(at) = self.calls.iter().position(|w| w.number == number) {
                if let Some(waiting) = self.calls.remove(at) {
                    self.waiting_bytes -= waiting.body.len() + MESSAGE_COST as usize;
                }
                return;
            }
            if let Some(at) = self.streams.iter().position(|s| s.waiting.number == number) {
                if let Some(stream) = self.streams.remove(at) {
                    self.waiting_bytes -= stream.waiting.body.len() + MESSAGE_COST as usize;
                    self.retained.push(
                        kind::ABORT,
                        4,
                        |out| out.extend_from_slice(&stream.id.to_le_bytes()),
                        &Body::Borrowed(&[]),
                    );
                }
                return;
            }
        }
        self.retained.push(
            kind::CANCEL,
            4,
            |out| out.extend_from_slice(&call.to_le_bytes()),
            &Body::Borrowed(&[]),
        );
    }

    /// The peer lets this side send messages up to `limit` bytes in all.
    pub fn credit(&mut self, limit: u64) {
        self.credit_limit = self.credit_limit.max(limit);
    }

    /// The peer has taken over everything before `ack`; receipts that this fulfils are appended to `done`.
    pub fn ack(&mut self, ack: u64, done: &mut Vec<R>) -> Result<(), PeerMisbehaved> {
        self.retained.ack(ack)?;
        while self.receipts.front().is_some_and(|&(seq, _)| seq < ack) {
            if let Some((_, receipt)) = self.receipts.pop_front() {
                done.push(receipt);
            }
        }
        Ok(())
    }

    /// Another link carries the channel: everything not taken over is to be sent again.
    pub fn rewind(&mut self) {
        self.retained.rewind();
    }

    /// Appends as many frames as fit into `room` bytes and returns the sequence number of the first, if there
    /// are any.
    pub fn transmit(&mut self, out: &mut Vec<u8>, room: usize) -> Option<u64> {
        self.cut_ahead();
        let first = self.retained.sent();
        self.retained.transmit(out, room);
        (self.retained.sent() > first).then_some(first)
    }

    /// Everything that was not taken over, for the caller to report: nothing of it is sent any more.
    pub fn abandon(&mut self) -> Vec<R> {
        let empty = Self::new(self.limit);
        let old = std::mem::replace(self, empty);
        let in_pieces = old.streams.into_iter().filter_map(|s| s.waiting.receipt);
        let waiting = old.messages.into_iter().chain(old.calls).filter_map(|w| w.receipt);
        old.receipts.into_iter().map(|(_, r)| r).chain(in_pieces).chain(waiting).collect()
    }

    fn has_waiting(&self) -> bool {
        !(self.streams.is_empty() && self.messages.is_empty() && self.calls.is_empty())
    }

    fn lane_is_busy(&self, head: &Head<Bytes>) -> bool {
        !self.lanes.is_empty() && lane(head).is_some_and(|lane| self.lanes.contains_key(lane))
    }

    fn can_start_message(&self) -> bool {
        let Some(first) = self.messages.front() else { return false };
        let lane = first.lane();
        self.credit_used < self.credit_limit
            && (first.body.len() <= BODY_IN_ONE_FRAME || self.streams.len() < STREAMS)
            && !self.streams.iter().any(|stream| stream.waiting.lane() == lane)
    }

    fn can_start_call(&self) -> bool {
        !self.calls.is_empty() && self.streams.len() < STREAMS
    }

    fn sequence(&mut self, head: &Head<Bytes>, body: &Body<'_>, receipt: Option<R>) -> u64 {
        let seq = self.retained.push(head.kind(), head.encoded_len(), |out| head.write(out), body);
        if let Some(receipt) = receipt {
            self.receipts.push_back((seq, receipt));
        }
        seq
    }

    /// Starts what waits and cuts pieces, in turn, until enough is ready for the next records.
    fn cut_ahead(&mut self) {
        while self.retained.unsent() < AHEAD {
            if self.can_start_call() {
                if let Some(waiting) = self.calls.pop_front() {
                    self.begin(waiting);
                }
            } else if self.can_start_message() {
                if let Some(waiting) = self.messages.pop_front() {
                    self.start_message(waiting);
                }
            } else if let Some(stream) = self.streams.pop_front() {
                self.cut(stream);
            } else {
                break;
            }
        }
    }

    fn start_message(&mut self, waiting: Waiting<R>) {
        self.credit_used += waiting.body.len() as u64 + MESSAGE_COST;
        if waiting.body.len() > BODY_IN_ONE_FRAME {
            self.begin(waiting);
        } else {
            self.leave_lane(&waiting);
            self.sequence(&waiting.head, &Body::Shared(waiting.body), waiting.receipt);
        }
    }

    fn begin(&mut self, waiting: Waiting<R>) {
        let (id, total) = (self.next_stream, waiting.body.len() as u32);
        self.next_stream = self.next_stream.wrapping_add(1);
        let head = &waiting.head;
        self.retained.push(
            kind::BEGIN,
            9 + head.encoded_len(),
            |out| {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&total.to_le_bytes());
                out.push(head.kind());
                head.write(out);
            },
            &Body::Borrowed(&[]),
        );
        self.streams.push_back(Stream { id, waiting, offset: 0 });
    }

    fn cut(&mut self, mut stream: Stream<R>) {
        let end = (stream.offset + PIECE).min(stream.waiting.body.len());
        let piece = stream.waiting.body.slice(stream.offset..end);
        let id = stream.id;
        let seq = self.retained.push(
            kind::PIECE,
            4,
            |out| out.extend_from_slice(&id.to_le_bytes()),
            &Body::Shared(piece),
        );
        stream.offset = end;
        if end < stream.waiting.body.len() {
            self.streams.push_back(stream);
            return;
        }
        self.leave_lane(&stream.waiting);
        if let Some(receipt) = stream.waiting.receipt {
            self.receipts.push_back((seq, receipt));
        }
    }

    fn leave_lane(&mut self, waiting: &Waiting<R>) {
        self.waiting_bytes -= waiting.body.len() + MESSAGE_COST as usize;
        let Some(lane) = waiting.lane() else { return };
        if let Some(count) = self.lanes.get_mut(lane) {
            *count -= 1;
            if *count == 0 {
                self.lanes.remove(lane);
            }
        }
    }
}
