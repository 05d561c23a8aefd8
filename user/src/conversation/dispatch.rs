//! What the channel reports is acted on: callbacks run, callers wake, messages go to their handlers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use parlor_protocol::limits::CALLS_OUT;
use parlor_protocol::name::EventName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::session::{Given, Messages};
use parlor_protocol::wire::peer::Status;
use tokio_util::sync::CancellationToken;

use super::{CallEnd, Conversation, Events, Share};
use crate::callbacks::{Answering, Callback, Context, Handler, SHORT};
use crate::core::channel::{Event as ChannelEvent, PushError};
use crate::error::{Interrupted, closed_by_peer};
use crate::events::Event;
use crate::hub::Hub;
use crate::inbox::Batch;
use crate::{clock, scratch};

/// What a caller is told to wait when this user runs as many callbacks as it may.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Messages of one event from one peer, handled one after another.
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<(Messages, u64, Arc<Handler>)>,
}

impl Lane {
    fn next(&mut self) -> Option<(Bytes, Share, Arc<Handler>)> {
        let (messages, session, handler) = self.waiting.front_mut()?;
        let (body, cost) = messages.next()?;
        let next = (body, Share { cost, session: *session }, Arc::clone(handler));
        if messages.is_empty() {
            self.waiting.pop_front();
        }
        Some(next)
    }
}

impl Conversation {
    /// Acts on what the channel reported. Called without the lock.
    pub(super) fn dispatch(self: &Arc<Self>, events: &mut Events) {
        let session = self.lock().session;
        self.dispatch_of(session, events);
    }

    /// The same of what a record brought in this session, which may have ended since.
    pub(super) fn dispatch_of(self: &Arc<Self>, session: u64, events: &mut Events) {
        let (mut interrupted, mut calls_ended) = (false, false);
        let (mut hub, mut polls) = (None, Polls::default());
        let mut hub = || hub.get_or_insert_with(|| self.hub().ok()).clone();
        for event in events.drain(..) {
            match event {
                ChannelEvent::Messages(messages) => self.on_messages(hub(), session, messages),
                ChannelEvent::Call { call, timeout_ms, name, body } => {
                    if let Some(hub) = hub() {
                        self.on_call(&hub, &mut polls, (session, call), timeout_ms, &name, body);
                    }
                }
                ChannelEvent::Cancelled { call } => {
                    if let Some(token) = self.lock().stop_running(session, call) {
                        token.cancel();
                    }
                }
                ChannelEvent::Answered { token, status, body } => {
                    // A caller that is gone needs no answer.
                    let _ = token.send(CallEnd::Answered(status, body));
                    calls_ended = true;
                }
                ChannelEvent::CallInterrupted { token, maybe_executed } => {
                    interrupted = true;
                    let _ = token.send(CallEnd::Interrupted { maybe_executed });
                }
                ChannelEvent::CallTimedOut { token, maybe_executed } => {
                    let _ = token.send(CallEnd::TimedOut { maybe_executed });
                    calls_ended = true;
                }
                ChannelEvent::Delivered { receipt } => {
                    let _ = receipt.send(Ok(()));
                }
                ChannelEvent::Interrupted { receipt } => {
                    interrupted = true;
                    let why = self.lock().interruption.clone();
                    let _ = receipt.send(Err(Interrupted { why }));
                }
                ChannelEvent::SessionReset { lost } => {
                    interrupted |= lost;
                    // Who waits for room among calls finds some, or no way to the peer.
                    self.room.notify_waiters();
                }
                ChannelEvent::Room => self.room.notify_waiters(),
                ChannelEvent::Pong { id, rung, rtt } => {
                    if let Some(waiting) = self.lock().pings.remove(&id) {
                        let _ = waiting.send((rung, rtt));
                    }
                }
                ChannelEvent::Active => self.on_active(),
                ChannelEvent::Suspect { link } => {
                    let mut state = self.lock();
                    let rung = state.links.get(&link).map(|link| link.rung);
                    let what = "no acknowledgement for too long: looking for another path";
                    state.story.tell(clock::now(), rung, what.to_owned());
                    state.keeper.suspects();
                    drop(state);
                    self.look.notify_one();
                }
                ChannelEvent::LinkEnded { link, code } => self.on_link_ended(link, code),
                ChannelEvent::Ended { code } => self.on_ended(code, session),
            }
        }
        polls.end();
        if calls_ended {
            self.room.notify_waiters();
        }
        if interrupted {
            let why = self.lock().interruption.clone();
            self.tell(Event::Interrupted { peer: self.peer.clone(), why });
        }
    }

    fn tell(&self, event: Event) {
        if let Some(hub) = self.hub.upgrade() {
            hub.tell(event);
        }
    }

    fn on_active(&self) {
        let mut state = self.lock();
        let rung = state.active.as_ref().map(|link| link.rung);
        let what = match rung {
            Some(_) => "carries the conversation now: it is the best path that works",
            None => "no path carries the conversation",
        };
        state.story.tell(clock::now(), rung, what.to_owned());
        // A ping on the link before may never come back: who waits hears that the path changed.
        state.pings.clear();
        drop(state);
        self.tell(Event::LinkChanged { peer: self.peer.clone(), rung });
        self.room.notify_waiters();
        self.look.notify_one();
    }

    fn on_link_ended(&self, id: crate::core::channel::LinkId, code: CloseCode) {
        let mut state = self.lock();
        let Some(link) = state.links.remove(&id) else { return };
        state.story.tell(clock::now(), Some(link.rung), format!("link ended: {code}"));
        state.refresh();
        drop(state);
        link.over.cancel();
        self.look.notify_one();
    }

    /// The peer ended the channel: what it has not taken over is reported.
    fn on_ended(self: &Arc<Self>, code: CloseCode, session: u64) {
        let mut events = Vec::new();
        let mut state = self.lock_keeper();
        if state.session != session {
            // Another link brought the same news, or the peer is back already.
            return;
        }
        state.interruption = closed_by_peer(code);
        state.note_session_end();
        let fresh = self.fresh_epoch(&state);
        state.channel.reset(fresh, code, &mut events);
        state.refresh();
        self.settle(&mut state);
        state.keeper.ended();
        // Attempts that go on are for a run of the peer that is over; the next one asks for itself.
        std::mem::take(&mut state.called_off).cancel();
        drop(state);
        self.dispatch(&mut events);
        self.look.notify_one();
    }

    fn on_messages(self: &Arc<Self>, hub: Option<Arc<Hub>>, session: u64, messages: Messages) {
        let cost = messages.cost();
        self.lock().unread += cost;
        let Some(hub) = hub else { return };
        let event = match messages.event().map(event_name) {
            None => None,
            Some(Some(name)) => Some(name),
            Some(None) => {
                tracing::debug!(peer = %self.peer, "messages with a bad event name were dropped");
                self.consumed(Share { cost, session });
                return;
            }
        };
        if let Some(name) = &event
            && let Some(handler) = hub.callbacks.send(name.as_str())
        {
            self.handle(&hub, name.clone(), (messages, session, handler));
            return;
        }
        hub.inbox.push(Batch::new(Arc::clone(self), event, messages, session));
    }

    /// Queues messages for their handler, and sees to it that somebody works on the queue.
    fn handle(self: &Arc<Self>, hub: &Arc<Hub>, name: EventName, messages: (Messages, u64, Arc<Handler>)) {
        let mut state = self.lock();
        let idle = !state.lanes.contains_key(&name);
        state.lanes.entry(name.clone()).or_default().waiting.push_back(messages);
        drop(state);
        if idle {
            hub.tasks.spawn(Arc::clone(self).work(name, hub.stop.clone()));
        }
    }

    async fn work(self: Arc<Self>, name: EventName, stop: CancellationToken) {
        loop {
            let (body, share, handler) = {
                let mut state = self.lock();
                let next = state.lanes.get_mut(&name).and_then(Lane::next);
                let Some(next) = next else {
                    state.lanes.remove(&name);
                    return;
                };
                next
            };
            let context = Context { from: self.peer.clone(), deadline: None };
            let handled = AssertUnwindSafe(handler.handle(context, body)).catch_unwind();
            tokio::select! {
                () = stop.cancelled() => return,
                handled = handled => if handled.is_err() {
                    tracing::error!(peer = %self.peer, event = %name, "a message handler panicked");
                }
            }
            self.consumed(share);
        }
    }

    fn on_call(
        self: &Arc<Self>,
        hub: &Arc<Hub>,
        polls: &mut Polls,
        (session, call): (u64, u32),
        timeout_ms: u32,
        name: &Bytes,
        body: Bytes,
    ) {
        let (running, again) = {
            let state = self.lock();
            if state.session != session {
                // Nobody waits for it any more.
                return;
            }
            (state.running.len(), state.running.contains_key(&call))
        };
        if again {
            self.end(CloseCode::Unexpected, "the peer used the number of a call that still runs");
            return;
        }
        let Some(callback) = std::str::from_utf8(name).ok().and_then(|name| hub.callbacks.get(name)) else {
            self.answer(session, call, Status::NoSuchCallback, Vec::new());
            return;
        };
        let busy = running >= hub.settings.calls_running
            || callback.running.load(Ordering::Relaxed) >= callback.limit.load(Ordering::Relaxed);
        if busy {
            let wait = RETRY_AFTER.as_millis() as u32;
            self.answer(session, call, Status::Overloaded, wait.to_le_bytes().to_vec());
            return;
        }
        let deadline = (timeout_ms > 0).then(|| Duration::from_millis(u64::from(timeout_ms)));
        let mut answering = callback.call(Context { from: self.peer.clone(), deadline }, body);
        if callback.is_trusted() {
            polls.begin(&callback);
            match poll_once(&mut answering) {
                Ok(Poll::Ready((status, body))) => {
                    if let Err((status, body)) = self.try_answer(session, call, status, body) {
                        self.answer_later(hub, (session, call), status, body);
                    }
                    return;
                }
                Err(Panicked) => return self.answer(session, call, Status::Panicked, Vec::new()),
                Ok(Poll::Pending) => callback.polled(false),
            }
        }
        self.run(hub, (session, call), deadline, callback, answering);
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

/// Polls of one callback, one after another, where its calls were read. The clock is asked once before and once after.
#[derive(Default)]
struct Polls {
    of: Option<(Arc<Callback>, Instant, u32)>,
}

impl Polls {
    fn begin(&mut self, callback: &Arc<Callback>) {
        match &mut self.of {
            Some((same, _, count)) if Arc::ptr_eq(same, callback) => *count += 1,
            Some(_) | None => {
                self.end();
                self.of = Some((Arc::clone(callback), clock::now(), 1));
            }
        }
    }

    fn end(&mut self) {
        if let Some((callback, started, count)) = self.of.take()
            && started.elapsed() > SHORT * count
        {
            callback.polled(false);
        }
    }
}

/// Counts a callback as running until it is dropped.
struct Running<'a>(&'a Callback);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Panicked;

fn poll_once(answering: &mut Answering) -> Result<Poll<(Status, Vec<u8>)>, Panicked> {
    let mut context = TaskContext::from_waker(Waker::noop());
    catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(&mut context))).map_err(|_| Panicked)
}

async fn expired(deadline: Option<Duration>) {
    match deadline {
        Some(deadline) => tokio::time::sleep(deadline).await,
        None => std::future::pending().await,
    }
}

fn event_name(bytes: &Bytes) -> Option<EventName> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
