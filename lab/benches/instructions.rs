//! Instructions of the three hottest paths, counted by valgrind, with a limit each: a regression shows without a
//! stopwatch. `.ci/instructions` runs this, `.ci/instructions --renew` writes `instructions.txt` anew.
//!
//! A limit is the count in `instructions.txt` and [`ALLOWED_PERCENT`] more. Fewer instructions never fail.

#![expect(missing_docs, reason = "what the macros make has no documentation")]
#![expect(clippy::expect_used, reason = "a benchmark that does not do its work ends")]

use std::hint::black_box;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use parlor_user::clock;
use parlor_user::in_memory::Pair;
use parlor_user::protocol::introduction::Cipher;

/// The counts that were there when the file was last renewed, one `name count` a line.
const COUNTED: &str = include_str!("instructions.txt");
/// How many instructions more than counted pass, in percent. One build counts the same to the instruction; this leaves
/// room for another patch of the compiler, and less than an allocation for each message takes.
const ALLOWED_PERCENT: u64 = 3;

/// Calls, messages and bodies of a run: enough that what happens now and then (an acknowledgement, a grant, a buffer
/// that grows) has its share.
const CALLS: usize = 500;
const MESSAGES: usize = 20_000;
const BODIES: usize = 16;

fn limit(name: &str) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    let line = COUNTED.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    // While the file is renewed there are no limits.
    if std::env::var_os("PARLOR_RENEW").is_none() {
        let most = line.map_or(0, |count| count + count * ALLOWED_PERCENT / 100);
        callgrind.hard_limits([(EventKind::Ir, most)]);
    }
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// Two users that have talked before: buffers have their size.
fn pair() -> Pair {
    let mut pair = Pair::new(Cipher::AesGcm, clock::now()).expect("two users link");
    calls_of(&mut pair, 50);
    messages_of(&mut pair, 5_000, 64);
    messages_of(&mut pair, 4, 1024 * 1024);
    pair
}

fn calls_of(pair: &mut Pair, count: usize) {
    let body = black_box([7; 64]);
    for _ in 0..count {
        black_box(pair.call(&body).expect("a call is answered"));
    }
}

fn messages_of(pair: &mut Pair, count: usize, size: usize) {
    let body = black_box(vec![7; size]);
    black_box(pair.messages(count, &body).expect("messages come"));
}

#[library_benchmark(config = limit("calls"))]
#[bench::of_64_bytes(setup = pair)]
fn calls(mut pair: Pair) -> Pair {
    calls_of(&mut pair, CALLS);
    pair
}

#[library_benchmark(config = limit("messages"))]
#[bench::of_64_bytes(setup = pair)]
fn messages(mut pair: Pair) -> Pair {
    messages_of(&mut pair, MESSAGES, 64);
    pair
}

#[library_benchmark(config = limit("bulk"))]
#[bench::of_1_mib(setup = pair)]
fn bulk(mut pair: Pair) -> Pair {
    messages_of(&mut pair, BODIES, 1024 * 1024);
    pair
}

library_benchmark_group!(name = hot_paths, benchmarks = [calls, messages, bulk]);
main!(library_benchmark_groups = hot_paths);
