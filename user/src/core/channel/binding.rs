//! Which session a link belongs to: what the two ends say of themselves in the handshake, and what follows.

use std::time::Instant;

use parlor_protocol::noise::payload::{Epoch, LinkAccept, LinkHello};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;

use super::{Channel, Event, LinkId};

/// Earlier runs of the peer that are remembered, so that a late word from one is not taken for a new one's.
const SUPERSEDED: usize = 16;

/// Two epochs and what the peer wants next: what a handshake agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) ours: Epoch,
    pub(crate) theirs: Epoch,
    pub(crate) peer_recv_next: u64,
    pub(crate) peer_max_body: u32,
}

/// The handshake was about a session that is over at one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the handshake was about a session that is over")]
pub(crate) struct Stale;

impl<C, R> Channel<C, R> {
    /// What this side says first when it opens a link.
    pub(crate) fn hello(&self) -> LinkHello {
        LinkHello {
            epoch: self.ours,
            peer_epoch: self.theirs,
            recv_next: self.inb.next(),
            max_body: self.max_body,
            features: 0,
        }
    }

    /// What this side would answer to a hello. Changes nothing, because a hello can be replayed; the terms take
    /// effect with [`bind`](Self::bind) when the link's first record has proved its sender alive.
    pub(crate) fn judge(&self, hello: &LinkHello) -> Result<(LinkAccept, Terms), Stale> {
        let mut ours = self.ours;
        let mut recv_next = 0;
        if let Some(bound) = self.theirs {
            if bound == hello.epoch {
                if hello.peer_epoch.is_some_and(|known| known != self.ours) {
                    return Err(Stale);
                }
                recv_next = self.inb.next();
            } else if is_older(hello.epoch, bound) {
                return Err(Stale);
            } else if self.superseded.contains(&hello.epoch.instance) {
                // A session with that run under this epoch is over.
                ours.generation += 1;
            }
        }
        let accept = LinkAccept { epoch: ours, recv_next, max_body: self.max_body, features: 0 };
        // A hello that knows no or another session says nothing about what was received in this one.
        let same =
            self.theirs == Some(hello.epoch) || (self.theirs.is_none() && hello.peer_epoch == Some(ours));
        let terms = Terms {
            ours,
            theirs: hello.epoch,
            peer_recv_next: if same { hello.recv_next } else { 0 },
            peer_max_body: hello.max_body,
        };
        Ok((accept, terms))
    }

    /// The terms that the answer to this side's hello means.
    pub(crate) fn terms_of(hello: &LinkHello, accept: &LinkAccept) -> Terms {
        Terms {
            ours: hello.epoch,
            theirs: accept.epoch,
            peer_recv_next: accept.recv_next,
            peer_max_body: accept.max_body,
        }
    }

    /// True if a link under these terms carries on the session that there is, so that what its peer may send is no more
    /// than before.
    pub(crate) fn goes_on(&self, terms: &Terms) -> bool {
        terms.ours == self.ours && self.theirs == Some(terms.theirs)
    }

    /// A link was proved by its handshake: takes it in under the terms agreed there. If the peer has forgotten
    /// the session, it begins anew.
    pub(crate) fn bind(
        &mut self,
        id: LinkId,
        rung: Rung,
        terms: &Terms,
        now: Instant,
        events: &mut Vec<Event<C, R>>,
    ) -> Result<(), Stale> {
        let same = terms.ours == self.ours && self.theirs.is_none_or(|theirs| theirs == terms.theirs);
        if !same {
            let newer = terms.ours.generation > self.ours.generation
                || (terms.ours == self.ours
                    && !self.superseded.contains(&terms.theirs.instance)
                    && self.theirs.is_some_and(|bound| !is_older(terms.theirs, bound)));
            if !newer {
                return Err(Stale);
            }
            if let Some(bound) = self.theirs.filter(|bound| bound.instance != terms.theirs.instance) {
                if self.superseded.len() == SUPERSEDED {
                    self.superseded.pop_front();
                }
                self.superseded.push_back(bound.instance);
            }
            self.reset(terms.ours, CloseCode::Superseded, events);
        }
        let first_talk = self.theirs.is_none();
        // What the peer wanted when it made the handshake may be behind what it has acknowledged since.
        if first_talk && terms.peer_recv_next > 0 {
            return Err(Stale);
        }
        self.theirs = Some(terms.theirs);
        self.peer_max_body = terms.peer_max_body;
        self.take_ack(terms.peer_recv_next, None, now, events).map_err(|_| Stale)?;
        // Whoever links means to talk, unless it is a better path for what nobody uses.
        if self.links.is_empty() {
            self.spoke_at = now;
        }
        if let Some(link) = self.links.make_room(self.heard_on) {
            events.push(Event::LinkEnded { link, code: CloseCode::LimitExceeded });
        }
        self.links.insert(id, rung, now);
        self.choose(now, events);
        Ok(())
    }
}

/// True of an earlier session of the same run.
fn is_older(epoch: Epoch, than: Epoch) -> bool {
    epoch.instance == than.instance && epoch.generation < than.generation
}
