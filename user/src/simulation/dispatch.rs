//! What a channel reports, acted on: what `conversation/dispatch.rs` does, in its order.

use std::time::Duration;

use bytes::Bytes;
use parlor_protocol::limits::{CALLS_RUNNING, RECEIVE_WINDOW};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::session::Given;
use parlor_protocol::wire::peer::Status;

use super::conversation::Events;
use super::ledger::{CallNo, Ended};
use super::links::UNREAD;
use super::note;
use super::workload::LARGEST;
use super::world::{What, World};
use crate::core::channel::Event;

impl World {
    pub(super) fn dispatch(&mut self, user: usize, run: u32, peer: usize, events: &mut Events) {
        for event in events.drain(..) {
            match event {
                Event::Messages(messages) => {
                    let event = messages.event().cloned();
                    for (body, cost) in messages {
                        self.on_message(user, run, peer, event.as_ref(), &body, cost);
                    }
                }
                Event::Call { call, timeout_ms, name: _, body } => {
                    self.on_call(user, run, peer, call, timeout_ms, &body);
                }
                Event::Cancelled { call } => {
                    if let Some(conversation) = self.conversation(user, run, peer)
                        && conversation.running.remove(&call).is_some()
                    {
                        conversation.answers.retain(|(waiting, ..)| *waiting != call);
                    }
                }
                Event::Answered { token, status, body } => {
                    self.ledger.call_ended(token, Ended::Answered(status, &body), self.now);
                    self.room_notified(user, run, peer);
                }
                Event::CallInterrupted { token, maybe_executed } => {
                    let justified = self.is_excused(user, run, peer);
                    self.check_executed(user, run, peer, token, maybe_executed);
                    self.ledger.call_ended(token, Ended::Interrupted { maybe_executed, justified }, self.now);
                }
                Event::CallTimedOut { token, maybe_executed } => {
                    self.check_executed(user, run, peer, token, maybe_executed);
                    self.ledger.call_ended(token, Ended::TimedOut { maybe_executed }, self.now);
                    self.room_notified(user, run, peer);
                }
                Event::Delivered { receipt } => self.ledger.reported_delivered(receipt),
                Event::Interrupted { receipt } => {
                    let justified = self.is_excused(user, run, peer);
                    self.ledger.reported_interrupted(receipt, justified);
                }
                Event::SessionReset { .. } => {
                    note!(self, "{user}>{peer} session reset");
                    if let Some(conversation) = self.conversation(user, run, peer) {
                        conversation.running.clear();
                        conversation.answers.clear();
                    }
                    self.room_notified(user, run, peer);
                }
                Event::Room => self.room_notified(user, run, peer),
                Event::Pong { .. } => {}
                Event::Active => {
                    note!(self, "{user}>{peer} another link carries the data");
                    if let Some(conversation) = self.conversation(user, run, peer) {
                        conversation.switches += 1;
                    }
                    self.room_notified(user, run, peer);
                    self.look(user, run, peer);
                }
                Event::Heard => self.look(user, run, peer),
                Event::Suspect { link } => {
                    note!(self, "{user}>{peer} suspects {link:?}");
                    if let Some(conversation) = self.conversation(user, run, peer) {
                        conversation.keeper.suspects();
                    }
                    self.look(user, run, peer);
                }
                Event::LinkEnded { link, code } => {
                    note!(self, "{user}>{peer} {link:?} ended: {code}");
                    let conn = self
                        .conversation(user, run, peer)
                        .and_then(|conversation| conversation.links.remove(&link));
                    if let Some(conn) = conn {
                        let end = self.end_of(user, run, conn);
                        self.schedule(self.now, What::Over { conn, end });
                    }
                    self.look(user, run, peer);
                }
                Event::Ended { code } => self.on_ended(user, run, peer, code),
            }
        }
    }

    /// The peer ended the channel.
    fn on_ended(&mut self, user: usize, run: u32, peer: usize, code: CloseCode) {
        note!(self, "{user}>{peer} is ended by the peer: {code}");
        let mut events = Vec::new();
        let Some(fresh) = self.fresh_epoch(user, run, peer) else { return };
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let progress = conversation.channel.progress();
        conversation.note_session_end(progress);
        conversation.channel.reset(fresh, code, &mut events);
        conversation.keeper.ended();
        self.settle(user, run, peer);
        self.call_off(user, run, peer);
        self.phase_changed(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
        self.look(user, run, peer);
    }

    // Messages and calls from the peer.

    fn on_message(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        event: Option<&Bytes>,
        body: &Bytes,
        cost: u64,
    ) {
        self.ledger.delivered((user, run), event, body, self.now);
        let after = self.consumption(user);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.unconsumed += cost;
        conversation.unread += cost;
        let (held, unread) = (conversation.unconsumed, conversation.unread);
        assert!(
            held <= RECEIVE_WINDOW + LARGEST + 64,
            "{user} holds {held} bytes of {peer} that nobody took"
        );
        assert!(
            unread <= UNREAD + RECEIVE_WINDOW + LARGEST + 64,
            "{user} holds {unread} bytes of {peer} over all sessions that nobody took"
        );
        let session = conversation.session;
        let Some(after) = after else { return conversation.stopped.push((cost, session)) };
        let at = self.now + after;
        self.schedule(at, What::Consume { user, run, peer, cost, session });
    }

    pub(super) fn on_consume(&mut self, user: usize, run: u32, peer: usize, cost: u64, session: u64) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        conversation.unread -= cost;
        // What an earlier session sent is nothing to this one's window.
        if conversation.session != session {
            return;
        }
        conversation.unconsumed -= cost;
        let due = conversation.channel.consume(cost);
        let answers_on = conversation.answers_on();
        if let (true, Some(conn)) = (due, answers_on) {
            self.flush(user, run, conn);
        }
    }

    fn on_call(&mut self, user: usize, run: u32, peer: usize, call: u32, timeout_ms: u32, body: &Bytes) {
        let number = self.ledger.called((user, run), body);
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        assert!(!conversation.running.contains_key(&call), "a number was used again for call {number:?}");
        if conversation.running.len() >= CALLS_RUNNING {
            self.ledger.overloaded(number);
            return self.answer(
                user,
                run,
                peer,
                call,
                Status::Overloaded,
                Bytes::from_static(&[100, 0, 0, 0]),
            );
        }
        conversation.next_running += 1;
        let running = conversation.next_running;
        conversation.running.insert(call, running);
        self.ledger.executed(number);
        let after = self.execution();
        let deadline = Duration::from_millis(timeout_ms.into());
        let timed_out = timeout_ms > 0 && deadline < after;
        let at = self.now + if timed_out { deadline } else { after };
        self.schedule(at, What::Executed { user, run, peer, call, running, number, timed_out });
    }

    pub(super) fn on_executed(
        &mut self,
        (user, run, peer): (usize, u32, usize),
        call: u32,
        running: u64,
        number: CallNo,
        timed_out: bool,
    ) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        // A call that was cancelled has nobody to answer to.
        if conversation.running.get(&call) != Some(&running) {
            return;
        }
        let (status, body) = if timed_out {
            (Status::TimedOut, Bytes::new())
        } else {
            (Status::Ok, self.ledger.answer_of(number))
        };
        self.answer(user, run, peer, call, status, body);
    }

    fn answer(&mut self, user: usize, run: u32, peer: usize, call: u32, status: Status, body: Bytes) {
        if let Some(conversation) = self.conversation(user, run, peer) {
            conversation.answers.push_back((call, status, body));
        }
        self.answer_what_waits(user, run, peer);
    }

    /// Answers go out as far as there is room for them.
    pub(super) fn answer_what_waits(&mut self, user: usize, run: u32, peer: usize) {
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let mut any = false;
        while let Some((call, status, body)) = conversation.answers.pop_front() {
            if conversation.channel.answer(call, status, Given::Borrowed(&body)).is_err() {
                conversation.answers.push_front((call, status, body));
                break;
            }
            // It keeps its place until there was room for its answer.
            conversation.running.remove(&call);
            any = true;
        }
        if any {
            self.sent(user, run, peer);
        }
    }
}
