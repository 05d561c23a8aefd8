//! What the channel reports is acted on: callbacks run, callers wake, messages go to their handlers.

use std::cell::LazyCell;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use parlor_protocol::name::EventName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::session::Messages;
use tokio_util::sync::CancellationToken;

use super::answering::{Call, Intake};
use super::{CallEnd, Conversation, Events, Share};
use crate::callbacks::{Context, Handler};
use crate::clock;
use crate::core::channel::Event as ChannelEvent;
use crate::error::{Interrupted, closed_by_peer};
use crate::events::Event;
use crate::hub::Hub;
use crate::inbox::Batch;

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
        let (hub, mut intake) = (LazyCell::new(|| self.hub().ok()), Intake::new(session));
        let mut events = events.drain(..).peekable();
        while let Some(event) = events.next() {
            if !matches!(event, ChannelEvent::Call { .. } | ChannelEvent::Messages(_)) {
                intake.interrupt();
            }
            match event {
                ChannelEvent::Messages(messages) => self.on_messages(hub.as_ref(), session, messages),
                ChannelEvent::Call { call: number, timeout_ms, name, body } => {
                    if let Some(hub) = &*hub {
                        self.on_call(hub, &mut intake, Call { number, timeout_ms, name, body });
                    }
                }
                ChannelEvent::Cancelled { call } => {
                    if let Some(token) = self.lock().stop_running(session, call) {
                        token.cancel();
                    }
                }
                ChannelEvent::Answered { token, status, body } => {
                    let more =
                        || match events.next_if(|event| matches!(event, ChannelEvent::Answered { .. }))? {
                            ChannelEvent::Answered { token, status, body } => {
                                Some((token, CallEnd::Answered(status, body)))
                            }
                            _ => None,
                        };
                    self.tell_callers((token, CallEnd::Answered(status, body)), more);
                    calls_ended = true;
                }
                ChannelEvent::CallInterrupted { token, maybe_executed } => {
                    interrupted = true;
                    self.tell_callers((token, CallEnd::Interrupted { maybe_executed }), || None);
                }
                ChannelEvent::CallTimedOut { token, maybe_executed } => {
                    self.tell_callers((token, CallEnd::TimedOut { maybe_executed }), || None);
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
                ChannelEvent::Heard => self.look.notify_one(),
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
        intake.end();
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

    fn on_messages(self: &Arc<Self>, hub: Option<&Arc<Hub>>, session: u64, messages: Messages) {
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
            self.handle(hub, name.clone(), (messages, session, handler));
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
}

fn event_name(bytes: &Bytes) -> Option<EventName> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}
