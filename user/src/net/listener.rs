//! The user's TCP listener, where peers dial in and the Room checks the address.
//!
//! The first byte of a connection tells what it is. A check is answered here; a link is handed on with the id
//! of its introduction, and nothing of it is believed yet. Everything else, everything slow and every address
//! on the blacklist is dropped without an answer. At most
//! [`LINK_HANDSHAKES`](parlor_protocol::limits::LINK_HANDSHAKES) connections, and fewer of one address, are between
//! accept and the end of their handshake: an [`Arrival`] holds its place until it is dropped.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parlor_protocol::introduction::IntroductionId;
use parlor_protocol::wire::preface;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::blacklist::Blacklist;
use super::dial::tune;
pub use super::places::Place;
use super::places::Places;

/// A whole preface must be there by then: it is one packet.
const PREFACE_DEADLINE: Duration = Duration::from_secs(5);
/// The Room checks an address as soon as it has sent the `Welcome` with the key; the user may read that later.
const KEY_DEADLINE: Duration = Duration::from_secs(1);
/// After the system could not accept (out of files, mostly): long enough for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections the system holds until they are accepted.
const BACKLOG: i32 = 1024;

/// The port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program listens there.
    #[error("port {port} is taken by another program: choose another --port, or 0 for any")]
    Taken {
        /// The port.
        port: u16,
    },
    /// The system refused.
    #[error("cannot listen on port {port}: {source}; choose another --port, or 0 for any")]
    Io {
        /// The port.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// The key with which the Room's checks are answered: the one of the last `Welcome`, none while a login is under
/// way. Clones are the same key. Without one a check waits a second for it.
#[derive(Clone, Default)]
pub struct CheckKey {
    key: Arc<watch::Sender<Option<Arc<[u8; 32]>>>>,
}

impl CheckKey {
    /// From now on this is the key.
    pub fn store(&self, key: Option<Arc<[u8; 32]>>) {
        self.key.send_replace(key);
    }

    /// The key, as soon as there is one.
    async fn known(&self) -> Option<Arc<[u8; 32]>> {
        let mut key = self.key.subscribe();
        let known = timeout(KEY_DEADLINE, key.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone()
    }
}

impl fmt::Debug for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckKey(..)")
    }
}

/// A link that a peer opened, before its handshake.
#[derive(Debug)]
pub struct Arrival {
    /// The connection. The handshake's first message comes next.
    pub stream: TcpStream,
    /// Where it comes from; a v4 address is a v4 address.
    pub from: SocketAddr,
    /// The introduction that the peer says it is for.
    pub introduction: IntroductionId,
    /// The place among the handshakes under way. Drop it when this one is over.
    pub place: Place,
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    port: u16,
}

impl Listener {
    /// Listens on `port` of every address, v6 and v4; 0 picks a free one. Needs a tokio runtime.
    pub fn bind(port: u16) -> Result<Self, ListenError> {
        let both = bind_to(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let socket = match both {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                // No v6 on this machine.
                bind_to(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            }
            bound => bound,
        };
        let bound = socket.and_then(|socket| {
            let port = socket.local_addr()?.port();
            Ok(Self { socket, port })
        });
        bound.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::Taken { port },
            _ => ListenError::Io { port, source },
        })
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Accepts until `stop` is cancelled, and hands links to `arrivals`. A link for which there is no room
    /// there is dropped: its peer tries again or on another rung.
    pub async fn run(
        self,
        arrivals: mpsc::Sender<Arrival>,
        blacklist: Blacklist,
        check_key: CheckKey,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        let places = Places::default();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok((stream, from)) => (stream, SocketAddr::new(from.ip().to_canonical(), from.port())),
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if blacklist.blocks(from.ip()) {
                tracing::debug!(%from, "dropped: the address is banned");
                continue;
            }
            let Some(place) = places.take(from.ip()) else {
                tracing::debug!(%from, "dropped: too many handshakes at once, in all or from there");
                continue;
            };
            let (arrivals, check_key, stop) = (arrivals.clone(), check_key.clone(), stop.clone());
            tasks.spawn(async move {
                let met = timeout(PREFACE_DEADLINE, meet(stream, from, place, &arrivals, &check_key));
                tokio::select! {
                    () = stop.cancelled() => {}
                    met = met => if let Ok(Err(error)) = met {
                        tracing::debug!(%from, %error, "dropped before its handshake");
                    },
                }
            });
        }
    }
}

async fn meet(
    mut stream: TcpStream,
    from: SocketAddr,
    place: Place,
    arrivals: &mpsc::Sender<Arrival>,
    check_key: &CheckKey,
) -> io::Result<()> {
    tune(&stream)?;
    match stream.read_u8().await? {
        preface::LINK => {
            let bytes = read_preface(&mut stream, preface::LINK).await?;
            let introduction = preface::parse_link(&bytes).map_err(io::Error::other)?;
            let arrival = Arrival { stream, from, introduction, place };
            arrivals.try_send(arrival).map_err(|_| io::Error::other("nobody takes the link"))
        }
        preface::CHECK => {
            let bytes = read_preface(&mut stream, preface::CHECK).await?;
            let nonce = preface::parse_check(&bytes).map_err(io::Error::other)?;
            let key = check_key.known().await;
            let key = key.ok_or_else(|| io::Error::other("a check without a welcome"))?;
            stream.write_all(&preface::check_answer(&key, &nonce)).await?;
            stream.shutdown().await
        }
        other => Err(io::Error::other(preface::PrefaceError::Kind(other))),
    }
}

async fn read_preface<const N: usize>(stream: &mut TcpStream, kind: u8) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    bytes[0] = kind;
    stream.read_exact(&mut bytes[1..]).await?;
    Ok(bytes)
}

fn bind_to(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A port whose last connections still linger can be listened on again. On Windows it would allow two
    // listeners.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dial::dial;

    struct Running {
        port: u16,
        arrivals: mpsc::Receiver<Arrival>,
        blacklist: Blacklist,
        check_key: CheckKey,
        tasks: TaskTracker,
        stop: CancellationToken,
    }

    impl Running {
        fn start() -> Self {
            let listener = Listener::bind(0).unwrap();
            let (sender, arrivals) = mpsc::channel(4);
            let running = Self {
                port: listener.port(),
                arrivals,
                blacklist: Blacklist::default(),
                check_key: CheckKey::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            };
            running.tasks.spawn(listener.run(
                sender,
                running.blacklist.clone(),
                running.check_key.clone(),
                running.tasks.clone(),
                running.stop.clone(),
            ));
            running
        }

        fn v4(&self) -> SocketAddr {
            SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
        }

        async fn stop(self) {
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
        }
    }

    /// What the listener says until it closes the connection.
    async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_link_arrives_with_its_introduction_and_a_v4_address() {
        let mut listener = Running::start();
        let id = IntroductionId([5; 16]);
        let dialed = dial(listener.v4(), id, Duration::from_secs(20), &Blacklist::default()).await.unwrap();
        let arrival = listener.arrivals.recv().await.unwrap();
        assert_eq!(arrival.introduction, id);
        assert_eq!(arrival.from, dialed.local_addr().unwrap());
        listener.stop().await;
    }

    #[tokio::test]
    async fn the_rooms_check_is_answered_with_the_key_of_the_last_welcome() {
        let listener = Running::start();
        let check = preface::check(&[9; 32]);
        assert!(answer_to(listener.v4(), &check).await.is_empty());
        for key in [[3; 32], [4; 32]] {
            listener.check_key.store(Some(Arc::new(key)));
            assert_eq!(answer_to(listener.v4(), &check).await, preface::check_answer(&key, &[9; 32]));
        }
        listener.stop().await;
    }

    #[tokio::test]
    async fn a_check_that_comes_before_its_key_waits_for_it() {
        let listener = Running::start();
        let check = preface::check(&[9; 32]);
        let asked = answer_to(listener.v4(), &check);
        // In one task: the check is on its way before the key is stored.
        tokio::pin!(asked);
        tokio::select! {
            biased;
            _ = &mut asked => panic!("answered without a key"),
            () = waiting_for_key(&listener.check_key) => {}
        }
        listener.check_key.store(Some(Arc::new([3; 32])));
        assert_eq!(asked.await, preface::check_answer(&[3; 32], &[9; 32]));
        listener.stop().await;
    }

    #[test]
    fn a_check_key_is_not_shown() {
        let key = CheckKey::default();
        key.store(Some(Arc::new([0x5a; 32])));
        assert_eq!(format!("{key:?}"), "CheckKey(..)");
    }

    /// Until somebody waits for the key.
    async fn waiting_for_key(key: &CheckKey) {
        while key.key.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_neither_link_nor_check_and_who_is_banned_gets_no_answer() {
        let listener = Running::start();
        listener.check_key.store(Some(Arc::new([3; 32])));
        assert!(answer_to(listener.v4(), b"GET / HTTP/1.1\r\n\r\n").await.is_empty());
        listener.blacklist.set(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(answer_to(listener.v4(), &preface::check(&[9; 32])).await.is_empty());
        listener.stop().await;
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = Listener::bind(0).unwrap();
        let error = Listener::bind(first.port()).unwrap_err();
        assert!(matches!(error, ListenError::Taken { port } if port == first.port()), "{error}");
        assert!(error.to_string().contains(&first.port().to_string()));
    }

    #[tokio::test]
    async fn links_beyond_the_limit_are_dropped_until_a_handshake_ends() {
        let mut listener = Running::start();
        let id = IntroductionId([5; 16]);
        let mut places = Vec::new();
        for _ in 0..32 {
            let dialed = dial(listener.v4(), id, Duration::from_secs(20), &Blacklist::default()).await;
            places.push((dialed.unwrap(), listener.arrivals.recv().await.unwrap()));
        }
        assert!(answer_to(listener.v4(), &preface::link(&id)).await.is_empty());
        assert!(listener.arrivals.try_recv().is_err());
        places.pop();
        dial(listener.v4(), id, Duration::from_secs(20), &Blacklist::default()).await.unwrap();
        assert!(listener.arrivals.recv().await.is_some());
        listener.stop().await;
    }
}
