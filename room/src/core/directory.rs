//! Who is online, and who came or went since the others were last told.
//!
//! A name is one name in every case. A change is told by the state at the time of telling, so that of a user that
//! came, went and came again within one batch only the last is said, and a user that was given the whole
//! list meanwhile can take the batch on top of it.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;
use parlor_protocol::identity::{InstanceId, NoiseCertificate, PublicIdentity};
use parlor_protocol::introduction::Party;
use parlor_protocol::name::UserName;
use parlor_protocol::presence::Presence;
use parlor_protocol::wire::control::{Member, Roster, ToUser};

use super::fair::FairBucket;
use super::rate::TokenBucket;
use super::{ConnId, Source};

/// Members in one roster frame. A member is at most 65 bytes (name and its length 33, identity 32), so a frame stays
/// under 60 KiB.
pub const MEMBERS_PER_FRAME: usize = 900;

/// A smaller list is made anew for everybody who comes.
const SNAPSHOT_FROM: usize = 256;
/// Changes after which the snapshot is made anew: until then they follow it in a frame of their own.
const SNAPSHOT_CHANGES: usize = 64;

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
    pub asked_for: FairBucket,
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
    /// Boxed, because a table has more places than users.
    sessions: HashMap<UserName, Box<Session>>,
    names: HashMap<ConnId, UserName>,
    /// How many come from one address. None is kept without a user.
    by_source: HashMap<Source, usize>,
    changed: BTreeSet<UserName>,
    snapshot: Option<Snapshot>,
}

/// The whole list as it was a few changes ago, encoded: who comes in a crowd shares the bytes.
#[derive(Debug)]
struct Snapshot {
    frames: Vec<Bytes>,
    since: BTreeSet<UserName>,
}

impl Directory {
    /// Somebody comes. Returns the session that it replaces under its name.
    pub fn join(&mut self, session: Session) -> Option<Box<Session>> {
        self.note(session.name.clone());
        self.names.insert(session.conn, session.name.clone());
        // The key is replaced, too, so that the name is written as its holder writes it.
        let old = self.sessions.remove(&session.name);
        if let Some(old) = &old {
            self.names.remove(&old.conn);
            self.uncount(old.observed.ip());
        }
        *self.by_source.entry(Source::of(session.observed.ip())).or_default() += 1;
        self.sessions.insert(session.name.clone(), Box::new(session));
        old
    }

    /// The user of a connection goes.
    pub fn leave(&mut self, conn: ConnId) -> Option<Box<Session>> {
        let name = self.names.remove(&conn)?;
        let session = self.sessions.remove(&name)?;
        self.uncount(session.observed.ip());
        self.note(name);
        Some(session)
    }

    fn uncount(&mut self, ip: IpAddr) {
        let source = Source::of(ip);
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }

    /// How many users come from one address.
    pub fn from_source(&self, source: Source) -> usize {
        self.by_source.get(&source).copied().unwrap_or(0)
    }

    fn note(&mut self, name: UserName) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.since.insert(name.clone());
        }
        self.changed.insert(name);
    }

    /// The user of a name.
    pub fn named(&self, name: &UserName) -> Option<&Session> {
        self.sessions.get(name).map(Box::as_ref)
    }

    /// The user of a name, to be changed.
    pub fn named_mut(&mut self, name: &UserName) -> Option<&mut Session> {
        self.sessions.get_mut(name).map(Box::as_mut)
    }

    /// The user of a connection.
    pub fn on(&self, conn: ConnId) -> Option<&Session> {
        self.sessions.get(self.names.get(&conn)?).map(Box::as_ref)
    }

    /// The user of a connection, to be changed.
    pub fn on_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sessions.get_mut(self.names.get(&conn)?).map(Box::as_mut)
    }

    /// Everybody, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(Box::as_ref)
    }

    /// How many users are online.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// True if nobody is online.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Everybody, in encoded frames of which the last is complete.
    pub fn whole(&mut self) -> Vec<Bytes> {
        if self.sessions.len() < SNAPSHOT_FROM {
            self.snapshot = None;
            return encoded(frames(self.members(), Vec::new()));
        }
        if self.snapshot.as_ref().is_none_or(|snapshot| snapshot.since.len() > SNAPSHOT_CHANGES) {
            let mut whole = frames(self.members(), Vec::new());
            if let Some(last) = whole.last_mut() {
                last.complete = false;
            }
            self.snapshot = Some(Snapshot { frames: encoded(whole), since: BTreeSet::new() });
        }
        let Some(snapshot) = &self.snapshot else { return Vec::new() };
        let (joined, left) = self.state_of(snapshot.since.iter().cloned());
        snapshot.frames.iter().cloned().chain(encoded(frames(joined, left))).collect()
    }

    fn members(&self) -> Vec<Member> {
        self.iter().map(Session::member).collect()
    }

    /// Of these, who is online now and who is not.
    fn state_of(&self, names: impl Iterator<Item = UserName>) -> (Vec<Member>, Vec<UserName>) {
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        for name in names {
            match self.sessions.get(&name) {
                Some(session) => joined.push(session.member()),
                None => left.push(name),
            }
        }
        (joined, left)
    }

    /// True if somebody came or went since [`take_changes`](Self::take_changes).
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Who came and went, in frames of which the last is complete.
    pub fn take_changes(&mut self) -> Vec<Roster> {
        let changed = std::mem::take(&mut self.changed);
        let (joined, left) = self.state_of(changed.into_iter());
        if joined.is_empty() && left.is_empty() { Vec::new() } else { frames(joined, left) }
    }
}

fn encoded(frames: Vec<Roster>) -> Vec<Bytes> {
    frames.into_iter().map(|frame| ToUser::Roster(frame).encode().into()).collect()
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
    use parlor_protocol::wire::control::LENGTH_BYTES;

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
            asked_for: FairBucket::new(1, 1, now),
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
        assert_eq!(directory.from_source(Source::of([127, 0, 0, 1].into())), 1);
        assert_eq!(directory.named(&"Foo".parse().unwrap()).unwrap().conn, ConnId(2));
        assert!(directory.on(ConnId(1)).is_none());
    }

    fn whole(directory: &mut Directory) -> Vec<Roster> {
        let decode = |frame: Bytes| match ToUser::decode(&frame[LENGTH_BYTES..]) {
            Ok(ToUser::Roster(roster)) => roster,
            other => panic!("no roster: {other:?}"),
        };
        directory.whole().into_iter().map(decode).collect()
    }

    #[test]
    fn who_comes_in_a_crowd_shares_the_list_and_gets_what_has_changed_since() {
        let mut directory = Directory::default();
        let name = |n: u64| format!("user{n}");
        (0..SNAPSHOT_FROM as u64).for_each(|n| drop(directory.join(session(n, &name(n)))));
        let first = directory.whole();
        for n in 0..200 {
            if n % 3 == 0 {
                directory.leave(ConnId(n / 3));
            }
            directory.join(session(1_000 + n, &name(1_000 + n)));
            let mut told = BTreeSet::new();
            let frames = whole(&mut directory);
            for (at, frame) in frames.iter().enumerate() {
                told.extend(frame.joined.iter().map(|member| member.name.clone()));
                told.retain(|name| !frame.left.contains(name));
                assert_eq!(frame.complete, at + 1 == frames.len());
            }
            assert_eq!(told, directory.sessions.keys().cloned().collect());
            if n == 1 {
                assert_eq!(directory.whole()[0].as_ptr(), first[0].as_ptr(), "the bytes are shared");
            }
        }
    }

    #[test]
    fn a_long_list_is_split_and_no_frame_is_too_long() {
        let mut directory = Directory::default();
        for n in 0..2 * MEMBERS_PER_FRAME as u64 {
            directory.join(session(n, &format!("{n:0>32}")));
        }
        assert!(directory.whole().iter().all(|frame| frame.len() < 60 * 1024));
        let frames = whole(&mut directory);
        assert_eq!(frames.iter().map(|f| f.joined.len()).sum::<usize>(), 2 * MEMBERS_PER_FRAME);
        assert_eq!(frames.iter().filter(|f| f.complete).count(), 1);
        assert!(frames.last().unwrap().complete);
        assert_eq!(whole(&mut Directory::default()), [Roster { complete: true, ..Roster::default() }]);
    }
}
