//! What a conversation outlives: paths that go and come, routers that forget, loss, distance, and the Room's end.
//!
//! One user sends lines all the time, the other prints them; after everything that happened every line was printed
//! once and in order.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parlor_lab::faults::lines::lines_arrive;
use parlor_lab::netns::{Forwarder, Internet, Lab, Lan, Nat, Ports, Site, Unsolicited};
use parlor_lab::process::Program;
use parlor_lab::programs::{PATIENCE, RoomProgram, UserSetup};
use serde_json::Value;

use super::{laboratory, online, relay_waits_for_nobody, room_on, takes};

/// A path is found again, or a better one, within this on a machine with better things to do.
const FOUND: Duration = Duration::from_secs(90);

/// A line that is relayed comes within milliseconds: none comes while its path is cut.
const CUT_OFF: Duration = Duration::from_secs(1);

/// Foo sends lines, Bar prints them.
struct Talk {
    foo: Program,
    bar: Program,
    said: usize,
}

impl Talk {
    fn begin(room: &RoomProgram, foo: &UserSetup, bar: &UserSetup) -> Self {
        let bar = online(room, bar, "Bar", &["--json", "listen"]);
        let mut talk = Self { foo: foo.start(&["send", "Bar", "-"]).unwrap(), bar, said: 0 };
        talk.say(100);
        talk
    }

    /// Foo says so many lines, and Bar prints them in their order.
    #[track_caller]
    fn say(&mut self, lines: usize) {
        self.shout(lines);
        self.hear(lines);
    }

    fn shout(&mut self, lines: usize) {
        let text: Vec<String> = (self.said..self.said + lines).map(|line| format!("line {line}")).collect();
        self.foo.write((text.join("\n") + "\n").as_bytes()).unwrap();
        self.said += lines;
    }

    #[track_caller]
    fn hear(&mut self, lines: usize) {
        for line in self.said - lines..self.said {
            let heard: Value = serde_json::from_str(&self.bar.line(FOUND).unwrap()).unwrap();
            assert_eq!(heard["body"], format!("line {line}"));
        }
    }

    /// Nothing is left over at either end.
    #[track_caller]
    fn end(mut self) {
        self.say(10);
        self.foo.close_stdin();
        self.foo.wait(PATIENCE).unwrap().success().unwrap();
        let heard = self.bar.terminate(PATIENCE).unwrap().success().unwrap().stdout;
        assert_eq!(heard.lines().count(), self.said);
    }
}

fn relayed_pairs(room: &RoomProgram, wanted: impl Fn(u64) -> bool) {
    room.await_status(FOUND, |status| wanted(status["relayed_pairs"].as_u64().unwrap())).unwrap();
}

fn address_of(room: &RoomProgram, name: &str) -> String {
    let status = room.status().unwrap();
    let users = status["users"].as_array().unwrap();
    let user = users.iter().find(|user| user["name"] == name).unwrap();
    user["address"].as_str().unwrap().to_owned()
}

#[test]
fn lines_through_cuts_and_killed_rooms_are_printed_once_and_in_order() {
    let Some((_turn, _stage, lab)) = laboratory() else { return };
    lines_arrive(lab, 200_000, 1).unwrap();
}

#[test]
fn a_path_that_falls_silent_is_replaced_by_the_relay_and_taken_again_when_it_is_back() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&lan.foo);
    let bar = stage.named(&room.address, "Bar").on(&lan.bar);
    let mut talk = Talk::begin(&room, &foo, &bar);
    relayed_pairs(&room, |pairs| pairs == 0);
    lan.foo.block(lan.cables[2].ip()).unwrap();
    talk.say(100);
    relayed_pairs(&room, |pairs| pairs > 0);
    talk.shout(100);
    lan.foo.unblock(lan.cables[2].ip()).unwrap();
    talk.hear(100);
    relayed_pairs(&room, |pairs| pairs == 0);
    talk.end();
}

#[test]
fn a_router_that_forgets_its_connections_costs_no_line() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let nat = Nat { ports: Ports::Random, unsolicited: Unsolicited::Dropped };
    let internet = Internet::build(lab, Site::Behind { nat, lan: 1, host: 10 }, Site::Open).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
    let bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
    let bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string());
    let mut talk = Talk::begin(&room, &foo, &bar);
    relayed_pairs(&room, |pairs| pairs == 0);
    let before = address_of(&room, "Foo");
    talk.shout(100);
    internet.foo_router.as_ref().unwrap().forget_connections().unwrap();
    talk.hear(100);
    talk.say(100);
    room.await_online(&["Foo", "Bar"], FOUND).unwrap();
    room.await_status(FOUND, |_| address_of(&room, "Foo") != before).unwrap();
    talk.end();
}

#[test]
fn a_relayed_conversation_pauses_while_the_room_is_killed_and_started_and_loses_nothing() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let internet = Internet::closed(lab).unwrap();
    let mut room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
    let bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
    let mut talk = Talk::begin(&room, &foo, &bar);
    for _ in 0..3 {
        relayed_pairs(&room, |pairs| pairs > 0);
        talk.shout(1000);
        let setup = room.setup.clone();
        room.program.kill().unwrap();
        talk.shout(1000);
        room = setup.start().unwrap();
        talk.hear(2000);
    }
    talk.end();
}

#[test]
fn a_user_cut_off_from_the_room_keeps_its_direct_conversation_and_its_relayed_one_waits() {
    let Some((_turn, stage, _)) = laboratory() else { return };
    for open in [true, false] {
        let lab = Lab::new().unwrap();
        let internet = if open { Internet::bar_open(lab) } else { Internet::closed(lab) }.unwrap();
        let room = room_on(&stage, &internet.room, internet.room_ip());
        let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
        let mut bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
        if open {
            bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string());
        }
        let mut talk = Talk::begin(&room, &foo, &bar);
        internet.cut_bar_from_room().unwrap();
        talk.shout(100);
        if open {
            talk.hear(100);
        } else {
            // What comes late is heard below.
            assert!(talk.bar.line(CUT_OFF).is_err(), "what is relayed gets through");
        }
        internet.room.unblock(internet.bar_public_ip()).unwrap();
        if !open {
            talk.hear(100);
        }
        talk.end();
        room.program.kill().unwrap();
    }
}

#[test]
fn routers_that_draw_ports_and_refuse_make_nobody_wait_for_an_answer() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let strict = |lan| Site::Behind { nat: Nat::STRICT, lan, host: 10 };
    let internet = Internet::build(lab, strict(1), strict(2)).unwrap();
    let room = room_on(&stage, &internet.room, internet.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&internet.foo);
    // It names an address at which its router refuses, and a LAN in which nobody answers.
    let bar = stage.named(&room.address, "Bar").on(&internet.bar);
    let bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string());
    let _bar = online(&room, &bar, "Bar", &["listen"]);
    takes(&foo, "Bar", "relay");
    relay_waits_for_nobody(&foo, "Bar");
}

#[test]
fn one_packet_in_ten_lost_costs_no_line() {
    let Some((_turn, stage, lab)) = laboratory() else { return };
    let lan = Lan::build(lab).unwrap();
    let room = room_on(&stage, &lan.room, lan.room_ip());
    let foo = stage.named(&room.address, "Foo").on(&lan.foo);
    let bar = stage.named(&room.address, "Bar").on(&lan.bar);
    let mut talk = Talk::begin(&room, &foo, &bar);
    lan.foo.lose(10).unwrap();
    lan.bar.lose(10).unwrap();
    for _ in 0..5 {
        talk.say(1000);
    }
    lan.foo.lose(0).unwrap();
    lan.bar.lose(0).unwrap();
    talk.end();
}

/// One way.
const FAR: Duration = Duration::from_millis(50);

#[test]
fn over_a_distance_lines_stay_in_order_and_many_are_on_their_way_at_once() {
    let Some((_turn, stage, _)) = laboratory() else { return };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    for relayed in [false, true] {
        let internet = Internet::bar_open(Lab::new().unwrap()).unwrap();
        let room = room_on(&stage, &internet.room, internet.room_ip());
        let foo = stage.named(&room.address, "Foo").on(&internet.foo).arg("--lan-id").arg("A");
        let mut bar = stage.named(&room.address, "Bar").on(&internet.bar).arg("--lan-id").arg("B");
        let _forwarder = if relayed {
            Forwarder::before(&internet.room, 2428, internet.room_ip(), FAR).unwrap()
        } else {
            bar = bar.arg("--public-ip").arg(internet.bar_public_ip().to_string()).arg("--port").arg("4000");
            Forwarder::before(&internet.bar, 4000, loopback, FAR).unwrap()
        };
        let mut talk = Talk::begin(&room, &foo, &bar);
        relayed_pairs(&room, |pairs| (pairs > 0) == relayed);
        let began: Instant = now();
        talk.say(1);
        assert!(began.elapsed() >= FAR, "a line takes its way");
        let began = now();
        talk.say(20_000);
        // Lines that waited for one another's acknowledgement would take more than half an hour.
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
        talk.end();
        room.program.kill().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured here is real")]
pub(super) fn now() -> Instant {
    Instant::now()
}
