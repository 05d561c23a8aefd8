//! A call: what the caller awaits.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use parlor_protocol::body::{BodyError, from_body};
use parlor_protocol::limits::EVENT_NAME_BYTES;
use parlor_protocol::name::{EventName, UserName};
use parlor_protocol::wire::peer::Status;
use serde::de::DeserializeOwned;
use tokio::time::timeout_at;

use crate::conversation::{CallEnd, Called, Calling, Conversation};
use crate::error::{GetError, RemoteError, SendError};
use crate::{clock, scratch};

/// A callback's name in place, so that a call costs no memory for it.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    len: u8,
    bytes: [u8; EVENT_NAME_BYTES],
}

impl Name {
    pub(crate) fn new(name: &str) -> Result<Self, SendError> {
        EventName::check(name)?;
        let mut bytes = [0; EVENT_NAME_BYTES];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self { len: name.len() as u8, bytes })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn to_text(self) -> String {
        String::from_utf8_lossy(self.as_bytes()).into_owned()
    }
}

/// A call that is about to be made. `A` is the type of the answer, `E` that of the callback's errors.
#[must_use = "a call does nothing unless it is awaited"]
pub struct Get<A, E = RemoteError> {
    conversation: Arc<Conversation>,
    request: Result<(Name, Vec<u8>), SendError>,
    timeout: Option<Duration>,
    answer: PhantomData<fn() -> (A, E)>,
}

impl<A, E> fmt::Debug for Get<A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.request.as_ref().map(|(name, _)| name.to_text());
        write!(f, "Get({:?} of {:?})", name, self.conversation.peer)
    }
}

impl<A, E> Get<A, E> {
    pub(crate) fn new(
        conversation: Arc<Conversation>,
        request: Result<(Name, Vec<u8>), SendError>,
        timeout: Option<Duration>,
    ) -> Self {
        Self { conversation, request, timeout, answer: PhantomData }
    }

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
    type IntoFuture = Getting<A, E>;

    fn into_future(self) -> Getting<A, E> {
        let (name, step) = match self.request {
            Ok((name, body)) => (Some(name), Step::New { body, timeout: self.timeout }),
            Err(error) => (None, Step::Failed(error)),
        };
        Getting { conversation: self.conversation, name, step, answer: PhantomData }
    }
}

/// A call under way: the future of [`Get`].
#[must_use = "a call does nothing unless it is awaited"]
pub struct Getting<A, E = RemoteError> {
    conversation: Arc<Conversation>,
    name: Option<Name>,
    step: Step,
    answer: PhantomData<fn() -> (A, E)>,
}

enum Step {
    New {
        body: Vec<u8>,
        timeout: Option<Duration>,
    },
    /// It could not be made.
    Failed(SendError),
    /// It went out at once. No timer runs here: the channel watches over the answer.
    Called(Called),
    /// It has to wait for a way to the peer, or for room.
    Waits(Pin<Box<dyn Future<Output = Result<CallEnd, SendError>> + Send>>),
    Over,
}

impl<A, E> fmt::Debug for Getting<A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Getting({:?} of {:?})", self.name.map(Name::to_text), self.conversation.peer)
    }
}

impl<A, E> Getting<A, E> {
    fn begin(&self, mut body: Vec<u8>, timeout: Option<Duration>, waker: &Waker) -> Step {
        let Some(name) = self.name else { return Step::Over };
        match self.conversation.call_now(&name, milliseconds(timeout), &mut body, waker) {
            Ok(Some(called)) => {
                scratch::give_back(body);
                return Step::Called(called);
            }
            Ok(None) => {}
            Err(error) => return Step::Failed(error),
        }
        Step::Waits(Box::pin(call(Arc::clone(&self.conversation), name, body, timeout)))
    }
}

impl<A, E> Future for Getting<A, E>
where
    A: DeserializeOwned + 'static,
    E: DeserializeOwned + fmt::Debug + fmt::Display + 'static,
{
    type Output = Result<A, GetError<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Step::New { body, timeout } = &mut self.step {
            let (body, timeout) = (std::mem::take(body), *timeout);
            self.step = self.begin(body, timeout, cx.waker());
            if let Step::Called(_) = self.step {
                return Poll::Pending;
            }
        }
        let end = match &mut self.step {
            &mut Step::Called(called) => Ok(ready!(self.conversation.poll_call(called, cx.waker()))),
            Step::Waits(call) => ready!(call.as_mut().poll(cx)),
            Step::Failed(_) => match std::mem::replace(&mut self.step, Step::Over) {
                Step::Failed(error) => Err(error),
                _ => return Poll::Pending,
            },
            // It has answered already.
            Step::New { .. } | Step::Over => return Poll::Pending,
        };
        self.step = Step::Over;
        Poll::Ready(match end {
            Ok(end) => read_end(end, &self.conversation.peer, self.name.as_ref()),
            Err(error) => Err(error.into()),
        })
    }
}

impl<A, E> Drop for Getting<A, E> {
    fn drop(&mut self) {
        if let Step::Called(called) = self.step {
            self.conversation.cancel(called);
        }
    }
}

/// Makes a call when it can be made and waits for its end, all of it within `timeout`. Cancels it when dropped before.
async fn call(
    conversation: Arc<Conversation>,
    name: Name,
    mut body: Vec<u8>,
    timeout: Option<Duration>,
) -> Result<CallEnd, SendError> {
    // Beyond what a clock can tell is without an end.
    let until = timeout.and_then(|timeout| clock::now().checked_add(timeout));
    let pushed = match until {
        None => conversation.call(&name, 0, &mut body).await,
        Some(until) => {
            match timeout_at(until.into(), call_by(&conversation, &name, &mut body, until)).await {
                Ok(pushed) => pushed,
                Err(_) => return Ok(CallEnd::TimedOut { maybe_executed: false }),
            }
        }
    };
    scratch::give_back(body);
    let end = pushed?;
    Ok(match until {
        None => end.await,
        Some(until) => {
            timeout_at(until.into(), end).await.unwrap_or(CallEnd::TimedOut { maybe_executed: true })
        }
    })
}

/// Opens the channel first, so that the peer is told how much is left then.
async fn call_by<'a>(
    conversation: &'a Arc<Conversation>,
    name: &Name,
    body: &mut Vec<u8>,
    until: Instant,
) -> Result<Calling<'a>, SendError> {
    conversation.ready().await?;
    let left = until.saturating_duration_since(clock::now());
    conversation.call(name, milliseconds(Some(left)), body).await
}

/// A call's timeout as the peer is told it. 0: none.
fn milliseconds(timeout: Option<Duration>) -> u32 {
    timeout.map_or(0, |timeout| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1))
}

fn read_end<A, E>(end: CallEnd, peer: &UserName, name: Option<&Name>) -> Result<A, GetError<E>>
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
            let name = name.map(|name| name.to_text()).unwrap_or_default();
            GetError::NoSuchCallback { peer: peer.clone(), name }
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
