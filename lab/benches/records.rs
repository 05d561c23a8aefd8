//! Sealing and opening records.

#![expect(clippy::expect_used, reason = "a benchmark that does not do its work ends")]

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parlor_user::protocol::introduction::Cipher;
use parlor_user::protocol::noise::records::{
    LENGTH_BYTES, Opener, PLAINTEXT_BYTES, RecordKeys, Sealer, TAG_BYTES,
};

const CIPHERS: [Cipher; 2] = [Cipher::AesGcm, Cipher::ChaChaPoly];
/// A lone message, a page, a full record.
const SIZES: [usize; 3] = [100, 4096, PLAINTEXT_BYTES];

fn ends(cipher: Cipher) -> (Sealer, Opener) {
    let key = || [7; 32].into();
    RecordKeys::new(key(), key(), cipher).split().expect("keys of the right length")
}

fn plain(size: usize) -> Vec<u8> {
    let mut record = Vec::with_capacity(LENGTH_BYTES + size + TAG_BYTES);
    record.resize(LENGTH_BYTES + size, 7);
    record
}

fn seal(c: &mut Criterion) {
    let mut group = c.benchmark_group("records/seal");
    for cipher in CIPHERS {
        for size in SIZES {
            let ((mut sealer, _), mut record) = (ends(cipher), plain(size));
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(cipher.to_string(), size), |b| {
                b.iter(|| {
                    record.truncate(LENGTH_BYTES + size);
                    sealer.seal(&mut record, 0).expect("a record that fits");
                });
            });
        }
    }
}

/// A record opens once, in its turn: each is sealed just before, outside the time that is taken.
fn open(c: &mut Criterion) {
    let mut group = c.benchmark_group("records/open");
    for cipher in CIPHERS {
        for size in SIZES {
            let (mut sealer, mut opener) = ends(cipher);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(cipher.to_string(), size), |b| {
                b.iter_batched_ref(
                    || {
                        let mut record = plain(size);
                        sealer.seal(&mut record, 0).expect("a record that fits");
                        record
                    },
                    |record| opener.open(&mut record[LENGTH_BYTES..]).expect("the next record"),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
