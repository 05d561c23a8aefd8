//! Real handshakes and real records, in the worlds that have the time for them. What is opened must be what was
//! sealed, and no two records of a room may be sealed under the same key and number: their key streams would be the
//! same.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use parlor_protocol::noise::handshake::{HandshakeSetup, Initiator, Responder};
use parlor_protocol::noise::payload::{LinkAccept, LinkHello};
use parlor_protocol::noise::records::{LENGTH_BYTES, Opener, RecordKeys, Sealer};
use parlor_protocol::rung::Rung;
use zeroize::Zeroizing;

use super::network::ConnKey;
use super::user::{AttemptKey, Known};
use super::world::World;

/// Bytes of a key stream that are compared. Of 100,000 records two agree by chance once in 10^9 worlds.
const COMPARED: usize = 8;
/// As in `hub/arrivals.rs`.
const DIRECT: &[Rung] = &[Rung::SameHost, Rung::Lan, Rung::Public];

/// What the ends of links hold.
#[derive(Default)]
pub(super) struct Seals {
    initiators: BTreeMap<ConnKey, Initiator>,
    ends: BTreeMap<(ConnKey, usize), (Sealer, Opener)>,
    streams: HashSet<[u8; COMPARED]>,
}

impl Seals {
    /// A connection is over.
    pub(super) fn forget(&mut self, key: ConnKey) {
        self.initiators.remove(&key);
        self.ends.remove(&(key, 0));
        self.ends.remove(&(key, 1));
    }

    /// What comes next is under the next key.
    pub(super) fn next_opening_key(&mut self, key: ConnKey, end: usize) {
        if let Some((_, opener)) = self.ends.get_mut(&(key, end)) {
            opener.rekey().unwrap();
        }
    }

    fn take_keys(&mut self, key: ConnKey, end: usize, keys: RecordKeys) {
        self.ends.insert((key, end), keys.split().unwrap());
    }

    fn check_stream(&mut self, plaintext: &[u8], ciphertext: &[u8]) {
        let mut stream = [0; COMPARED];
        if plaintext.len() >= COMPARED {
            for (at, byte) in stream.iter_mut().enumerate() {
                *byte = plaintext[at] ^ ciphertext[at];
            }
            assert!(self.streams.insert(stream), "two records were sealed under the same key and number");
        }
    }
}

impl World {
    fn ephemeral(&mut self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.more.bytes32())
    }

    /// Message 1 of a handshake.
    pub(super) fn seal_hello(
        &mut self,
        attempt: AttemptKey,
        conn: ConnKey,
        rung: Rung,
        hello: &LinkHello,
    ) -> Option<Bytes> {
        if !self.plan.sealed {
            return None;
        }
        let ephemeral = self.ephemeral();
        let trying = self.attempts.get(&attempt)?;
        let seat = &self.users[trying.user];
        let setup = HandshakeSetup {
            introduction: &trying.known.introduction,
            local: &seat.identity,
            local_name: &seat.name,
            initiator: true,
            rung,
            ephemeral,
        };
        let (initiator, message) = Initiator::start(setup, &hello.encode()).unwrap();
        self.seals.initiators.insert(conn, initiator);
        Some(message.into())
    }

    /// Reads message 1 and makes message 2.
    #[expect(clippy::too_many_arguments, reason = "what the shell's structs hold")]
    pub(super) fn answer_hello(
        &mut self,
        user: usize,
        (key, end): (ConnKey, usize),
        known: &Known,
        relayed: bool,
        (rung, hello): (Rung, &LinkHello),
        accept: &LinkAccept,
        sealed: Option<Bytes>,
    ) -> Option<Bytes> {
        let message = sealed?;
        let ephemeral = self.ephemeral();
        let seat = &self.users[user];
        let setup = HandshakeSetup {
            introduction: &known.introduction,
            local: &seat.identity,
            local_name: &seat.name,
            initiator: false,
            rung,
            ephemeral,
        };
        let rungs = if relayed { &[Rung::Relay] } else { DIRECT };
        let (proved, payload, pending) = Responder::answer_any(setup, rungs, &message).unwrap();
        assert_eq!((proved, payload), (rung, hello.encode()));
        let (message, keys) = pending.reply(&accept.encode()).unwrap();
        self.seals.take_keys(key, end, keys);
        Some(message.into())
    }

    /// Reads message 2.
    pub(super) fn open_accept(
        &mut self,
        key: ConnKey,
        end: usize,
        accept: &LinkAccept,
        sealed: Option<Bytes>,
    ) {
        let Some(message) = sealed else { return };
        let initiator = self.seals.initiators.remove(&key).expect("this end has sent message 1");
        let (payload, keys) = initiator.finish(&message).unwrap();
        assert_eq!(payload, accept.encode());
        self.seals.take_keys(key, end, keys);
    }

    pub(super) fn seal_record(
        &mut self,
        key: ConnKey,
        end: usize,
        plaintext: &[u8],
        rekey: bool,
    ) -> Option<Vec<u8>> {
        let (sealer, _) = self.seals.ends.get_mut(&(key, end))?;
        let mut record = vec![0; LENGTH_BYTES];
        record.extend_from_slice(plaintext);
        sealer.seal(&mut record, 0).unwrap();
        if rekey {
            sealer.rekey().unwrap();
        }
        self.seals.check_stream(plaintext, &record[LENGTH_BYTES..]);
        Some(record)
    }

    pub(super) fn open_record(
        &mut self,
        key: ConnKey,
        end: usize,
        plaintext: &[u8],
        sealed: Option<Vec<u8>>,
    ) {
        let Some(mut record) = sealed else { return };
        let (_, opener) = self.seals.ends.get_mut(&(key, end)).expect("a link has keys");
        let len = opener.open(&mut record[LENGTH_BYTES..]).expect("an honest record opens");
        assert_eq!(record[LENGTH_BYTES..][..len], *plaintext);
    }
}
