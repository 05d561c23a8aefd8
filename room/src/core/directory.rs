//! Who is online, and who came or went since the others were last told.
//!
//! A name is one name in every case. A change is told by the state at the time of telling, so that of a user that
//! came, went and came again within one batch only the last is said, and a user that was given the whole
//! list meanwhile can take the batch on top of it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use parlor_protocol::identity::{InstanceId, NoiseCertificate, PublicIdentity};
use parlor_protocol::introduction::Party;
use parlor_protocol::name::UserName;
use parlor_protocol::presence::Presence;
use parlor_protocol::wire::control::{Member, Roster};

use super::ConnId;
use super::rate::TokenBucket;

/// Members in one roster frame. A member is at most 65 bytes (name and its length 33, identity 32), so a frame stays
/// under 60 KiB.
pub const MEMBERS_PER_FRAME: usize = 900;

/// A user that is online.
#[derive(Debug)]
pub struct Session {
    /// Its control connection.
    pub conn: ConnId,
    /// Its name, as it wrote it.
    pub name: UserName,
    /// Its identity.
    pub identity: PublicIdentity,
    /// Its handshake key.
    pub noise: NoiseCertificate,
    /// Which run of the program it is.
    pub instance: InstanceId,
    /// Where it comes from, as the Room sees it.
    pub observed: SocketAddr,
    /// The program's name and version.
    pub agent: String,
    /// When it logged in, in seconds since 1970.
    pub since: u64,
    /// What it says of itself.
    pub presence: Presence,
    /// Its addresses that others are told to dial.
    pub reach: Reach,
    /// How many introductions it may still ask for.
    pub introductions: TokenBucket,
    /// How many others may still ask for it.
    pub asked_for: TokenBucket,
}

/// Which of a user's addresses the Room has checked.
#[derive(Debug)]
pub struct Reach {
    /// The key with which its listener answers checks.
    pub check_key: [u8; 32],
    /// Checked addresses.
    pub checked: Vec<IpAddr>,
    /// Counts changes of the presence, so that the answer to an old check is told from a new one.
    pub generation: u32,
    /// How many checks it may still cause.
    pub checks: TokenBucket,
    /// When to check, or check again.
    pub due: Option<Instant>,
    /// How many checks of this presence have failed.
    pub failures: usize,
}

impl Session {
    /// How it stands in an introduction.
    pub fn party(&self) -> Party {
        Party { name: self.name.clone(), identity: self.identity, noise: self.noise.clone() }
    }

    fn member(&self) -> Member {
        Member { name: self.name.clone(), identity: self.identity }
    }
}

/// Everybody who is online.
#[derive(Debug, Default)]
pub struct Directory {
    sessions: HashMap<UserName, Session>,
    names: HashMap<ConnId, UserName>,
    changed: BTreeSet<UserName>,
}

impl Directory {
    /// Somebody comes. Returns the session that it replaces under its name.
    pub fn join(&mut self, session: Session) -> Option<Session> {
        self.changed.insert(session.name.clone());
        self.names.insert(session.conn, session.name.clone());
        // The key is replaced, too, so that the name is written as its holder writes it.
        let old = self.sessions.remove(&session.name);
        if let Some(old) = &old {
            self.names.remove(&old.conn);
        }
        self.sessions.insert(session.name.clone(), session);
        old
    }

    /// The user of a connection goes.
    pub fn leave(&mut self, conn: ConnId) -> Option<Session> {
        let name = self.names.remove(&conn)?;
        let session = self.sessions.remove(&name);
        self.changed.insert(name);
        session
    }

    /// The user of a name.
    pub fn named(&self, name: &UserName) -> Option<&Session> {
        self.sessions.get(name)
    }

    /// The user of a name, to be changed.
    pub fn named_mut(&mut self, name: &UserName) -> Option<&mut Session> {
        self.sessions.get_mut(name)
    }

    /// The user of a connection.
    pub fn on(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(self.names.get(&conn)?)
    }

    /// The user of a connection, to be changed.
    pub fn on_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(self.names.get(&conn)?)
    }

    /// Everybody, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// How many users are online.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True if nobody is online.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Everybody, in frames of which the last is complete.
    pub fn whole(&self) -> Vec<Roster> {
        let members: Vec<Member> = self.sessions.values().map(Session::member).collect();
        frames(members, Vec::new())
    }

    /// True if somebody came or went since [`take_changes`](Self::take_changes).
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Who came and went, in frames of which the last is complete.
    pub fn take_changes(&mut self) -> Vec<Roster> {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.changed) {
            match self.sessions.get(&name) {
                Some(session) => joined.push(session.member()),
                None => left.push(name),
            }
        }
        if joined.is_empty() && left.is_empty() { Vec::new() } else { frames(joined, left) }
    }
}

fn frames(joined: Vec<Member>, left: Vec<UserName>) -> Vec<Roster> {
    let (mut joined, mut left) = (joined.into_iter(), left.into_iter());
    let mut frames = Vec::new();
    loop {
        let joined: Vec<_> = joined.by_ref().take(MEMBERS_PER_FRAME).collect();
        let left: Vec<_> = left.by_ref().take(MEMBERS_PER_FRAME - joined.len()).collect();
        if joined.is_empty() && left.is_empty() && !frames.is_empty() {
            break;
        }
        let full = joined.len() + left.len() == MEMBERS_PER_FRAME;
        frames.push(Roster { joined, left, complete: false });
        if !full {
            break;
        }
    }
    if let Some(last) = frames.last_mut() {
        last.complete = true;
    }
    frames
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]
pub(crate) mod tests {
    use parlor_protocol::identity::Identity;
    use parlor_protocol::name::LanId;
    use parlor_protocol::presence::{Encryption, HostTag};
    use parlor_protocol::wire::control::ToUser;

    use super::*;

    fn session(conn: u64, name: &str) -> Session {
        let identity = Identity::from_seed(&[1; 32]);
        let now = Instant::now();
        Session {
            conn: ConnId(conn),
            name: name.parse().unwrap(),
            identity: identity.public(),
            noise: NoiseCertificate {
                key: parlor_protocol::identity::NoiseKey([0; 32]),
                signature: parlor_protocol::identity::Signature([0; 64]),
            },
            instance: InstanceId([0; 16]),
            observed: ([127, 0, 0, 1], 1).into(),
            agent: String::new(),
            since: 0,
            presence: Presence {
                host_tag: HostTag([0; 16]),
                lan_id: LanId::default(),
                port: 0,
                private: vec![],
                public: None,
                encryption: Encryption::On,
                aes: false,
            },
            reach: Reach {
                check_key: [0; 32],
                checked: vec![],
                generation: 0,
                checks: TokenBucket::new(1, 1, now),
                due: None,
                failures: 0,
            },
            introductions: TokenBucket::new(1, 1, now),
            asked_for: TokenBucket::new(1, 1, now),
        }
    }

    #[test]
    fn of_one_that_came_and_went_and_came_the_last_is_told() {
        let mut directory = Directory::default();
        directory.join(session(1, "Foo"));
        directory.join(session(2, "Bar"));
        directory.leave(ConnId(1));
        directory.join(session(3, "FOO"));
        directory.leave(ConnId(2));
        let changes = directory.take_changes();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].joined.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["FOO"]);
        assert_eq!(changes[0].left, ["Bar".parse().unwrap()]);
        assert!(changes[0].complete && directory.take_changes().is_empty());
    }

    #[test]
    fn a_replaced_connection_that_ends_late_takes_nobody_along() {
        let mut directory = Directory::default();
        directory.join(session(1, "Foo"));
        assert_eq!(directory.join(session(2, "foo")).unwrap().conn, ConnId(1));
        assert!(directory.leave(ConnId(1)).is_none());
        assert_eq!(directory.named(&"Foo".parse().unwrap()).unwrap().conn, ConnId(2));
        assert!(directory.on(ConnId(1)).is_none());
    }

    #[test]
    fn a_long_list_is_split_and_no_frame_is_too_long() {
        let mut directory = Directory::default();
        for n in 0..2 * MEMBERS_PER_FRAME as u64 {
            directory.join(session(n, &format!("{n:0>32}")));
        }
        let frames = directory.whole();
        assert_eq!(frames.iter().map(|f| f.joined.len()).sum::<usize>(), 2 * MEMBERS_PER_FRAME);
        assert_eq!(frames.iter().filter(|f| f.complete).count(), 1);
        assert!(frames.last().unwrap().complete);
        for frame in frames {
            assert!(ToUser::Roster(frame).encode().len() < 60 * 1024);
        }
        assert_eq!(Directory::default().whole(), [Roster { complete: true, ..Roster::default() }]);
    }
}
