//! From an address to a Room that has proved who it is. Nothing secret is known here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parlor_protocol::address::{Host, RoomAddress};
use parlor_protocol::identity::Purpose;
use parlor_protocol::limits::{FRAME_BEFORE_LOGIN, LINK_ATTEMPT, TLS_HANDSHAKE};
use parlor_protocol::wire::control::{Hello, HelloReply, ToRoom, ToUser, VERSION};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{JoinError, LostReason, RoomFault};
use super::frames;
use crate::net::blacklist::Blacklist;
use crate::net::dial::connect_any;
use crate::net::tls::{self, HandshakeFailure, RoomCertificate};
use crate::trust::Seen;

/// A name must be resolved by then: resolvers themselves give up after 5 s a server.
const RESOLVE: Duration = Duration::from_secs(5);
/// The Room's answer to `Hello` must be there by then.
const HELLO: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 16;

/// A Room that has proved its identity on this connection. Whether it is the right one is not known yet.
pub(super) struct Greeted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) socket: SocketAddr,
    pub(super) hello: HelloReply,
    pub(super) exporter: [u8; 32],
    pub(super) seen: Seen,
}

/// Connects to a Room and hears who it is.
pub(super) async fn greet(
    address: &RoomAddress,
    agent: &str,
    config: &Arc<ClientConfig>,
) -> Result<Greeted, JoinError> {
    let unreachable = |source| JoinError::Unreachable { address: address.clone(), source };
    let late = |during| JoinError::Timeout { address: address.clone(), during };
    let misbehaved = |fault| JoinError::Misbehaved { address: address.clone(), fault };

    let sockets = timeout(RESOLVE, resolve(address))
        .await
        .map_err(|_| late("resolving its name"))?
        .map_err(unreachable)?;
    let tcp = timeout(LINK_ATTEMPT, connect_any(&sockets, &Blacklist::default()))
        .await
        .map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?
        .map_err(unreachable)?;
    let socket = tcp.peer_addr().map_err(unreachable)?;
    let name = server_name(address)?;
    let mut stream = timeout(TLS_HANDSHAKE, TlsConnector::from(Arc::clone(config)).connect(name, tcp))
        .await
        .map_err(|_| late("TLS handshake"))?
        .map_err(|error| handshake_error(address, error))?;

    let (_, tls) = stream.get_ref();
    let exporter = tls::exporter_of(tls)?;
    let certificate = tls::certificate_of(tls).ok_or_else(|| misbehaved(RoomFault::NotTls))?;
    let hello = timeout(HELLO, hello(&mut stream, address, agent)).await.map_err(|_| late("hello"))??;
    let certified = match certificate {
        RoomCertificate::OfAuthority => true,
        RoomCertificate::OfIdentity(key) if key == hello.room => false,
        RoomCertificate::OfIdentity(_) => return Err(misbehaved(RoomFault::CertificateKey)),
    };
    hello
        .room
        .verify(Purpose::RoomProof, &exporter, &hello.proof)
        .map_err(|_| misbehaved(RoomFault::Proof))?;
    let seen = Seen { fingerprint: hello.room.fingerprint(), certified };
    Ok(Greeted { stream, socket, hello, exporter, seen })
}

async fn hello(
    stream: &mut TlsStream<TcpStream>,
    address: &RoomAddress,
    agent: &str,
) -> Result<HelloReply, JoinError> {
    let lost = |why| lost_while_joining(address, why);
    frames::write(stream, &ToRoom::Hello(Hello::new(agent))).await.map_err(lost)?;
    match frames::read(stream, FRAME_BEFORE_LOGIN).await.map_err(lost)? {
        ToUser::HelloReply(hello) if hello.version == VERSION => Ok(hello),
        ToUser::HelloReply(hello) => Err(lost(RoomFault::Version(hello.version).into())),
        ToUser::LoginRefused(why) => Err(JoinError::Refused(why)),
        ToUser::Closing(closing) => Err(JoinError::Ended(closing)),
        other => Err(lost(RoomFault::Unexpected(frames::kind(&other)).into())),
    }
}

/// What a connection that breaks off means for a join.
pub(super) fn lost_while_joining(address: &RoomAddress, why: LostReason) -> JoinError {
    let address = address.clone();
    match why {
        LostReason::Closed(closing) => JoinError::Ended(closing),
        LostReason::Io(source) => JoinError::Unreachable { address, source },
        LostReason::Silent | LostReason::Stuck => JoinError::Timeout { address, during: "login" },
        LostReason::Misbehaved(fault) => JoinError::Misbehaved { address, fault },
    }
}

fn handshake_error(address: &RoomAddress, error: io::Error) -> JoinError {
    let address = address.clone();
    match tls::failure_of(&error) {
        Some(HandshakeFailure::TurnedAway) => JoinError::TurnedAway { address },
        Some(HandshakeFailure::Certificate(why)) => JoinError::Certificate { address, why: told(&why) },
        Some(HandshakeFailure::NotTls) => JoinError::Misbehaved { address, fault: RoomFault::NotTls },
        None if frames::is_end(&error) => JoinError::HungUp { address },
        None => JoinError::Unreachable { address, source: error },
    }
}

/// What is wrong with a certificate. One that is not of this time may be good, and this machine's clock wrong.
fn told(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("{why}; if this machine's clock is wrong, set it")
        }
        other => other.to_string(),
    }
}

/// The socket addresses of a Room, families in turn, the system's first choice first (RFC 8305 section 4).
async fn resolve(address: &RoomAddress) -> io::Result<Vec<SocketAddr>> {
    let name = match address.host() {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, address.port())]),
        Host::Name(name) => name.as_str(),
    };
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name, address.port())).await?.collect();
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, others): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|socket| socket.is_ipv6() == first_is_v6);
    Ok(in_turn(preferred, others).take(ADDRESSES).collect())
}

fn in_turn<T>(first: Vec<T>, second: Vec<T>) -> impl Iterator<Item = T> {
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut firsts_turn = false;
    std::iter::from_fn(move || {
        firsts_turn = !firsts_turn;
        if firsts_turn {
            first.next().or_else(|| second.next())
        } else {
            second.next().or_else(|| first.next())
        }
    })
}

fn server_name(address: &RoomAddress) -> Result<ServerName<'static>, JoinError> {
    match address.host() {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|error| JoinError::Certificate { address: address.clone(), why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_tried_in_turn() {
        let order: Vec<u8> = in_turn(vec![1, 2, 3], vec![10]).collect();
        assert_eq!(order, [1, 10, 2, 3]);
        let order: Vec<u8> = in_turn(vec![1], vec![10, 20]).collect();
        assert_eq!(order, [1, 10, 20]);
    }

    #[tokio::test]
    async fn an_address_in_digits_is_used_as_it_is() {
        let address: RoomAddress = "[::1]:7".parse().unwrap();
        assert_eq!(resolve(&address).await.unwrap(), ["[::1]:7".parse().unwrap()]);
    }
}
