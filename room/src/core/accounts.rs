//! The names that may log in: their passwords, and the identities they are bound to.

use std::collections::BTreeMap;

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::limits::BCRYPT_COST;
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
    /// Decides, unpredictably and always alike, what a name without an account costs.
    secret: [u8; 32],
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
    /// The accounts of the configuration and those of the store. `secret` is random.
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
        let accounts: BTreeMap<_, _> = stored.chain(configured).collect();
        let required = !accounts.is_empty();
        Self { by_name: accounts, bindings, room_password, required, secret }
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
        self.by_name.insert(name, Account { hash, configured: false });
        self.required = true;
    }

    /// Removes an account and what it was bound to.
    pub fn remove(&mut self, name: &UserName) {
        self.by_name.remove(name);
        self.bindings.remove(name);
    }

    /// What a password for `name` is verified against: the account's hash, or for a name without an account a hash
    /// that nothing matches, of a cost that an account here has.
    pub(super) fn hash_for(&self, name: &UserName) -> PasswordHash {
        if let Some(account) = self.by_name.get(name) {
            return account.hash.clone();
        }
        let costs: Vec<u32> = self.by_name.values().map(|account| account.hash.cost()).collect();
        let draw = blake3::keyed_hash(&self.secret, name.folded().as_bytes());
        let draw = draw.as_bytes().iter().take(8).fold(0u64, |draw, byte| draw << 8 | u64::from(*byte));
        let cost = match costs.len() as u64 {
            0 => BCRYPT_COST,
            len => costs[(draw % len) as usize],
        };
        PasswordHash::dummy(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_an_account_costs_what_some_account_costs_and_always_the_same() {
        let configured = [("Foo", 10), ("Bar", 13)];
        let configured =
            configured.map(|(name, cost)| (name.parse().unwrap(), PasswordHash::dummy(cost))).into();
        let accounts = Accounts::new(configured, BTreeMap::new(), BTreeMap::new(), None, [1; 32]);
        let cost = |name: &str| accounts.hash_for(&name.parse().unwrap()).cost();
        let costs: Vec<u32> = (0..64).map(|n| cost(&format!("nobody{n}"))).collect();
        assert!(costs.contains(&10) && costs.contains(&13) && costs.iter().all(|c| [10, 13].contains(c)));
        assert_eq!(cost("nobody1"), cost("NOBODY1"));
        assert_eq!((cost("foo"), cost("BAR")), (10, 13));
    }
}
