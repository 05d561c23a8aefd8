//! What waits becomes frames: in which order, and how much at a time.

use super::{Outbound, Stream, Waited};
use crate::limits::{PIECE, STREAMS};
use crate::session::pushed::{opening, rest};
use crate::session::retained::Body;
use crate::session::waiting::{Entry, Run, Waiting};
use crate::wire::peer::{BODY_IN_ONE_FRAME, kind};

/// Bodies in pieces are cut as far ahead of the link as this, in bytes.
const AHEAD: usize = 64 * 1024;

impl<R> Outbound<R> {
    pub(super) fn can_start_message(&self) -> bool {
        let Some(first) = self.messages.front() else { return false };
        self.credit_used < self.credit_limit
            && (first.first_len() <= BODY_IN_ONE_FRAME || self.streams.len() < STREAMS)
            && (rest(first.first_len()) == 0 || !self.streams.iter().any(|stream| stream.rest() > 0))
            && !self.streams.iter().any(|s| s.waiting.is_message() && s.waiting.event() == first.event())
    }

    /// Calls leave one place to messages, which would wait for ever beside enough callers with large bodies.
    pub(super) fn can_start_call(&self) -> bool {
        let calls = self.streams.iter().filter(|stream| !stream.waiting.is_message()).count();
        !self.calls.is_empty() && calls < STREAMS - 1 && self.streams.len() < STREAMS
    }

    /// Gets on with what waits until enough is ready for the next records; and by one step for each record that left,
    /// however much is pushed past it meanwhile.
    pub(super) fn cut_ahead(&mut self) {
        let mut due = std::mem::take(&mut self.step_is_due);
        while (std::mem::take(&mut due) || self.retained.unsent() < AHEAD) && self.step() {}
    }

    /// Starts something that waits, or cuts a piece: in turn, where there is both. False if there is neither.
    fn step(&mut self) -> bool {
        let starts = !self.piece_is_due || self.streams.is_empty();
        self.piece_is_due = true;
        if starts && self.can_start_call() {
            if let Some(waiting) = self.calls.pop_front() {
                self.begin(waiting);
            }
        } else if starts && self.can_start_message() {
            match self.messages.pop() {
                Some(Entry::Run(run)) => self.start_run(run),
                Some(Entry::Whole(waiting)) => self.start_message(waiting),
                None => {}
            }
        } else {
            self.piece_is_due = false;
            let Some(stream) = self.streams.pop_front() else { return false };
            self.cut(stream);
        }
        true
    }

    /// Sends as many of a run as there is credit for.
    fn start_run(&mut self, mut run: Run) {
        let (number, count, cost, bytes) = (run.number, run.count, run.cost, run.bytes());
        let credit = self.credit_limit - self.credit_used;
        if cost <= credit {
            self.lanes.leave(run.event());
            run = match run.into_frames() {
                Ok(frames) => {
                    let seq = self.retained.adopt(frames, count);
                    self.started(number, count, seq, cost, bytes);
                    return;
                }
                Err(run) => run,
            };
        }
        let (range, taken) = run.take(credit);
        let seq = self.retained.append(run.frames(range), taken);
        self.started(number, taken, seq, cost - run.cost, bytes - run.bytes());
        if run.count > 0 {
            self.messages.put_back(run);
        } else if cost > credit {
            self.lanes.leave(run.event());
        }
    }

    fn start_message(&mut self, waiting: Waiting) {
        if waiting.body.len() > BODY_IN_ONE_FRAME {
            self.credit_used += opening(waiting.body.len());
            self.begin(waiting);
            return;
        }
        self.lanes.leave(waiting.event());
        let (number, cost) = (waiting.number, waiting.cost());
        let seq = self.sequence(&waiting.head, &Body::Shared(waiting.body));
        self.started(number, 1, seq, cost, cost as usize);
    }

    /// Messages that waited have become frames.
    fn started(&mut self, number: u64, count: u64, seq: u64, cost: u64, bytes: usize) {
        self.credit_used += cost;
        self.waiting_bytes -= bytes;
        self.left(number, count, seq);
    }

    /// The last frames of messages that waited are these: who wants to know can ask, and is told.
    fn left(&mut self, number: u64, count: u64, seq: u64) {
        self.last_message = seq + count;
        let waited = Waited { number, count, seq };
        match self.waited.back_mut() {
            Some(last) if (last.number + last.count, last.seq + last.count) == (number, seq) => {
                last.count += count;
            }
            Some(_) | None => self.waited.push_back(waited),
        }
        if !self.receipts_waiting.is_empty() {
            let mut now: Vec<_> = self
                .receipts_waiting
                .extract_if(.., |(number, _)| waited.frame_of(*number).is_some())
                .filter_map(|(number, receipt)| Some((waited.frame_of(number)?, receipt)))
                .collect();
            now.sort_by_key(|&(seq, _)| seq);
            self.receipts.extend(now);
        }
    }

    fn begin(&mut self, waiting: Waiting) {
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

    fn cut(&mut self, mut stream: Stream) {
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
        self.forget(&stream.waiting);
        if stream.waiting.is_message() {
            self.credit_used += stream.rest();
            self.lanes.leave(stream.waiting.event());
            self.left(stream.waiting.number, 1, seq);
        }
    }
}
