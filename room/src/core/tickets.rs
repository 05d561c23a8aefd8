//! Tickets that stand for an earlier login, so that a thousand users come back without one bcrypt.
//!
//! A ticket is 256 random bits. The Room keeps the SHA-256 of them and of what was proved to get them (the
//! hashes of the passwords), the name and the identity they were given to, and when they end. So neither its
//! memory nor its disk holds anything that logs in, and another password voids a ticket wherever it was changed. A ticket can be used until it
//! ends, because the answer to a login may be lost. A login by a ticket in the first half of its life brings the same
//! one again: it is on disk, where a new one would not be yet if the Room is killed now.

use std::collections::{BTreeSet, HashMap, VecDeque};

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::limits::TICKET_LIFETIME;
use parlor_protocol::name::UserName;
use parlor_protocol::wire::control::{Ticket, TicketSecret};
use sha2::{Digest, Sha256};

use crate::store::TicketRecord;

/// Tickets that one name holds at once; the oldest goes first. Enough for a handful of programs that share an
/// identity and for answers that were lost.
const TICKETS_PER_NAME: usize = 8;

/// Tickets of all names at once; the one that ends first goes first. They are written as a whole: 25 MiB at most.
const TICKETS: usize = 100_000;

/// Every ticket that is good.
#[derive(Debug)]
pub struct Tickets {
    capacity: usize,
    by_hash: HashMap<[u8; 32], TicketRecord>,
    /// When each ends, first to last.
    by_end: BTreeSet<(u64, [u8; 32])>,
    /// The hashes of a name's tickets, oldest first.
    by_name: HashMap<UserName, VecDeque<[u8; 32]>>,
    changed: bool,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            capacity: TICKETS,
            by_hash: HashMap::new(),
            by_end: BTreeSet::new(),
            by_name: HashMap::new(),
            changed: false,
        }
    }
}

impl Tickets {
    /// The tickets that the store kept. Those that have ended are dropped.
    pub fn new(kept: Vec<TicketRecord>, unix: u64) -> Self {
        let mut tickets = Self::default();
        let mut kept: Vec<_> = kept.into_iter().filter(|ticket| ticket.expires > unix).collect();
        kept.sort_by_key(|ticket| ticket.expires);
        for ticket in kept {
            tickets.insert(ticket);
        }
        tickets.changed = false;
        tickets
    }

    /// Gives out a ticket made of `secret`, which must be fresh random bytes, for having proved `proved`.
    pub fn issue(
        &mut self,
        secret: [u8; 32],
        proved: &[u8; 32],
        name: &UserName,
        identity: PublicIdentity,
        unix: u64,
    ) -> Ticket {
        let lifetime = TICKET_LIFETIME.as_secs();
        let hash = hash(&secret, proved);
        self.insert(TicketRecord { hash, name: name.clone(), identity, expires: unix + lifetime });
        Ticket { secret: TicketSecret(secret), seconds: u32::try_from(lifetime).unwrap_or(u32::MAX) }
    }

    /// True if `secret` was given to this name and identity, for what is to be proved today, and is still good.
    pub fn is_good(
        &self,
        secret: &TicketSecret,
        proved: &[u8; 32],
        name: &UserName,
        identity: &PublicIdentity,
        unix: u64,
    ) -> bool {
        self.by_hash
            .get(&hash(&secret.0, proved))
            .is_some_and(|t| t.name == *name && t.identity == *identity && t.expires > unix)
    }

    /// A ticket that was shown and found good, to be given out again. `None`: half of its life is over.
    pub fn again(&self, shown: &TicketSecret, proved: &[u8; 32], unix: u64) -> Option<Ticket> {
        let lifetime = TICKET_LIFETIME.as_secs();
        let left = self.by_hash.get(&hash(&shown.0, proved))?.expires.saturating_sub(unix);
        // More than a whole life is left when the clock was set back.
        let again = left > lifetime / 2 && left <= lifetime;
        again.then(|| Ticket { secret: shown.clone(), seconds: u32::try_from(left).unwrap_or(u32::MAX) })
    }

    /// Voids every ticket of a name.
    pub fn void(&mut self, name: &UserName) {
        for hash in self.by_name.remove(name).unwrap_or_default() {
            self.remove(&hash);
        }
    }

    /// Forgets tickets that have ended.
    pub fn expire(&mut self, unix: u64) {
        while let Some((ends, hash)) = self.by_end.first().copied()
            && ends <= unix
        {
            self.remove(&hash);
        }
    }

    /// All tickets, if they changed since they were last taken: what the store is to keep.
    pub fn take_changed(&mut self) -> Option<Vec<TicketRecord>> {
        std::mem::take(&mut self.changed).then(|| self.by_hash.values().cloned().collect())
    }

    fn insert(&mut self, ticket: TicketRecord) {
        let hashes = self.by_name.entry(ticket.name.clone()).or_default();
        hashes.push_back(ticket.hash);
        let one_too_many = (hashes.len() > TICKETS_PER_NAME).then(|| hashes[0]);
        self.by_end.insert((ticket.expires, ticket.hash));
        self.by_hash.insert(ticket.hash, ticket);
        self.changed = true;
        if let Some(oldest) = one_too_many {
            self.remove(&oldest);
        }
        if self.by_hash.len() > self.capacity
            && let Some((_, oldest)) = self.by_end.first().copied()
        {
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, hash: &[u8; 32]) {
        let Some(ticket) = self.by_hash.remove(hash) else { return };
        self.changed = true;
        self.by_end.remove(&(ticket.expires, *hash));
        if let Some(hashes) = self.by_name.get_mut(&ticket.name) {
            hashes.retain(|other| other != hash);
            if hashes.is_empty() {
                self.by_name.remove(&ticket.name);
            }
        }
    }
}

fn hash(secret: &[u8; 32], proved: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(secret).chain_update(proved).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;
    const PROVED: [u8; 32] = [5; 32];

    fn foo() -> UserName {
        "Foo".parse().unwrap()
    }

    #[test]
    fn a_ticket_is_good_for_its_name_and_identity_and_a_day_also_after_a_restart() {
        let mut tickets = Tickets::default();
        let (me, other) = (PublicIdentity([1; 32]), PublicIdentity([2; 32]));
        let ticket = tickets.issue([7; 32], &PROVED, &foo(), me, 1000);
        assert_eq!(u64::from(ticket.seconds), DAY);
        let restarted = Tickets::new(tickets.take_changed().unwrap(), 1000 + DAY - 1);
        for tickets in [&tickets, &restarted] {
            assert!(tickets.is_good(&ticket.secret, &PROVED, &"fOO".parse().unwrap(), &me, 1000 + DAY - 1));
            assert!(!tickets.is_good(&ticket.secret, &PROVED, &foo(), &me, 1000 + DAY));
            assert!(!tickets.is_good(&ticket.secret, &[6; 32], &foo(), &me, 1000), "another password");
            assert!(!tickets.is_good(&ticket.secret, &PROVED, &foo(), &other, 1000));
            assert!(!tickets.is_good(&ticket.secret, &PROVED, &"Bar".parse().unwrap(), &me, 1000));
            assert!(!tickets.is_good(&TicketSecret([8; 32]), &PROVED, &foo(), &me, 1000));
        }
        assert!(tickets.take_changed().is_none(), "nothing to write twice");
    }

    #[test]
    fn a_ticket_is_given_out_again_in_the_first_half_of_its_life() {
        let mut tickets = Tickets::default();
        let ticket = tickets.issue([7; 32], &PROVED, &foo(), PublicIdentity([1; 32]), DAY);
        let again =
            |unix| tickets.again(&ticket.secret, &PROVED, unix).map(|again| (again.secret.0, again.seconds));
        assert_eq!(again(DAY + 10), Some(([7; 32], DAY as u32 - 10)));
        assert_eq!(again(DAY + DAY / 2), None);
        assert_eq!(again(0), None, "the clock was set back");
        assert!(tickets.again(&ticket.secret, &[6; 32], DAY).is_none(), "another password");
        assert!(tickets.again(&TicketSecret([8; 32]), &PROVED, DAY).is_none());
    }

    #[test]
    fn what_is_kept_does_not_log_in() {
        let mut tickets = Tickets::default();
        let me = PublicIdentity([1; 32]);
        tickets.issue([7; 32], &PROVED, &foo(), me, 0);
        let kept = tickets.take_changed().unwrap();
        assert_ne!(kept[0].hash, [7; 32]);
        assert!(!tickets.is_good(&TicketSecret(kept[0].hash), &PROVED, &foo(), &me, 0));
    }

    #[test]
    fn a_name_holds_a_few_tickets_and_all_can_be_voided() {
        let mut tickets = Tickets::default();
        let me = PublicIdentity([1; 32]);
        let all: Vec<_> =
            (0..=TICKETS_PER_NAME as u8).map(|n| tickets.issue([n; 32], &PROVED, &foo(), me, 0)).collect();
        assert!(!tickets.is_good(&all[0].secret, &PROVED, &foo(), &me, 0));
        assert!(tickets.is_good(&all[1].secret, &PROVED, &foo(), &me, 0));
        tickets.void(&foo());
        assert!(!tickets.is_good(&all[1].secret, &PROVED, &foo(), &me, 0));
        assert_eq!(tickets.take_changed().unwrap().len(), 0);
    }

    #[test]
    fn tickets_that_have_ended_are_forgotten() {
        let mut tickets = Tickets::default();
        let me = PublicIdentity([1; 32]);
        tickets.issue([1; 32], &PROVED, &foo(), me, 0);
        tickets.issue([2; 32], &PROVED, &foo(), me, 100);
        tickets.expire(DAY + 50);
        assert_eq!(tickets.by_hash.len(), 1);
        tickets.expire(DAY + 100);
        assert!(tickets.by_hash.is_empty() && tickets.by_name.is_empty());
    }

    #[test]
    fn all_names_together_hold_so_many_tickets_and_the_oldest_goes() {
        let mut tickets = Tickets { capacity: 10, ..Tickets::default() };
        let me = PublicIdentity([1; 32]);
        let name = |n: u8| format!("user{n}").parse::<UserName>().unwrap();
        let all: Vec<_> =
            (0..20).map(|n| tickets.issue([n; 32], &PROVED, &name(n), me, u64::from(n))).collect();
        let good = |n: u8| tickets.is_good(&all[usize::from(n)].secret, &PROVED, &name(n), &me, 100);
        assert!((0..10).all(|n| !good(n)) && (10..20).all(good));
        assert_eq!((tickets.by_end.len(), tickets.by_name.len()), (10, 10));
    }
}
