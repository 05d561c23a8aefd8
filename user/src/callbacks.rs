//! Named callbacks and message handlers.
//!
//! Calls of one peer run at the same time, up to a cap; beyond it the answer is `Overloaded`, at once.
//! Messages of one event from one peer are handled one after another, in the order in which they were sent.
//!
//! A callback runs in a task of its own, so that one that blocks or never ends harms nobody. One that has
//! answered at its first poll, within [`SHORT`], many times in a row is from then on polled once where the
//! call was read, which saves two task switches; the first time it does not, or calls that were read together took
//! longer than that on average, it is back to a task of its own.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parlor_protocol::body::{BodyError, from_body, write_body};
use parlor_protocol::name::{EventName, UserName};
use parlor_protocol::wire::peer::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::scratch;

/// A poll that takes longer is no short one.
pub(crate) const SHORT: Duration = Duration::from_micros(50);
/// Short polls in a row after which a callback is trusted to be short.
const TRUSTED_AFTER: u32 = 32;

/// Who calls or sends, and what is known about it.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) from: UserName,
    pub(crate) deadline: Option<Duration>,
}

impl Context {
    /// The peer that calls or sends. Its identity was proved by the handshake.
    pub fn from(&self) -> &UserName {
        &self.from
    }

    /// How long the caller was going to wait when it called. `None`: as long as it takes, or a message.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = (Status, Vec<u8>)> + Send>>;
pub(crate) type Handling = Pin<Box<dyn Future<Output = ()> + Send>>;
type GetFn = dyn Fn(Context, Bytes) -> Answering + Send + Sync;
type GetNowFn = dyn Fn(Context, Bytes) -> Result<(Status, Vec<u8>), Answering> + Send + Sync;
type SendFn = dyn Fn(Context, Bytes) -> Handling + Send + Sync;

/// A callback for `get`.
pub(crate) struct Callback {
    run: Box<GetFn>,
    run_now: Box<GetNowFn>,
    short_polls: AtomicU32,
    /// Calls of this callback that may run at once for all peers, and how many do.
    pub(crate) limit: AtomicUsize,
    pub(crate) running: AtomicUsize,
}

impl Callback {
    pub(crate) fn call(&self, context: Context, body: Bytes) -> Answering {
        (self.run)(context, body)
    }

    /// Begins a call and polls it once, with nobody to wake. An error is what is left to do.
    pub(crate) fn call_now(&self, context: Context, body: Bytes) -> Result<(Status, Vec<u8>), Answering> {
        (self.run_now)(context, body)
    }

    /// True if it may be polled where the call was read.
    pub(crate) fn is_trusted(&self) -> bool {
        self.short_polls.load(Ordering::Relaxed) >= TRUSTED_AFTER
    }

    /// It was polled for the first time; `short` if that gave the answer soon.
    pub(crate) fn polled(&self, short: bool) {
        if !short {
            self.short_polls.store(0, Ordering::Relaxed);
        } else if !self.is_trusted() {
            self.short_polls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A handler for messages.
pub(crate) struct Handler {
    run: Box<SendFn>,
}

impl Handler {
    pub(crate) fn handle(&self, context: Context, body: Bytes) -> Handling {
        (self.run)(context, body)
    }
}

/// What a user answers to.
#[derive(Default)]
pub(crate) struct Callbacks {
    gets: RwLock<HashMap<EventName, Arc<Callback>>>,
    /// Counts the changes of `gets`.
    version: AtomicU64,
    sends: RwLock<HashMap<EventName, Arc<Handler>>>,
}

impl Callbacks {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Callback>> {
        self.gets.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What was looked up is what would be found now, as long as this stays the same. To be asked before looking up.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn change_gets(&self) -> RwLockWriteGuard<'_, HashMap<EventName, Arc<Callback>>> {
        let gets = self.gets.write().unwrap_or_else(PoisonError::into_inner);
        // Who sees the new version and looks has to wait for the change.
        self.version.fetch_add(1, Ordering::Release);
        gets
    }

    pub(crate) fn send(&self, event: &str) -> Option<Arc<Handler>> {
        self.sends.read().unwrap_or_else(PoisonError::into_inner).get(event).cloned()
    }

    /// Lets go of all of them. They are dropped outside the locks: they may hold what registers others.
    pub(crate) fn clear(&self) {
        let gets = std::mem::take(&mut *self.change_gets());
        let sends = std::mem::take(&mut *self.sends.write().unwrap_or_else(PoisonError::into_inner));
        drop((gets, sends));
    }

    /// Registers a callback in place of an earlier one of this name.
    pub(crate) fn on_get<F, Fut, A, T, E>(self: &Arc<Self>, name: EventName, callback: F) -> Registration
    where
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
        T: Serialize,
        E: Serialize,
    {
        let callback = Arc::new(callback);
        let now = Arc::clone(&callback);
        let run = move |context: Context, body: Bytes| -> Answering {
            let callback = Arc::clone(&callback);
            Box::pin(async move {
                let argument = match read_argument::<A>(&body) {
                    Ok(argument) => argument,
                    Err(error) => return error,
                };
                drop(body);
                encode_answer(&callback(context, argument).await)
            })
        };
        let run_now = move |context: Context, body: Bytes| -> Result<(Status, Vec<u8>), Answering> {
            let argument = match read_argument::<A>(&body) {
                Ok(argument) => argument,
                Err(error) => return Ok(error),
            };
            drop(body);
            let mut answering = Box::pin(now(context, argument));
            match answering.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Ok(encode_answer(&answer)),
                Poll::Pending => Err(Box::pin(async move { encode_answer(&answering.await) })),
            }
        };
        let entry = Arc::new(Callback {
            run: Box::new(run),
            run_now: Box::new(run_now),
            short_polls: AtomicU32::new(0),
            limit: AtomicUsize::new(usize::MAX),
            running: AtomicUsize::new(0),
        });
        let mut gets = self.change_gets();
        gets.insert(name.clone(), Arc::clone(&entry));
        Registration { callbacks: Arc::clone(self), name, entry: Entry::Get(entry), kept: false }
    }

    /// Registers a handler in place of an earlier one of this event.
    pub(crate) fn on_send<F, Fut, A>(self: &Arc<Self>, event: EventName, handler: F) -> Registration
    where
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
    {
        let handler = Arc::new(handler);
        let name = event.clone();
        let run = move |context: Context, body: Bytes| -> Handling {
            let (handler, name) = (Arc::clone(&handler), name.clone());
            Box::pin(async move {
                match from_body::<A>(&body) {
                    Ok(value) => {
                        drop(body);
                        handler(context, value).await;
                    }
                    Err(error) => {
                        let from = context.from();
                        tracing::warn!(%from, event = %name, %error, "a message is not what its handler takes");
                    }
                }
            })
        };
        let entry = Arc::new(Handler { run: Box::new(run) });
        let mut sends = self.sends.write().unwrap_or_else(PoisonError::into_inner);
        sends.insert(event.clone(), Arc::clone(&entry));
        Registration { callbacks: Arc::clone(self), name: event, entry: Entry::Send(entry), kept: false }
    }
}

/// Reads a call's argument. An error is the answer.
fn read_argument<A: DeserializeOwned>(body: &Bytes) -> Result<A, (Status, Vec<u8>)> {
    from_body(body).map_err(|error| (Status::Argument, error.to_string().into_bytes()))
}

fn encode_answer<T: Serialize, E: Serialize>(answer: &Result<T, E>) -> (Status, Vec<u8>) {
    let (status, encoded) = match answer {
        Ok(answer) => (Status::Ok, encode(answer)),
        Err(error) => (Status::Failed, encode(error)),
    };
    match encoded {
        Ok(body) => (status, body),
        Err(error) => {
            tracing::warn!(%error, "a callback's answer cannot be encoded");
            (Status::Panicked, Vec::new())
        }
    }
}

/// Encodes an answer into a buffer that is used again.
fn encode<T: Serialize>(answer: &T) -> Result<Vec<u8>, BodyError> {
    let mut buffer = scratch::take();
    write_body(&mut buffer, answer)?;
    Ok(buffer)
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callbacks")
    }
}

enum Entry {
    Get(Arc<Callback>),
    Send(Arc<Handler>),
}

/// A registered callback or handler. Dropping it unregisters it; calls that run are let finish.
#[must_use = "dropping the registration unregisters the callback; keep it or call `.forever()`"]
pub struct Registration {
    callbacks: Arc<Callbacks>,
    name: EventName,
    entry: Entry,
    kept: bool,
}

impl Registration {
    /// Keeps the callback registered as long as the user lives.
    pub fn forever(mut self) {
        self.kept = true;
    }

    /// Lets at most `limit` calls of this callback run at once, over all peers; the rest are answered
    /// `Overloaded`. No effect on message handlers, of which one runs at a time for each peer.
    pub fn limit(self, limit: usize) -> Self {
        if let Entry::Get(callback) = &self.entry {
            callback.limit.store(limit.max(1), Ordering::Relaxed);
        }
        self
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({:?})", self.name)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        match &self.entry {
            Entry::Get(callback) => {
                let mut gets = self.callbacks.change_gets();
                if gets.get(&self.name).is_some_and(|current| Arc::ptr_eq(current, callback)) {
                    gets.remove(&self.name);
                }
            }
            Entry::Send(handler) => {
                let mut sends = self.callbacks.sends.write().unwrap_or_else(PoisonError::into_inner);
                if sends.get(&self.name).is_some_and(|current| Arc::ptr_eq(current, handler)) {
                    sends.remove(&self.name);
                }
            }
        }
    }
}
