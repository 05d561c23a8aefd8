//! Distance: a forwarder that hands on what it is sent after a while, because this kernel may lack netem.
//!
//! It stands before a port of a host. Connections to that port from elsewhere reach it, and it makes one of its own
//! to the same port for each. Bytes stay in order and none is lost; each waits its time, both ways.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::host::Host;
use crate::clock;

/// Read at once, in bytes.
const PIECE: usize = 64 * 1024;
/// Pieces on their way in one direction of a connection: 16 MiB, more than any window here.
const ON_THE_WAY: usize = 256;

/// A forwarder. Dropping it ends it and its connections.
pub struct Forwarder {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Whatever arrives at `port` of `host` from elsewhere goes on to `port` of `to`, an address of the host's own,
    /// `delay` later; and so do the answers.
    pub fn before(host: &Host, port: u16, to: IpAddr, delay: Duration) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (told, here) = std_mpsc::channel();
        let namespace =
            File::open(format!("/run/netns/{}", host.namespace())).context("the host's namespace")?;
        let target = SocketAddr::new(to, port);
        let thread = thread::spawn(move || {
            let listening = enter(&namespace);
            let listener = match listening {
                Ok((listener, port)) => {
                    let _ = told.send(Ok(port));
                    listener
                }
                Err(error) => {
                    let _ = told.send(Err(error));
                    return;
                }
            };
            run(listener, target, delay, stopped);
        });
        let forwarder = Self { stop: Some(stop), thread: Some(thread) };
        let own = here.recv().map_err(|_| anyhow!("the forwarder's thread ended"))??;
        host.nft(&format!(
            "table ip delay{port} {{
                chain arriving {{
                    type nat hook prerouting priority -100
                    iifname != lo tcp dport {port} redirect to :{own}
                }}
            }}\n"
        ))?;
        Ok(forwarder)
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Takes this thread into the namespace; what it opens from now on is there.
fn enter(namespace: &File) -> Result<(StdListener, u16)> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("entering a namespace")?;
    let listener = StdListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

/// Forwards until it is stopped. All of it runs in this thread, and so in its namespace.
fn run(listener: StdListener, target: SocketAddr, delay: Duration, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async move {
        let Ok(listener) = TcpListener::from_std(listener) else { return };
        let mut connections = JoinSet::new();
        let accept = async {
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(forward(near, target, delay));
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

async fn forward(near: TcpStream, target: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = carry(near_read, far_write, delay);
    let back = carry(far_read, near_write, delay);
    tokio::try_join!(there, back).map(drop)
}

/// Carries one direction of a connection, until its end or an error.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let (sender, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let length = from.read(&mut piece).await?;
            piece.truncate(length);
            if length == 0 || sender.send((clock::now() + delay, piece)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((due, piece)) = on_the_way.recv().await {
            sleep_until(due.into()).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}
