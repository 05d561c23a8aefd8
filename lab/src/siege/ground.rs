//! Addresses for everybody.
//!
//! Where it can be made (root on Linux), a network namespace whose loopback interface carries four million
//! addresses of a private network: there an address counts as a stranger's and what it does costs it. Elsewhere
//! the addresses are loopback's own: the Room neither limits nor bars those one by one.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;
use nix::sched::{CloneFlags, unshare};
use tokio::net::{TcpSocket, TcpStream};

use crate::process;

/// `ip` answers in milliseconds; on a loaded machine in seconds.
const TOOL: Duration = Duration::from_secs(20);

/// Addresses after the Room's from which users come, each from one of its own.
const ELSEWHERE: u32 = 250;

/// Where a siege takes place.
#[derive(Debug)]
pub(super) struct Ground {
    /// The Room's address, and that of most who mean well. The others have those after it, and attackers those after
    /// these.
    home: Ipv4Addr,
    next: AtomicU32,
}

impl Ground {
    /// Fences this thread off, with the threads and programs that it starts, if that can be done here.
    pub(super) fn fence() -> Result<Self> {
        let home = if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
            let home = Ipv4Addr::new(10, 64, 0, 1);
            let mut lines = format!("link set lo up\naddress add {home}/10 dev lo\n");
            // Who calls an address that its own machine has by itself calls from that address.
            for number in 0..ELSEWHERE as usize {
                writeln!(lines, "address add {}/32 dev lo", after(home, number))?;
            }
            ip(&lines)?;
            home
        } else {
            Ipv4Addr::new(127, 64, 0, 1)
        };
        Ok(Self { home, next: AtomicU32::new(u32::from(home) + 1 + ELSEWHERE) })
    }

    /// True if an address here is limited by itself and collects penalties.
    pub(super) fn has_strangers(&self) -> bool {
        !self.home.is_loopback()
    }

    /// Where the Room is.
    pub(super) fn home(&self) -> Ipv4Addr {
        self.home
    }

    /// Where the Room listens: on all addresses where they are fenced off.
    pub(super) fn listen(&self) -> Ipv4Addr {
        if self.has_strangers() { Ipv4Addr::UNSPECIFIED } else { self.home }
    }

    /// Addresses that nobody has used.
    pub(super) fn fresh(&self, count: usize) -> Vec<IpAddr> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first..first.saturating_add(count)).map(|address| Ipv4Addr::from(address).into()).collect()
    }
}

/// The Room by an address of its own for each number, so that who calls it calls from there; on loopback by the one it
/// has, because there all addresses are one.
pub(super) fn from_elsewhere(room: &str, number: usize) -> String {
    let home = room.strip_prefix("room://").and_then(|rest| rest.split(':').next());
    match home.and_then(|home| home.parse::<Ipv4Addr>().ok()).filter(|home| !home.is_loopback()) {
        Some(home) => room.replacen(&home.to_string(), &after(home, number).to_string(), 1),
        None => room.to_owned(),
    }
}

/// Connects from an address of one's choice.
pub(super) async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// One of the addresses [`ELSEWHERE`], which are used again when all have been.
fn after(home: Ipv4Addr, number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or(u32::MAX) % ELSEWHERE;
    Ipv4Addr::from(u32::from(home) + 1 + number)
}

/// Has `ip` do what these lines say.
fn ip(lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    process::run(command, lines.as_bytes(), TOOL)?.success().map(drop)
}
