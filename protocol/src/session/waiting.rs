//! Messages that wait for the peer's receive window, in the order in which they were sent.
//!
//! Small messages of one event lie one behind another as the frames that they will be: waiting costs such a message a
//! copy, no memory of its own, and as many as there is credit for leave in one move.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::pushed::Class;
use super::retained::CHUNK;
use crate::wire::peer::{FRAME_HEAD, Head, MESSAGE_COST, kind, next_frame, write_frame_head};

/// A message, call or answer that waits with memory of its own.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) head: Head<Bytes>,
    pub(super) body: Bytes,
}

impl Waiting {
    pub(super) fn is_message(&self) -> bool {
        self.class() == Class::Message
    }

    pub(super) fn class(&self) -> Class {
        Class::of(&self.head)
    }

    /// A message's event.
    pub(super) fn event(&self) -> Option<&[u8]> {
        match &self.head {
            Head::Send { event } => event.as_deref(),
            Head::Get { .. } | Head::Answer { .. } => None,
        }
    }

    /// What it costs of the window, and of the buffer while it waits.
    pub(super) fn cost(&self) -> u64 {
        self.body.len() as u64 + MESSAGE_COST
    }
}

/// Small messages of one event, as frames.
#[derive(Debug)]
pub(super) struct Run {
    /// The number of the first one.
    pub(super) number: u64,
    pub(super) count: u64,
    /// What they cost of the window.
    pub(super) cost: u64,
    event: Option<Bytes>,
    frames: Vec<u8>,
    /// Where the first one begins.
    at: usize,
}

impl Run {
    pub(super) fn new(number: u64, event: Option<&[u8]>, frames: Vec<u8>) -> Self {
        Self { number, count: 0, cost: 0, event: event.map(Bytes::copy_from_slice), frames, at: 0 }
    }

    pub(super) fn event(&self) -> Option<&[u8]> {
        self.event.as_deref()
    }

    /// Bytes of its frames.
    pub(super) fn bytes(&self) -> usize {
        self.frames.len() - self.at
    }

    fn head_len(&self) -> usize {
        1 + self.event.as_ref().map_or(0, Bytes::len)
    }

    /// True if a message of this number and event belongs and fits behind the others.
    fn takes(&self, number: u64, event: Option<&[u8]>, body: usize) -> bool {
        let fits = self.frames.len() + FRAME_HEAD + self.head_len() + body <= CHUNK;
        fits && number == self.number + self.count && self.event.as_deref() == event
    }

    pub(super) fn push(&mut self, body: &[u8]) {
        let payload = self.head_len() + body.len();
        write_frame_head(&mut self.frames, kind::SEND, payload);
        Head::Send { event: self.event.as_ref() }.write(&mut self.frames);
        self.frames.extend_from_slice(body);
        self.count += 1;
        self.cost += body.len() as u64 + MESSAGE_COST;
    }

    /// The frames themselves, if nothing of them has left.
    pub(super) fn into_frames(self) -> Result<Vec<u8>, Self> {
        if self.at == 0 { Ok(self.frames) } else { Err(self) }
    }

    /// Takes off the front what may begin while any of `credit` is left. Returns where these frames lie and how
    /// many they are.
    pub(super) fn take(&mut self, credit: u64) -> (Range<usize>, u64) {
        let (start, mut count, mut cost) = (self.at, 0, 0);
        while cost < credit
            && let Ok(Some(frame)) = next_frame(&self.frames, self.at)
        {
            cost += (frame.payload.len() - self.head_len()) as u64 + MESSAGE_COST;
            count += 1;
            self.at = frame.payload.end;
        }
        self.number += count;
        self.count -= count;
        self.cost -= cost;
        (start..self.at, count)
    }

    pub(super) fn frames(&self, range: Range<usize>) -> &[u8] {
        &self.frames[range]
    }
}

#[derive(Debug)]
pub(super) enum Entry {
    Run(Run),
    Whole(Waiting),
}

impl Entry {
    /// The order it belongs to.
    pub(super) fn event(&self) -> Option<&[u8]> {
        match self {
            Entry::Run(run) => run.event(),
            Entry::Whole(waiting) => waiting.event(),
        }
    }

    /// The length of its first body, as far as it matters: a small one's is 0.
    pub(super) fn first_len(&self) -> usize {
        match self {
            Entry::Run(_) => 0,
            Entry::Whole(waiting) => waiting.body.len(),
        }
    }

    fn numbers(&self) -> Range<u64> {
        match self {
            Entry::Run(run) => run.number..run.number + run.count,
            Entry::Whole(waiting) => waiting.number..waiting.number + 1,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        self.entries.pop_front()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// What is left of the first one.
    pub(super) fn put_back(&mut self, run: Run) {
        self.entries.push_front(Entry::Run(run));
    }

    /// The number of the first message.
    pub(super) fn first_number(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.numbers().start)
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let at = self.entries.partition_point(|entry| entry.numbers().end <= number);
        self.entries.get(at).is_some_and(|entry| entry.numbers().contains(&number))
    }

    /// The last run, if a message of this number and event belongs and fits behind the others.
    pub(super) fn run_for(&mut self, number: u64, event: Option<&[u8]>, body: usize) -> Option<&mut Run> {
        match self.entries.back_mut() {
            Some(Entry::Run(run)) if run.takes(number, event, body) => Some(run),
            Some(_) | None => None,
        }
    }
}

/// How many entries each event has that wait or go in pieces. A new message of such an event must not pass them.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    plain: usize,
    named: HashMap<Bytes, usize>,
}

impl Lanes {
    pub(super) fn is_busy(&self, event: Option<&[u8]>) -> bool {
        match event {
            None => self.plain > 0,
            Some(event) => !self.named.is_empty() && self.named.contains_key(event),
        }
    }

    pub(super) fn enter(&mut self, event: Option<&[u8]>) {
        let Some(event) = event else {
            self.plain += 1;
            return;
        };
        match self.named.get_mut(event) {
            Some(count) => *count += 1,
            None => {
                self.named.insert(Bytes::copy_from_slice(event), 1);
            }
        }
    }

    pub(super) fn leave(&mut self, event: Option<&[u8]>) {
        let Some(event) = event else {
            self.plain -= 1;
            return;
        };
        if let Some(count) = self.named.get_mut(event) {
            *count -= 1;
            if *count == 0 {
                self.named.remove(event);
            }
        }
    }
}
