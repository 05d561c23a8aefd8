//! The network that a table is run on: one address for the victims, as many others as there are rows.
//!
//! A network namespace of its own where that can be made (root on Linux), with a loopback interface that carries
//! addresses of a private network: there an address counts as a stranger's, and what it does costs it. Elsewhere
//! the addresses are loopback's own, which collect no penalties, and costs are not looked at.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use tokio::net::{TcpSocket, TcpStream};

use crate::process;

/// `ip` answers in milliseconds; on a loaded machine in seconds.
const TOOL: Duration = Duration::from_secs(20);
/// Threads of the runtime: the rows wait more than they work.
const WORKERS: usize = 2;
/// For blocking work to end with the runtime.
const LAST_WORK: Duration = Duration::from_secs(5);

/// Where a table is run. See the module.
#[derive(Debug)]
pub struct Ground {
    net: [u8; 2],
    next: AtomicU16,
}

/// Runs `work` on ground of its own, on a thread and a runtime of its own.
pub fn on_ground<T, F>(work: impl FnOnce(Arc<Ground>) -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let thread = thread::spawn(move || {
        let ground = Arc::new(Ground::fence()?);
        // Its threads are made by this one, and so on the same ground.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(WORKERS).enable_all().build()?;
        let done = runtime.block_on(work(ground));
        runtime.shutdown_timeout(LAST_WORK);
        done
    });
    thread.join().map_err(|_| anyhow!("the table panicked"))?
}

impl Ground {
    /// Fences this thread off, if that can be done here.
    fn fence() -> Result<Self> {
        let required = std::env::var_os("PARLOR_LAB").is_some_and(|value| value == "required");
        let net = match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => {
                ip(&["link", "set", "lo", "up"])?;
                ip(&["address", "add", "10.77.0.1/16", "dev", "lo"])?;
                [10, 77]
            }
            Err(why) => {
                ensure!(!required, "PARLOR_LAB=required, but no network namespace can be made: {why}");
                crate::netns::say_skipped("what behaviours cost their addresses: that needs root");
                [127, 77]
            }
        };
        Ok(Self { net, next: AtomicU16::new(0x0200) })
    }

    /// True if an address here collects penalties.
    pub fn has_strangers(&self) -> bool {
        self.net[0] != 127
    }

    /// Where the victims are, and who means well.
    pub fn home(&self) -> IpAddr {
        self.address(1)
    }

    /// An address that nobody has had.
    pub fn elsewhere(&self) -> IpAddr {
        self.address(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection from one address of this ground to another.
    pub async fn connect(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn address(&self, host: u16) -> IpAddr {
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(self.net[0], self.net[1], high, low).into()
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    process::run(command, b"", TOOL)?.success().with_context(|| format!("ip {}", args.join(" ")))?;
    Ok(())
}
