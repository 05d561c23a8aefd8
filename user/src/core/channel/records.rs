//! What goes into a link's next record, and what comes out of one.

use std::time::Instant;

use bytes::Bytes;
use parlor_protocol::limits::ACK_BYTES;
use parlor_protocol::noise::records::PLAINTEXT_BYTES;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::session::Arrived;
use parlor_protocol::wire::peer::{
    HEADER_MOST, PeerMisbehaved, RELIABLE, RecordHeader, finish, kind, next_frame, take, take_u64,
    write_frame_head,
};

use super::links::Scope;
use super::{Channel, Event, LinkId};

/// Bytes of link frames that may stand before the data of a record.
const LINK_FRAMES: usize = 512;
/// Pings in one record; the rest goes into the next.
const PINGS: usize = 16;
/// Pings under way on a link; the oldest is forgotten for another.
const PINGED: usize = 64;

/// What a record asks of the link that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct After {
    /// The records after this one are under the next key.
    pub(crate) rekey: bool,
    /// The peer uses this link no more, or this side does: no record follows.
    pub(crate) closed: bool,
    /// There is something to say in another record at once.
    pub(crate) more: bool,
}

impl<C, R> Channel<C, R> {
    /// True if [`fill`](Self::fill) would fill a record for this link now.
    pub(crate) fn has_record(&mut self, id: LinkId, now: Instant) -> bool {
        let active = self.links.is_active(id);
        let answers = self.answers_on() == Some(id);
        let ack_due = self.ack_is_due(now) || self.repeat;
        let grant_due = self.inb.grant_is_due();
        let work = active && self.out.has_work();
        let Some(link) = self.links.get_mut(id) else { return false };
        link.fresh
            || link.closing.is_some()
            || !link.pongs.is_empty()
            || !link.pings.is_empty()
            || (answers && (ack_due || grant_due))
            || work
    }

    /// Appends the plaintext of this link's next record, if there is anything to say. With `rekey` the record
    /// tells the peer that the next key follows.
    pub(crate) fn fill(&mut self, id: LinkId, out: &mut Vec<u8>, rekey: bool, now: Instant) -> Option<After> {
        if !rekey && !self.has_record(id, now) {
            return None;
        }
        let start = out.len();
        let active = self.links.is_active(id);
        let answers = self.answers_on() == Some(id);
        let link = self.links.get_mut(id)?;
        let fresh = std::mem::take(&mut link.fresh) || (answers && std::mem::take(&mut self.repeat));
        let closing = link.closing;
        link.sent = now;
        let mut header = RecordHeader::default();
        // Elsewhere it might go down with a link that the peer does not listen to.
        let says = answers || fresh;
        if says && (self.inb.next() > self.acked || fresh) {
            header.ack = Some(self.inb.next());
            self.acked = self.inb.next();
            self.ack_at = None;
            self.ack_bytes = 0;
        }
        if says && (self.inb.grant_is_due() || fresh) {
            header.credit = Some(self.inb.grant());
        }
        let here = active && std::mem::take(&mut self.here);
        if active && closing.is_none() && (here || self.out.has_work()) {
            header.seq = Some(0);
            self.links.sample(id, now);
        }
        header.write(out);
        let link = self.links.get_mut(id)?;
        for pong in link.pongs.drain(..) {
            write_number(out, kind::PONG, pong);
        }
        let pings = link.pings.len().min(PINGS);
        for ping in link.pings.drain(..pings) {
            write_number(out, kind::PING, ping);
            if link.pinged.len() == PINGED {
                link.pinged.remove(0);
            }
            link.pinged.push((ping, now));
        }
        if header.seq.is_some() {
            self.fill_data(out, start, header, now);
        }
        if rekey {
            write_frame_head(out, kind::REKEY, 0);
        }
        if let Some((code, scope)) = closing {
            let kind = if scope == Scope::Link { kind::CLOSE } else { kind::END };
            write_frame_head(out, kind, 2);
            out.extend_from_slice(&u16::from(code).to_le_bytes());
            // Nothing follows a closing frame.
            self.links.remove(id);
            self.repeat = scope == Scope::Link;
        }
        let pings = self.links.get_mut(id).is_some_and(|link| !link.pings.is_empty());
        let more = closing.is_none() && (pings || (active && self.out.has_work()));
        Some(After { rekey, closed: closing.is_some(), more })
    }

    /// Takes in a record. An error is the peer's fault and ends the link; what came before it counts.
    pub(crate) fn on_record(
        &mut self,
        id: LinkId,
        plaintext: &Bytes,
        now: Instant,
        events: &mut Vec<Event<C, R>>,
    ) -> Result<After, PeerMisbehaved> {
        let Some(link) = self.links.get_mut(id) else { return Ok(After::default()) };
        if matches!(link.closing, Some((_, Scope::Channel))) {
            // The session this record belongs to is over at this end.
            return Ok(After::default());
        }
        if self.links.hear(id, now) {
            self.choose(now, events);
        }
        let (header, mut at) = RecordHeader::read(plaintext)?;
        if let Some(ack) = header.ack {
            self.take_ack(ack, Some(id), now, events)?;
        }
        if let Some(credit) = header.credit {
            self.out.credit(credit);
        }
        let mut seq = header.seq;
        if seq.is_some() {
            // What was said on another link since the last data came there may have gone down with it.
            if self.heard_on.replace(id).is_some_and(|other| other != id) {
                self.repeat = true;
                events.push(Event::Heard);
            }
        }
        let mut after = After::default();
        let before = self.inb.next();
        while let Some(frame) = next_frame(plaintext, at)? {
            if after.rekey && !matches!(frame.kind, kind::CLOSE | kind::END) {
                return Err(PeerMisbehaved::BehindRekey(frame.kind));
            }
            if frame.kind < RELIABLE {
                at = frame.payload.end;
                let payload = plaintext.slice(frame.payload);
                self.on_link_frame(id, frame.kind, payload, now, events, &mut after)?;
                continue;
            }
            let number = seq.ok_or(PeerMisbehaved::Unnumbered)?;
            let taken = self.inb.take(number, plaintext, at)?;
            seq = Some(number + taken.frames);
            at = taken.end;
            if let Some(arrived) = taken.arrived {
                self.on_arrived(arrived, events);
            }
        }
        if self.inb.next() > before {
            self.owe_ack(plaintext.len(), now);
        } else if header.seq.is_some() && before > 0 {
            // The peer sends what this side has had: its acknowledgement was lost.
            self.acked = 0;
            self.owe_ack(plaintext.len(), now);
        }
        Ok(after)
    }

    fn ack_is_due(&self, now: Instant) -> bool {
        self.ack_bytes >= ACK_BYTES || self.ack_at.is_some_and(|at| at <= now)
    }

    fn fill_data(&mut self, out: &mut Vec<u8>, start: usize, header: RecordHeader, now: Instant) {
        let used = out.len() - start;
        debug_assert!(used <= HEADER_MOST + LINK_FRAMES);
        let was_in_flight = self.out.in_flight();
        let first = self.out.transmit(out, PLAINTEXT_BYTES.saturating_sub(used + 64));
        // The header's last field is the number of the first reliable frame.
        let fields = usize::from(header.ack.is_some()) + usize::from(header.credit.is_some());
        let at = start + 1 + fields * 8;
        let seq = first.unwrap_or_else(|| self.out.acked());
        out[at..at + 8].copy_from_slice(&seq.to_le_bytes());
        if first.is_some() {
            self.spoke_at = now;
            if !was_in_flight {
                self.progress_at = Some(now);
            }
        }
    }

    fn on_link_frame(
        &mut self,
        id: LinkId,
        frame_kind: u8,
        mut payload: Bytes,
        now: Instant,
        events: &mut Vec<Event<C, R>>,
        after: &mut After,
    ) -> Result<(), PeerMisbehaved> {
        match frame_kind {
            kind::PING => {
                let ping = take_u64(&mut payload)?;
                self.links.owe_pong(id, ping);
            }
            kind::PONG => {
                let pong = take_u64(&mut payload)?;
                if !self.out.in_flight() {
                    // Nothing else would ever clear a suspicion while nobody sends.
                    self.links.trust(id, now);
                    self.choose(now, events);
                }
                if let Some((rung, rtt, wanted)) = self.links.pong(id, pong, now)
                    && wanted
                {
                    events.push(Event::Pong { rung, id: pong, rtt });
                }
            }
            kind::CLOSE | kind::END => {
                let code = CloseCode::from(take(&mut payload).map(u16::from_le_bytes)?);
                after.closed = true;
                if frame_kind == kind::END {
                    events.push(Event::Ended { code });
                } else {
                    events.push(Event::LinkEnded { link: id, code });
                    self.unlink(id, now, events);
                }
            }
            kind::REKEY => after.rekey = true,
            other => return Err(PeerMisbehaved::Kind(other)),
        }
        finish(frame_kind, &payload)
    }

    fn on_arrived(&mut self, arrived: Arrived, events: &mut Vec<Event<C, R>>) {
        match arrived {
            Arrived::Messages(messages) => events.push(Event::Messages(messages)),
            Arrived::Call { call, timeout_ms, name, body } => {
                events.push(Event::Call { call, timeout_ms, name, body });
            }
            Arrived::Answer { call, status, body } => {
                // An answer to a call that was cancelled meanwhile is nobody's.
                if let Some(pending) = self.calls.remove(call) {
                    events.push(Event::Answered { token: pending.token, status, body });
                }
            }
            Arrived::Cancelled { call } => events.push(Event::Cancelled { call }),
        }
    }
}

fn write_number(out: &mut Vec<u8>, kind: u8, number: u64) {
    write_frame_head(out, kind, 8);
    out.extend_from_slice(&number.to_le_bytes());
}
