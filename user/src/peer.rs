//! A peer: what is sent to it and asked of it.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parlor_protocol::body::{BodyError, from_body, write_body};
use parlor_protocol::introduction::Cipher;
use parlor_protocol::limits::BODY;
use parlor_protocol::name::{EventName, UserName};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::peer::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::clock;
use crate::conversation::{CallEnd, Conversation, Sent};
use crate::error::{GetError, Interrupted, OpenError, RemoteError, SendError};
use crate::hub::Hub;

/// Another user in the room. Cheap to clone; it need not be online.
#[derive(Clone)]
pub struct Peer {
    pub(crate) hub: Arc<Hub>,
    pub(crate) conversation: Arc<Conversation>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:?})", self.name())
    }
}

/// The path to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The rung that carries the conversation.
    pub rung: Rung,
    /// The smoothed round trip on it, once it was measured.
    pub rtt: Option<Duration>,
    /// How its records are protected.
    pub cipher: Cipher,
}

/// A step on the way to a peer, for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long ago.
    pub ago: Duration,
    /// The rung it is about.
    pub rung: Option<Rung>,
    /// What happened.
    pub what: String,
}

thread_local! {
    /// Values are encoded here before they are copied to where they wait.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is given back, in bytes: the largest body, unless a user sets it, stays.
const SCRATCH_KEEP: usize = BODY + 1024;

/// Encodes a value into a buffer that is used again.
fn encode<T: Serialize + ?Sized>(value: &T, max_body: u32) -> Result<Vec<u8>, SendError> {
    let mut buffer = SCRATCH.with(RefCell::take);
    buffer.clear();
    write_body(&mut buffer, value)?;
    let limit = max_body as usize;
    if buffer.len() > limit {
        return Err(SendError::TooLarge { len: buffer.len(), limit });
    }
    Ok(buffer)
}

fn recycle(buffer: Vec<u8>) {
    if buffer.capacity() <= SCRATCH_KEEP {
        SCRATCH.with(|scratch| scratch.replace(buffer));
    }
}

impl Peer {
    /// Its name.
    pub fn name(&self) -> &UserName {
        &self.conversation.peer
    }

    /// True if the Room says that it is online.
    pub fn is_online(&self) -> bool {
        self.hub.is_online(self.name())
    }

    /// Sends a value to the peer's inbox.
    ///
    /// Returns when the value is queued: it then arrives once and in order while both programs live, whatever
    /// happens to the paths between them. Waits while the queue is full (8 MiB). The receipt tells when the
    /// peer's program has taken it over; it may be ignored.
    ///
    /// # Errors
    ///
    /// [`SendError::Open`] at once if the peer is offline or cannot be reached; nothing is queued then.
    pub async fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Receipt, SendError> {
        self.send_event(None, value).await
    }

    /// Sends a value to the peer's handler for `event`, or to its inbox if it has none. See
    /// [`send`](Self::send).
    pub async fn send_to<T: Serialize + ?Sized>(&self, event: &str, value: &T) -> Result<Receipt, SendError> {
        let event: EventName = event.parse()?;
        self.send_event(Some(event.as_str()), value).await
    }

    /// Sends a value if it can be queued without waiting.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] if the queue is full, [`SendError::Open`] if there is no channel to the peer yet:
    /// then [`send`](Self::send) opens one.
    pub fn try_send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Receipt, SendError> {
        self.conversation.is_open()?;
        let mut body = encode(value, self.hub.settings.max_body)?;
        let sent = self.conversation.try_send(None, &mut body);
        recycle(body);
        Ok(self.receipt(sent?))
    }

    async fn send_event<T: Serialize + ?Sized>(
        &self,
        event: Option<&str>,
        value: &T,
    ) -> Result<Receipt, SendError> {
        let mut body = encode(value, self.hub.settings.max_body)?;
        let sent = self.conversation.send(event, &mut body).await;
        recycle(body);
        Ok(self.receipt(sent?))
    }

    fn receipt(&self, sent: Sent) -> Receipt {
        Receipt { conversation: Arc::clone(&self.conversation), sent }
    }

    /// Calls the peer's callback `name`. Await the result, or set how long to wait first.
    ///
    /// Dropping the future cancels the call at the peer.
    ///
    /// # Errors
    ///
    /// See [`GetError`]. A callback's own error comes as [`GetError::Remote`], of any type unless
    /// [`error_type`](Get::error_type) says which.
    pub fn get<T: Serialize + ?Sized, A: DeserializeOwned>(&self, name: &str, argument: &T) -> Get<A> {
        let request = name
            .parse::<EventName>()
            .map_err(SendError::Name)
            .and_then(|name| Ok((name, encode(argument, self.hub.settings.max_body)?)));
        Get {
            conversation: Arc::clone(&self.conversation),
            request,
            timeout: self.hub.settings.get_timeout,
            answer: PhantomData,
        }
    }

    /// The path that carries the conversation now. `None`: there is no link.
    pub fn path(&self) -> Option<Path> {
        let (rung, rtt) = self.conversation.path()?;
        Some(Path { rung, rtt, cipher: self.conversation.cipher()? })
    }

    /// Opens the channel, if it is not open, and waits for a link.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub async fn connect(&self) -> Result<Path, OpenError> {
        loop {
            self.conversation.linked().await?;
            // A link that is gone again was none.
            if let Some(path) = self.path() {
                return Ok(path);
            }
        }
    }

    /// Measures a round trip on the path that carries the conversation.
    ///
    /// # Errors
    ///
    /// Why there is no path. `None`: the path changed while the ping was under way.
    pub async fn ping(&self) -> Result<Option<(Rung, Duration)>, OpenError> {
        self.connect().await?;
        match self.conversation.ping() {
            Some(pong) => Ok(pong.await.ok()),
            None => Ok(None),
        }
    }

    /// What was tried to reach the peer, and what came of it, oldest first.
    pub fn explain(&self) -> Vec<Step> {
        let now = clock::now();
        let step = |step: crate::core::ladder::Step| Step {
            ago: now.saturating_duration_since(step.at),
            rung: step.rung,
            what: step.what,
        };
        self.conversation.story().into_iter().map(step).collect()
    }
}

/// Tells when a message has been taken over by the peer's program.
#[derive(Debug)]
pub struct Receipt {
    conversation: Arc<Conversation>,
    sent: Sent,
}

impl Receipt {
    /// Waits until the peer's program has taken the message over. Needs no deadline of its own: it ends when the
    /// message was taken over or the conversation ended.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] if the conversation ended first. The message may have arrived all the same.
    pub async fn delivered(self) -> Result<(), Interrupted> {
        self.conversation.delivered(self.sent).await
    }
}

/// A call that is about to be made. `A` is the type of the answer, `E` that of the callback's errors.
#[must_use = "a call does nothing unless it is awaited"]
pub struct Get<A, E = RemoteError> {
    conversation: Arc<Conversation>,
    request: Result<(EventName, Vec<u8>), SendError>,
    timeout: Option<Duration>,
    answer: PhantomData<fn() -> (A, E)>,
}

impl<A, E> fmt::Debug for Get<A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.request.as_ref().map(|(name, _)| name);
        write!(f, "Get({:?} of {:?})", name, self.conversation.peer)
    }
}

impl<A, E> Get<A, E> {
    /// Waits this long, from the await until the answer is there, whatever there is to wait for in between. At most
    /// 49 days; 30 s unless set here or in the builder.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Waits as long as it takes.
    pub fn no_timeout(mut self) -> Self {
        self.timeout = None;
        self
    }

    /// The callback's errors are of this type.
    pub fn error_type<F>(self) -> Get<A, F> {
        Get {
            conversation: self.conversation,
            request: self.request,
            timeout: self.timeout,
            answer: PhantomData,
        }
    }
}

impl<A, E> IntoFuture for Get<A, E>
where
    A: DeserializeOwned + 'static,
    E: DeserializeOwned + fmt::Debug + fmt::Display + 'static,
{
    type Output = Result<A, GetError<E>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (name, body) = self.request?;
            let end = call(&self.conversation, &name, body, self.timeout).await?;
            read_end(end, &self.conversation.peer, &name)
        })
    }
}

/// Makes a call and waits for its end, all of it within `timeout`. Cancels it when dropped before.
async fn call(
    conversation: &Arc<Conversation>,
    name: &EventName,
    mut body: Vec<u8>,
    timeout: Option<Duration>,
) -> Result<CallEnd, SendError> {
    // A call that goes out at once costs no timer here: the channel watches over the answer.
    let at_once = if conversation.is_ready() {
        conversation.call(name, milliseconds(timeout), &mut body).now_or_never()
    } else {
        None
    };
    let (pushed, until) = match at_once {
        Some(pushed) => (pushed, None),
        // Beyond what a clock can tell is without an end.
        None => match timeout.and_then(|timeout| clock::now().checked_add(timeout)) {
            None => (conversation.call(name, 0, &mut body).await, None),
            Some(until) => {
                match timeout_at(until.into(), call_by(conversation, name, &mut body, until)).await {
                    Ok(pushed) => (pushed, Some(until)),
                    Err(_) => return Ok(CallEnd::TimedOut { maybe_executed: false }),
                }
            }
        },
    };
    recycle(body);
    let (number, end) = pushed?;
    let mut cancel = CancelOnDrop { conversation, call: Some(number) };
    let end = match until {
        None => end.await,
        Some(until) => match timeout_at(until.into(), end).await {
            Ok(end) => end,
            Err(_) => return Ok(CallEnd::TimedOut { maybe_executed: true }),
        },
    };
    cancel.call = None;
    Ok(end.unwrap_or(CallEnd::Interrupted { maybe_executed: true }))
}

/// Opens the channel first, so that the peer is told how much is left then.
async fn call_by(
    conversation: &Arc<Conversation>,
    name: &EventName,
    body: &mut Vec<u8>,
    until: Instant,
) -> Result<(u32, oneshot::Receiver<CallEnd>), SendError> {
    conversation.ready().await?;
    let left = until.saturating_duration_since(clock::now());
    conversation.call(name, milliseconds(Some(left)), body).await
}

/// A call's timeout as the peer is told it. 0: none.
fn milliseconds(timeout: Option<Duration>) -> u32 {
    timeout.map_or(0, |timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
}

struct CancelOnDrop<'a> {
    conversation: &'a Arc<Conversation>,
    call: Option<u32>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call {
            self.conversation.cancel(call);
        }
    }
}

fn read_end<A, E>(end: CallEnd, peer: &UserName, name: &EventName) -> Result<A, GetError<E>>
where
    A: DeserializeOwned,
    E: DeserializeOwned + fmt::Debug + fmt::Display,
{
    let (status, body) = match end {
        CallEnd::Answered(status, body) => (status, body),
        CallEnd::Interrupted { maybe_executed } => return Err(GetError::Interrupted { maybe_executed }),
        CallEnd::TimedOut { maybe_executed } => return Err(GetError::Timeout { maybe_executed }),
    };
    let unreadable =
        |what: &str, error: &BodyError| GetError::Decode(format!("{what} is not as expected: {error}"));
    Err(match status {
        Status::Ok => return from_body(&body).map_err(|error| unreadable("the answer", &error)),
        Status::Failed => match from_body(&body) {
            Ok(error) => GetError::Remote(error),
            Err(error) => unreadable("the callback's error", &error),
        },
        Status::NoSuchCallback => {
            GetError::NoSuchCallback { peer: peer.clone(), name: name.as_str().to_owned() }
        }
        Status::Denied => GetError::Denied(peer.clone()),
        Status::Overloaded => {
            let ms = body.first_chunk().map_or(100, |bytes| u32::from_le_bytes(*bytes));
            GetError::Overloaded { retry_after: Duration::from_millis(u64::from(ms)) }
        }
        Status::Panicked => GetError::Panicked,
        Status::TooLarge => GetError::TooLarge,
        Status::Argument => {
            let why = String::from_utf8_lossy(&body);
            let why = parlor_protocol::name::printable(&why);
            GetError::Decode(format!("the peer could not read the argument: {why}"))
        }
        Status::TimedOut => GetError::Timeout { maybe_executed: true },
    })
}
