//! Links come up by a handshake, are read until they end, and go.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::handshake::{
    HandshakeError, HandshakeSetup, Initiator, Responder, framed_message, framed_refusal, message_length,
};
use parlor_protocol::noise::payload::{LinkAccept, LinkHello};
use parlor_protocol::noise::records::{Opener, RecordError, RecordKeys, Sealer};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::codec::DecodeError;
use parlor_protocol::wire::peer::PeerMisbehaved;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::turn::TurnOf;
use super::{Conversation, Events, State, UNREAD};
use crate::clock;
use crate::core::channel::{After, Channel, Event as ChannelEvent, LinkId, Terms};
use crate::hub::{Hub, Known};
use crate::net::link::{Link, ReadError, Reader};

/// After the last record a link's socket is read to its end, so that what was written arrives before the socket is
/// torn down. At most this long.
const LINGER: Duration = Duration::from_secs(1);

/// A connection whose other end opens the handshake.
pub(crate) struct Incoming {
    pub(crate) stream: TcpStream,
    pub(crate) known: Arc<Known>,
    /// The rungs it may be on.
    pub(crate) rungs: Vec<Rung>,
}

/// Why a handshake made no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    Record(#[from] RecordError),
    #[error("{0}")]
    Payload(#[from] DecodeError),
    #[error("{0}")]
    Relay(#[from] crate::net::dial::RelayError),
    #[error("the peer refused: {0}")]
    Refused(CloseCode),
    #[error("the peer said nothing after the handshake: {0}")]
    Silent(#[from] ReadError),
    #[error("the handshake was about a session that is over")]
    Stale,
    #[error("records would go in the clear beyond the host or the LAN")]
    ClearAbroad,
    #[error("the peer proved another key than the one expected under its name")]
    OtherKey,
    #[error("too many messages of this peer wait to be read")]
    Unread,
    #[error("timed out")]
    TimedOut,
    #[error("this user has left the room")]
    Left,
    #[error("the system gives no random bytes")]
    Random,
}

/// A link that the handshake has proved.
struct Proved {
    stream: Stream,
    rung: Rung,
    cipher: Cipher,
    sealer: Sealer,
    terms: Terms,
    /// The record that proved the initiator alive.
    first: Option<Bytes>,
}

/// How far the records that a link has read were taken in.
enum Taken {
    /// All of them.
    All,
    /// All before the next one, which waits for another link's turn to be over.
    NotInTurn,
    /// The peer says nothing more on it.
    Last,
}

enum Stream {
    Whole(TcpStream, Opener),
    Split(tokio::net::tcp::OwnedWriteHalf, Reader),
}

impl Conversation {
    /// Opens a handshake on a connection and takes the link in.
    pub(super) async fn open_link(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        mut stream: TcpStream,
        rung: Rung,
        known: &Known,
    ) -> Result<LinkId, LinkError> {
        let hello = self.lock().channel.hello();
        let (initiator, message) = Initiator::start(setup(hub, known, rung, true)?, &hello.encode())?;
        stream.write_all(&framed_message(&message)).await?;
        let message = read_message(&mut stream).await?;
        let (payload, keys) = initiator.finish(&message)?;
        let accept = LinkAccept::decode(&payload)?;
        let terms = Channel::<(), ()>::terms_of(&hello, &accept);
        let (cipher, (sealer, opener)) = split(keys)?;
        let stream = Stream::Whole(stream, opener);
        self.adopt(hub, known, Proved { stream, rung, cipher, sealer, terms, first: None })
    }

    /// Answers a handshake on a connection and takes the link in once its initiator has proved itself alive.
    pub(crate) async fn answer_link(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        incoming: Incoming,
    ) -> Result<(LinkId, Rung), LinkError> {
        let Incoming { mut stream, known, rungs } = incoming;
        let message = read_message(&mut stream).await?;
        let answered = Responder::answer_any(setup(hub, &known, Rung::Relay, false)?, &rungs, &message);
        let (rung, payload, pending) = match answered {
            Ok(answered) => answered,
            Err(error) => return refuse(&mut stream, error.close_code(), error.into()).await,
        };
        let hello = match LinkHello::decode(&payload) {
            Ok(hello) => hello,
            Err(error) => return refuse(&mut stream, CloseCode::Malformed, error.into()).await,
        };
        let judged = self.lock().channel.judge(&hello);
        let Ok((accept, terms)) = judged else {
            return refuse(&mut stream, CloseCode::Superseded, LinkError::Stale).await;
        };
        let (message, keys) = pending.reply(&accept.encode())?;
        stream.write_all(&framed_message(&message)).await?;
        let (cipher, (sealer, opener)) = split(keys)?;
        let (read, write) = stream.into_split();
        let mut reader = Reader::new(read, opener, cipher);
        let first = Some(reader.record().await?);
        let stream = Stream::Split(write, reader);
        let id = self.adopt(hub, &known, Proved { stream, rung, cipher, sealer, terms, first })?;
        Ok((id, rung))
    }

    /// Binds a proved link to the channel and starts its tasks.
    fn adopt(self: &Arc<Self>, hub: &Arc<Hub>, known: &Known, proved: Proved) -> Result<LinkId, LinkError> {
        if hub.has_left() {
            return Err(LinkError::Left);
        }
        if known.peer != self.peer || !hub.pin(known) {
            return Err(LinkError::OtherKey);
        }
        let Proved { stream, rung, cipher, sealer, terms, first } = proved;
        let (write, reader) = match stream {
            Stream::Split(write, reader) => (write, reader),
            Stream::Whole(stream, opener) => {
                let (read, write) = stream.into_split();
                (write, Reader::new(read, opener, cipher))
            }
        };
        let id = hub.next_link();
        let link = Link::new(id, rung, cipher, write, sealer, hub.stop.child_token());
        let mut events = Vec::new();
        let now = clock::now();
        {
            let mut state = self.lock_keeper();
            let progress = state.channel.progress();
            if state.unread > UNREAD && !state.channel.goes_on(&terms) {
                return Err(LinkError::Unread);
            }
            state.links.insert(id, Arc::clone(&link));
            let bound = state.channel.bind(id, rung, &terms, now, &mut events);
            if events.iter().any(|event| matches!(event, ChannelEvent::SessionReset { .. })) {
                "the peer restarted or forgot the conversation".clone_into(&mut state.interruption);
                state.note_session_end_at(progress);
            }
            if bound.is_err() {
                state.links.remove(&id);
            }
            state.refresh();
            self.settle(&mut state);
            if bound.is_err() {
                drop(state);
                self.dispatch(&mut events);
                return Err(LinkError::Stale);
            }
            state.story.tell(now, Some(rung), "connected: the peer proved its identity".to_owned());
            state.keeper.linked();
        }
        hub.tasks.spawn(Arc::clone(&link).write(Arc::clone(self)));
        hub.tasks.spawn(Arc::clone(self).read(Arc::clone(&link), reader, first));
        self.dispatch(&mut events);
        link.flush(&**self);
        self.keep_running(hub);
        Ok(id)
    }

    /// Reads a link until it ends.
    async fn read(self: Arc<Self>, link: Arc<Link>, mut reader: Reader, first: Option<Bytes>) {
        let mut events = Vec::new();
        let (mut record, mut now) = (first, clock::now());
        let over = link.over.clone();
        let over = over.cancelled();
        tokio::pin!(over);
        // Also if this task dies.
        let _turn = TurnOf { conversation: &self, link: link.id };
        let why = loop {
            match self.take_records(&link, &mut reader, &mut record, &mut events, &mut now) {
                Ok(Taken::All) => {}
                Ok(Taken::NotInTurn) => tokio::select! {
                    biased;
                    () = &mut over => break "closed".to_owned(),
                    () = self.turn_is_over() => continue,
                },
                Ok(Taken::Last) => break "the peer closed it".to_owned(),
                Err(error) => break error,
            }
            self.after_reading(&link, now);
            tokio::select! {
                biased;
                () = &mut over => break "closed".to_owned(),
                read = reader.read() => if let Err(error) = read {
                    break error.to_string();
                }
            }
        };
        self.drop_link(&link, &why, &mut events);
        drop(link);
        // The peer's last records may still be under way; a socket with unread bytes would reset theirs.
        let _ = timeout(LINGER, async { while reader.discard().await {} }).await;
    }

    /// Takes in and acts on every whole record that has been read. `next` is one that has been opened already; it
    /// is there again when another link has its turn.
    fn take_records(
        self: &Arc<Self>,
        link: &Arc<Link>,
        reader: &mut Reader,
        next: &mut Option<Bytes>,
        events: &mut Events,
        now: &mut Instant,
    ) -> Result<Taken, String> {
        loop {
            let record = match next.take() {
                Some(record) => record,
                None => match reader.next() {
                    Ok(Some(record)) => record,
                    Ok(None) => return Ok(Taken::All),
                    Err(error) => return Err(error.to_string()),
                },
            };
            *now = clock::now();
            let Some((taken, session)) = self.take_record(link.id, &record, *now, events) else {
                *next = Some(record);
                return Ok(Taken::NotInTurn);
            };
            drop(record);
            self.dispatch_of(session, events);
            match taken {
                Ok(after) => {
                    if after.rekey {
                        reader.rekey().map_err(|error| error.to_string())?;
                    }
                    if after.closed {
                        return Ok(Taken::Last);
                    }
                }
                Err(misbehaved) => {
                    let now = clock::now();
                    let mut state = self.lock();
                    state.channel.close_link(link.id, misbehaved.close_code(), now, events);
                    state.refresh();
                    drop(state);
                    self.dispatch(events);
                    link.flush(&**self);
                    return Err(format!("the peer misbehaved: {misbehaved}"));
                }
            }
        }
    }

    /// Takes a record in, if it is the link's turn, and says in which session.
    pub(super) fn take_record(
        &self,
        link: LinkId,
        record: &Bytes,
        now: Instant,
        events: &mut Events,
    ) -> Option<(Result<After, PeerMisbehaved>, u64)> {
        let mut state = self.lock();
        if !state.turn.take(link) {
            return None;
        }
        let taken = state.channel.on_record(link, record, now, events);
        if taken.is_err() || !events.is_empty() {
            state.refresh();
        }
        self.settle(&mut state);
        let answered = |event: &&_| matches!(event, ChannelEvent::Answered { .. });
        state.crowd = events.iter().filter(answered).nth(1).is_some();
        Some((taken, state.session))
    }

    /// Answers and acknowledgements leave together, after everything that was read has been handled.
    fn after_reading(self: &Arc<Self>, link: &Arc<Link>, now: Instant) {
        let mut state = self.lock();
        state.turn.give_up(link.id, &self.turn_over);
        let says = state.channel.has_record(link.id, now);
        let active = state.active.clone().filter(|active| active.id != link.id);
        // What leaves sees to the keeper itself.
        let sleeps_too_long = !says && Self::sleeps_too_long(&state);
        drop(state);
        if says {
            link.flush(&**self);
        }
        if let Some(active) = active {
            active.flush(&**self);
        }
        if sleeps_too_long {
            self.look.notify_one();
        }
    }

    /// A link is over: the next best carries on, or the keeper looks for another.
    fn drop_link(self: &Arc<Self>, link: &Arc<Link>, why: &str, events: &mut Events) {
        link.over.cancel();
        let now = clock::now();
        let mut state = self.lock();
        state.turn.give_up(link.id, &self.turn_over);
        if state.links.remove(&link.id).is_some() {
            state.story.tell(now, Some(link.rung), format!("link ended: {why}"));
        }
        state.channel.unlink(link.id, now, events);
        state.refresh();
        drop(state);
        self.dispatch(events);
        self.look.notify_one();
    }
}

impl State {
    /// The core may have chosen another link to carry the data.
    pub(super) fn refresh(&mut self) {
        let active = self.channel.path().map(|(id, ..)| id);
        if self.active.as_ref().map(|link| link.id) != active {
            self.active = active.and_then(|id| self.links.get(&id).cloned());
            self.nudged = false;
        }
    }
}

fn setup<'a>(
    hub: &'a Hub,
    known: &'a Known,
    rung: Rung,
    initiator: bool,
) -> Result<HandshakeSetup<'a>, LinkError> {
    let mut ephemeral = Zeroizing::new([0; 32]);
    getrandom::fill(ephemeral.as_mut_slice()).map_err(|_| LinkError::Random)?;
    Ok(HandshakeSetup {
        introduction: &known.introduction,
        local: &hub.identity,
        local_name: &hub.name,
        initiator,
        rung,
        ephemeral,
    })
}

fn split(keys: RecordKeys) -> Result<(Cipher, (Sealer, Opener)), RecordError> {
    let cipher = keys.cipher();
    Ok((cipher, keys.split()?))
}

/// The next message of a handshake, or the other end's word that there will be none.
async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, LinkError> {
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).await?;
    let Some(len) = message_length(prefix)? else {
        return Err(LinkError::Refused(stream.read_u16_le().await?.into()));
    };
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Tells a dialer why it gets no link. Its first message is read, or the end of the connection would take the word along.
pub(crate) async fn turn_away(mut stream: TcpStream, code: CloseCode) -> Result<(), LinkError> {
    read_message(&mut stream).await?;
    Ok(stream.write_all(&framed_refusal(code)).await?)
}

/// Tells the initiator why there is no link. It may be gone; the error is the news either way.
async fn refuse<T>(stream: &mut TcpStream, code: CloseCode, error: LinkError) -> Result<T, LinkError> {
    let _ = stream.write_all(&framed_refusal(code)).await;
    Err(error)
}
