//! The names that may log in: their passwords, and the identities they are bound to.

use std::collections::BTreeMap;

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::limits::{BCRYPT_COST, BCRYPT_COSTS};
use parlor_protocol::name::UserName;

use crate::password::PasswordHash;

/// The names that may log in, and with which password and identity.
#[derive(Debug)]
pub struct Accounts {
    by_name: BTreeMap<UserName, Account>,
    bindings: BTreeMap<UserName, PublicIdentity>,
    room_password: Option<PasswordHash>,
    /// Once a Room has had accounts it asks for one until it ends, also when the last was removed: nobody opens
    /// a Room by removing a user.
    required: bool,
    /// How many accounts have each cost of [`BCRYPT_COSTS`], so that a name without an account is answered
    /// without a look at the others.
    costs: [usize; COSTS],
    /// Decides, unpredictably and always alike, what a name without an account costs: in every run of the Room, because a
    /// name whose cost changes would be known for one without an account.
    /// Keyed with a secret, which it does not show.
    lots: blake3::Hasher,
}

/// One account.
#[derive(Debug, Clone)]
pub struct Account {
    /// The hash of its password.
    pub hash: PasswordHash,
    /// True if it stands in the configuration file, where only the operator's editor changes it.
    pub configured: bool,
}

impl Accounts {
    /// The accounts of the configuration and those of the store. `secret` is the Room's own and always the same.
    pub fn new(
        configured: BTreeMap<UserName, PasswordHash>,
        stored: BTreeMap<UserName, PasswordHash>,
        bindings: BTreeMap<UserName, PublicIdentity>,
        room_password: Option<PasswordHash>,
        secret: [u8; 32],
    ) -> Self {
        let stored = stored.into_iter().map(|(name, hash)| (name, Account { hash, configured: false }));
        let configured =
            configured.into_iter().map(|(name, hash)| (name, Account { hash, configured: true }));
        let accounts: BTreeMap<_, Account> = stored.chain(configured).collect();
        let required = !accounts.is_empty();
        let mut costs = [0; COSTS];
        for account in accounts.values() {
            costs[place_of(&account.hash)] += 1;
        }
        Self {
            by_name: accounts,
            bindings,
            room_password,
            required,
            costs,
            lots: blake3::Hasher::new_keyed(&secret),
        }
    }

    /// True if only accounts may log in.
    pub fn required(&self) -> bool {
        self.required
    }

    /// What the room password is verified against, if there is one.
    pub fn room_password(&self) -> Option<&PasswordHash> {
        self.room_password.as_ref()
    }

    /// True if a room password is needed.
    pub fn room_password_required(&self) -> bool {
        self.room_password.is_some()
    }

    /// True if logins are remembered by tickets: where there is a password.
    pub fn gives_tickets(&self) -> bool {
        self.required || self.room_password.is_some()
    }

    /// What a login under `name` has to prove now, as a digest: it changes with either password.
    pub fn to_prove(&self, name: &UserName) -> [u8; 32] {
        let mut digest = blake3::Hasher::new_derive_key("parlor room ticket v1");
        for hash in [self.by_name.get(name).map(|account| &account.hash), self.room_password.as_ref()] {
            // A hash has 60 characters, so that no two pairs are one text.
            digest.update(hash.map_or("-", PasswordHash::as_str).as_bytes()).update(b"\n");
        }
        digest.finalize().into()
    }

    /// The account of a name.
    pub fn get(&self, name: &UserName) -> Option<&Account> {
        self.by_name.get(name)
    }

    /// The name of an account as it was written first.
    pub fn spelling(&self, name: &UserName) -> Option<&UserName> {
        self.by_name.get_key_value(name).map(|(known, _)| known)
    }

    /// Every account, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&UserName, &Account)> {
        self.by_name.iter()
    }

    /// The identity that a name is bound to.
    pub fn binding(&self, name: &UserName) -> Option<PublicIdentity> {
        self.bindings.get(name).copied()
    }

    /// Binds a name to an identity, or frees it.
    pub fn bind(&mut self, name: &UserName, identity: Option<PublicIdentity>) {
        match identity {
            Some(identity) => self.bindings.insert(name.clone(), identity),
            None => self.bindings.remove(name),
        };
    }

    /// Adds an account, or gives it another password.
    pub fn set(&mut self, name: UserName, hash: PasswordHash) {
        self.costs[place_of(&hash)] += 1;
        if let Some(old) = self.by_name.insert(name, Account { hash, configured: false }) {
            self.costs[place_of(&old.hash)] -= 1;
        }
        self.required = true;
    }

    /// Removes an account and what it was bound to.
    pub fn remove(&mut self, name: &UserName) {
        if let Some(old) = self.by_name.remove(name) {
            self.costs[place_of(&old.hash)] -= 1;
        }
        self.bindings.remove(name);
    }

    /// What a password for `name` is verified against: the account's hash, or for a name without an account a hash
    /// that nothing matches, of a cost that an account here has. Both are made for either, so that the time they take
    /// tells nothing.
    pub(super) fn hash_for(&self, name: &UserName) -> PasswordHash {
        let none = PasswordHash::dummy(self.cost_without_account(name));
        self.by_name.get(name).map_or(none, |account| account.hash.clone())
    }

    /// Costs are as frequent among names without an account as among accounts, and the same for one name. A name draws a
    /// place on the line of all accounts in order of cost, so that of many names few change theirs with an account that
    /// comes or goes.
    fn cost_without_account(&self, name: &UserName) -> u32 {
        let draw = self.lots.clone().update(name.folded().as_bytes()).finalize();
        let draw = draw.as_bytes().iter().take(8).fold(0u128, |draw, byte| draw << 8 | u128::from(*byte));
        let mut nth = (draw * self.by_name.len() as u128) >> 64;
        for (cost, count) in BCRYPT_COSTS.zip(self.costs) {
            match nth.checked_sub(count as u128) {
                Some(rest) => nth = rest,
                None => return cost,
            }
        }
        BCRYPT_COST
    }
}

/// How many costs there are.
const COSTS: usize = (*BCRYPT_COSTS.end() - *BCRYPT_COSTS.start() + 1) as usize;

/// Where a hash is counted. Its cost has been checked when it was read.
fn place_of(hash: &PasswordHash) -> usize {
    (hash.cost().clamp(*BCRYPT_COSTS.start(), *BCRYPT_COSTS.end()) - *BCRYPT_COSTS.start()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_an_account_costs_what_some_account_costs_and_always_the_same() {
        let configured = [("Foo", 10), ("Bar", 13)];
        let configured =
            configured.map(|(name, cost)| (name.parse().unwrap(), PasswordHash::dummy(cost))).into();
        let mut accounts = Accounts::new(configured, BTreeMap::new(), BTreeMap::new(), None, [1; 32]);
        let cost_in = |accounts: &Accounts, name: &str| accounts.hash_for(&name.parse().unwrap()).cost();
        let cost = |name: &str| cost_in(&accounts, name);
        let costs: Vec<u32> = (0..64).map(|n| cost(&format!("nobody{n}"))).collect();
        assert!(costs.contains(&10) && costs.contains(&13) && costs.iter().all(|c| [10, 13].contains(c)));
        assert_eq!(cost("nobody1"), cost("NOBODY1"));
        assert_eq!((cost("foo"), cost("BAR")), (10, 13));

        accounts.set("bar".parse().unwrap(), PasswordHash::dummy(14));
        accounts.remove(&"Foo".parse().unwrap());
        assert!((0..64).all(|n| cost_in(&accounts, &format!("nobody{n}")) == 14));
        accounts.remove(&"Bar".parse().unwrap());
        assert_eq!((cost_in(&accounts, "Foo"), accounts.costs), (BCRYPT_COST, [0; COSTS]));
    }

    #[test]
    fn an_account_that_comes_changes_the_cost_of_few_names_without_one() {
        let of = |n: u32| (format!("user{n}").parse().unwrap(), PasswordHash::dummy(10 + 2 * (n % 2)));
        let configured = (0..100).map(of).collect();
        let mut accounts = Accounts::new(configured, BTreeMap::new(), BTreeMap::new(), None, [1; 32]);
        let costs = |accounts: &Accounts| -> Vec<u32> {
            (0..1_000).map(|n| accounts.hash_for(&format!("nobody{n}").parse().unwrap()).cost()).collect()
        };
        let before = costs(&accounts);
        accounts.set("Foo".parse().unwrap(), PasswordHash::dummy(12));
        let changed = before.iter().zip(costs(&accounts)).filter(|(before, now)| **before != *now).count();
        assert!(changed < 20, "{changed} of 1,000");
    }
}
