//! Every input that a fuzzer found worth keeping, replayed; and where the corpora began.

#![allow(clippy::unwrap_used, clippy::disallowed_names, reason = "tests; Foo and Bar are the users' names")]

#[path = "../../../protocol/tests/common/mod.rs"]
mod common;
#[path = "../../../protocol/tests/samples/mod.rs"]
mod samples;
mod seeds;

use std::fs;
use std::path::PathBuf;

use parlor_fuzz_targets::{TARGETS, Target, Verdict};

/// A corpus is in the repository: it must stay small. Files, and bytes in all.
const MOST: (usize, u64) = (220, 220 * 1024);

fn corpus(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "corpus", name].iter().collect()
}

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(other, _)| *other == name).unwrap().1
}

/// Each input is taken without a panic; some are accepted and some refused, or the fuzzer would be at a door that
/// never opens or never closes.
fn replay(name: &str) {
    let target = target(name);
    let (mut files, mut bytes, mut accepted) = (0, 0, 0);
    for entry in fs::read_dir(corpus(name)).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        files += 1;
        bytes += input.len() as u64;
        accepted += usize::from(target(&input) == Verdict::Accepted);
    }
    assert!(accepted > 0 && accepted < files, "{accepted} of {files} are accepted");
    assert!((files, bytes) <= (MOST.0, u64::MAX) && bytes <= MOST.1, "{files} files of {bytes} bytes");
}

macro_rules! replayed {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            replay($name);
        })*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$($name),*]);
        }
    };
}

replayed! {
    control_messages_are_read_or_refused: "control",
    prefaces_are_read_or_refused: "preface",
    a_responder_hears_anything_and_answers_who_is_genuine: "responder",
    records_are_opened_as_they_were_sealed_or_not_at_all: "records",
    a_session_survives_its_peer_and_the_network: "session",
    bodies_are_read_or_refused: "body",
    introductions_are_believed_as_the_room_signed_them_or_not_at_all: "introduction",
    an_accounts_file_is_read_whole_or_refused: "accounts",
    a_configuration_file_is_read_or_refused: "config",
    an_operators_line_is_read_or_refused: "admin",
    a_users_files_are_read_whole_or_refused: "state",
}

#[test]
fn what_the_corpora_began_with_is_accepted() {
    for (name, seed) in seeds::all() {
        assert_eq!(target(name)(&seed), Verdict::Accepted, "{name}: {seed:?}");
    }
}

#[test]
#[ignore = "writes what the corpora begin with into fuzz/corpus, after which the fuzzers can go on from there"]
fn write_the_seeds() {
    let nonsense = TARGETS.into_iter().map(|(name, _)| (name, vec![0xff, 0xff]));
    for (name, seed) in seeds::all().into_iter().chain(nonsense) {
        fs::create_dir_all(corpus(name)).unwrap();
        let file = format!("seed-{}", &blake3::hash(&seed).to_hex()[..16]);
        fs::write(corpus(name).join(file), seed).unwrap();
    }
}
