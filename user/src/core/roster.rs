//! Who is online, as the Room said last.
//!
//! The list survives the loss of the Room: it is then what was true, and [`Members::is_current`] says so.
//! After a new login the Room's whole list replaces it, and what differs comes out as the same changes that
//! the Room would have reported one by one. A name that comes back with another key left and joined: nobody
//! takes one program for another.

use std::collections::BTreeMap;

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::name::UserName;
use parlor_protocol::wire::control::{Member, Roster};

/// Somebody came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A user is online now.
    Joined(Member),
    /// A user is offline now.
    Left(UserName),
}

/// The users that are online.
#[derive(Debug, Clone, Default)]
pub struct Members {
    online: BTreeMap<UserName, Member>,
    current: bool,
}

impl Members {
    /// Takes the Room's whole list and returns what is different now.
    pub fn replace(&mut self, all: Vec<Member>) -> Vec<Change> {
        self.current = true;
        let new: BTreeMap<UserName, Member> = all.into_iter().map(|m| (m.name.clone(), m)).collect();
        let gone: Vec<UserName> =
            self.online.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
        self.apply(Roster { joined: new.into_values().collect(), left: gone, complete: true })
    }

    /// Takes what the Room says has changed and returns what was news. Those who left go first.
    pub fn apply(&mut self, delta: Roster) -> Vec<Change> {
        let mut changes = Vec::with_capacity(delta.joined.len() + delta.left.len());
        for name in delta.left {
            if self.online.remove(&name).is_some() {
                changes.push(Change::Left(name));
            }
        }
        for member in delta.joined {
            match self.online.insert(member.name.clone(), member.clone()) {
                Some(known) if known.identity == member.identity => continue,
                Some(known) => changes.push(Change::Left(known.name)),
                None => {}
            }
            changes.push(Change::Joined(member));
        }
        changes
    }

    /// The Room is gone: the list stays as what was known last.
    pub fn room_lost(&mut self) {
        self.current = false;
    }

    /// True while the Room keeps the list up to date.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// The identity of a user that is online.
    pub fn get(&self, name: &UserName) -> Option<&PublicIdentity> {
        self.online.get(name).map(|member| &member.identity)
    }

    /// Everybody online, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.online.values()
    }

    /// How many are online.
    pub fn len(&self) -> usize {
        self.online.len()
    }

    /// True if nobody is online.
    pub fn is_empty(&self) -> bool {
        self.online.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, key: u8) -> Member {
        Member { name: name.parse().unwrap(), identity: PublicIdentity([key; 32]) }
    }

    fn joined(name: &str, key: u8) -> Change {
        Change::Joined(member(name, key))
    }

    fn left(name: &str) -> Change {
        Change::Left(name.parse().unwrap())
    }

    #[test]
    fn what_the_room_repeats_is_no_news() {
        let mut members = Members::default();
        let delta = Roster { joined: vec![member("Foo", 1)], left: vec![], complete: true };
        assert_eq!(members.apply(delta.clone()), [joined("Foo", 1)]);
        assert_eq!(members.apply(delta), []);
        let gone = Roster { joined: vec![], left: vec!["foo".parse().unwrap()], complete: true };
        assert_eq!(members.apply(gone.clone()), [left("Foo")]);
        assert_eq!(members.apply(gone), []);
        assert!(members.is_empty());
    }

    #[test]
    fn the_list_outlives_the_room_and_the_new_one_comes_out_as_changes() {
        let mut members = Members::default();
        members.replace(vec![member("Foo", 1), member("Bar", 2), member("Baz", 3)]);
        assert!(members.is_current());
        members.room_lost();
        assert!(!members.is_current());
        assert_eq!(members.get(&"bar".parse().unwrap()), Some(&PublicIdentity([2; 32])));
        let changes = members.replace(vec![member("Foo", 1), member("Baz", 4), member("Qux", 5)]);
        assert_eq!(changes, [left("Bar"), left("Baz"), joined("Baz", 4), joined("Qux", 5)]);
        assert!(members.is_current());
        assert_eq!(members.len(), 3);
    }
}
