//! What has arrived from one sender: each message once, whole, and after the one before it, or not.
//!
//! A sender numbers its messages from 0. A number that comes before its turn leaves the skipped ones missing; one
//! of those that comes later is out of order, one that is no longer missing is repeated.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A time without a delivery that is worth remembering, in nanoseconds: well above a scheduler's whims.
const PAUSE: u64 = 5_000_000;
/// Pauses that are remembered.
const PAUSES: usize = 4096;

/// A numbered message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Note {
    /// From 0.
    pub(super) number: u64,
    /// When it was handed over, on the machine's monotonic clock.
    pub(super) sent: u64,
    /// Bytes that follow from the number.
    pub(super) body: ByteBuf,
}

impl Note {
    /// A note with a body of this size.
    pub(super) fn new(number: u64, sent: u64, size: usize) -> Self {
        Self { number, sent, body: ByteBuf::from(vec![Self::fill(number); size]) }
    }

    fn fill(number: u64) -> u8 {
        number.to_le_bytes().iter().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
    }

    fn is_intact(&self) -> bool {
        self.body.iter().all(|byte| *byte == Self::fill(self.number))
    }
}

/// What has arrived.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Different messages that came.
    pub(super) delivered: u64,
    /// Numbers that were skipped and have not come since.
    pub(super) missing: u64,
    /// Messages that had come before.
    pub(super) repeated: u64,
    /// Messages that came after a later one.
    pub(super) reordered: u64,
    /// Messages whose body is not what was sent.
    pub(super) damaged: u64,
    /// When the newest of them was sent.
    pub(super) newest_sent: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    next: u64,
    missing: BTreeSet<u64>,
    tally: Tally,
    last_at: Option<u64>,
    /// When each pause ended and how long it was.
    pauses: VecDeque<(u64, u64)>,
}

impl Ledger {
    /// A message came.
    pub(super) fn take(&mut self, note: &Note, now: u64) {
        if let Some(last) = self.last_at.replace(now)
            && now.saturating_sub(last) > PAUSE
        {
            if self.pauses.len() == PAUSES {
                self.pauses.pop_front();
            }
            self.pauses.push_back((now, now - last));
        }
        let tally = &mut self.tally;
        tally.newest_sent = tally.newest_sent.max(note.sent);
        tally.damaged += u64::from(!note.is_intact());
        if note.number >= self.next {
            self.missing.extend(self.next..note.number);
            self.next = note.number + 1;
            tally.delivered += 1;
        } else if self.missing.remove(&note.number) {
            tally.reordered += 1;
            tally.delivered += 1;
        } else {
            tally.repeated += 1;
        }
    }

    /// What has arrived so far.
    pub(super) fn tally(&self) -> Tally {
        Tally { missing: self.missing.len() as u64, ..self.tally.clone() }
    }

    /// The longest time without a delivery, in nanoseconds, of those that ended after `since`.
    pub(super) fn longest_pause(&self, since: u64) -> u64 {
        let after = self.pauses.iter().filter(|(end, _)| *end > since);
        after.map(|(_, length)| *length).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(numbers: &[u64]) -> Tally {
        let mut ledger = Ledger::default();
        for (now, &number) in numbers.iter().enumerate() {
            ledger.take(&Note::new(number, 0, 10), now as u64);
        }
        ledger.tally()
    }

    #[test]
    fn each_message_once_and_in_order_is_what_is_hoped_for() {
        assert_eq!(after(&[0, 1, 2]), Tally { delivered: 3, ..Tally::default() });
    }

    #[test]
    fn a_gap_is_missing_until_it_is_filled_and_then_it_is_out_of_order() {
        assert_eq!(after(&[0, 3]), Tally { delivered: 2, missing: 2, ..Tally::default() });
        assert_eq!(after(&[0, 3, 1]), Tally { delivered: 3, missing: 1, reordered: 1, ..Tally::default() });
    }

    #[test]
    fn what_came_before_is_repeated_also_when_it_came_out_of_order() {
        assert_eq!(after(&[0, 1, 1, 0]), Tally { delivered: 2, repeated: 2, ..Tally::default() });
        let twice_late = after(&[1, 0, 0]);
        assert_eq!((twice_late.reordered, twice_late.repeated, twice_late.missing), (1, 1, 0));
    }

    #[test]
    fn a_body_that_belongs_to_another_number_is_damaged() {
        let (mut ledger, mut note) = (Ledger::default(), Note::new(0, 0, 10));
        note.body[9] ^= 1;
        ledger.take(&note, 0);
        assert_eq!(ledger.tally().damaged, 1);
    }

    #[test]
    fn only_pauses_that_ended_later_count() {
        let mut ledger = Ledger::default();
        for (number, now) in [0, 100 * PAUSE, 101 * PAUSE, 131 * PAUSE].into_iter().enumerate() {
            ledger.take(&Note::new(number as u64, 0, 0), now);
        }
        assert_eq!(ledger.longest_pause(0), 100 * PAUSE);
        assert_eq!(ledger.longest_pause(100 * PAUSE), 30 * PAUSE);
        assert_eq!(ledger.longest_pause(131 * PAUSE), 0);
    }
}
