//! The links of a channel: which one carries the data, which are alive.

use std::time::{Duration, Instant};

use parlor_protocol::limits::{LINK_DEAD, LINK_KEEPALIVE};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;

/// The shell's number for a link. A later link has a higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// A link is suspect at the earliest after this long without progress.
const SUSPICION_LEAST: Duration = Duration::from_secs(1);
/// A link is suspect at the latest after this long without progress: a round trip that was measured across an
/// outage must not make the next one last as long.
const SUSPICION_MOST: Duration = Duration::from_secs(3);

/// Between two pings that go with data on a link whose round trips were so long that it would be suspect late.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) rung: Rung,
    pub(super) rtt: Rtt,
    pub(super) suspect: bool,
    /// When it was last trusted again after a suspicion, or came up.
    sound_since: Instant,
    /// When a pong last came.
    sampled: Instant,
    pub(super) heard: Instant,
    pub(super) sent: Instant,
    /// The first record on a link repeats acknowledgement and credit, which may have been lost with another.
    pub(super) fresh: bool,
    /// Pings to be answered here.
    pub(super) pongs: Vec<u64>,
    /// Pings to be sent here.
    pub(super) pings: Vec<u64>,
    /// The pings under way and when they left.
    pub(super) pinged: Vec<(u64, Instant)>,
    pub(super) closing: Option<(CloseCode, Scope)>,
}

/// What a closing frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Link,
    Channel,
}

/// Order of preference. A suspect link is worse than any that is not. So is one on which nothing came since
/// another became suspect: what ended that one may have ended it, too.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    suspect: bool,
    doubtful: bool,
    rung: Rung,
    id: LinkId,
}

/// Smoothed round trip and its variation, as in RFC 6298 section 2. The first sample is taken while the link comes up,
/// perhaps with many others on a busy machine: the second one replaces it if it is shorter.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    estimate: Option<(Duration, Duration)>,
    samples: u8,
}

impl Rtt {
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|(smoothed, _)| smoothed)
    }

    pub(super) fn sample(&mut self, rtt: Duration) {
        let is_second = self.samples == 1;
        self.samples = self.samples.saturating_add(1);
        self.estimate = Some(match self.estimate {
            None => (rtt, rtt / 2),
            Some((first, _)) if is_second && rtt < first => (rtt, rtt / 2),
            Some((smoothed, var)) => (smoothed * 7 / 8 + rtt / 8, var * 3 / 4 + smoothed.abs_diff(rtt) / 4),
        });
    }

    /// How long data may wait for an acknowledgement before the link is suspect.
    pub(super) fn suspicion(&self) -> Duration {
        let usual = self.estimate.map_or(SUSPICION_LEAST, |(smoothed, var)| smoothed * 3 + var * 4);
        usual.clamp(SUSPICION_LEAST, SUSPICION_MOST)
    }
}

impl Link {
    /// When the first ping left since something last came.
    pub(super) fn asked(&self) -> Option<Instant> {
        self.pinged.iter().map(|&(_, left)| left).filter(|&left| left >= self.heard).min()
    }

    /// True if a ping should go with the data, to see whether round trips are still that long.
    fn wants_sample(&self, now: Instant) -> bool {
        let asked = !(self.pings.is_empty() && self.pinged.is_empty());
        !asked && self.rtt.suspicion() > SUSPICION_LEAST && self.sampled + SAMPLE_EVERY <= now
    }
}

/// Links in no order that matters, and the one that carries the data.
#[derive(Debug, Default)]
pub(super) struct Links {
    all: Vec<Link>,
    active: Option<LinkId>,
    next_keepalive: u64,
    /// When a link last became suspect.
    doubted: Option<Instant>,
}

/// Ids of pings that nobody waits for have this bit.
const KEEPALIVE: u64 = 1 << 63;
/// Links that a channel may have at once: one on each rung from either side.
const LINKS: usize = 8;
/// Answers that may be owed to one link's pings; a peer that asks for more gets no more.
const PONGS: usize = 16;

impl Links {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Link> {
        self.all.iter()
    }

    pub(super) fn active(&self) -> Option<&Link> {
        self.active.and_then(|id| self.all.iter().find(|link| link.id == id))
    }

    pub(super) fn is_active(&self, id: LinkId) -> bool {
        self.active == Some(id)
    }

    pub(super) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.all.iter_mut().find(|link| link.id == id)
    }

    pub(super) fn insert(&mut self, id: LinkId, rung: Rung, now: Instant) {
        self.next_keepalive += 1;
        self.all.push(Link {
            id,
            rung,
            rtt: Rtt::default(),
            suspect: false,
            sound_since: now,
            sampled: now,
            heard: now,
            sent: now,
            fresh: true,
            pongs: Vec::new(),
            pings: vec![KEEPALIVE | self.next_keepalive],
            pinged: Vec::new(),
            closing: None,
        });
    }

    /// Takes out the worst link if there are as many as may be: one that is over, then one that may be dead. A path that
    /// fell silent leaves several, whatever their rung, and both ends have to keep what took their place: for who only
    /// receives, and suspects none, that is the one on which the peer's data last came, which goes last.
    pub(super) fn make_room(&mut self, heard_on: Option<LinkId>) -> Option<LinkId> {
        if self.all.len() < LINKS {
            return None;
        }
        let badness = |link: &&Link| {
            let (over, unheard) = (link.closing.is_some(), heard_on != Some(link.id));
            (over, link.suspect, self.is_doubtful(link), unheard, link.rung, std::cmp::Reverse(link.heard))
        };
        let id = self.all.iter().max_by_key(badness).map(|link| link.id)?;
        self.remove(id);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: LinkId) -> bool {
        let before = self.all.len();
        self.all.retain(|link| link.id != id);
        self.all.len() < before
    }

    pub(super) fn close(&mut self, id: LinkId, code: CloseCode) {
        if let Some(link) = self.get_mut(id) {
            link.closing.get_or_insert((code, Scope::Link));
        }
    }

    pub(super) fn end(&mut self, code: CloseCode) {
        for link in &mut self.all {
            link.closing = Some((code, Scope::Channel));
        }
        self.active = None;
    }

    /// Makes the best link the active one. True if it is another than before.
    pub(super) fn choose(&mut self) -> bool {
        let score = |link: &&Link| Score {
            suspect: link.suspect,
            doubtful: self.is_doubtful(link),
            rung: link.rung,
            id: link.id,
        };
        let best = self.all.iter().filter(|link| link.closing.is_none()).min_by_key(score).map(|l| l.id);
        std::mem::replace(&mut self.active, best) != best
    }

    /// The active link is suspect; the others are asked for a sign of life.
    pub(super) fn suspect_active(&mut self, now: Instant) -> Option<LinkId> {
        let id = self.active?;
        self.get_mut(id)?.suspect = true;
        self.doubted = Some(now);
        for link in self.all.iter_mut().filter(|link| link.id != id && link.pings.is_empty()) {
            self.next_keepalive += 1;
            link.pings.push(KEEPALIVE | self.next_keepalive);
        }
        Some(id)
    }

    /// True if nothing came on the link since another became suspect.
    fn is_doubtful(&self, link: &Link) -> bool {
        self.doubted.is_some_and(|at| link.heard < at)
    }

    /// The active link, unless something is against it.
    pub(super) fn sound(&self) -> Option<&Link> {
        self.active().filter(|link| !link.suspect && !self.is_doubtful(link))
    }

    /// Something came on the link. True if that makes it a better one.
    pub(super) fn hear(&mut self, id: LinkId, now: Instant) -> bool {
        let doubted = self.doubted;
        let Some(link) = self.get_mut(id) else { return false };
        let was_doubtful = doubted.is_some_and(|at| link.heard < at);
        link.heard = now;
        was_doubtful
    }

    pub(super) fn trust(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.get_mut(id).filter(|link| link.suspect) {
            link.suspect = false;
            link.sound_since = now;
        }
    }

    /// True if the link is up and may be used.
    pub(super) fn is_open(&self, id: LinkId) -> bool {
        self.all.iter().any(|link| link.id == id && link.closing.is_none())
    }

    pub(super) fn ping_active(&mut self, id: u64) -> bool {
        let Some(active) = self.active else { return false };
        let Some(link) = self.get_mut(active) else { return false };
        link.pings.push(id & !KEEPALIVE);
        true
    }

    /// Asks the active link for a sign of life that nobody else waits for.
    pub(super) fn probe_active(&mut self) {
        self.next_keepalive += 1;
        let ping = KEEPALIVE | self.next_keepalive;
        if let Some(active) = self.active
            && let Some(link) = self.get_mut(active)
            && link.pings.is_empty()
        {
            link.pings.push(ping);
        }
    }

    /// Sends a ping with this link's data if its round trips seem so long that it would be suspect late.
    pub(super) fn sample(&mut self, id: LinkId, now: Instant) {
        let ping = KEEPALIVE | (self.next_keepalive + 1);
        if let Some(link) = self.get_mut(id).filter(|link| link.wants_sample(now)) {
            link.pings.push(ping);
            self.next_keepalive += 1;
        }
    }

    /// Owes an answer to a ping.
    pub(super) fn owe_pong(&mut self, id: LinkId, ping: u64) {
        if let Some(link) = self.get_mut(id)
            && link.pongs.len() < PONGS
        {
            link.pongs.push(ping);
        }
    }

    /// A pong came. Returns the rung and round trip if a ping of this side was waiting for it, and whether
    /// somebody asked for it.
    pub(super) fn pong(&mut self, id: LinkId, ping: u64, now: Instant) -> Option<(Rung, Duration, bool)> {
        let link = self.get_mut(id)?;
        let at = link.pinged.iter().position(|&(pinged, _)| pinged == ping)?;
        let (_, left) = link.pinged.swap_remove(at);
        let rtt = now.saturating_duration_since(left);
        link.sampled = now;
        // What was under way while the link did not work tells nothing about how it works.
        if !link.suspect && left >= link.sound_since {
            link.rtt.sample(rtt);
        }
        Some((link.rung, rtt, ping & KEEPALIVE == 0))
    }

    /// When some link needs a keepalive or is dead.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all
            .iter()
            .map(|link| {
                let keepalive = link.heard.min(link.sent) + LINK_KEEPALIVE;
                let asked = !(link.pinged.is_empty() && link.pings.is_empty());
                if asked { link.heard + LINK_DEAD } else { keepalive }
            })
            .min()
    }

    /// Sends keepalives where they are due, and gives up links on which nothing came for too long.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(LinkId, CloseCode)> {
        let mut dead = Vec::new();
        for link in &mut self.all {
            if link.heard + LINK_DEAD <= now {
                dead.push((link.id, CloseCode::TimedOut));
            } else if link.pinged.is_empty()
                && link.pings.is_empty()
                && link.heard.min(link.sent) + LINK_KEEPALIVE <= now
            {
                self.next_keepalive += 1;
                link.pings.push(KEEPALIVE | self.next_keepalive);
            }
        }
        self.all.retain(|link| dead.iter().all(|&(id, _)| id != link.id));
        dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn links_of_a_path_that_fell_silent_go_before_one_that_took_their_place() {
        let (mut links, began) = (Links::default(), clock::now());
        for id in 0..LINKS as u64 {
            links.insert(LinkId(id), Rung::Lan, began);
        }
        links.choose();
        let silent = began + Duration::from_secs(1);
        assert!(links.suspect_active(silent).is_some());
        for id in 100..103 {
            let gone = links.make_room(None).unwrap();
            assert!(gone.0 < LINKS as u64, "{gone:?} went, and it had just come");
            links.insert(LinkId(id), Rung::Relay, silent);
        }
        links.close(LinkId(102), CloseCode::Superseded);
        assert_eq!(links.make_room(None), Some(LinkId(102)), "one that is over goes first");
    }
}
