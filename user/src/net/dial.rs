//! Connections this user opens: to a peer, to the Room's relay, and to the first of several addresses that
//! answers. None goes to an address on the blacklist.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parlor_protocol::introduction::IntroductionId;
use parlor_protocol::limits::LINK_KEEPALIVE;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::RelayToken;
use parlor_protocol::wire::preface;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::blacklist::Blacklist;

/// A further address is tried beside the earlier ones after this long (RFC 8305 section 5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// Before the relay is asked again after it hung up. By then those who came first have shown their tokens.
const HUNG_UP: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];

/// Why the Room's relay gave no link.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The connection failed.
    #[error("the Room's relay cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// The Room does not take the token.
    #[error("the Room's relay refused the link: {0}")]
    Refused(CloseCode),
    /// The Room answered with a byte that means nothing. The Room is at fault.
    #[error("the Room's relay answered {0:#04x}, which means nothing")]
    Answer(u8),
    /// The peer did not come in time.
    #[error("the peer did not come to the Room's relay in time")]
    TimedOut,
}

/// Connects to a peer's listener and says which introduction the link is for. The handshake's first message
/// is the caller's to send.
pub async fn dial(
    address: SocketAddr,
    introduction: IntroductionId,
    deadline: Duration,
    blacklist: &Blacklist,
) -> io::Result<TcpStream> {
    let dialed = timeout(deadline, async {
        let mut stream = connect(address, blacklist).await?;
        stream.write_all(&preface::link(&introduction)).await?;
        Ok(stream)
    });
    dialed.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Connects to the Room's relay and waits there for the peer. `room` are addresses of the Room's port, the
/// one the control connection uses first. After success every byte is the peer's.
///
/// A Room lets few connections from one address begin at once, and hangs up on the rest: where many users behind one
/// address lose their direct paths together, those come again.
pub async fn dial_relay(
    room: &[SocketAddr],
    token: &RelayToken,
    deadline: Duration,
) -> Result<TcpStream, RelayError> {
    let linked = timeout(deadline, async {
        let mut pauses = HUNG_UP.into_iter();
        loop {
            let stream = connect_any(room, &Blacklist::default()).await?;
            match (ask_relay(stream, token).await, pauses.next()) {
                (Err(RelayError::Io(_)), Some(pause)) => sleep(pause).await,
                (done, _) => return done,
            }
        }
    });
    linked.await.unwrap_or(Err(RelayError::TimedOut))
}

/// Shows the token and waits for the peer.
async fn ask_relay(mut stream: TcpStream, token: &RelayToken) -> Result<TcpStream, RelayError> {
    stream.write_all(&preface::relay(token)).await?;
    match stream.read_u8().await? {
        preface::RELAY_READY => Ok(stream),
        preface::RELAY_REFUSED => Err(RelayError::Refused(stream.read_u16_le().await?.into())),
        other => Err(RelayError::Answer(other)),
    }
}

/// Connects to the first of `addresses` that answers: each gets a head start of 250 ms before the next, less
/// if it fails sooner (RFC 8305 in small). The error is the last one. Has no deadline of its own.
pub async fn connect_any(addresses: &[SocketAddr], blacklist: &Blacklist) -> io::Result<TcpStream> {
    let mut waiting = addresses.iter();
    let mut trying = FuturesUnordered::new();
    let mut failed = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address to connect to");
    loop {
        match waiting.next() {
            Some(&address) => trying.push(connect(address, blacklist)),
            None if trying.is_empty() => return Err(failed),
            None => {}
        }
        tokio::select! {
            Some(outcome) = trying.next() => match outcome {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            },
            () = sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

async fn connect(address: SocketAddr, blacklist: &Blacklist) -> io::Result<TcpStream> {
    if blacklist.blocks(address.ip()) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the Room has banned this address"));
    }
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Small messages leave at once, and the system notices a peer that is gone even if nobody writes.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(LINK_KEEPALIVE).with_interval(LINK_KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// An address that refuses while the socket is there, which is bound and does not listen.
    fn refusing() -> (TcpSocket, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn a_peer_hears_first_which_introduction_a_link_is_for() {
        let (listener, address) = listener().await;
        let id = IntroductionId([7; 16]);
        let blacklist = Blacklist::default();
        let (dialed, accepted) = tokio::join!(dial(address, id, LONG, &blacklist), listener.accept());
        let mut bytes = [0; preface::LINK_BYTES];
        accepted.unwrap().0.read_exact(&mut bytes).await.unwrap();
        assert_eq!(preface::parse_link(&bytes), Ok(id));
        assert!(dialed.unwrap().nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_banned_address_is_not_dialed() {
        let (listener, address) = listener().await;
        let blacklist = Blacklist::default();
        blacklist.set(vec!["127.0.0.1/32".parse().unwrap()]);
        let error = dial(address, IntroductionId([7; 16]), LONG, &blacklist).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        drop(listener);
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_the_next_one_waiting() {
        let (_closed, refusing) = refusing();
        let (_listener, answering) = listener().await;
        let stream = connect_any(&[refusing, answering], &Blacklist::default()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), answering);
        assert!(connect_any(&[], &Blacklist::default()).await.is_err());
        let error = connect_any(&[refusing], &Blacklist::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_relay_that_hangs_up_in_a_crowd_is_asked_again_and_one_that_is_gone_is_not() {
        let (listener, address) = listener().await;
        let token = RelayToken([9; 32]);
        let room = [address];
        let accept = async {
            let mut bytes = [0; preface::RELAY_BYTES];
            drop(listener.accept().await.unwrap());
            let (mut hung_up, _) = listener.accept().await.unwrap();
            hung_up.read_exact(&mut bytes).await.unwrap();
            drop(hung_up);
            let (mut taken, _) = listener.accept().await.unwrap();
            taken.read_exact(&mut bytes).await.unwrap();
            taken.write_all(&[preface::RELAY_READY]).await.unwrap();
            taken
        };
        let (linked, _taken) = tokio::join!(dial_relay(&room, &token, LONG), accept);
        linked.unwrap();
        let (_closed, gone) = refusing();
        assert!(matches!(dial_relay(&[gone], &token, LONG).await, Err(RelayError::Io(_))));
    }

    #[tokio::test]
    async fn the_relay_gives_a_link_or_says_why_not() {
        let (listener, address) = listener().await;
        let token = RelayToken([9; 32]);
        let answers: [&[u8]; 3] = [&[preface::RELAY_READY, 42], &[preface::RELAY_REFUSED, 32, 0], &[77]];
        let room = async {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; preface::RELAY_BYTES];
                stream.read_exact(&mut bytes).await.unwrap();
                assert_eq!(preface::parse_relay(&bytes), Ok(token));
                stream.write_all(answer).await.unwrap();
            }
        };
        let user = async {
            let mut link = dial_relay(&[address], &token, LONG).await.unwrap();
            assert_eq!(link.read_u8().await.unwrap(), 42);
            let refused = dial_relay(&[address], &token, LONG).await.unwrap_err();
            assert!(matches!(refused, RelayError::Refused(CloseCode::Introduction)), "{refused}");
            let wrong = dial_relay(&[address], &token, LONG).await.unwrap_err();
            assert!(matches!(wrong, RelayError::Answer(77)), "{wrong}");
        };
        tokio::join!(room, user);
    }
}
