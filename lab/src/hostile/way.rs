//! Who is on the way between a user and its Room, and so on every relayed link of that user.
//!
//! What is said to the Room itself passes: it is TLS. Of a relayed link every message and record is held up and may be
//! changed, left out, repeated, kept for later or sent back; whoever does it has none of the keys.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use parlor_protocol::address::RoomAddress;
use parlor_protocol::wire::preface;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::client::socket;

/// A message of a handshake or a record, with its length before it.
#[derive(Debug)]
pub struct Unit {
    /// Which relayed link it is on, from 0.
    pub link: usize,
    /// True if it comes from the user.
    pub from_user: bool,
    /// Which it is in its direction: 0 is the handshake's message.
    pub number: usize,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What is done about a unit.
#[derive(Debug)]
pub enum Deed {
    /// These bytes go on.
    Passes(Vec<u8>),
    /// These bytes go on, each in a packet of its own.
    Drips(Vec<u8>),
    /// Nothing goes on; these bytes go back to where it came from.
    Returns(Vec<u8>),
    /// These bytes go on, and then the link is cut.
    Cuts(Vec<u8>),
    /// From here on nothing passes in this direction, and nobody is told.
    Swallows,
}

/// Decides about every unit of every relayed link.
pub type Tamper = Box<dyn FnMut(Unit) -> Deed + Send>;

/// A way to a Room that somebody sits on. Dropping it cuts what passes there.
pub struct Way {
    /// What the user takes for the Room's address: its fingerprint is in it.
    pub address: RoomAddress,
    passed: Arc<Passed>,
    _passes: JoinSet<()>,
}

/// What has passed.
#[derive(Debug, Default)]
struct Passed {
    links: AtomicUsize,
    ended: Mutex<HashSet<usize>>,
}

/// What the two directions of a link share.
struct Passage {
    link: usize,
    tamper: Arc<Mutex<Tamper>>,
    /// To the user and to the Room.
    out: [tokio::sync::Mutex<OwnedWriteHalf>; 2],
}

impl Way {
    /// A way to this Room.
    pub async fn to(room: &RoomAddress, tamper: Tamper) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = RoomAddress::from_socket(listener.local_addr()?);
        let address = room.fingerprint().map_or(address.clone(), |print| address.with_fingerprint(print));
        let (to, tamper, passed) = (socket(room)?, Arc::new(Mutex::new(tamper)), Arc::<Passed>::default());
        let mut passes = JoinSet::new();
        let counted = Arc::clone(&passed);
        passes.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((user, _)) = listener.accept().await {
                connections.spawn(pass(user, to, Arc::clone(&tamper), Arc::clone(&counted)));
            }
        });
        Ok(Self { address, passed, _passes: passes })
    }

    /// Whether a relayed link has ended.
    pub fn has_ended(&self, link: usize) -> bool {
        self.passed.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(&link)
    }
}

async fn pass(mut user: TcpStream, to: SocketAddr, tamper: Arc<Mutex<Tamper>>, passed: Arc<Passed>) {
    let Ok(mut room) = TcpStream::connect(to).await else { return };
    let mut first = [0; 1];
    if !matches!(user.peek(&mut first).await, Ok(1)) {
        return;
    }
    // How either ends is the ends' own affair.
    let _ = user.set_nodelay(true).and_then(|()| room.set_nodelay(true));
    if first[0] != preface::RELAY {
        let _ = copy_bidirectional(&mut user, &mut room).await;
        return;
    }
    let mut hello = [0; preface::RELAY_BYTES];
    let greeted = async {
        user.read_exact(&mut hello).await?;
        room.write_all(&hello).await?;
        let ready = room.read_u8().await?;
        user.write_all(&[ready]).await?;
        std::io::Result::Ok(ready)
    };
    if !matches!(greeted.await, Ok(preface::RELAY_READY)) {
        let _ = copy_bidirectional(&mut user, &mut room).await;
        return;
    }
    let link = passed.links.fetch_add(1, Ordering::Relaxed);
    let ((from_user, to_user), (from_room, to_room)) = (user.into_split(), room.into_split());
    let out = [to_user, to_room].map(tokio::sync::Mutex::new);
    let passage = Passage { link, tamper, out };
    // When one direction is over, so is the link.
    tokio::select! {
        _ = passage.carry(from_user, true) => {}
        _ = passage.carry(from_room, false) => {}
    }
    passed.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(link);
}

impl Passage {
    async fn carry(&self, mut from: OwnedReadHalf, from_user: bool) -> std::io::Result<()> {
        let (onward, back) =
            if from_user { (&self.out[1], &self.out[0]) } else { (&self.out[0], &self.out[1]) };
        for number in 0.. {
            let mut bytes = vec![0; 2];
            from.read_exact(&mut bytes).await?;
            let len = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
            bytes.resize(2 + len, 0);
            from.read_exact(&mut bytes[2..]).await?;
            match self.decide(Unit { link: self.link, from_user, number, bytes }) {
                Deed::Passes(bytes) => onward.lock().await.write_all(&bytes).await?,
                Deed::Drips(bytes) => {
                    for byte in bytes {
                        onward.lock().await.write_all(&[byte]).await?;
                        tokio::task::yield_now().await;
                    }
                }
                Deed::Returns(bytes) => back.lock().await.write_all(&bytes).await?,
                Deed::Cuts(bytes) => {
                    onward.lock().await.write_all(&bytes).await?;
                    break;
                }
                Deed::Swallows => while from.read_u8().await.is_ok() {},
            }
        }
        Ok(())
    }

    fn decide(&self, unit: Unit) -> Deed {
        let mut tamper = self.tamper.lock().unwrap_or_else(PoisonError::into_inner);
        (*tamper)(unit)
    }
}
