//! The calls to a peer that are under way.

use std::collections::HashMap;
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
    pending: HashMap<u32, Pending<C>>,
    next: u32,
    /// No call expires before this.
    expiry: Option<Instant>,
}

impl<C> Default for Calls<C> {
    fn default() -> Self {
        Self { pending: HashMap::new(), next: 0, expiry: None }
    }
}

impl<C> Calls<C> {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// A number for the next call, unless as many as may are under way.
    pub(super) fn free_number(&mut self) -> Option<u32> {
        if self.pending.len() >= CALLS_OUT {
            return None;
        }
        // At most CALLS_OUT numbers are taken, so a free one is near.
        while self.pending.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        Some(number)
    }

    pub(super) fn insert(&mut self, call: u32, pending: Pending<C>) {
        self.expiry = [self.expiry, pending.until].into_iter().flatten().min();
        self.pending.insert(call, pending);
    }

    pub(super) fn remove(&mut self, call: u32) -> Option<Pending<C>> {
        self.pending.remove(&call)
    }

    pub(super) fn drain(&mut self) -> Vec<Pending<C>> {
        self.expiry = None;
        self.pending.drain().map(|(_, pending)| pending).collect()
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
        let due = |pending: &Pending<C>| pending.until.is_some_and(|until| until <= now);
        let calls: Vec<u32> = self.pending.iter().filter(|(_, p)| due(p)).map(|(&call, _)| call).collect();
        let expired =
            calls.into_iter().filter_map(|call| Some((call, self.pending.remove(&call)?))).collect();
        self.expiry = self.pending.values().filter_map(|pending| pending.until).min();
        expired
    }
}
