//! The channels of two users with nothing between them but memory: what a call, a batch of messages and a large
//! body cost both ends without sockets, tasks and locks. For benchmarks (feature `bench`); no program needs it.
//!
//! Each end numbers, seals, opens and takes over as it does on a link: records are filled and sealed one behind
//! another into one buffer, copied once (the system's copy), split off and opened where they lie. Whatever one end owes
//! the other goes when it is due; time passes only where it must.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BytesMut};
use parlor_protocol::identity::InstanceId;
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::noise::records::{LENGTH_BYTES, Opener, RecordKeys, Sealer, record_length};
use parlor_protocol::rung::Rung;
use parlor_protocol::session::Given;
use parlor_protocol::wire::peer::Status;
use zeroize::Zeroizing;

use crate::core::channel::{Channel, Event, LinkId};

/// The one link, at both ends.
const LINK: LinkId = LinkId(1);
/// Bodies are at most this large, in bytes.
const MAX_BODY: u32 = 4 * 1024 * 1024;
/// Messages that are pushed before the link is served: as many as a busy sender has ready for a few records.
const BURST: usize = 1024;
/// The same in bytes.
const BURST_BYTES: usize = 128 * 1024;
/// The callback's name.
const NAME: &[u8] = b"echo";

/// Two users, one link.
pub struct Pair {
    foo: End,
    bar: End,
    now: Instant,
}

struct End {
    channel: Channel<(), ()>,
    sealer: Sealer,
    opener: Opener,
    cipher: Cipher,
    out: Vec<u8>,
    read: BytesMut,
    /// Where a body is encoded.
    scratch: Vec<u8>,
    events: Vec<Event<(), ()>>,
}

/// What one end was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Brought {
    records: usize,
    messages: usize,
    bytes: usize,
    answers: usize,
}

impl Pair {
    /// Two users that have just linked and told each other so. Nothing here reads a clock: it is `now` for ever.
    pub fn new(cipher: Cipher, now: Instant) -> Result<Self> {
        let (mut foo, mut bar) = (End::new(1, cipher, now)?, End::new(2, cipher, now)?);
        let hello = foo.channel.hello();
        let (accept, terms) = bar.channel.judge(&hello)?;
        let answered = Channel::<(), ()>::terms_of(&hello, &accept);
        foo.channel.bind(LINK, Rung::SameHost, &answered, now, &mut foo.events)?;
        bar.channel.bind(LINK, Rung::SameHost, &terms, now, &mut bar.events)?;
        let mut pair = Self { foo, bar, now };
        pair.settle()?;
        Ok(pair)
    }

    /// A call with `body`, answered with its argument. Returns how many records that took, both ways.
    pub fn call(&mut self, body: &[u8]) -> Result<usize> {
        self.foo.encode(body);
        let pushed = self.foo.channel.get(NAME, 10_000, Given::Owned(&mut self.foo.scratch), (), self.now);
        pushed.map_err(|(error, ())| error)?;
        let there = carry(&mut self.foo, &mut self.bar, self.now)?;
        let back = carry(&mut self.bar, &mut self.foo, self.now)?;
        if back.answers != 1 || back.bytes != body.len() {
            bail!("{back:?} came back");
        }
        Ok(there.records + back.records)
    }

    /// `count` messages with `body`, each taken by the application at once. Returns how many records that took, both
    /// ways.
    pub fn messages(&mut self, count: usize, body: &[u8]) -> Result<usize> {
        let (mut records, mut sent, mut come) = (0, 0, 0);
        let burst = BURST.min(BURST_BYTES / body.len().max(1)).max(1);
        while come < count {
            for _ in 0..burst.min(count - sent) {
                self.foo.encode(body);
                self.foo.channel.send(None, Given::Owned(&mut self.foo.scratch))?;
                sent += 1;
            }
            let there = carry(&mut self.foo, &mut self.bar, self.now)?;
            let back = carry(&mut self.bar, &mut self.foo, self.now)?;
            come += there.messages;
            records += there.records + back.records;
            if there == Brought::default() && back == Brought::default() {
                bail!("{come} of {count} messages came");
            }
        }
        Ok(records)
    }

    fn settle(&mut self) -> Result<()> {
        loop {
            let there = carry(&mut self.foo, &mut self.bar, self.now)?;
            let back = carry(&mut self.bar, &mut self.foo, self.now)?;
            if there.records + back.records == 0 {
                return Ok(());
            }
        }
    }
}

impl End {
    fn new(run: u8, cipher: Cipher, now: Instant) -> Result<Self> {
        let epoch = Epoch { instance: InstanceId([run; 16]), generation: 0 };
        let key = || Zeroizing::new([7; 32]);
        let (sealer, opener) = RecordKeys::new(key(), key(), cipher).split()?;
        let channel = Channel::new(epoch, MAX_BODY, now);
        let (out, scratch, events) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { channel, sealer, opener, cipher, out, read: BytesMut::new(), scratch, events })
    }

    fn encode(&mut self, body: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(body);
    }

    /// Takes in the next record that has come whole.
    fn take_record(&mut self, now: Instant) -> Result<bool> {
        let Some(&prefix) = self.read.first_chunk::<LENGTH_BYTES>() else { return Ok(false) };
        let len = record_length(prefix, self.cipher)?;
        let mut record = self.read.split_to(LENGTH_BYTES + len);
        record.advance(LENGTH_BYTES);
        let plain = self.opener.open(&mut record)?;
        record.truncate(plain);
        self.channel.on_record(LINK, &record.freeze(), now, &mut self.events)?;
        Ok(true)
    }

    /// Acts on what came: calls are answered with their argument, messages are taken.
    fn act(&mut self, brought: &mut Brought) -> Result<()> {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Messages(messages) => {
                    let cost = messages.cost();
                    for (body, _) in messages {
                        brought.messages += 1;
                        brought.bytes += body.len();
                    }
                    self.channel.consume(cost);
                }
                Event::Call { call, body, .. } => {
                    self.encode(&body);
                    self.channel.answer(call, Status::Ok, Given::Owned(&mut self.scratch))?;
                }
                Event::Answered { status: Status::Ok, body, .. } => {
                    brought.answers += 1;
                    brought.bytes += body.len();
                }
                Event::Active | Event::Heard | Event::Room => {}
                other => bail!("{other:?}"),
            }
        }
        self.events = events;
        Ok(())
    }
}

/// Brings all that one end has to say to the other, and has it acted on there.
fn carry(from: &mut End, to: &mut End, now: Instant) -> Result<Brought> {
    let mut more = true;
    while more {
        let start = from.out.len();
        from.out.extend_from_slice(&[0; LENGTH_BYTES]);
        let Some(after) = from.channel.fill(LINK, &mut from.out, false, now) else {
            from.out.truncate(start);
            break;
        };
        from.sealer.seal(&mut from.out, start).context("sealing")?;
        more = after.more;
    }
    to.read.extend_from_slice(&from.out);
    from.out.clear();
    let mut brought = Brought::default();
    while to.take_record(now)? {
        brought.records += 1;
    }
    to.act(&mut brought)?;
    Ok(brought)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn pair(cipher: Cipher) -> Pair {
        Pair::new(cipher, clock::now()).unwrap()
    }

    #[test]
    fn a_call_takes_a_record_each_way_and_so_does_the_next() {
        for cipher in [Cipher::AesGcm, Cipher::ChaChaPoly] {
            let mut pair = pair(cipher);
            for _ in 0..100 {
                assert_eq!(pair.call(&[1; 64]).unwrap(), 2);
            }
        }
    }

    #[test]
    fn messages_of_every_size_come_without_time_passing() {
        let mut pair = pair(Cipher::AesGcm);
        for size in [1, 64, 1024, 64 * 1024, 1024 * 1024] {
            assert!(pair.messages(100, &vec![1; size]).unwrap() > 0);
        }
    }
}
