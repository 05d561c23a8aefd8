//! A running Room, held by the program that started it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::{Fingerprint, PublicIdentity};
use parlor_protocol::limits::DRAIN;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::DropGuard;

use crate::admin::{
    self, AdminCall, AdminError, AdminErrorKind, AdminRequest, AdminResponse, AdminSocket, SocketError,
    StatusReport,
};
use crate::chance::Random;
use crate::clock;
use crate::config::{CertificateFiles, ConfigError, RoomConfig};
use crate::core::Chance;
use crate::core::coordinator::{Coordinator, Setup};
use crate::core::door::Door;
use crate::server::hub::Hub;
use crate::server::{EVENTS, Shared, accept, storage, tls};
use crate::store::{Loaded, Store, StoreError};

/// A place where programs meet.
#[derive(Debug, Clone, Copy)]
pub struct Room;

/// Why a Room does not start.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// What it was told makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot listen.
    #[error("cannot listen on {address}: {source}{}", hint(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It has nowhere to listen.
    #[error("there is no address to listen on; give at least one, such as 127.0.0.1:2428")]
    NoAddress,
    /// Its admin socket cannot be bound.
    #[error(transparent)]
    Admin(#[from] SocketError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The operating system has no random bytes.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// A thread of it ended early.
    #[error("a thread ended early: {0}")]
    Internal(#[from] tokio::task::JoinError),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program listens there: stop it, or choose another port with --listen"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        io::ErrorKind::PermissionDenied => "; choose a port from 1024 on",
        _ => "",
    }
}

/// Calls of the operator that may wait for the Room.
const CALLS: usize = 64;

/// Of the time in which a Room ends, what is left for the disk when users have not taken their last message.
const LAST_WRITES: Duration = Duration::from_secs(2);

impl Room {
    /// Starts a Room. When this returns, it listens. It runs until the handle is shut down or dropped.
    ///
    /// # Errors
    /// The configuration contradicts itself, the data directory or an address cannot be used.
    pub async fn bind(config: RoomConfig) -> Result<RoomHandle, RoomError> {
        let mut random = Random::from_system().map_err(RoomError::Random)?;
        let (seed, data) = (random.draw(), config.data.clone());
        let (store, loaded) =
            tokio::task::spawn_blocking(move || Store::open(data.as_deref(), seed)).await??;
        if config.accounts.is_empty() {
            store.has_its_accounts()?;
        }
        config.check_exposure(loaded.accounts.len())?;

        let identity = loaded.identity.public();
        let acceptor = match config.tls.clone() {
            Some(files) => tokio::task::spawn_blocking(move || tls::issued(&files)).await??,
            None => tls::acceptor(&loaded.identity)?,
        };
        let listeners = listen(&config.listen)?;
        let addresses = addresses(&listeners, identity.fingerprint())?;
        let admin_socket = config.data.as_deref().map(AdminSocket::bind).transpose()?;

        let setup = setup(
            &config,
            loaded,
            addresses.clone(),
            Box::new(Random::from_system().map_err(RoomError::Random)?),
        );
        let core = Coordinator::new(setup, clock::now());
        let mut door = Door::default();
        door.set_blacklist(core.blacklist());
        let (events, events_in) = mpsc::channel(EVENTS);
        let (calls, calls_in) = mpsc::channel(CALLS);
        let (changes, changes_in) = mpsc::channel(storage::CHANGES);
        let (drained, is_drained) = oneshot::channel();

        let shared = Arc::new(Shared::new(events, door, acceptor));
        let guard = shared.stop.clone().drop_guard();
        let hub = Hub::new(core, Arc::clone(&shared), &config.limits, changes);
        shared.tasks.spawn_blocking(move || storage::run(store, changes_in));
        shared.tasks.spawn(hub.run(events_in, calls_in, drained));
        if let Some(socket) = admin_socket {
            shared.tasks.spawn(admin::serve(socket, calls.clone(), shared.stop.clone()));
        }
        for listener in listeners {
            let random = Random::from_system().map_err(RoomError::Random)?;
            shared.tasks.spawn(accept::run(Arc::clone(&shared), listener, random));
        }
        let certificate = config.tls;
        Ok(RoomHandle {
            addresses,
            identity,
            certificate,
            calls,
            is_drained,
            shared,
            _stops_when_dropped: guard,
        })
    }
}

fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, RoomError> {
    if addresses.is_empty() {
        return Err(RoomError::NoAddress);
    }
    let bind = |address: &SocketAddr| {
        // Where v4 is listened for by its own address, v6 must leave it alone.
        let v4_too = addresses.iter().any(|other| other.is_ipv4() && other.port() == address.port());
        accept::listen(*address, v4_too).map_err(|source| RoomError::Listen { address: *address, source })
    };
    addresses.iter().map(bind).collect()
}

fn addresses(listeners: &[TcpListener], fingerprint: Fingerprint) -> Result<Vec<RoomAddress>, RoomError> {
    let address = |listener: &TcpListener| match listener.local_addr() {
        Ok(address) => Ok(RoomAddress::from_socket(address).with_fingerprint(fingerprint)),
        Err(source) => Err(RoomError::Listen { address: (IpAddr::from([0; 4]), 0).into(), source }),
    };
    listeners.iter().map(address).collect()
}

fn setup(config: &RoomConfig, loaded: Loaded, addresses: Vec<RoomAddress>, chance: Box<dyn Chance>) -> Setup {
    Setup {
        loaded,
        accounts: config.accounts.clone(),
        room_password: config.room_password.clone(),
        blacklist: config.blacklist.clone(),
        allow_unencrypted: config.allow_unencrypted,
        limits: config.limits.clone(),
        addresses,
        chance,
    }
}

/// A running Room. Dropping it ends the Room at once; [`shutdown`](Self::shutdown) ends it in order.
#[derive(Debug)]
pub struct RoomHandle {
    addresses: Vec<RoomAddress>,
    identity: PublicIdentity,
    certificate: Option<CertificateFiles>,
    calls: mpsc::Sender<AdminCall>,
    is_drained: oneshot::Receiver<()>,
    shared: Arc<Shared>,
    _stops_when_dropped: DropGuard,
}

impl RoomHandle {
    /// Where it listens, with the ports it really has and the fingerprint to hold it to.
    pub fn addresses(&self) -> Vec<RoomAddress> {
        self.addresses.clone()
    }

    /// What people compare of its key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Its key.
    pub fn identity(&self) -> PublicIdentity {
        self.identity
    }

    /// Does what an operator can do.
    pub async fn admin(&self, request: AdminRequest) -> AdminResponse {
        let (reply, answer) = oneshot::channel();
        let sent = self.calls.send(AdminCall { request, reply }).await;
        match (sent, answer.await) {
            (Ok(()), Ok(response)) => response,
            _ => AdminResponse::Failed(AdminError {
                kind: AdminErrorKind::Invalid,
                sentence: "the Room is shutting down".to_owned(),
            }),
        }
    }

    /// How it does.
    ///
    /// # Errors
    /// The Room is shutting down.
    pub async fn status(&self) -> Result<StatusReport, AdminError> {
        match self.admin(AdminRequest::Status).await {
            AdminResponse::Status(report) => Ok(report),
            other => Err(unexpected(other)),
        }
    }

    /// Bans a network: for a time, or until the ban is lifted. Sessions from there are cut before this returns.
    ///
    /// # Errors
    /// The ban is in force but could not be written, or the Room is shutting down.
    pub async fn ban(&self, net: IpNet, time: Option<Duration>) -> Result<(), AdminError> {
        let seconds = time.map(|time| time.as_secs());
        match self.admin(AdminRequest::BanAdd { net, seconds }).await {
            AdminResponse::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Reads the files of the issued certificate anew. Connections that come from now on get what they hold; those that
    /// are there stay. Without such a certificate there is nothing to do.
    ///
    /// # Errors
    /// The files cannot be used. The Room goes on with the certificate that it has.
    pub async fn renew_certificate(&self) -> Result<(), RoomError> {
        if let Some(files) = self.certificate.clone() {
            let acceptor = tokio::task::spawn_blocking(move || tls::issued(&files)).await??;
            self.shared.set_acceptor(acceptor);
        }
        Ok(())
    }

    /// Waits until the Room has ended by itself, which it does only through a fault of its own.
    pub async fn ended(&self) {
        self.shared.stop.cancelled().await;
    }

    /// Ends the Room in order: nobody is let in, everybody is told when to come back, what is to be kept is written,
    /// relayed links end. Takes at most [`DRAIN`], of which the last 2 seconds are left for
    /// the disk.
    pub async fn shutdown(self) {
        let Self { shared, is_drained, calls, .. } = self;
        let end = Instant::now() + DRAIN;
        shared.closing.cancel();
        drop(calls);
        let gone = async {
            let _ = is_drained.await;
            shared.connections.close();
            shared.connections.wait().await;
        };
        if timeout_at(end - LAST_WRITES, gone).await.is_err() {
            tracing::warn!("some connections did not end in time and are cut");
        }
        shared.stop.cancel();
        shared.tasks.close();
        if timeout_at(end, shared.tasks.wait()).await.is_err() {
            tracing::error!("the data directory was not written in time");
        }
    }
}

fn unexpected(response: AdminResponse) -> AdminError {
    match response {
        AdminResponse::Failed(error) => error,
        other => AdminError {
            kind: AdminErrorKind::Invalid,
            sentence: format!("an answer to something else: {other:?}"),
        },
    }
}
