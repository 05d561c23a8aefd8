//! Control frames and bodies, to bytes and back.

#![expect(clippy::expect_used, reason = "a benchmark that does not do its work ends")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use parlor_user::protocol::identity::Identity;
use parlor_user::protocol::wire::control::{Member, Roster, ToUser};
use parlor_user::protocol::wire::peer::{Head, RecordHeader, next_frame, write_frame_head};

/// Members of a roster frame: somebody who comes, a crowd.
const MEMBERS: [u32; 2] = [1, 500];
/// Frames of a record of small messages.
const FRAMES: usize = 500;

fn roster(members: u32) -> ToUser {
    let member = |number: u32| {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let name = format!("User{number}").parse().expect("a name");
        Member { name, identity: Identity::from_seed(&seed).public() }
    };
    ToUser::Roster(Roster { joined: (0..members).map(member).collect(), left: Vec::new(), complete: true })
}

fn control(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/roster");
    for members in MEMBERS {
        let message = roster(members);
        group
            .bench_function(BenchmarkId::new("encode", members), |b| b.iter(|| black_box(&message).encode()));
        let bytes = message.encode();
        // Behind the length.
        let frame = &bytes[4..];
        group.bench_function(BenchmarkId::new("decode", members), |b| {
            b.iter(|| ToUser::decode(black_box(frame)).expect("what was encoded"));
        });
    }
}

fn record() -> Vec<u8> {
    let mut record = Vec::new();
    RecordHeader { ack: Some(1), credit: None, seq: Some(1) }.write(&mut record);
    let (head, body) = (Head::<&[u8]>::Send { event: None }, [7; 64]);
    for _ in 0..FRAMES {
        write_frame_head(&mut record, head.kind(), head.encoded_len() + body.len());
        head.write(&mut record);
        record.extend_from_slice(&body);
    }
    record
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec/frames");
    group.throughput(criterion::Throughput::Elements(FRAMES as u64));
    group.bench_function("write", |b| b.iter(record));
    let record = bytes::Bytes::from(record());
    group.bench_function("read", |b| {
        b.iter(|| {
            let (_, mut at) = RecordHeader::read(&record).expect("a header");
            while let Some(frame) = next_frame(&record, at).expect("a frame") {
                at = frame.payload.end;
                let mut payload = record.slice(frame.payload);
                black_box(Head::read(frame.kind, &mut payload).expect("a head"));
            }
        });
    });
}

criterion_group!(benches, control, frames);
criterion_main!(benches);
