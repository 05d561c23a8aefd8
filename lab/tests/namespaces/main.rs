//! Parlor between real hosts: which rung two users find on which network, and what the Room gets to see.
//!
//! Every test has networks of its own. They take turns, because one of them measures time; but for one that only waits.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod faults;
mod silence;

use std::sync::{Mutex, MutexGuard, PoisonError};

use parlor_lab::memory::{positions, search};
use parlor_lab::netns::{Capture, Host, Internet, Lab, Lan, or_skip, say_skipped};
use parlor_lab::process::Program;
use parlor_lab::programs::{PATIENCE, RoomProgram, Stage, UserSetup};
use serde_json::Value;

use faults::now;

/// An attempt on a path that answers nothing ends after so many milliseconds.
const ATTEMPT_MS: u64 = 5000;

/// Bar's port where a router hands connections on to it.
const FORWARDED: u16 = 4000;

static TURN: Mutex<()> = Mutex::new(());

/// The laboratory and this test's turn, or nothing after saying why.
fn laboratory() -> Option<(MutexGuard<'static, ()>, Stage, Lab)> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = or_skip().unwrap()?;
    Some((turn, Stage::new().unwrap(), lab))
}

/// An open Room at port 2428 of this host.
fn room_on(stage: &Stage, host: &Host, address: std::net::IpAddr) -> RoomProgram {
    stage.room("room").on(host).listen(format!("{address}:2428")).arg("--open").start().unwrap()
}

fn online(room: &RoomProgram, user: &UserSetup, name: &str, command: &[&str]) -> Program {
    room.online(user, name, command).unwrap()
}

/// Pings until the last of three takes this rung: where the handshake of a better one is held up, another carries first.
#[track_caller]
fn takes(user: &UserSetup, peer: &str, rung: &str) {
    let began = now();
    loop {
        let done = user.run(&["--json", "ping", peer, "-c", "3"]).unwrap().success().unwrap();
        let pings = done.json_lines().unwrap();
        assert_eq!(pings.len(), 3, "{done:?}");
        if pings[2]["rung"] == rung {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{pings:?}, {}", explained(user, peer));
    }
}

/// A better path that cannot be had costs a moment: the relay carries before an attempt on that path has ended for want
/// of an answer.
#[track_caller]
fn relay_waits_for_nobody(user: &UserSetup, peer: &str) {
    let done = user.run(&["--json", "explain", peer]).unwrap().success().unwrap();
    let steps = done.json_lines().unwrap();
    let what = |step: &Value| step["what"].as_str().unwrap_or_default().to_owned();
    let works = |step: &Value| step["rung"] == "relay" && what(step).contains("works, after");
    let took = |step: &Value| -> Option<u64> {
        what(step).rsplit_once("(after ")?.1.strip_suffix(" ms)")?.parse().ok()
    };
    let before: Vec<_> = steps.iter().take_while(|step| !works(step)).collect();
    assert!(before.len() < steps.len(), "the relay does not work: {done:?}");
    let waited = before.iter().any(|step| step["rung"] != "relay" && took(step) >= Some(ATTEMPT_MS));
    assert!(!waited, "{done:?}");
}

/// What `asks` sees as the path to a user that stays, and what that user sees when it is the one that asks.
#[track_caller]
fn both_ways(room: &RoomProgram, foo: &UserSetup, bar: &UserSetup, rung: &str) {
    let staying = online(room, bar, "Bar", &["serve", "up=tr a-z A-Z"]);
    takes(foo, "Bar", rung);
    let done = foo.run(&["get", "Bar", "up", "\"abc\""]).unwrap();
    assert_eq!(done.stdout, "\"ABC\"\n", "{done:?}");
    staying.terminate(PATIENCE).unwrap();
    room.await_offline(&["Bar", "Foo"], PATIENCE).unwrap();

    let _staying = online(room, foo, "Foo", &["serve", "up=tr a-z A-Z"]);
    takes(bar, "Foo", rung);
    let done = bar.run(&["get", "Foo", "up", "\"abc\""]).unwrap();
    assert_eq!(done.stdout, "\"ABC\"\n", "{done:?}");
}

fn explained(user: &UserSetup, peer: &str) -> String {
    user.run(&["explain", peer]).map_or_else(|error| error.to_string(), |done| done.stdout)
}

#[test]
fn on_one_lan_users_talk_by_lan() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&lan.foo);
    let bar = stage.named(&room.address, "Bar").on(&lan.bar);
    both_ways(&room, &foo, &bar, "lan");
}

#[test]
fn on_one_host_of_a_lan_users_talk_by_same_host() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&lan.foo);
    let bar = stage.named(&room.address, "Bar").on(&lan.foo);
    both_ways(&room, &foo, &bar, "same-host");
}

#[test]
fn a_declared_address_on_the_open_internet_is_reached_whoever_asks() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let internet = Internet::bar_open(lab).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
    let bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
    let bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string());
    both_ways(&room, &foo, &bar, "public");
}

#[test]
fn a_declared_address_whose_router_hands_the_port_on_is_reached_whoever_asks() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let internet = Internet::bar_forwarded(lab, FORWARDED).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
    let bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
    let bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string());
    both_ways(&room, &foo, &bar.arg("--port").arg(FORWARDED.to_string()), "public");
}

#[test]
fn behind_two_routers_with_nothing_open_users_talk_by_relay() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let internet = Internet::closed(lab).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
    let bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
    both_ways(&room, &foo, &bar, "relay");
}

#[test]
fn one_lan_id_in_two_places_makes_nobody_wait_for_an_answer_that_does_not_come() {
    let Some((turn, stage, lab)) = laboratory() else { return };
    for internet in [Internet::closed(lab).unwrap(), Internet::twins(Lab::new().unwrap()).unwrap()] {
        let room = room_on(&stage, &internet.room, internet.room_ip());
        let foo = stage.named(&room.address, "Foo").on(&internet.foo);
        let bar = stage.named(&room.address, "Bar").on(&internet.bar);
        let _bar = online(&room, &bar, "Bar", &["listen"]);
        takes(&foo, "Bar", "relay");
        relay_waits_for_nobody(&foo, "Bar");
    }
    drop(turn);
}

#[test]
fn for_a_declared_address_that_is_not_reachable_nobody_waits() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let internet = Internet::closed(lab).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
    let bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
    let bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string());
    let _bar = online(&room, &bar, "Bar", &["listen"]);
    takes(&foo, "Bar", "relay");
    relay_waits_for_nobody(&foo, "Bar");
}

#[test]
fn a_user_that_cannot_reach_the_room_says_so() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let internet = Internet::closed(lab).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    internet.cut_bar_from_room().unwrap();
    let bar = stage.named(&room.address, "Bar").on(&internet.bar);
    let done = bar.run(&["peers"]).unwrap();
    assert_eq!((done.code, done.stderr.lines().count()), (Some(7), 1), "{done:?}");
}

#[test]
fn a_room_beyond_loopback_is_trusted_by_its_fingerprint_or_when_told_to_and_then_held_to_its_key() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let foo = stage.named(&room.bare_address(), "Foo").on(&lan.foo);
    let done = foo.run(&["peers"]).unwrap();
    assert_eq!((done.code, done.stderr.lines().count()), (Some(3), 1), "{done:?}");
    assert!(done.stderr.contains("--tofu") && done.stderr.contains(&room.address), "{done:?}");
    foo.clone().arg("--tofu").run(&["peers"]).unwrap().success().unwrap();
    foo.run(&["peers"]).unwrap().success().unwrap();
    room.program.terminate(PATIENCE).unwrap();
    let impostor = stage.room("impostor").on(&lan.room).listen(format!("{}:2428", lan.room_ip()));
    let _impostor = impostor.arg("--open").start().unwrap();
    for user in [foo.clone(), foo.arg("--tofu")] {
        let done = user.run(&["peers"]).unwrap();
        assert_eq!((done.code, done.stderr.lines().count()), (Some(3), 1), "{done:?}");
    }
}

#[test]
fn the_room_neither_sees_nor_remembers_what_it_relays() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    if let Err(why) = Capture::available() {
        return say_skipped(&why);
    }
    let secret = format!("what-only-they-know-{:08x}", 0x5f0c_9a1e_u32);
    let known = format!("what-the-room-was-given-{:08x}", 0x77aa_4410_u32);
    let internet = Internet::closed(lab).unwrap();
    let setup = stage.room("room").on(&internet.room).listen(format!("{}:2428", internet.room_ip()));
    let room = setup.arg("--open").env("KNOWN_TO_THE_ROOM", &known).start().unwrap();
    let capture = internet.lab.capture(&internet.room).unwrap();

    // The names are what the Room does know of them: they show that the search finds what is there.
    let (foo_name, bar_name) = ("Foo-who-asks-4c02", "Bar-who-hears-91be");
    let bar = stage.named(&room.address, bar_name).on(&internet.bar).arg("--lan-id").arg("B");
    let mut bar = online(&room, &bar, bar_name, &["listen"]);
    let foo = stage.named(&room.address, foo_name).on(&internet.foo).arg("--lan-id").arg("A");
    let mut foo = foo.start(&["send", bar_name, "-"]).unwrap();
    for round in 0..5 {
        for line in 0..200 {
            foo.write(format!("{round}.{line} {secret}\n").as_bytes()).unwrap();
        }
        for line in 0..200 {
            let heard = bar.line(PATIENCE).unwrap();
            assert!(heard.ends_with(&format!("{round}.{line} {secret}")), "{heard}");
        }
        assert_eq!(search(room.program.pid(), secret.as_bytes()).unwrap().hits, []);
        let seen = search(room.program.pid(), known.as_bytes()).unwrap();
        assert!(seen.found_in("[stack]"), "the search must find the Room's environment: {seen:?}");
        let seen = search(room.program.pid(), bar_name.as_bytes()).unwrap();
        assert!(!seen.hits.is_empty(), "the search must find a name that is online: {seen:?}");
    }
    assert!(!search(bar.pid(), secret.as_bytes()).unwrap().hits.is_empty(), "Bar read it all just now");
    foo.close_stdin();
    foo.wait(PATIENCE).unwrap().success().unwrap();

    // The same words outside the channel are seen, so the capture would have shown them inside it.
    let known = format!("outside-the-channel-{:08x}", 0x0102_0304_u32);
    let aloud = format!("printf {known} > /dev/udp/{}/9", internet.room_ip());
    internet.foo.run(&["bash", "-c", &aloud], PATIENCE).unwrap().success().unwrap();
    let packets = capture.stop().unwrap();
    assert!(positions(&packets, known.as_bytes()).next().is_some());
    assert!(packets.len() > 2 * 1000 * secret.len(), "{} bytes cannot hold it all", packets.len());
    assert_eq!(positions(&packets, secret.as_bytes()).next(), None);
}

#[test]
fn a_direct_conversation_outlives_the_room_and_new_pairs_form_when_it_is_back() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let mut bar =
        online(&room, &stage.named(&room.address, "Bar").on(&lan.bar), "Bar", &["--json", "listen"]);
    let mut foo = stage.named(&room.address, "Foo").on(&lan.foo).start(&["send", "Bar", "-"]).unwrap();
    let mut talk = |text: &str| {
        foo.write(format!("{text}\n").as_bytes()).unwrap();
        let heard: Value = serde_json::from_str(&bar.line(PATIENCE).unwrap()).unwrap();
        assert_eq!(heard["body"], text);
    };
    talk("while the Room is there");
    let setup = room.setup.clone();
    room.program.kill().unwrap();
    for n in 0..100 {
        talk(&format!("{n} while it is gone"));
    }
    let room = setup.start().unwrap();
    room.await_online(&["Foo", "Bar"], PATIENCE * 2).unwrap();
    talk("when it is back");
    let baz = stage.named(&room.address, "Baz").on(&lan.foo);
    takes(&baz, "Bar", "lan");
    takes(&baz, "Foo", "same-host");
    foo.close_stdin();
    foo.wait(PATIENCE).unwrap().success().unwrap();
}
