//! The calls to a peer that are under way.

use std::time::Instant;

use parlor_protocol::limits::CALLS_OUT;
use parlor_protocol::session::Placed;

/// A call that has no answer yet.
#[derive(Debug)]
pub(super) struct Pending<C> {
    pub(super) token: C,
    pub(super) placed: Placed,
    /// When its caller stops waiting.
    pub(super) until: Option<Instant>,
}

/// Calls by number. A number is not used again while its call is under way.
#[derive(Debug)]
pub(super) struct Calls<C> {
    /// Call `n` is at `n` modulo their number, which is a power of two.
    slots: Vec<Option<(u32, Pending<C>)>>,
    count: usize,
    next: u32,
    /// No call expires before this.
    expiry: Option<Instant>,
}

/// Slots that are made at first. There are at least twice as many as calls.
const SLOTS: usize = 16;

impl<C> Default for Calls<C> {
    fn default() -> Self {
        Self { slots: Vec::new(), count: 0, next: 0, expiry: None }
    }
}

impl<C> Calls<C> {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A number for the next call, unless as many as may are under way.
    pub(super) fn free_number(&mut self) -> Option<u32> {
        if self.count >= CALLS_OUT {
            return None;
        }
        if self.count * 2 >= self.slots.len() {
            self.grow();
        }
        // Half of the slots are free, so a free one is near.
        while self.slot(self.next).is_some_and(|slot| slot.is_some()) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        Some(number)
    }

    pub(super) fn insert(&mut self, call: u32, pending: Pending<C>) {
        self.expiry = [self.expiry, pending.until].into_iter().flatten().min();
        if let Some(slot) = self.slot(call) {
            *slot = Some((call, pending));
            self.count += 1;
        }
    }

    pub(super) fn remove(&mut self, call: u32) -> Option<Pending<C>> {
        let (_, pending) = self.slot(call)?.take_if(|(number, _)| *number == call)?;
        self.count -= 1;
        Some(pending)
    }

    pub(super) fn drain(&mut self) -> Vec<Pending<C>> {
        self.expiry = None;
        self.count = 0;
        self.slots.drain(..).flatten().map(|(_, pending)| pending).collect()
    }

    /// When to ask for expired calls. May be too early, never too late.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry
    }

    /// Takes out the calls whose time is up.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(u32, Pending<C>)> {
        if self.expiry.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let due = |(_, pending): &mut (u32, Pending<C>)| pending.until.is_some_and(|until| until <= now);
        let expired: Vec<_> = self.slots.iter_mut().filter_map(|slot| slot.take_if(due)).collect();
        self.count -= expired.len();
        self.expiry = self.slots.iter().flatten().filter_map(|(_, pending)| pending.until).min();
        expired
    }

    fn slot(&mut self, call: u32) -> Option<&mut Option<(u32, Pending<C>)>> {
        let at = call as usize & self.slots.len().wrapping_sub(1);
        self.slots.get_mut(at)
    }

    /// Twice as many slots: what had one to itself has one again.
    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(SLOTS);
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(len, || None);
        for (call, pending) in old.into_iter().flatten() {
            if let Some(slot) = self.slot(call) {
                *slot = Some((call, pending));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_finds_its_call_however_many_came_and_went() {
        let (mut calls, mut open) = (Calls::default(), Vec::new());
        calls.next = u32::MAX - 500;
        for round in 0..5000usize {
            let number = calls.free_number().unwrap();
            assert!(!open.contains(&number));
            calls.insert(number, Pending { token: number, placed: Placed::Sequenced(0), until: None });
            open.push(number);
            // The first one is never over; most others are soon.
            if open.len() > 3 && round % 7 != 0 {
                let over = open.remove(1 + round % (open.len() - 1));
                assert_eq!(calls.remove(over).map(|pending| pending.token), Some(over));
                assert!(calls.remove(over).is_none());
            }
        }
        assert!(open.len() > 100);
        while let Some(number) = calls.free_number() {
            calls.insert(number, Pending { token: number, placed: Placed::Sequenced(0), until: None });
            open.push(number);
        }
        assert_eq!(open.len(), CALLS_OUT);
        let mut all: Vec<_> = calls.drain().into_iter().map(|pending| pending.token).collect();
        all.sort_unstable();
        open.sort_unstable();
        assert_eq!(all, open);
        assert!(calls.is_empty());
    }
}
