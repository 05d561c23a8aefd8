//! The calls to a peer that are under way.

use std::collections::HashMap;

use parlor_protocol::limits::CALLS_OUT;
use parlor_protocol::session::Placed;

/// Calls by number. A number is not used again while its call is under way.
#[derive(Debug)]
pub(super) struct Calls<C> {
    pending: HashMap<u32, (C, Placed)>,
    next: u32,
}

impl<C> Default for Calls<C> {
    fn default() -> Self {
        Self { pending: HashMap::new(), next: 0 }
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

    pub(super) fn insert(&mut self, call: u32, token: C, placed: Placed) {
        self.pending.insert(call, (token, placed));
    }

    pub(super) fn remove(&mut self, call: u32) -> Option<(C, Placed)> {
        self.pending.remove(&call)
    }

    pub(super) fn drain(&mut self) -> Vec<(C, Placed)> {
        self.pending.drain().map(|(_, pending)| pending).collect()
    }
}
