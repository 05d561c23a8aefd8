//! How long a call, a message and a large body take both ends of a channel, without sockets.

#![expect(clippy::expect_used, reason = "a benchmark that does not do its work ends")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parlor_user::clock;
use parlor_user::in_memory::Pair;
use parlor_user::protocol::introduction::Cipher;

const CIPHERS: [Cipher; 2] = [Cipher::AesGcm, Cipher::ChaChaPoly];
/// Messages of one run.
const BATCH: usize = 1000;

fn pair(cipher: Cipher) -> Pair {
    Pair::new(cipher, clock::now()).expect("two users link")
}

fn calls(c: &mut Criterion) {
    let mut group = c.benchmark_group("channel/call");
    for cipher in CIPHERS {
        for size in [64, 1024] {
            let (mut pair, body) = (pair(cipher), vec![7; size]);
            let id = BenchmarkId::new(cipher.to_string(), size);
            group.throughput(Throughput::Elements(1));
            group.bench_function(id, |b| b.iter(|| pair.call(&body).expect("an answer")));
        }
    }
}

fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("channel/messages");
    for cipher in CIPHERS {
        for (size, count) in [(64, BATCH), (1024, BATCH), (64 * 1024, 16), (1024 * 1024, 4)] {
            let (mut pair, body) = (pair(cipher), vec![7; size]);
            let id = BenchmarkId::new(cipher.to_string(), size);
            group.throughput(Throughput::ElementsAndBytes {
                elements: count as u64,
                bytes: (count * size) as u64,
            });
            group.bench_function(id, |b| b.iter(|| pair.messages(count, &body).expect("all come")));
        }
    }
}

criterion_group!(benches, calls, messages);
criterion_main!(benches);
