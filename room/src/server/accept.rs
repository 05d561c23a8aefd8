//! Listening, and what the first byte of a connection decides.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parlor_protocol::limits::{TLS_HANDSHAKE, WHOLE_LOGIN};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::preface;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::{Event, Place, Shared, control, relay};
use crate::chance::Random;
use crate::core::coordinator::Input;
use crate::core::door::TurnedAway;
use crate::core::penalty::Offence;
use crate::core::{Chance, LinkId};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// The pause after an accept that failed for want of descriptors or memory: others may give some back meanwhile.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Banned connections that are told so at once; more are just closed.
const GOODBYES: usize = 32;
/// For a banned connection to take the alert.
const GOODBYE: Duration = Duration::from_secs(1);

/// A TLS alert (RFC 8446 section 6): fatal, `access_denied`. A banned address costs the Room these seven bytes and
/// learns why; anybody between could forge them, and could as well cut the connection.
const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49];

/// Listens on `address`. A v6 listener takes v4, too, unless `v6_only`.
pub(crate) fn listen(address: SocketAddr, v6_only: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A Room that restarts must not wait for connections of the last one to fade.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the Room closes.
pub(crate) async fn run(shared: Arc<Shared>, listener: TcpListener, mut random: Random) {
    let goodbyes = Arc::new(Semaphore::new(GOODBYES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.closing.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                let draw = random.draw();
                let draw = u32::from_le_bytes([draw[0], draw[1], draw[2], draw[3]]);
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                admit(&shared, stream, from, draw, &goodbyes);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted at the moment");
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// True of errors that say something about the connection that came, not about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr, draw: u32, goodbyes: &Arc<Semaphore>) {
    match shared.enter(from.ip(), draw) {
        Ok(place) => {
            let serve = first_byte(Arc::clone(shared), stream, from, place);
            shared.connections.spawn(shared.stop.clone().run_until_cancelled_owned(serve));
        }
        Err(TurnedAway::Banned(banned)) => {
            tracing::debug!(address = %from, ?banned, "a banned address was turned away");
            if let Ok(permit) = Arc::clone(goodbyes).try_acquire_owned() {
                let told = async move {
                    let _permit = permit;
                    deny(stream).await;
                };
                shared.connections.spawn(shared.stop.clone().run_until_cancelled_owned(told));
            }
        }
        Err(TurnedAway::Crowded) => tracing::debug!(address = %from, "turned away: too many at the door"),
    }
}

/// Tells a client that speaks TLS that it is not wanted, and lets it finish what it was saying, so that a
/// reset does not take the alert along.
async fn deny(mut stream: TcpStream) {
    let _ = timeout(GOODBYE, async {
        let mut first = [0; 1];
        if stream.peek(&mut first).await? == 1 && first[0] == preface::TLS {
            stream.write_all(&ACCESS_DENIED).await?;
        }
        stream.shutdown().await?;
        let mut thrown_away = [0; 1024];
        while stream.read(&mut thrown_away).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

async fn first_byte(shared: Arc<Shared>, mut stream: TcpStream, from: SocketAddr, place: Place) {
    let login_by = Instant::now() + WHOLE_LOGIN;
    let mut first = [0; 1];
    let offence = match timeout(TLS_HANDSHAKE, stream.peek(&mut first)).await {
        // What comes next costs work, and the ban may have come meanwhile.
        Ok(Ok(1)) if shared.keeps_out(from.ip()) => return deny(stream).await,
        Ok(Ok(1)) => match first[0] {
            preface::TLS => return control::serve(shared, stream, from, place, login_by).await,
            preface::RELAY => match timeout(TLS_HANDSHAKE, token(&mut stream)).await {
                Ok(Ok(Ok(token))) => {
                    let link = LinkId(shared.next_id());
                    return shared.tell(Event::RelayHello { link, token, stream, from, place }).await;
                }
                // A newer or older user, not a hostile one.
                Ok(Ok(Err(preface::PrefaceError::Version(_)))) => {
                    return relay::refuse(stream, CloseCode::Version).await;
                }
                Ok(Ok(Err(preface::PrefaceError::Kind(_)))) => Some(Offence::Malformed),
                Ok(Err(_)) => None,
                Err(_) => Some(Offence::TimedOut),
            },
            _ => Some(Offence::Malformed),
        },
        // It came and went without a word, as one does who only looks whether somebody listens.
        Ok(_) => None,
        Err(_) => Some(Offence::TimedOut),
    };
    if let Some(offence) = offence {
        tracing::debug!(address = %from, ?offence, first = first[0], "closed at its first bytes");
        shared.tell(Event::Core(Input::Misbehaved { from: from.ip(), offence })).await;
    }
}

async fn token(
    stream: &mut TcpStream,
) -> io::Result<Result<parlor_protocol::wire::control::RelayToken, preface::PrefaceError>> {
    let mut bytes = [0; preface::RELAY_BYTES];
    // Another version's preface may be shorter.
    stream.read_exact(&mut bytes[..2]).await?;
    if bytes[1] == preface::VERSION {
        stream.read_exact(&mut bytes[2..]).await?;
    }
    Ok(preface::parse_relay(&bytes))
}
