//! The encrypted, ordered, exactly-once conversation with one peer, without its sockets.
//!
//! A channel has one session and any number of links. Data goes out on the best link; it may come in on any.
//! Which link is best is decided by rung alone and so never flaps: a better link takes over when it has been
//! proved by a handshake, a worse one only when the better is gone or suspect. When another link takes over,
//! everything the peer has not taken over is sent again there; the peer drops what it has had.
//!
//! A link is *suspect* when data has been waiting for an acknowledgement past max(1 s, 3 x srtt + 4 x rttvar), at
//! most 3 s. A suspect link carries no more data while there is another; it is not closed for it. Nor does one on
//! which nothing came since, while there is one that was heard.
//!
//! Which link that is, each end finds out for itself, and who only receives does not find out at all. So
//! acknowledgements and credit go out on the link on which the peer's data last came: that one the peer trusts.
//!
//! The two ends know each other's session by an [`Epoch`]: the run of the program and a count. A peer that
//! comes with another epoch has forgotten the session, so everything not taken over is reported as
//! interrupted and nothing is sent again. This side's own epoch stays then, so that handshakes which cross each
//! other agree; it changes when this side ends a session, or when an earlier run of the peer is back.
//!
//! Nothing here waits, reads a clock or touches a socket. What happens is appended to a list of [`Event`]s.

mod binding;
mod calls;
mod links;
mod records;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parlor_protocol::identity::InstanceId;
use parlor_protocol::limits::{ACK_DELAY, CALLS_OUT, CHANNEL_IDLE, UNACKED_CHANNEL};
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::session::{Class, Full, Given, Inbound, Messages, Outbound, Placed, Progress};
use parlor_protocol::wire::peer::{Head, Status};

#[cfg(test)]
pub(crate) use self::binding::Stale;
pub(crate) use self::binding::Terms;
use self::calls::{Calls, Pending};
pub(crate) use self::links::LinkId;
use self::links::Links;
pub(crate) use self::records::After;

/// What happened. `C` is what the caller wants back of a call, `R` of a message.
#[derive(Debug)]
pub(crate) enum Event<C, R> {
    /// Messages of one event came, one after another.
    Messages(Messages),
    /// A call came.
    Call { call: u32, timeout_ms: u32, name: Bytes, body: Bytes },
    /// The caller of this call does not wait any more.
    Cancelled { call: u32 },
    /// A call of this side ended.
    Answered { token: C, status: Status, body: Bytes },
    /// A call of this side will not be answered.
    CallInterrupted { token: C, maybe_executed: bool },
    /// A call of this side took longer than its caller waits.
    CallTimedOut { token: C, maybe_executed: bool },
    /// The peer has taken a message over.
    Delivered { receipt: R },
    /// A message was not taken over and will not be sent again.
    Interrupted { receipt: R },
    /// A new session begins: calls of the peer's that run here have nobody to answer to. `lost`: it had not taken over
    /// all messages of this side.
    SessionReset { lost: bool },
    /// Another link carries the data now, or none.
    Active,
    /// The peer's data comes on another link now: the one before may be needed no more.
    Heard,
    /// Data waits for an acknowledgement on this link for too long.
    Suspect { link: LinkId },
    /// This link ended. The shell drops it.
    LinkEnded { link: LinkId, code: CloseCode },
    /// The peer ended the channel.
    Ended { code: CloseCode },
    /// A ping was answered.
    Pong { rung: Rung, id: u64, rtt: Duration },
    /// There is room in the send buffer again.
    Room,
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PushError {
    #[error(transparent)]
    Full(#[from] Full),
    #[error("a body of {len} bytes is larger than the {limit} that the peer takes")]
    TooLarge { len: usize, limit: usize },
    #[error("{CALLS_OUT} calls to this peer are under way")]
    TooManyCalls,
}

/// One conversation. See the module.
#[derive(Debug)]
pub(crate) struct Channel<C, R> {
    out: Outbound<R>,
    inb: Inbound,
    links: Links,
    /// The link on which the peer's data last came.
    heard_on: Option<LinkId>,
    calls: Calls<C>,
    ours: Epoch,
    theirs: Option<Epoch>,
    /// Runs of the peer that this epoch of ours talked to before another run took their place.
    superseded: VecDeque<InstanceId>,
    max_body: u32,
    peer_max_body: u32,
    /// The last `ack` that was told to the peer, and when the next is due.
    acked: u64,
    ack_bytes: u64,
    ack_at: Option<Instant>,
    /// An acknowledgement or a grant may have gone down with a link: both are said again.
    repeat: bool,
    /// The active link's next record says that this side's data would come there.
    here: bool,
    /// When the peer last took something over while data was in flight, or when data began to be in flight.
    progress_at: Option<Instant>,
    /// When a message, call or answer last left or came.
    spoke_at: Instant,
    /// A message, and a call or answer, was not taken for lack of room.
    was_full: [bool; 2],
    receipts: Vec<R>,
}

impl<C, R> Channel<C, R> {
    /// A channel that has not talked to its peer. Bodies to this side have at most `max_body` bytes.
    pub(crate) fn new(ours: Epoch, max_body: u32, now: Instant) -> Self {
        Self {
            out: Outbound::new(UNACKED_CHANNEL),
            inb: Inbound::new(max_body),
            links: Links::default(),
            heard_on: None,
            calls: Calls::default(),
            ours,
            theirs: None,
            superseded: VecDeque::new(),
            max_body,
            peer_max_body: u32::MAX,
            acked: 0,
            ack_bytes: 0,
            ack_at: None,
            repeat: false,
            here: false,
            progress_at: None,
            spoke_at: now,
            was_full: [false; 2],
            receipts: Vec::new(),
        }
    }

    /// True if some link is up.
    pub(crate) fn is_linked(&self) -> bool {
        !self.links.is_empty()
    }

    /// The link that carries the data, with its rung and smoothed round trip.
    pub(crate) fn path(&self) -> Option<(LinkId, Rung, Option<Duration>)> {
        self.links.active().map(|link| (link.id, link.rung, link.rtt.smoothed()))
    }

    /// The rung of the link that carries the data, unless it is suspect, or nothing came on it since another was.
    pub(crate) fn sound_rung(&self) -> Option<Rung> {
        self.links.sound().map(|link| link.rung)
    }

    /// The same, but only if something came on the link after `since`.
    pub(crate) fn rung_heard_since(&self, since: Instant) -> Option<Rung> {
        self.links.sound().filter(|link| link.heard > since).map(|link| link.rung)
    }

    /// Asks the active link for a sign of life.
    pub(crate) fn probe(&mut self) {
        self.links.probe_active();
    }

    /// The link that carries acknowledgements and credit: the one on which the peer's data last came, else the one
    /// that carries this side's.
    pub(crate) fn answers_on(&self) -> Option<LinkId> {
        let heard = self.heard_on.filter(|&id| self.links.is_open(id));
        heard.or_else(|| self.links.active().map(|link| link.id))
    }

    /// Every link, best first, with the shell's number for it.
    pub(crate) fn link_ids(&self) -> Vec<(LinkId, Rung)> {
        self.links.iter().map(|link| (link.id, link.rung)).collect()
    }

    /// This side's epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.ours
    }

    /// The peer's epoch, once they have talked.
    #[cfg(test)]
    pub(crate) fn peer_epoch(&self) -> Option<Epoch> {
        self.theirs
    }

    /// The next frame that the peer has not taken over.
    #[cfg(test)]
    pub(crate) fn acked_seq(&self) -> u64 {
        self.out.acked()
    }

    /// How long the active link may go without progress, if data is in flight on it and it is not suspect.
    #[cfg(test)]
    pub(crate) fn suspicion_after(&self) -> Option<Duration> {
        let link = self.links.active().filter(|link| self.out.in_flight() && !link.suspect)?;
        Some(link.rtt.suspicion())
    }

    /// True if nothing is owed to the peer or waited for from it.
    pub(crate) fn is_idle(&self) -> bool {
        self.out.is_empty() && self.calls.is_empty()
    }

    /// True if everything that was sent has been taken over.
    pub(crate) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Bytes kept for the peer.
    pub(crate) fn buffered(&self) -> usize {
        self.out.bytes()
    }

    /// Bytes that are ready for the next records.
    pub(crate) fn unsent(&self) -> usize {
        self.out.unsent()
    }

    /// True if nothing is on its way: what is pushed now would be alone.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.out.in_flight() && self.out.unsent() == 0
    }

    /// Takes a message.
    pub(crate) fn send(&mut self, event: Option<&[u8]>, body: Given<'_>) -> Result<Placed, PushError> {
        self.push(&Head::Send { event }, body)
    }

    /// Wants `receipt` back when the message that was placed there was taken over. Gives it back at once if it was.
    pub(crate) fn watch(&mut self, placed: Placed, receipt: R) -> Option<R> {
        self.out.watch(placed, receipt)
    }

    /// How far the peer has taken over what was sent.
    pub(crate) fn progress(&self) -> Progress {
        self.out.progress()
    }

    /// Takes a call and returns its number. `token` comes back with the answer.
    pub(crate) fn get(
        &mut self,
        name: &[u8],
        timeout_ms: u32,
        body: Given<'_>,
        token: C,
        now: Instant,
    ) -> Result<u32, (PushError, C)> {
        let Some(call) = self.calls.free_number() else { return Err((PushError::TooManyCalls, token)) };
        match self.push(&Head::Get { call, timeout_ms, name }, body) {
            Ok(placed) => {
                let wait = Duration::from_millis(u64::from(timeout_ms));
                let until = (timeout_ms > 0).then(|| now + wait);
                self.calls.insert(call, Pending { token, placed, until });
                Ok(call)
            }
            Err(error) => Err((error, token)),
        }
    }

    /// Takes the answer to a call of the peer's.
    pub(crate) fn answer(&mut self, call: u32, status: Status, body: Given<'_>) -> Result<(), PushError> {
        self.push(&Head::<&[u8]>::Answer { call, status }, body).map(|_| ())
    }

    /// The caller waits no more: takes the call back, if it is still under way, and tells the callee. Returns
    /// whether it may have been executed.
    pub(crate) fn cancel(&mut self, call: u32) -> Option<bool> {
        let pending = self.calls.remove(call)?;
        let maybe_executed = self.out.was_sent(pending.placed);
        self.out.cancel(call, pending.placed);
        Some(maybe_executed)
    }

    /// The application has taken messages that cost this much. True if the peer should hear of it now.
    pub(crate) fn consume(&mut self, cost: u64) -> bool {
        self.inb.consume(cost);
        self.inb.grant_is_due()
    }

    /// True if messages wait for credit and nothing is in flight, so that no deadline but that of a question runs.
    pub(crate) fn waits_for_credit_alone(&self) -> bool {
        !self.out.in_flight() && self.out.waits_for_credit()
    }

    /// A link is gone.
    pub(crate) fn unlink(&mut self, id: LinkId, now: Instant, events: &mut Vec<Event<C, R>>) {
        if self.links.remove(id) {
            self.repeat = self.theirs.is_some();
            self.choose(now, events);
        }
    }

    /// Asks the peer to use this link no more, and uses it no more.
    pub(crate) fn close_link(
        &mut self,
        id: LinkId,
        code: CloseCode,
        now: Instant,
        events: &mut Vec<Event<C, R>>,
    ) {
        self.links.close(id, code);
        self.choose(now, events);
    }

    /// Asks for a ping on the active link. `id` comes back with the pong. False if there is no link.
    pub(crate) fn ping(&mut self, id: u64) -> bool {
        self.links.ping_active(id)
    }

    /// Ends the channel from this side: the peer is told on every link; what it has not taken over is reported.
    pub(crate) fn end(&mut self, code: CloseCode, fresh: Epoch, events: &mut Vec<Event<C, R>>) {
        self.interrupt(events);
        self.links.end(code);
        self.forget(fresh);
    }

    /// Begins a new session: everything that the peer has not taken over is reported, every link is dropped.
    pub(crate) fn reset(&mut self, ours: Epoch, code: CloseCode, events: &mut Vec<Event<C, R>>) {
        for (link, _) in self.link_ids() {
            events.push(Event::LinkEnded { link, code });
        }
        let was_linked = self.is_linked();
        self.links = Links::default();
        self.interrupt(events);
        self.forget(ours);
        if was_linked {
            events.push(Event::Active);
        }
    }

    /// When [`on_deadline`](Self::on_deadline) is to be called next, if ever.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines().into_iter().flatten().min()
    }

    /// The first deadline after `now`. What is due by then although [`on_deadline`](Self::on_deadline) was called and
    /// every link asked for records waits for a socket that takes no more, and leaves with whatever is written there next.
    pub(crate) fn deadline_after(&self, now: Instant) -> Option<Instant> {
        self.deadlines().into_iter().flatten().filter(|&at| at > now).min()
    }

    fn deadlines(&self) -> [Option<Instant>; 6] {
        let calls = self.calls.next_expiry();
        if !self.is_linked() {
            return [calls, None, None, None, None, None];
        }
        let idle = self.is_idle().then_some(self.spoke_at + CHANNEL_IDLE);
        [self.ack_at, self.suspicion(), self.asks_at(), self.links.deadline(), calls, idle]
    }

    /// Time has passed. Afterwards the shell asks every link for records. True if the channel has been idle for
    /// so long that it is to be ended.
    pub(crate) fn on_deadline(&mut self, now: Instant, events: &mut Vec<Event<C, R>>) -> bool {
        if self.asks_at().is_some_and(|at| at <= now) {
            self.speak_up();
        }
        if self.suspicion().is_some_and(|at| at <= now) {
            if let Some(link) = self.links.suspect_active(now) {
                events.push(Event::Suspect { link });
            }
            self.progress_at = Some(now);
            self.choose(now, events);
        }
        for (call, pending) in self.calls.expire(now) {
            let maybe_executed = self.out.was_sent(pending.placed);
            self.out.cancel(call, pending.placed);
            events.push(Event::CallTimedOut { token: pending.token, maybe_executed });
        }
        for (link, code) in self.links.expire(now) {
            self.repeat = true;
            events.push(Event::LinkEnded { link, code });
        }
        self.choose(now, events);
        self.is_linked() && self.is_idle() && self.spoke_at + CHANNEL_IDLE <= now
    }

    fn push(&mut self, head: &Head<&[u8]>, body: Given<'_>) -> Result<Placed, PushError> {
        let (len, limit) = (body.len(), self.peer_max_body as usize);
        if len > limit {
            return Err(PushError::TooLarge { len, limit });
        }
        let pushed = self.out.push(head, body);
        self.was_full[Class::of(head) as usize] |= pushed.is_err();
        Ok(pushed?)
    }

    /// Tells who waits for room if there is some now: calls and answers have it before messages do, which may wait
    /// for long for a peer that takes none.
    fn tell_of_room(&mut self, events: &mut Vec<Event<C, R>>) {
        let [messages, calls] = [Class::Message, Class::Call]
            .map(|class| self.was_full[class as usize] && self.out.has_room(class));
        if messages || calls {
            self.was_full = [false; 2];
            events.push(Event::Room);
        }
    }

    /// Everything not taken over and every call under way is reported.
    fn interrupt(&mut self, events: &mut Vec<Event<C, R>>) {
        let lost = self.out.owes_messages();
        for pending in self.calls.drain() {
            let maybe_executed = self.out.was_sent(pending.placed);
            events.push(Event::CallInterrupted { token: pending.token, maybe_executed });
        }
        for receipt in self.out.abandon() {
            events.push(Event::Interrupted { receipt });
        }
        self.tell_of_room(events);
        events.push(Event::SessionReset { lost });
    }

    fn forget(&mut self, ours: Epoch) {
        self.inb.reset();
        self.heard_on = None;
        if self.ours != ours {
            self.superseded.clear();
        }
        self.ours = ours;
        self.theirs = None;
        self.peer_max_body = u32::MAX;
        self.acked = 0;
        self.ack_bytes = 0;
        self.ack_at = None;
        self.repeat = false;
        self.here = false;
        self.progress_at = None;
    }

    /// When the active link becomes suspect, if data is in flight on it, or a question after credit.
    fn suspicion(&self) -> Option<Instant> {
        let link = self.links.active().filter(|link| !link.suspect)?;
        let since = if self.out.in_flight() {
            self.progress_at
        } else {
            link.asked().filter(|_| self.out.waits_for_credit())
        };
        since.map(|at| at + link.rtt.suspicion())
    }

    /// When the active link is asked for a sign of life because nothing but credit is waited for there: it might have
    /// gone down with a link that is dead, and nothing that is in flight would tell.
    fn asks_at(&self) -> Option<Instant> {
        if !self.waits_for_credit_alone() {
            return None;
        }
        let link = self.links.active().filter(|link| !link.suspect && link.pings.is_empty())?;
        link.asked().is_none().then(|| link.heard + link.rtt.suspicion())
    }

    /// Asks the active link for a sign of life, and tells the peer that this side's data would come there: it says
    /// acknowledgements and credit where it thinks that data comes.
    fn speak_up(&mut self) {
        self.links.probe_active();
        self.here = true;
    }

    /// Lets the best link carry the data. If it is another one, everything not taken over goes out there again.
    fn choose(&mut self, now: Instant, events: &mut Vec<Event<C, R>>) {
        if self.links.choose() {
            self.out.rewind();
            if self.links.active().is_some_and(|link| link.suspect) {
                // If it works again, its pong says so.
                self.links.probe_active();
            }
            if !self.out.has_work() {
                self.speak_up();
            }
            self.progress_at = Some(now);
            events.push(Event::Active);
        }
    }

    fn take_ack(
        &mut self,
        ack: u64,
        on: Option<LinkId>,
        now: Instant,
        events: &mut Vec<Event<C, R>>,
    ) -> Result<(), parlor_protocol::wire::peer::PeerMisbehaved> {
        let before = self.out.acked();
        self.out.ack(ack, &mut self.receipts)?;
        if self.out.acked() == before {
            return Ok(());
        }
        self.progress_at = Some(now);
        // One that comes on another link, or with a handshake, says nothing for the one that carries the data.
        if let Some(id) = on.filter(|&id| self.links.is_active(id)) {
            self.links.trust(id, now);
        }
        events.extend(self.receipts.drain(..).map(|receipt| Event::Delivered { receipt }));
        self.tell_of_room(events);
        Ok(())
    }

    /// Data was taken in: an acknowledgement is due soon.
    fn owe_ack(&mut self, bytes: usize, now: Instant) {
        self.ack_bytes += bytes as u64;
        self.ack_at.get_or_insert(now + ACK_DELAY);
        self.spoke_at = now;
    }
}
