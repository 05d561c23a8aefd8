//! What connections that have not logged in cost the Room's process.
//!
//! Run with `cargo test --release -p parlor-room --test memory -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use parlor_protocol::address::RoomAddress;
use support::{Connected, socket};
use tokio::net::TcpStream;

/// Connections at once: so many that the Room does not refuse most of them by chance.
const CONNECTIONS: u32 = 256;
/// The most that a silent connection may cost, in KiB.
const SILENT: f64 = 8.0;
/// The most that one may cost that has shaken hands and says nothing, in KiB.
const SECURED: f64 = 32.0;

/// A Room as a process of its own, killed when the measurement is over.
struct Running {
    child: Child,
    address: RoomAddress,
    _home: tempfile::TempDir,
}

impl Running {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::cargo_bin("parlor-room").unwrap();
        command.args(["--listen", "127.0.0.1:0", "--log", "off", "--data"]).arg(home.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Self { child, address: ready.trim().parse().unwrap(), _home: home }
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u32 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "measures memory of a release build: the head of this file says how to run it"]
async fn who_has_not_logged_in_costs_little() {
    let room = Running::start();
    let before = room.resident();
    let mut silent = Vec::new();
    while silent.len() < CONNECTIONS as usize {
        let stream = TcpStream::connect(socket(&room.address)).await.unwrap();
        // One that the Room refused by chance is at its end soon.
        if tokio::time::timeout(std::time::Duration::from_millis(5), stream.readable()).await.is_err() {
            silent.push(stream);
        }
    }
    let each = f64::from(room.resident() - before) / f64::from(CONNECTIONS);
    println!("a silent connection: {each:.1} KiB");
    assert!(each < SILENT);
    drop((silent, room));

    let room = Running::start();
    let before = room.resident();
    let mut secured = Vec::new();
    while secured.len() < CONNECTIONS as usize {
        secured.extend(Connected::to(&room.address).await.ok());
    }
    let each = f64::from(room.resident() - before) / f64::from(CONNECTIONS);
    println!("a connection that has shaken hands: {each:.1} KiB");
    assert!(each < SECURED);
}
