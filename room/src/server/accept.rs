//! Listening, and what the first byte of a connection decides.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
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
/// Connections that are hung up on after each of these pauses.
const HANG_UPS: usize = 32;
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
    let mut reserve = Reserve::new();
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
                if is_for_want_of_descriptors(&error) {
                    reserve.hang_up(&listener);
                }
                sleep(BACK_OFF).await;
            }
        }
    }
}

/// A descriptor that is kept for when there is none left: with it connections that wait can be taken and hung up on, one
/// after the other, so that their users try again and do not wait for a Room that cannot answer.
struct Reserve(Option<File>);

impl Reserve {
    fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    fn hang_up(&mut self, listener: &TcpListener) {
        if self.0.take().is_some() {
            // Without waiting: when none is there any more, none is to be hung up on.
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..HANG_UPS {
                let Poll::Ready(Ok((stream, _))) = listener.poll_accept(&mut context) else { break };
                drop(stream);
            }
        }
        *self = Self::new();
    }
}

/// True of errors that say something about the connection that came, not about the listener. The system hands on what the
/// network said of it, and a firewall's no (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown,
        NetworkUnreachable, PermissionDenied, TimedOut,
    };
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
    )
}

/// True if this process or the system has no descriptor left: those who wait cannot be taken, and are better told.
fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr, draw: u32, goodbyes: &Arc<Semaphore>) {
    match shared.enter(from.ip(), draw) {
        Ok(place) => {
            shared.spawn_connection(serve(Arc::clone(shared), stream, from, place));
        }
        Err(TurnedAway::Banned(banned)) => {
            tracing::debug!(address = %from, ?banned, "a banned address was turned away");
            if let Ok(permit) = Arc::clone(goodbyes).try_acquire_owned() {
                let told = async move {
                    let _permit = permit;
                    deny(stream).await;
                };
                shared.spawn_connection(told);
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

/// Serves a connection that has entered, as its first byte says.
async fn serve(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr, place: Place) {
    let login_by = Instant::now() + WHOLE_LOGIN;
    // Boxed: what the beginning needs is given back when it is over.
    if let Some((secured, place)) = Box::pin(begin(&shared, stream, from, place)).await {
        control::serve(shared, secured, from, place, login_by).await;
    }
}

/// Everything up to a control connection that has shaken hands.
async fn begin(
    shared: &Shared,
    mut stream: TcpStream,
    from: SocketAddr,
    place: Place,
) -> Option<(control::Secured, Place)> {
    let mut first = [0; 1];
    let goes = place.goes();
    let heard = tokio::select! {
        heard = timeout(TLS_HANDSHAKE, stream.peek(&mut first)) => heard,
        () = goes.cancelled() => {
            tracing::debug!(address = %from, "silent, and had to go for another");
            return None;
        }
    };
    place.spoke();
    if goes.is_cancelled() {
        // Its first word crossed that.
        return None;
    }
    let offence = match heard {
        // What comes next costs work, and a ban may have come meanwhile.
        Ok(Ok(1)) if shared.keeps_out(from.ip()) => {
            Box::pin(deny(stream)).await;
            return None;
        }
        Ok(Ok(1)) => match first[0] {
            preface::TLS => return Some((Box::pin(control::secure(shared, stream, from)).await?, place)),
            preface::RELAY => match timeout(TLS_HANDSHAKE, token(&mut stream)).await {
                Ok(Ok(Ok(token))) => {
                    let link = LinkId(shared.next_id());
                    shared.tell(Event::RelayHello { link, token, stream, from, place }).await;
                    return None;
                }
                // A newer or older user, not a hostile one.
                Ok(Ok(Err(preface::PrefaceError::Version(_)))) => {
                    Box::pin(relay::refuse(stream, CloseCode::Version)).await;
                    return None;
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
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_who_waits_is_hung_up_on_for_what_the_network_says_of_another() {
        let is =
            |errno: Errno, about: fn(&io::Error) -> bool| about(&io::Error::from_raw_os_error(errno as i32));
        for errno in
            [Errno::ECONNABORTED, Errno::EPERM, Errno::ENETDOWN, Errno::ENETUNREACH, Errno::EHOSTUNREACH]
        {
            assert!(is(errno, is_of_one_connection) && !is(errno, is_for_want_of_descriptors), "{errno}");
        }
        for errno in [Errno::EMFILE, Errno::ENFILE] {
            assert!(is(errno, is_for_want_of_descriptors) && !is(errno, is_of_one_connection), "{errno}");
        }
        for errno in [Errno::ENOMEM, Errno::ENOBUFS, Errno::EBADF] {
            assert!(!is(errno, is_for_want_of_descriptors) && !is(errno, is_of_one_connection), "{errno}");
        }
    }
}
