//! Numbering, keeping, taking over and acknowledging: both halves of a session, without encryption.

#![expect(clippy::expect_used, reason = "a benchmark that does not do its work ends")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parlor_user::protocol::limits::{BODY_MOST, UNACKED_CHANNEL};
use parlor_user::protocol::session::{Arrived, Given, Inbound, Outbound};
use parlor_user::protocol::wire::peer::Head;

/// A record's room for frames, in bytes.
const ROOM: usize = 65_000;
/// Bytes that are sent in one run: some full records.
const ROUND: usize = 256 * 1024;

struct Session {
    out: Outbound<()>,
    inb: Inbound,
    record: Vec<u8>,
    scratch: Vec<u8>,
}

impl Session {
    fn new() -> Self {
        Self {
            out: Outbound::new(UNACKED_CHANNEL),
            inb: Inbound::new(BODY_MOST as u32),
            record: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Sends messages and has them taken, acknowledged and consumed.
    fn round(&mut self, count: usize, body: &[u8]) {
        let head = Head::<&[u8]>::Send { event: None };
        for _ in 0..count {
            self.scratch.clear();
            self.scratch.extend_from_slice(body);
            self.out.push(&head, Given::Owned(&mut self.scratch)).expect("there is room");
        }
        let mut come = 0;
        while come < count {
            self.record.clear();
            let Some(mut seq) = self.out.transmit(&mut self.record, ROOM) else { panic!("{come} came") };
            let record = Bytes::copy_from_slice(&self.record);
            let mut at = 0;
            while at < record.len() {
                let taken = self.inb.take(seq, &record, at).expect("the next frame");
                (seq, at) = (seq + taken.frames, taken.end);
                if let Some(Arrived::Messages(messages)) = taken.arrived {
                    self.inb.consume(messages.cost());
                    come += messages.map(black_box).count();
                }
            }
            self.out.ack(self.inb.next(), &mut Vec::new()).expect("what was sent");
            self.out.credit(self.inb.grant());
        }
    }
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("session/messages");
    for size in [64, 1024, 64 * 1024, 256 * 1024] {
        let (mut session, body, count) = (Session::new(), vec![7; size], ROUND / size);
        group.throughput(Throughput::ElementsAndBytes { elements: count as u64, bytes: ROUND as u64 });
        group.bench_function(BenchmarkId::from_parameter(size), |b| b.iter(|| session.round(count, &body)));
    }
}

criterion_group!(benches, messages);
criterion_main!(benches);
