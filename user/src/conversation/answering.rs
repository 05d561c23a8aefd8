//! Calls of the peer: callbacks run, answers leave.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use parlor_protocol::limits::CALLS_OUT;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::session::Given;
use parlor_protocol::wire::peer::Status;
use tokio_util::sync::CancellationToken;

use super::Conversation;
use crate::callbacks::{Answering, Callback, Context, SHORT};
use crate::core::channel::PushError;
use crate::hub::Hub;
use crate::{clock, scratch};

/// What a caller is told to wait when this user runs as many callbacks as it may.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A call of the peer's.
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) timeout_ms: u32,
    pub(super) name: Bytes,
    pub(super) body: Bytes,
}

/// What calls that came together share: the callback is looked up once for those of the same name in a row, and the
/// clock is asked once before and once after it was polled for them.
pub(super) struct Intake {
    session: u64,
    /// No call of the peer's ran when that was last looked at, and none of these has been left to run since.
    idle: bool,
    found: Option<Found>,
    polls: Option<(Arc<Callback>, Instant, u32)>,
}

struct Found {
    name: Bytes,
    callback: Arc<Callback>,
    /// The table's version in which it was found.
    version: u64,
}

impl Intake {
    pub(super) fn new(session: u64) -> Self {
        Self { session, idle: false, found: None, polls: None }
    }

    /// Something else happened: calls may run, or the session be over.
    pub(super) fn interrupt(&mut self) {
        self.idle = false;
    }

    pub(super) fn look_up(&mut self, hub: &Hub, name: &Bytes) -> Option<&Arc<Callback>> {
        let version = hub.callbacks.version();
        if !self.found.as_ref().is_some_and(|found| found.version == version && found.name == name) {
            let callback = hub.callbacks.get(std::str::from_utf8(name).ok()?)?;
            self.found = Some(Found { name: name.clone(), callback, version });
        }
        self.found.as_ref().map(|found| &found.callback)
    }

    fn begin(&mut self, callback: &Arc<Callback>) {
        match &mut self.polls {
            Some((same, _, count)) if Arc::ptr_eq(same, callback) => *count += 1,
            Some(_) | None => {
                self.end();
                self.polls = Some((Arc::clone(callback), clock::now(), 1));
            }
        }
    }

    pub(super) fn end(&mut self) {
        if let Some((callback, started, count)) = self.polls.take()
            && started.elapsed() > SHORT * count
        {
            callback.polled(false);
        }
    }
}

impl Conversation {
    /// A call came.
    pub(super) fn on_call(self: &Arc<Self>, hub: &Arc<Hub>, intake: &mut Intake, called: Call) {
        let session = intake.session;
        let mut running = 0;
        if !intake.idle {
            let state = self.lock();
            if state.session != session {
                // Nobody waits for it any more.
                return;
            }
            if state.running.contains_key(&called.number) {
                drop(state);
                self.end(CloseCode::Unexpected, "the peer used the number of a call that still runs");
                return;
            }
            running = state.running.len();
            intake.idle = running == 0;
        }
        let Some(callback) = intake.look_up(hub, &called.name) else {
            intake.interrupt();
            self.answer(session, called.number, Status::NoSuchCallback, Vec::new());
            return;
        };
        let busy = running >= hub.settings.calls_running
            || callback.running.load(Ordering::Relaxed) >= callback.limit.load(Ordering::Relaxed);
        if busy {
            intake.interrupt();
            let wait = RETRY_AFTER.as_millis() as u32;
            self.answer(session, called.number, Status::Overloaded, wait.to_le_bytes().to_vec());
            return;
        }
        let callback = Arc::clone(callback);
        let deadline = (called.timeout_ms > 0).then(|| Duration::from_millis(u64::from(called.timeout_ms)));
        let context = Context { from: self.peer.clone(), deadline };
        if !callback.is_trusted() {
            intake.interrupt();
            let answering = callback.call(context, called.body);
            return self.run(hub, (session, called.number), deadline, callback, answering);
        }
        intake.begin(&callback);
        match catch_unwind(AssertUnwindSafe(|| callback.call_now(context, called.body))) {
            Ok(Ok((status, body))) => {
                if let Err((status, body)) = self.try_answer(session, called.number, status, body) {
                    intake.interrupt();
                    self.answer_later(hub, (session, called.number), status, body);
                }
            }
            Ok(Err(answering)) => {
                callback.polled(false);
                intake.interrupt();
                self.run(hub, (session, called.number), deadline, callback, answering);
            }
            Err(_) => {
                intake.interrupt();
                tracing::error!(peer = %self.peer, "a callback panicked");
                self.answer(session, called.number, Status::Panicked, Vec::new());
            }
        }
    }

    /// Answers when there is room. Until then the call counts as one that runs.
    pub(super) fn answer_later(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        (session, call): (u64, u32),
        status: Status,
        body: Vec<u8>,
    ) {
        let token = hub.stop.child_token();
        if !self.lock().start_running(session, call, &token) {
            return;
        }
        let this = Arc::clone(self);
        hub.tasks.spawn(async move {
            this.answer_when_there_is_room(session, call, status, body, &token).await;
        });
    }

    /// Runs a callback in a task of its own.
    fn run(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        (session, call): (u64, u32),
        deadline: Option<Duration>,
        callback: Arc<Callback>,
        answering: Answering,
    ) {
        let token = hub.stop.child_token();
        if !self.lock().start_running(session, call, &token) {
            return;
        }
        callback.running.fetch_add(1, Ordering::Relaxed);
        let this = Arc::clone(self);
        hub.tasks.spawn(async move {
            let counted = Running(&callback);
            let mut answering = AssertUnwindSafe(answering).catch_unwind();
            let first = poll_fn(|cx| {
                let started = clock::now();
                let polled = answering.poll_unpin(cx);
                callback.polled(polled.is_ready() && started.elapsed() <= SHORT);
                Poll::Ready(polled)
            });
            let finished = match first.await {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => tokio::select! {
                    biased;
                    () = token.cancelled() => None,
                    answer = answering => Some(answer),
                    () = expired(deadline) => Some(Ok((Status::TimedOut, Vec::new()))),
                },
            };
            drop(counted);
            // A call that was cancelled has no place in the table any more, and nobody to answer to. It keeps its place
            // until there is room for its answer: who takes no answers has so many callbacks run and no more.
            if !this.lock().running.contains_key(&call) {
                return;
            }
            match finished {
                Some(Ok((status, body))) => {
                    this.answer_when_there_is_room(session, call, status, body, &token).await;
                }
                Some(Err(_)) => {
                    tracing::error!(peer = %this.peer, "a callback panicked");
                    this.answer_when_there_is_room(session, call, Status::Panicked, Vec::new(), &token).await;
                }
                None => {}
            }
        });
    }

    /// Answers at once, or in a task of its own if there is no room now. What is flushed when is the reader's.
    fn answer(self: &Arc<Self>, session: u64, call: u32, status: Status, body: Vec<u8>) {
        if let Err((status, body)) = self.try_answer(session, call, status, body)
            && let Ok(hub) = self.hub()
        {
            // A caller has at most so many calls under way, so this one does not take its answers.
            if self.answers_waiting.fetch_add(1, Ordering::Relaxed) >= CALLS_OUT {
                self.answers_waiting.fetch_sub(1, Ordering::Relaxed);
                self.end(CloseCode::LimitExceeded, "the peer makes calls and takes no answers");
                return;
            }
            let this = Arc::clone(self);
            let token = hub.stop.clone();
            hub.tasks.spawn(async move {
                this.answer_when_there_is_room(session, call, status, body, &token).await;
                this.answers_waiting.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    pub(super) async fn answer_when_there_is_room(
        self: &Arc<Self>,
        session: u64,
        call: u32,
        mut status: Status,
        mut body: Vec<u8>,
        token: &CancellationToken,
    ) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.try_answer(session, call, status, body) {
                Ok(()) => {
                    let state = self.lock();
                    if state.session == session {
                        self.sent(state, true);
                    }
                    return;
                }
                Err((s, b)) => (status, body) = (s, b),
            }
            tokio::select! {
                () = token.cancelled() => return,
                () = room => {}
            }
        }
    }

    /// Takes an answer if there is room for it. One that is too large is replaced by the word that it is.
    fn try_answer(
        &self,
        session: u64,
        call: u32,
        status: Status,
        mut body: Vec<u8>,
    ) -> Result<(), (Status, Vec<u8>)> {
        let mut state = self.lock();
        if state.session != session {
            // The call was another session's: in this one its number may be another call's.
            return Ok(());
        }
        let pushed = if body.len() > self.max_body {
            Err(PushError::TooLarge { len: body.len(), limit: self.max_body })
        } else {
            state.channel.answer(call, status, Given::Owned(&mut body))
        };
        let taken = match pushed {
            Ok(()) => {
                scratch::give_back(body);
                Ok(())
            }
            Err(PushError::TooLarge { .. }) => state
                .channel
                .answer(call, Status::TooLarge, Given::Borrowed(&[]))
                .map_err(|_| (Status::TooLarge, Vec::new())),
            Err(PushError::Full(_) | PushError::TooManyCalls) => Err((status, body)),
        };
        if taken.is_ok() {
            // From now on its number may be another call's.
            state.running.remove(&call);
        }
        taken
    }
}

/// Counts a callback as running until it is dropped.
struct Running<'a>(&'a Callback);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn expired(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline).await,
        None => std::future::pending().await,
    }
}
