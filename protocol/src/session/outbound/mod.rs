//! The sending half of a session.

mod leaving;

use std::collections::VecDeque;

use bytes::Bytes;

use super::pool::cut;
use super::pushed::{Class, Full, Given, Placed, Progress, rest};
use super::retained::{Body, Retained};
use super::waiting::{Entry, Lanes, Queue, Run, Waiting};
use crate::limits::RECEIVE_WINDOW;
use crate::wire::peer::{BODY_IN_ONE_FRAME, Head, MESSAGE_COST, PeerMisbehaved, kind};

/// Calls and answers may use this many bytes beyond what messages may, so that a full buffer of messages
/// does not stop them.
const CALLS_BESIDE: usize = 1024 * 1024;
/// A body that has to wait is kept where it lies from this size on, in bytes; a smaller one is copied behind others.
const KEPT_WHOLE: usize = 4 * 1024;

/// Frames on their way to the peer. `R` is what the caller wants back when a message was taken over.
#[derive(Debug)]
pub struct Outbound<R> {
    retained: Retained,
    /// Receipts of sequenced messages, by the number of their last frame.
    receipts: VecDeque<(u64, R)>,
    /// Receipts of messages that wait or go in pieces, by their number.
    receipts_waiting: Vec<(u64, R)>,
    messages: Queue,
    calls: VecDeque<Waiting>,
    streams: VecDeque<Stream>,
    /// Messages that waited and are not taken over yet, in the order of their frames.
    waited: VecDeque<Waited>,
    /// The events of `messages` and `streams`.
    lanes: Lanes,
    waiting_bytes: usize,
    next_waiting: u64,
    next_stream: u32,
    /// No message has this sequence number or a later one.
    last_message: u64,
    credit_used: u64,
    credit_limit: u64,
    limit: usize,
    /// A message, and a call or answer, with a vast body that has not left yet.
    vast: [bool; 2],
    /// A record left since something that waits got on.
    step_is_due: bool,
    /// Something was started since a piece was cut.
    piece_is_due: bool,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    waiting: Waiting,
    offset: usize,
}

impl Stream {
    /// What it costs of the window when it has left, beside what it cost at its beginning.
    fn rest(&self) -> u64 {
        if self.waiting.is_message() { rest(self.waiting.body.len()) } else { 0 }
    }
}

/// Messages that waited under consecutive numbers and became consecutive frames.
#[derive(Debug, Clone, Copy)]
struct Waited {
    number: u64,
    count: u64,
    seq: u64,
}

impl Waited {
    fn frame_of(&self, number: u64) -> Option<u64> {
        let nth = number.checked_sub(self.number)?;
        (nth < self.count).then(|| self.seq + nth)
    }
}

impl<R> Outbound<R> {
    /// An empty one that takes messages while it holds fewer than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            retained: Retained::default(),
            receipts: VecDeque::new(),
            receipts_waiting: Vec::new(),
            messages: Queue::default(),
            calls: VecDeque::new(),
            streams: VecDeque::new(),
            waited: VecDeque::new(),
            lanes: Lanes::default(),
            waiting_bytes: 0,
            next_waiting: 0,
            next_stream: 0,
            last_message: 0,
            credit_used: 0,
            credit_limit: RECEIVE_WINDOW,
            limit,
            vast: [false; 2],
            step_is_due: false,
            piece_is_due: false,
        }
    }

    /// Bytes held. A body of more than half the limit counts as half the limit until it has left, so that others still
    /// find room beside it.
    pub fn bytes(&self) -> usize {
        self.retained.bytes() + self.waiting_bytes
    }

    /// True if something of `class` would be taken now, but for a second body of more than half the limit.
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

    /// How far the peer has taken over what was pushed.
    pub fn progress(&self) -> Progress {
        let acked = self.acked();
        let behind = self.waited.iter().map(|w| w.number + acked.saturating_sub(w.seq).min(w.count));
        let streams = self.streams.iter().filter(|s| s.waiting.is_message()).map(|s| s.waiting.number);
        let waited = behind.chain(streams).chain(self.messages.first_number()).min();
        Progress { acked, waited: waited.unwrap_or(self.next_waiting) }
    }

    /// True if the peer has not taken over all messages.
    pub fn owes_messages(&self) -> bool {
        self.last_message > self.acked()
            || !self.messages.is_empty()
            || self.streams.iter().any(|stream| stream.waiting.is_message())
    }

    /// True if everything that was pushed has been taken over.
    pub fn is_empty(&self) -> bool {
        self.retained.acked() == self.retained.next() && !self.has_waiting()
    }

    /// True if frames were handed to a link and not taken over yet.
    pub fn in_flight(&self) -> bool {
        self.retained.acked() < self.retained.sent()
    }

    /// True if messages wait until the peer gives more credit.
    pub fn waits_for_credit(&self) -> bool {
        !self.messages.is_empty() && self.credit_used >= self.credit_limit
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

    /// Takes a message, call or answer. The name in its head is copied.
    pub fn push<N: AsRef<[u8]>>(&mut self, head: &Head<N>, body: Given<'_>) -> Result<Placed, Full> {
        let class = Class::of(head);
        if !self.has_room(class) || self.is_vast(body.len()) && self.vast[class as usize] {
            return Err(Full);
        }
        let small = body.as_slice();
        let in_one_frame = small.len() <= BODY_IN_ONE_FRAME;
        match class {
            Class::Message => {
                let event = match head {
                    Head::Send { event } => event.as_ref().map(AsRef::as_ref),
                    Head::Get { .. } | Head::Answer { .. } => None,
                };
                let credit = self.credit_used < self.credit_limit;
                if in_one_frame && credit && !self.lanes.is_busy(event) {
                    self.credit_used += small.len() as u64 + MESSAGE_COST;
                    let seq = self.sequence(head, &Body::Borrowed(small));
                    self.last_message = seq + 1;
                    return Ok(Placed::Sequenced(seq));
                }
                let number = self.number();
                if small.len() < KEPT_WHOLE {
                    self.wait_behind(number, event, small);
                } else {
                    let waiting = self.keep(number, head, body);
                    self.lanes.enter(event);
                    self.messages.push(Entry::Whole(waiting));
                }
                Ok(Placed::Waiting(number))
            }
            Class::Call if in_one_frame => Ok(Placed::Sequenced(self.sequence(head, &Body::Borrowed(small)))),
            Class::Call => {
                let number = self.number();
                let waiting = self.keep(number, head, body);
                self.calls.push_back(waiting);
                Ok(Placed::Waiting(number))
            }
        }
    }

    /// Wants `receipt` back when the peer has taken over what was placed there. Gives it back at once if it has.
    pub fn watch(&mut self, placed: Placed, receipt: R) -> Option<R> {
        let seq = match placed {
            Placed::Sequenced(seq) => seq,
            Placed::Waiting(number) => {
                let in_pieces = self.streams.iter().any(|stream| stream.waiting.number == number);
                if in_pieces || self.messages.contains(number) {
                    self.receipts_waiting.push((number, receipt));
                    return None;
                }
                match self.waited.iter().find_map(|waited| waited.frame_of(number)) {
                    Some(seq) => seq,
                    None => return Some(receipt),
                }
            }
        };
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
                    self.forget(&waiting);
                }
                return;
            }
            if let Some(at) = self.streams.iter().position(|s| s.waiting.number == number) {
                if let Some(stream) = self.streams.remove(at) {
                    self.forget(&stream.waiting);
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
        while self.waited.front().is_some_and(|waited| waited.seq + waited.count <= ack) {
            self.waited.pop_front();
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
        let left = self.retained.sent() > first;
        self.step_is_due |= left;
        left.then_some(first)
    }

    /// Gives back the receipts of everything that was not taken over: nothing of it is sent any more.
    pub fn abandon(&mut self) -> Vec<R> {
        let empty = Self::new(self.limit);
        let old = std::mem::replace(self, empty);
        old.receipts.into_iter().chain(old.receipts_waiting).map(|(_, receipt)| receipt).collect()
    }

    fn has_waiting(&self) -> bool {
        !(self.streams.is_empty() && self.messages.is_empty() && self.calls.is_empty())
    }

    fn sequence<N: AsRef<[u8]>>(&mut self, head: &Head<N>, body: &Body<'_>) -> u64 {
        self.retained.push(head.kind(), head.encoded_len(), |out| head.write(out), body)
    }

    fn number(&mut self) -> u64 {
        self.next_waiting += 1;
        self.next_waiting - 1
    }

    /// Puts a small message behind those that wait.
    fn wait_behind(&mut self, number: u64, event: Option<&[u8]>, body: &[u8]) {
        let mut fresh = None;
        let run = if let Some(run) = self.messages.run_for(number, event, body.len()) {
            run
        } else {
            self.lanes.enter(event);
            fresh.insert(Run::new(number, event, self.retained.spare()))
        };
        let before = run.bytes();
        run.push(body);
        self.waiting_bytes += run.bytes() - before;
        if let Some(run) = fresh {
            self.messages.push(Entry::Run(run));
        }
    }

    /// Keeps what has to wait in memory of its own.
    fn keep<N: AsRef<[u8]>>(&mut self, number: u64, head: &Head<N>, body: Given<'_>) -> Waiting {
        let body = match body {
            Given::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Given::Owned(bytes) => {
                let mut body = std::mem::replace(bytes, self.retained.spare_body());
                let len = body.len();
                cut(&mut body, len);
                Bytes::from(body)
            }
        };
        let waiting = Waiting { number, head: head.with_own_name(), body };
        self.waiting_bytes += self.weight(&waiting);
        if self.is_vast(waiting.body.len()) {
            self.vast[waiting.class() as usize] = true;
        }
        waiting
    }

    /// The reverse of [`keep`](Self::keep), of what does not leave or has left.
    fn forget(&mut self, waiting: &Waiting) {
        self.waiting_bytes -= self.weight(waiting);
        if self.is_vast(waiting.body.len()) {
            self.vast[waiting.class() as usize] = false;
        }
    }

    fn is_vast(&self, body: usize) -> bool {
        body > self.half()
    }

    /// Half the limit: what a vast body counts as. At least what fits into one frame, which none is.
    fn half(&self) -> usize {
        (self.limit / 2).max(BODY_IN_ONE_FRAME)
    }

    /// What it counts as while it waits.
    fn weight(&self, waiting: &Waiting) -> usize {
        if self.is_vast(waiting.body.len()) { self.half() } else { waiting.cost() as usize }
    }
}
