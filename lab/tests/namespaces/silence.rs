//! Sockets whose other end is gone without a word: both ends notice, and give back what they held.
//!
//! It takes no turn: for three quarters of a minute it only waits, beside the other tests.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use parlor_lab::netns::{Lan, or_skip};
use parlor_lab::process::Program;
use parlor_lab::programs::{PATIENCE, RoomProgram, Stage, UserSetup};

use super::faults::now;
use super::{online, room_on};

/// A link on which nothing comes is dead so long after the last sign of life.
const DEAD: Duration = Duration::from_secs(45);
/// With data waiting a link is suspect after 1 s, and then the relay is found; the rest is for a busy machine. Who
/// waited until the link is dead would take longer.
const WITH_DATA: Duration = Duration::from_secs(30);
/// Dead links are given back by then: the rest is for a busy machine.
const IDLE: Duration = Duration::from_secs(45 + 30);
/// Between two looks at what a program holds.
const LOOK: Duration = Duration::from_millis(20);

/// A pair whose second user sends lines to the first.
struct Pair {
    listens: Program,
    sends: Program,
    /// Descriptors of each before they had a link.
    alone: [usize; 2],
}

impl Pair {
    fn begin(room: &RoomProgram, [listens, sends]: [&UserSetup; 2], names: [&str; 2]) -> Self {
        let listens = online(room, listens, names[0], &["listen"]);
        let sends = online(room, sends, names[1], &["send", names[0], "-"]);
        let alone = [least(&listens), least(&sends)];
        let mut pair = Self { listens, sends, alone };
        pair.say("before", PATIENCE);
        assert!(
            pair.held().iter().zip(alone).all(|(held, alone)| *held > alone),
            "{:?}, {alone:?}",
            pair.held()
        );
        pair
    }

    #[track_caller]
    fn say(&mut self, line: &str, within: Duration) {
        self.sends.write(format!("{line}\n").as_bytes()).unwrap();
        assert!(self.listens.line(within).unwrap().ends_with(line));
    }

    fn held(&self) -> [usize; 2] {
        [descriptors(&self.listens), descriptors(&self.sends)]
    }

    /// Waits until both hold so many descriptors more than before they had a link, and no others.
    #[track_caller]
    fn settles_on(&self, more: usize, by: Instant) {
        let wanted = self.alone.map(|alone| alone + more);
        while self.held() != wanted {
            assert!(now() < by, "{:?} descriptors in place of {wanted:?}", self.held());
            thread::sleep(LOOK);
        }
    }
}

fn descriptors(program: &Program) -> usize {
    fs::read_dir(format!("/proc/{}/fd", program.pid())).unwrap().count()
}

/// What a program holds when it has no file open just now.
fn least(program: &Program) -> usize {
    let look = |_| {
        thread::sleep(LOOK);
        descriptors(program)
    };
    (0..25).map(look).min().unwrap()
}

#[test]
fn both_ends_of_a_path_that_swallows_everything_notice_and_their_descriptors_come_back() {
    let Some(lab) = or_skip().unwrap() else { return };
    let stage = Stage::new().unwrap();
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let on = |name: &str, host| stage.named(&room.address, name).on(host);
    let (foo, bar) = (on("Foo", &lan.foo), on("Bar", &lan.bar));
    let idle = Pair::begin(&room, [&foo, &bar], ["Foo", "Bar"]);
    let quiet = now();
    let (baz, qux) = (on("Baz", &lan.foo), on("Qux", &lan.bar));
    let mut busy = Pair::begin(&room, [&baz, &qux], ["Baz", "Qux"]);

    lan.foo.block(lan.cables[2].ip()).unwrap();
    lan.bar.block(lan.cables[1].ip()).unwrap();
    let cut = now();
    busy.say("after", WITH_DATA);
    assert!(busy.held().iter().zip(busy.alone).all(|(held, alone)| *held > alone + 1), "the relay's, too");
    let linked = idle.held().iter().zip(idle.alone).all(|(held, alone)| *held > alone);
    assert!(linked || quiet.elapsed() > DEAD, "nobody can know yet");

    // What the busy pair keeps is its relayed link.
    idle.settles_on(0, cut + IDLE);
    busy.settles_on(1, cut + IDLE);
    for Pair { listens, mut sends, .. } in [idle, busy] {
        sends.close_stdin();
        sends.wait(PATIENCE).unwrap().success().unwrap();
        listens.terminate(PATIENCE).unwrap().success().unwrap();
    }
}
