//! Users meet: where they can be reached, introductions, relayed links.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use parlor_protocol::introduction::{Introduction, IntroductionId};
use parlor_protocol::limits::INTRODUCTION_LIFETIME;
use parlor_protocol::presence::Presence;
use parlor_protocol::refusal::{CloseCode, PairRefusal};
use parlor_protocol::wire::control::{Introduce, Introduced, RelayToken, RungOffer, ToUser};

use super::{Command, Coordinator};
use crate::core::directory::Session;
use crate::core::pairing::{self, Plan, Policy, Side, is_inside};
use crate::core::relay::Arrival;
use crate::core::{ConnId, LinkId, Now, Source};

/// How long after a failed check of an address the next one is made.
const CHECK_AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];

impl Coordinator {
    /// A user can now be reached elsewhere.
    pub(super) fn presence(&mut self, conn: ConnId, presence: Presence, now: Now, out: &mut Vec<Command>) {
        let Some(session) = self.directory.on_mut(conn) else { return };
        let same_place = session.presence.port == presence.port && session.presence.public == presence.public;
        session.presence = presence;
        if !same_place {
            self.review_reach(conn, now, out);
        }
    }

    /// Decides which address of a user others may be told to dial, and has it checked if need be.
    ///
    /// What a user declares is checked only where that cannot aim the Room at a stranger's inside: an address of a
    /// private network is dialled only for users who come from one.
    pub(super) fn review_reach(&mut self, conn: ConnId, now: Now, out: &mut Vec<Command>) {
        let Some(session) = self.directory.on_mut(conn) else { return };
        session.reach.generation += 1;
        session.reach.checked.clear();
        session.reach.failures = 0;
        session.reach.due = None;
        let observed = session.observed.ip();
        let declared = session.presence.public.map(|ip| ip.to_canonical());
        if declared == Some(observed) && pairing::dialable(observed) && session.presence.port != 0 {
            session.reach.checked.push(observed);
            out.push(Command::Send { conn, frame: ToUser::Reachable(vec![observed]) });
        } else if !self.check_address(conn, now, out) && declared.is_some() {
            out.push(Command::Send { conn, frame: ToUser::Reachable(Vec::new()) });
        }
    }

    /// Checks where a user says that it is, or later if it has caused too many checks. False: nothing is to be checked.
    fn check_address(&mut self, conn: ConnId, now: Now, out: &mut Vec<Command>) -> bool {
        let Some(session) = self.directory.on_mut(conn) else { return false };
        session.reach.due = None;
        let observed = session.observed.ip();
        let candidate = session.presence.public.map_or(observed, |ip| ip.to_canonical());
        let allowed = session.presence.port != 0
            && pairing::dialable(candidate)
            && self.blacklist.banned(candidate, now.unix).is_none()
            && (!is_inside(candidate) || is_inside(observed));
        if !allowed {
            return false;
        }
        let check = (conn, session.reach.generation);
        let mut place = || self.checks.start(check, Source::of(observed), Source::of(candidate), now.instant);
        if let Err(wait) = session.reach.checks.try_take(1, now.instant).and_then(|()| place()) {
            session.reach.due = Some(now.instant + wait);
            return true;
        }
        out.push(Command::CheckAddress {
            conn,
            generation: session.reach.generation,
            address: SocketAddr::new(candidate, session.presence.port),
            key: session.reach.check_key,
            nonce: self.chance.draw(),
        });
        true
    }

    /// Checks the addresses whose time has come.
    pub(super) fn check_due_addresses(&mut self, now: Now, out: &mut Vec<Command>) {
        let is_due = |session: &&Session| session.reach.due.is_some_and(|at| at <= now.instant);
        let due: Vec<ConnId> = self.directory.iter().filter(is_due).map(|session| session.conn).collect();
        for conn in due {
            self.check_address(conn, now, out);
        }
    }

    /// A check that failed is made again: a listener may just have started, or a packet got lost.
    pub(super) fn address_checked(
        &mut self,
        conn: ConnId,
        generation: u32,
        address: IpAddr,
        reached: bool,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        self.checks.ended((conn, generation));
        let Some(session) = self.directory.on_mut(conn) else { return };
        if session.reach.generation != generation {
            return;
        }
        tracing::debug!(name = %session.name, %address, reached, "address checked");
        if !reached {
            session.reach.due = CHECK_AGAIN.get(session.reach.failures).map(|wait| now.instant + *wait);
            session.reach.failures += 1;
            if session.reach.failures > 1 {
                // It knows already.
                return;
            }
        }
        session.reach.checked = if reached { vec![address] } else { Vec::new() };
        out.push(Command::Send { conn, frame: ToUser::Reachable(session.reach.checked.clone()) });
    }

    pub(super) fn introduce(
        &mut self,
        conn: ConnId,
        introduce: &Introduce,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        match self.plan(conn, introduce, now) {
            Ok((asked, plan)) => self.tell_both(conn, asked, introduce.request, plan, now, out),
            Err(why) => {
                let frame = ToUser::IntroductionRefused(introduce.request, why);
                out.push(Command::Send { conn, frame });
            }
        }
    }

    fn plan(&mut self, conn: ConnId, introduce: &Introduce, now: Now) -> Result<(ConnId, Plan), PairRefusal> {
        let busy = |wait: Duration| PairRefusal::Busy {
            retry_after_ms: u32::try_from(wait.as_millis() + 1).unwrap_or(u32::MAX),
        };
        if let Some(asker) = self.directory.on_mut(conn) {
            asker.introductions.try_take(1, now.instant).map_err(busy)?;
            let (name, source) = (asker.name.clone(), Source::of(asker.observed.ip()));
            if name != introduce.peer
                && let Some(asked) = self.directory.named_mut(&introduce.peer)
            {
                asked.asked_for.try_take(&name, source, now.instant).map_err(busy)?;
            }
        }
        let asker = self.directory.on(conn).ok_or(PairRefusal::Offline)?;
        if asker.name == introduce.peer {
            return Err(PairRefusal::Yourself);
        }
        let Some(asked) = self.directory.named(&introduce.peer) else {
            let exists = !self.accounts.required() || self.accounts.get(&introduce.peer).is_some();
            return Err(if exists { PairRefusal::Offline } else { PairRefusal::NoSuchPeer });
        };
        let policy = Policy {
            allow_unencrypted: self.allow_unencrypted,
            relay: self.limits.relay.enabled && self.relay.may_offer([&asker.name, &asked.name]),
            blacklist: &self.blacklist,
            unix: now.unix,
        };
        let plan = pairing::plan(&Self::side(asker), &Self::side(asked), &policy)?;
        Ok((asked.conn, plan))
    }

    fn side(session: &Session) -> Side<'_> {
        Side { presence: &session.presence, observed: session.observed.ip(), checked: &session.reach.checked }
    }

    /// Tells the peer first, so that it expects the asker's links before they come.
    fn tell_both(
        &mut self,
        conn: ConnId,
        asked: ConnId,
        request: u32,
        mut plan: Plan,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        let (Some(asker), Some(peer)) = (self.directory.on(conn), self.directory.on(asked)) else { return };
        let mut id = [0; 16];
        id.copy_from_slice(&self.chance.draw()[..16]);
        let tokens = [RelayToken(self.chance.draw()), RelayToken(self.chance.draw())];
        let users = [asker.name.clone(), peer.name.clone()];
        if plan.relays() && !self.relay.offer(users, tokens, now.instant) {
            plan.without_relay();
        }
        let introduction = Introduction {
            room: self.identity.public(),
            id: IntroductionId(id),
            asker: asker.party(),
            asked: peer.party(),
            cipher: plan.cipher,
            issued_at: now.unix,
            lifetime: u32::try_from(INTRODUCTION_LIFETIME.as_secs()).unwrap_or(u32::MAX),
        };
        tracing::debug!(asker = %asker.name, asked = %peer.name, rungs = plan.rungs.len(), "introduced");
        self.totals.introductions += 1;
        let introduction = introduction.sign(&self.identity);
        let told = |request, rungs: Vec<RungOffer>| {
            ToUser::Introduced(Box::new(Introduced { request, introduction: introduction.clone(), rungs }))
        };
        out.push(Command::Send { conn: asked, frame: told(None, plan.for_second(tokens[1])) });
        out.push(Command::Send { conn, frame: told(Some(request), plan.for_first(tokens[0])) });
    }

    pub(super) fn relay_hello(
        &mut self,
        link: LinkId,
        from: IpAddr,
        token: &RelayToken,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        if self.draining || self.blacklist.banned(from, now.unix).is_some() {
            let code = if self.draining { CloseCode::ShuttingDown } else { CloseCode::Banned };
            out.push(Command::RelayRefuse { link, code });
            return;
        }
        match self.relay.arrive(link, from, token, now.instant) {
            Arrival::Waits => {}
            Arrival::Ready { pair, links, users } => {
                self.totals.relayed_links += 1;
                out.push(Command::RelayReady { pair, links, users });
            }
            Arrival::Refused { code, waiting } => {
                let refused = waiting.into_iter().chain([link]);
                out.extend(refused.map(|link| Command::RelayRefuse { link, code }));
            }
        }
    }
}
