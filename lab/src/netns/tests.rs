use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::memory::positions;
use crate::process::Program;

const SOON: Duration = Duration::from_secs(20);

/// A TCP server that answers every connection with its own name, in as few lines as a script can.
const SERVER: &str = "
import socket, sys
s = socket.create_server(('0.0.0.0', int(sys.argv[1])))
print('up', flush=True)
while True:
    c, a = s.accept()
    c.sendall((sys.argv[2] + ' sees ' + a[0] + '\\n').encode())
    c.close()
";

/// Connects, sends what it is told and prints the answer, or why there is none.
const CLIENT: &str = "
import socket, sys
try:
    c = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
    c.sendall(sys.argv[4].encode())
    print(c.makefile().readline().strip())
except (TimeoutError, socket.timeout):
    print('silence')
except OSError as e:
    print(type(e).__name__)
";

fn lab() -> Option<Lab> {
    or_skip().unwrap()
}

fn serve(host: &Host, port: u16) -> Program {
    let mut command = host.command("python3");
    command.args(["-c", SERVER, &port.to_string(), host.name()]);
    let mut program = Program::start_without_input(command).unwrap();
    assert_eq!(program.line(SOON).unwrap(), "up");
    program
}

fn ask(host: &Host, address: impl Into<SocketAddr>, patience: &str) -> String {
    let address = address.into();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let args = ["python3", "-c", CLIENT, &ip, &port, patience, "marker-in-the-clear"];
    host.run(&args, SOON).unwrap().success().unwrap().stdout.trim().to_owned()
}

#[test]
fn hosts_of_a_lan_reach_each_other_until_a_cable_is_pulled_or_a_block_stands_between() {
    let Some(lab) = lab() else { return };
    let lan = Lan::build(lab).unwrap();
    let _server = serve(&lan.bar, 4000);
    let bar = (lan.cables[2].ip(), 4000);
    assert_eq!(ask(&lan.foo, bar, "10"), "bar sees 192.168.1.10");
    lan.cables[2].pull().unwrap();
    assert_eq!(ask(&lan.foo, bar, "0.5"), "silence");
    lan.cables[2].plug().unwrap();
    assert_eq!(ask(&lan.foo, bar, "10"), "bar sees 192.168.1.10");
    lan.foo.block(lan.cables[2].ip()).unwrap();
    assert_ne!(ask(&lan.foo, bar, "0.5"), "bar sees 192.168.1.10");
    lan.foo.unblock(lan.cables[2].ip()).unwrap();
    assert_eq!(ask(&lan.foo, bar, "10"), "bar sees 192.168.1.10");
}

#[test]
fn a_host_that_loses_everything_hears_nothing_and_one_that_loses_some_still_does() {
    let Some(lab) = lab() else { return };
    let lan = Lan::build(lab).unwrap();
    let _server = serve(&lan.bar, 4000);
    let bar = (lan.cables[2].ip(), 4000);
    lan.foo.lose(100).unwrap();
    assert_eq!(ask(&lan.foo, bar, "0.5"), "silence");
    lan.foo.lose(10).unwrap();
    // A reset that overtakes a lost answer is possible, five in a row are not.
    let heard = (0..5).any(|_| ask(&lan.foo, bar, "15") == "bar sees 192.168.1.10");
    assert!(heard, "one in ten lost is not all lost");
    lan.foo.lose(0).unwrap();
    assert_eq!(ask(&lan.foo, bar, "10"), "bar sees 192.168.1.10");
}

#[test]
fn behind_nat_a_host_gets_out_and_nobody_gets_in() {
    let Some(lab) = lab() else { return };
    let internet = Internet::closed(lab).unwrap();
    let _room = serve(&internet.room, 2428);
    let _bar = serve(&internet.bar, 4000);
    let room = (internet.room_ip(), 2428);
    assert_eq!(ask(&internet.foo, room, "10"), "room sees 198.51.100.20");
    assert_eq!(ask(&internet.bar, room, "10"), "room sees 198.51.100.130");
    assert_eq!(ask(&internet.foo, (internet.bar_public_ip(), 4000), "0.5"), "silence");
    assert_eq!(ask(&internet.foo, (internet.cables[2].ip(), 4000), "0.5"), "silence");
    internet.cut_bar_from_room().unwrap();
    assert_eq!(ask(&internet.bar, room, "0.5"), "silence");
    assert_eq!(ask(&internet.foo, room, "10"), "room sees 198.51.100.20");
}

#[test]
fn a_strict_router_refuses_at_once_what_it_does_not_let_in() {
    let Some(lab) = lab() else { return };
    let strict = Site::Behind { nat: Nat::STRICT, lan: 2, host: 10 };
    let internet = Internet::build(lab, Site::home(1), strict).unwrap();
    let _room = serve(&internet.room, 2428);
    assert_eq!(ask(&internet.bar, (internet.room_ip(), 2428), "10"), "room sees 198.51.100.130");
    let refused = ask(&internet.foo, (internet.bar_public_ip(), 4000), "10");
    assert_eq!(refused, "ConnectionRefusedError");
}

#[test]
fn a_forwarded_port_and_an_open_host_are_reached_from_a_lan_elsewhere() {
    let Some(lab) = lab() else { return };
    let internet = Internet::bar_forwarded(lab, 4000).unwrap();
    let _bar = serve(&internet.bar, 4000);
    let bar = internet.bar_public_ip();
    assert_eq!(ask(&internet.foo, (bar, 4000), "10"), "bar sees 198.51.100.20");
    assert_eq!(ask(&internet.foo, (bar, 4001), "0.5"), "silence");

    let internet = Internet::bar_open(or_skip().unwrap().unwrap()).unwrap();
    let _bar = serve(&internet.bar, 4000);
    assert_eq!(ask(&internet.foo, (bar, 4000), "10"), "bar sees 198.51.100.20");
}

#[test]
fn twins_reach_the_room_though_their_networks_look_alike() {
    let Some(lab) = lab() else { return };
    let internet = Internet::twins(lab).unwrap();
    assert_eq!(internet.cables[1].ip(), internet.cables[2].ip());
    let _room = serve(&internet.room, 2428);
    assert_eq!(ask(&internet.foo, (internet.room_ip(), 2428), "10"), "room sees 198.51.100.20");
    assert_eq!(ask(&internet.bar, (internet.room_ip(), 2428), "10"), "room sees 198.51.100.130");
    let own_twin: IpAddr = internet.cables[2].ip();
    assert_eq!(ask(&internet.foo, (own_twin, 4000), "10"), "ConnectionRefusedError");
}

#[test]
fn a_capture_holds_every_byte_that_passed_and_none_that_did_not() {
    let Some(lab) = lab() else { return };
    if let Err(why) = Capture::available() {
        say_skipped(&why);
        return;
    }
    let lan = Lan::build(lab).unwrap();
    let _server = serve(&lan.room, 2428);
    let capture = lan.lab.capture(&lan.room).unwrap();
    assert_eq!(ask(&lan.foo, (lan.room_ip(), 2428), "10"), "room sees 192.168.1.10");
    let packets = capture.stop().unwrap();
    assert!(positions(&packets, b"marker-in-the-clear").next().is_some());
    assert!(positions(&packets, b"room sees 192.168.1.10").next().is_some());
    assert_eq!(positions(&packets, b"another marker").next(), None);
}

#[test]
fn a_dropped_laboratory_leaves_nothing_and_nobody_behind_also_after_a_panic() {
    let Some(mut lab) = lab() else { return };
    let host = lab.host("gone").unwrap();
    let (namespace, program) = (host.namespace().to_owned(), serve(&host, 4000));
    assert!(namespaces().contains(&namespace));
    let panicked = std::thread::spawn(move || {
        let _owned = lab;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!namespaces().contains(&namespace));
    assert_eq!(program.wait(SOON).unwrap().code, None);
}
