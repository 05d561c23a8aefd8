//! Calls of this side, from when they are pushed until their caller has heard how they ended.
//!
//! Each has a seat in a table under the conversation's lock: it costs no memory of its own, an end is put down for many
//! callers under one lock, and callers wake when the lock is free.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parlor_protocol::session::Given;
use parlor_protocol::wire::peer::Status;

use super::{Conversation, State};
use crate::call::Name;
use crate::clock;
use crate::core::channel::PushError;
use crate::core::keeper::Phase;
use crate::error::SendError;

/// Callers that are told under one lock before they are woken.
const TOLD_AT_ONCE: usize = 16;
/// Seats that stay when nobody sits.
const KEPT: usize = 256;

/// How a call ended.
#[derive(Debug)]
pub(crate) enum CallEnd {
    Answered(Status, Bytes),
    Interrupted { maybe_executed: bool },
    TimedOut { maybe_executed: bool },
}

/// A caller's place. Whoever takes the place after it has another seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    place: u32,
    guest: u32,
}

/// Everybody who waits for the end of a call.
#[derive(Default)]
pub(super) struct Callers {
    places: Vec<Place>,
    free: Vec<u32>,
    guests: u32,
}

struct Place {
    guest: u32,
    who: Who,
}

/// Who sits at a place. It is dropped when the lock is free: what a waker drops is its own business.
enum Who {
    Nobody,
    Waits(Waker),
    Told(CallEnd),
}

impl Callers {
    fn sit(&mut self, waker: &Waker) -> Seat {
        self.guests = self.guests.wrapping_add(1);
        let (guest, who) = (self.guests, Who::Waits(waker.clone()));
        let place = self.free.pop().unwrap_or(self.places.len() as u32);
        match self.places.get_mut(place as usize) {
            Some(free) => *free = Place { guest, who },
            None => self.places.push(Place { guest, who }),
        }
        Seat { place, guest }
    }

    fn at(&mut self, seat: Seat) -> Option<&mut Who> {
        let place = self.places.get_mut(seat.place as usize)?;
        (place.guest == seat.guest && !matches!(place.who, Who::Nobody)).then_some(&mut place.who)
    }

    /// Puts down how the call ended. Returns whom to wake, unless the caller has gone.
    fn tell(&mut self, seat: Seat, end: CallEnd) -> Option<Waker> {
        match std::mem::replace(self.at(seat)?, Who::Told(end)) {
            Who::Waits(waker) => Some(waker),
            Who::Nobody | Who::Told(_) => None,
        }
    }

    /// The caller asks, and gets up if it was told.
    fn ask(&mut self, seat: Seat, waker: &Waker) -> Who {
        match self.at(seat) {
            Some(Who::Waits(waiting)) if waiting.will_wake(waker) => Who::Nobody,
            Some(who @ Who::Waits(_)) => std::mem::replace(who, Who::Waits(waker.clone())),
            Some(Who::Told(_)) => self.leave(seat),
            Some(Who::Nobody) | None => Who::Nobody,
        }
    }

    fn leave(&mut self, seat: Seat) -> Who {
        let Some(who) = self.at(seat) else { return Who::Nobody };
        let who = std::mem::replace(who, Who::Nobody);
        self.free.push(seat.place);
        if self.free.len() == self.places.len() && self.places.len() > KEPT {
            (self.places, self.free) = (Vec::new(), Vec::new());
        }
        who
    }
}

impl Conversation {
    /// Makes a call, waiting for room.
    pub(crate) async fn call<'a>(
        self: &'a Arc<Self>,
        name: &Name,
        timeout_ms: u32,
        body: &mut Vec<u8>,
    ) -> Result<Calling<'a>, SendError> {
        // Its first poll brings a waker.
        let attempt = || self.try_call(name, timeout_ms, body, Waker::noop(), |_| true);
        let called = self.when_there_is_room(attempt).await?;
        Ok(Calling { conversation: self, called: Some(called) })
    }

    /// Makes a call if there is a way to the peer and room for it. `waker` is for its end.
    pub(crate) fn call_now(
        self: &Arc<Self>,
        name: &Name,
        timeout_ms: u32,
        body: &mut Vec<u8>,
        waker: &Waker,
    ) -> Result<Option<Called>, SendError> {
        let is_ready = |state: &State| *state.keeper.phase() == Phase::Ready;
        self.try_call(name, timeout_ms, body, waker, is_ready)
    }

    pub(super) fn try_call(
        self: &Arc<Self>,
        name: &Name,
        timeout_ms: u32,
        body: &mut Vec<u8>,
        waker: &Waker,
        may: impl FnOnce(&State) -> bool,
    ) -> Result<Option<Called>, SendError> {
        let now = clock::now();
        let mut state = self.lock();
        if !may(&state) {
            return Ok(None);
        }
        state.has_not_left()?;
        let quiet = state.channel.is_quiet();
        let seat = state.callers.sit(waker);
        match state.channel.get(name.as_bytes(), timeout_ms, Given::Owned(body), seat, now) {
            Ok(number) => {
                self.keep_awake(&state);
                self.sent(state, quiet);
                Ok(Some(Called { number, seat }))
            }
            Err((error, seat)) => {
                // The waker is its caller's, who holds it yet.
                state.callers.leave(seat);
                match error {
                    PushError::TooLarge { len, limit } => Err(SendError::TooLarge { len, limit }),
                    PushError::Full(_) | PushError::TooManyCalls => Ok(None),
                }
            }
        }
    }

    /// How a call has ended, if it has.
    pub(crate) fn poll_call(&self, called: Called, waker: &Waker) -> Poll<CallEnd> {
        let who = self.lock().callers.ask(called.seat, waker);
        match who {
            Who::Told(end) => Poll::Ready(end),
            Who::Waits(_) | Who::Nobody => Poll::Pending,
        }
    }

    /// The caller waits no more.
    pub(crate) fn cancel(self: &Arc<Self>, called: Called) {
        let _who;
        let mut state = self.lock();
        _who = state.callers.leave(called.seat);
        if state.channel.cancel(called.number).is_some() {
            self.room.notify_waiters();
            self.sent(state, false);
        }
    }

    /// Tells callers how their calls ended: the first, and as many as follow.
    pub(super) fn tell_callers(
        &self,
        first: (Seat, CallEnd),
        mut more: impl FnMut() -> Option<(Seat, CallEnd)>,
    ) {
        let mut next = Some(first);
        while next.is_some() {
            let mut wakers = [const { None::<Waker> }; TOLD_AT_ONCE];
            let mut state = self.lock();
            for waker in &mut wakers {
                let Some((seat, end)) = next.take() else { break };
                *waker = state.callers.tell(seat, end);
                next = more();
            }
            drop(state);
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

/// A call that was pushed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Called {
    number: u32,
    seat: Seat,
}

/// The end of a call that was pushed. Dropped before it is there, it cancels the call.
#[must_use = "dropping it cancels the call"]
pub(crate) struct Calling<'a> {
    conversation: &'a Arc<Conversation>,
    called: Option<Called>,
}

impl Future for Calling<'_> {
    type Output = CallEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallEnd> {
        let Some(called) = self.called else { return Poll::Pending };
        let end = ready!(self.conversation.poll_call(called, cx.waker()));
        self.called = None;
        Poll::Ready(end)
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if let Some(called) = self.called {
            self.conversation.cancel(called);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn answer(number: u8) -> CallEnd {
        CallEnd::Answered(Status::Ok, Bytes::copy_from_slice(&[number]))
    }

    fn heard(who: &Who) -> Option<u8> {
        match who {
            Who::Told(CallEnd::Answered(_, body)) => body.first().copied(),
            Who::Told(_) | Who::Waits(_) | Who::Nobody => None,
        }
    }

    #[test]
    fn each_caller_hears_its_own_end_once_and_a_place_is_used_again() {
        let mut callers = Callers::default();
        let waker = Waker::noop();
        let seats: Vec<_> = (0..3u8).map(|_| callers.sit(waker)).collect();
        assert!(callers.tell(seats[2], answer(2)).is_some());
        assert!(callers.tell(seats[0], answer(0)).is_some());
        assert_eq!(heard(&callers.ask(seats[1], waker)), None);
        assert_eq!(heard(&callers.ask(seats[0], waker)), Some(0));
        assert_eq!(heard(&callers.ask(seats[0], waker)), None);
        assert_eq!(heard(&callers.ask(seats[2], waker)), Some(2));
        let next = callers.sit(waker);
        assert!(callers.places.len() == 3 && next != seats[2]);
    }

    #[test]
    fn the_end_of_a_call_whose_caller_has_gone_reaches_nobody_else() {
        let mut callers = Callers::default();
        let gone = callers.sit(Waker::noop());
        callers.leave(gone);
        let next = callers.sit(Waker::noop());
        assert!(callers.tell(gone, answer(1)).is_none());
        assert_eq!(heard(&callers.ask(next, Waker::noop())), None);
        // Nor when all places were given back between.
        let many: Vec<_> = (0..=KEPT).map(|_| callers.sit(Waker::noop())).collect();
        for seat in many.into_iter().chain([next]) {
            callers.leave(seat);
        }
        assert!(callers.places.is_empty());
        let first = callers.sit(Waker::noop());
        assert_eq!(first.place, gone.place);
        assert!(callers.tell(gone, answer(1)).is_none());
        assert_eq!(heard(&callers.ask(first, Waker::noop())), None);
    }

    #[test]
    fn who_asked_last_is_woken() {
        let (mut callers, (first, last)) = (Callers::default(), (Arc::<Counted>::default(), Arc::default()));
        let seat = callers.sit(&Waker::from(Arc::clone(&first)));
        let last_waker = Waker::from(Arc::<Counted>::clone(&last));
        assert!(matches!(callers.ask(seat, &last_waker), Who::Waits(_)));
        assert!(matches!(callers.ask(seat, &last_waker), Who::Nobody));
        callers.tell(seat, answer(1)).unwrap().wake();
        assert_eq!((first.0.load(Ordering::Relaxed), last.0.load(Ordering::Relaxed)), (0, 1));
    }
}
