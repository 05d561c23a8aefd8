//! Addresses for everybody.
//!
//! Where it can be made (root on Linux), a network namespace whose loopback interface carries four million
//! addresses of a private network: there an address counts as a stranger's and what it does costs it. Elsewhere
//! the addresses are loopback's own: the Room neither limits nor bars those one by one.

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

/// Where a siege takes place.
#[derive(Debug)]
pub(super) struct Ground {
    /// The Room's address, and that of those who mean well. Attackers have those after it.
    home: Ipv4Addr,
    next: AtomicU32,
}

impl Ground {
    /// Fences this thread off, with the threads and programs that it starts, if that can be done here.
    pub(super) fn fence() -> Result<Self> {
        let home = if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
            ip(&["link", "set", "lo", "up"])?;
            ip(&["address", "add", "10.64.0.1/10", "dev", "lo"])?;
            Ipv4Addr::new(10, 64, 0, 1)
        } else {
            Ipv4Addr::new(127, 64, 0, 1)
        };
        Ok(Self { home, next: AtomicU32::new(u32::from(home) + 255) })
    }

    /// True if an address here is limited by itself and collects penalties.
    pub(super) fn has_strangers(&self) -> bool {
        !self.home.is_loopback()
    }

    /// Where the Room is.
    pub(super) fn home(&self) -> IpAddr {
        self.home.into()
    }

    /// Addresses that nobody has used.
    pub(super) fn fresh(&self, count: usize) -> Vec<IpAddr> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first..first.saturating_add(count)).map(|address| Ipv4Addr::from(address).into()).collect()
    }
}

/// Connects from an address of one's choice.
pub(super) async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    process::run(command, b"", TOOL)?.success().map(drop)
}
