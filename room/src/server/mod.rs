//! The Room's shell: sockets, TLS, timers, threads. It decides nothing; it carries out what the
//! [`core`](crate::core) says.
//!
//! One task, the hub, owns the core and takes events from a bounded queue, one after the other. A task and
//! not a lock, because the order of the commands is the order of the messages on every connection, and
//! because whoever floods its own connection waits in that queue and holds up no lock. The hub never waits:
//! what it hands out goes to bounded outboxes, threads with a bounded queue, or new tasks.
//!
//! ```text
//! listener -> door -> first byte -> TLS -> reader -+                      +-> outbox -> writer
//!                          |                       +-> events -> hub/core-+-> password threads
//!                          +------> relay token ---+                      +-> store thread, splices, address checks
//! ```
//!
//! Shutdown is a sequence: stop accepting; the core sends everybody away and gives the store what is to be
//! kept; connections get a few seconds to take their last message; then relays, the hub and last the
//! store end.

pub(crate) mod accept;
mod control;
mod dialback;
pub(crate) mod hub;
mod outbox;
mod passwords;
mod relay;
pub(crate) mod storage;
pub(crate) mod tls;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use parlor_protocol::wire::control::RelayToken;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::core::coordinator::Input;
use crate::core::door::{Door, PlaceId, TurnedAway};
use crate::core::{ConnId, LinkId};

use self::outbox::Outbox;
pub use self::tls::TlsError;

/// Events that may wait for the hub. Behind it, readers wait.
pub(crate) const EVENTS: usize = 1024;

/// What every task of a Room shares.
pub(crate) struct Shared {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) door: Arc<Mutex<Door>>,
    tls: Mutex<tokio_rustls::TlsAcceptor>,
    /// Control connections and links that have not been spliced.
    pub(crate) connections: TaskTracker,
    /// Everything else.
    pub(crate) tasks: TaskTracker,
    /// No connection is accepted any more.
    pub(crate) closing: CancellationToken,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
    pub(crate) counters: Counters,
    /// How those at the door are told that they have to go.
    displaced: Arc<Mutex<HashMap<PlaceId, CancellationToken>>>,
    next_id: AtomicU64,
}

/// What the shell counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) turned_away: AtomicU64,
}

/// Something the hub is told.
pub(crate) enum Event {
    /// A control connection has shaken hands.
    Opened { conn: ConnId, from: SocketAddr, exporter: [u8; 32], outbox: Outbox, place: Weak<Place> },
    /// A link shows a token.
    RelayHello { link: LinkId, token: RelayToken, stream: TcpStream, from: SocketAddr, place: Place },
    /// Anything that the core understands as it is.
    Core(Input),
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Shared");
        shown
            .field("connections", &self.connections.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(events: mpsc::Sender<Event>, door: Door, tls: tokio_rustls::TlsAcceptor) -> Self {
        let stop = CancellationToken::new();
        Self {
            events,
            door: Arc::new(Mutex::new(door)),
            tls: Mutex::new(tls),
            connections: TaskTracker::new(),
            tasks: TaskTracker::new(),
            closing: stop.child_token(),
            stop,
            counters: Counters::default(),
            displaced: Arc::default(),
            next_id: AtomicU64::new(0),
        }
    }

    /// Tells the hub. When the hub is gone, the Room is at its end and so is whoever tells.
    pub(crate) async fn tell(&self, event: Event) {
        let _ = self.events.send(event).await;
    }

    /// Runs what belongs to one connection until it is done or everything ends. It is boxed before it is wrapped: each
    /// layer around a future holds room for it twice.
    pub(crate) fn spawn_connection(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<Option<()>> {
        self.connections.spawn(self.stop.clone().run_until_cancelled_owned(Box::pin(work)))
    }

    /// What connections shake hands with.
    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        lock(&self.tls).clone()
    }

    /// Connections that come from now on shake hands with `tls`.
    pub(crate) fn set_acceptor(&self, tls: tokio_rustls::TlsAcceptor) {
        *lock(&self.tls) = tls;
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks the door for a place.
    pub(crate) fn enter(&self, ip: IpAddr, draw: u32) -> Result<Place, TurnedAway> {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let id = PlaceId(self.next_id());
        // Held until the place can be told to go, which may be at once.
        let mut door = lock(&self.door);
        match door.enter(id, ip, draw, clock::now()) {
            Ok(displaced) => {
                let goes = CancellationToken::new();
                let mut all = lock(&self.displaced);
                all.insert(id, goes.clone());
                if let Some(displaced) = displaced.and_then(|displaced| all.remove(&displaced)) {
                    self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                    displaced.cancel();
                }
                drop(all);
                drop(door);
                let (door, all) = (Arc::clone(&self.door), Arc::clone(&self.displaced));
                Ok(Place { door, all, id, goes })
            }
            Err(away) => {
                self.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                Err(away)
            }
        }
    }

    /// True if an address has been banned or kept out by now.
    pub(crate) fn keeps_out(&self, ip: IpAddr) -> bool {
        lock(&self.door).keeps_out(ip, clock::now()).is_some()
    }
}

/// A place among the connections that have not logged in. Dropping it gives it back.
pub(crate) struct Place {
    door: Arc<Mutex<Door>>,
    all: Arc<Mutex<HashMap<PlaceId, CancellationToken>>>,
    id: PlaceId,
    goes: CancellationToken,
}

impl Place {
    /// The connection has said something, or tries to log in.
    pub(crate) fn spoke(&self) {
        lock(&self.door).spoke(self.id);
    }

    /// The connection was refused a login.
    pub(crate) fn refused(&self) {
        lock(&self.door).refused(self.id);
    }

    /// Cancelled when the connection has to go for another.
    pub(crate) fn goes(&self) -> CancellationToken {
        self.goes.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.door).leave(self.id);
        lock(&self.all).remove(&self.id);
    }
}

/// Locks, also after a panic elsewhere: what these locks guard is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
