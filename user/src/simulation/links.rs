//! Handshakes and records on links without their sockets: what `conversation/links.rs` does, in its order.

use std::rc::Rc;
use std::time::{Duration, Instant};

use parlor_protocol::limits::{LINK_DEAD, RECEIVE_WINDOW};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;

use super::attempts::{Group, Outcome};
use super::conversation::Chan;
use super::network::{ConnKey, End, Packet, Role};
use super::note;
use super::world::{What, World};
use crate::core::channel::{Event, LinkId, Stale, Terms};

/// As in `conversation/mod.rs`.
pub(super) const UNREAD: u64 = 2 * RECEIVE_WINDOW;

/// What is due may be served this much later.
const SOON: Duration = Duration::from_millis(50);

/// A link on which data waits for an acknowledgement that cannot come, and how things stood then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stuck {
    user: usize,
    run: u32,
    peer: usize,
    id: LinkId,
    session: u64,
    switches: u64,
    acked: u64,
    since: Instant,
}

impl World {
    pub(super) fn handshake_or_record(
        &mut self,
        user: usize,
        run: u32,
        key: ConnKey,
        end: usize,
        role: Role,
        packet: Packet,
    ) {
        match (role, packet) {
            (Role::Dialing(attempt), Packet::RelayReady) => {
                let Some(trying) = self.attempts.get(&attempt) else { return };
                if trying.asked {
                    let known = Rc::clone(&trying.known);
                    let role = Role::Answering { known, attempt: Some(attempt), terms: None };
                    self.set_role(key, end, role);
                } else {
                    self.open_handshake(attempt, key);
                }
            }
            (Role::Dialing(attempt), Packet::RelayRefused) => self.attempt_failed(attempt, "relay refused"),
            (Role::Dialing(attempt), Packet::Refusal(code)) => {
                self.attempt_failed(attempt, &format!("refused: {code}"));
            }
            (Role::Dialing(attempt), Packet::Accept(accept, sealed)) => {
                self.open_accept(key, end, &accept, sealed);
                let Some(trying) = self.attempts.get(&attempt) else { return };
                let (peer, rung) = (trying.known.peer, trying.attempt.rung);
                let Some(hello) = trying.hello else { return };
                let terms = Chan::terms_of(&hello, &accept);
                match self.adopt(user, run, peer, key, end, rung, &terms) {
                    Ok(()) => self.outcome(attempt, Outcome::Linked(rung)),
                    Err(Stale) => self.attempt_failed(attempt, "stale"),
                }
            }
            (Role::Answering { known, attempt, terms: None }, Packet::Hello(rung, hello, sealed)) => {
                let peer = known.peer;
                self.ensure_conversation(user, run, peer);
                let Some(conversation) = self.conversation(user, run, peer) else { return };
                match conversation.channel.judge(&hello) {
                    Ok((accept, terms)) => {
                        let relayed = attempt.is_some();
                        let sealed = self.answer_hello(
                            user,
                            (key, end),
                            &known,
                            relayed,
                            (rung, &hello),
                            &accept,
                            sealed,
                        );
                        let terms = Some((rung, terms));
                        self.set_role(key, end, Role::Answering { known, attempt, terms });
                        self.transmit(key, end, Packet::Accept(accept, sealed));
                    }
                    Err(Stale) => {
                        self.transmit(key, end, Packet::Refusal(CloseCode::Superseded));
                        match attempt {
                            Some(attempt) => self.attempt_failed(attempt, "stale"),
                            None => self.close(key, end),
                        }
                    }
                }
            }
            (
                Role::Answering { known, attempt, terms: Some((rung, terms)) },
                packet @ Packet::Record { .. },
            ) => {
                let adopted = self.adopt(user, run, known.peer, key, end, rung, &terms);
                if adopted.is_ok() {
                    let role = self.role(key, end);
                    self.handshake_or_record(user, run, key, end, role, packet);
                } else if attempt.is_none() {
                    self.close(key, end);
                }
                if let Some(attempt) = attempt {
                    match adopted {
                        Ok(()) => self.outcome(attempt, Outcome::Linked(rung)),
                        Err(Stale) => self.attempt_failed(attempt, "stale"),
                    }
                }
            }
            (Role::Link { peer, id }, Packet::Record { number, key: under, plaintext, sealed }) => {
                self.open_record(key, end, &plaintext, sealed);
                self.on_record(user, run, peer, id, (key, end), (number, under), &plaintext);
            }
            // A link that was dropped is read to its end.
            (Role::Closed, _) => {}
            (role, packet) => panic!("{user} heard {packet:?} as {role:?}"),
        }
    }

    pub(super) fn on_answer_deadline(&mut self, key: ConnKey, end: usize) {
        if matches!(self.role(key, end), Role::New | Role::Answering { attempt: None, .. }) {
            self.close(key, end);
        }
    }

    /// Binds a proved link to the channel.
    #[expect(clippy::too_many_arguments, reason = "what the shell's struct holds")]
    fn adopt(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        conn: ConnKey,
        end: usize,
        rung: Rung,
        terms: &Terms,
    ) -> Result<(), Stale> {
        let now = self.now;
        let Some(process) = self.process(user, run) else { return Err(Stale) };
        if process.left {
            return Err(Stale);
        }
        let id = LinkId(process.next_link);
        process.next_link += 1;
        let mut events = Vec::new();
        let Some(conversation) = self.conversation(user, run, peer) else { return Err(Stale) };
        if conversation.unread > UNREAD && !conversation.channel.goes_on(terms) {
            note!(self, "{user}>{peer} too much is unread");
            return Err(Stale);
        }
        let progress = conversation.channel.progress();
        conversation.links.insert(id, conn);
        let bound = conversation.channel.bind(id, rung, terms, now, &mut events);
        if events.iter().any(|event| matches!(event, Event::SessionReset { .. })) {
            conversation.note_session_end(progress);
        }
        if bound.is_err() {
            conversation.links.remove(&id);
            note!(self, "{user}>{peer} {rung} link is stale: {terms:?}");
            self.dispatch(user, run, peer, &mut events);
            return Err(Stale);
        }
        conversation.bound_at.get_or_insert(now);
        conversation.keeper.linked();
        conversation.keeper.wake();
        note!(self, "{user}>{peer} binds {id:?} on {rung}, {conn:?}");
        self.set_role(conn, end, Role::Link { peer, id });
        self.ledger.links += 1;
        self.settle(user, run, peer);
        self.phase_changed(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
        self.flush(user, run, conn);
        self.look(user, run, peer);
        let waits =
            |group: &Group| (group.user, group.run, group.peer) == (user, run, peer) && group.left.is_empty();
        let waiting: Vec<u64> = self.groups.iter().filter(|(_, g)| waits(g)).map(|(n, _)| *n).collect();
        for group in waiting {
            self.schedule(now, What::PeerDialed { group });
        }
        Ok(())
    }

    /// Takes in a record of a link.
    #[expect(clippy::too_many_arguments, reason = "what the shell's structs hold")]
    fn on_record(
        &mut self,
        user: usize,
        run: u32,
        peer: usize,
        id: LinkId,
        (key, end): (ConnKey, usize),
        (number, sealed): (u64, u64),
        plaintext: &bytes::Bytes,
    ) {
        let now = self.now;
        let Some(conn) = self.network.conns.get_mut(&key) else { return };
        let pipe = &mut conn.pipes[1 - end];
        assert_eq!(pipe.taken, number, "{user} opens a record of {peer} out of order");
        assert_eq!(pipe.opening_key, sealed, "{user} opens a record of {peer} with another key");
        pipe.taken += 1;
        let mut events = Vec::new();
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let taken = conversation.channel.on_record(id, plaintext, now, &mut events);
        self.settle(user, run, peer);
        self.dispatch(user, run, peer, &mut events);
        match taken {
            Ok(after) => {
                if after.rekey
                    && let Some(conn) = self.network.conns.get_mut(&key)
                {
                    conn.pipes[1 - end].opening_key += 1;
                    self.seals.next_opening_key(key, end);
                }
                if after.closed {
                    self.drop_link(user, run, peer, id, key, end);
                } else {
                    self.after_reading(user, run, peer, key);
                }
            }
            Err(misbehaved) => panic!("{user} says that {peer} misbehaved: {misbehaved}"),
        }
    }

    // How soon a link that does not work is noticed.

    /// Something has happened to a connection: if its links hear nothing from now on, they are to be gone in time.
    pub(super) fn watch_links(&mut self, key: ConnKey) {
        let Some(conn) = self.network.conns.get(&key) else { return };
        let mut ends = vec![(key, 0), (key, 1)];
        if let Role::Spliced(other) = conn.roles[1] {
            ends.push((other, 0));
        }
        for (conn, end) in ends {
            if let Role::Link { .. } = self.role(conn, end) {
                self.schedule(self.now + LINK_DEAD + SOON, What::DeadLink { conn, end });
                self.watch_if_stuck(conn, end);
            }
        }
    }

    pub(super) fn on_dead_link(&mut self, key: ConnKey, end: usize) {
        let Some(conn) = self.network.conns.get(&key) else { return };
        if let Role::Link { peer, .. } = conn.roles[end] {
            let silent = self.now - conn.heard[end];
            assert!(silent <= LINK_DEAD + SOON, "a link to {peer} has heard nothing for {silent:?}");
        }
    }

    /// If data is in flight on a link on which nothing can be acknowledged now, the link is to be suspect in time.
    pub(super) fn watch_if_stuck(&mut self, key: ConnKey, end: usize) {
        let (Role::Link { peer, id }, true) = (self.role(key, end), self.is_stuck(key)) else { return };
        let Some(End::User(user, run)) = self.network.conns.get(&key).map(|c| c.ends[end]) else { return };
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let (session, switches) = (conversation.session, conversation.switches);
        let acked = conversation.channel.acked_seq();
        let carries = conversation.active() == Some(key) && conversation.channel.sound_rung().is_some();
        let Some(within) = conversation.channel.suspicion_after().filter(|_| carries) else { return };
        let watched = Some((session, switches, acked));
        if std::mem::replace(&mut conversation.watched, watched) == watched {
            return;
        }
        let since = self.now;
        let stuck = Stuck { user, run, peer, id, session, switches, acked, since };
        self.schedule(self.now + within + SOON, What::Stuck(stuck));
    }

    fn is_stuck(&self, key: ConnKey) -> bool {
        let stuck = |conn: &super::network::Conn| {
            conn.dead || conn.silent_until.iter().any(|until| until.is_some_and(|at| at > self.now))
        };
        let Some(conn) = self.network.conns.get(&key) else { return false };
        let other = match conn.roles[1] {
            Role::Spliced(other) => self.network.conns.get(&other),
            _ => None,
        };
        stuck(conn) || other.is_some_and(stuck)
    }

    pub(super) fn on_stuck(&mut self, stuck: Stuck) {
        let Stuck { user, run, peer, id, session, switches, acked, since } = stuck;
        let now = self.now;
        let Some(conversation) = self.conversation(user, run, peer) else { return };
        let same = conversation.session == session
            && conversation.switches == switches
            && conversation.channel.acked_seq() == acked
            && conversation.channel.path().is_some_and(|(active, ..)| active == id);
        let due = conversation.channel.suspicion_after().filter(|_| same).map(|after| since + after + SOON);
        match due {
            // What was under way has told more of the round trip meanwhile.
            Some(at) if at > now => self.schedule(at, What::Stuck(stuck)),
            due => assert!(
                due.is_none(),
                "{user} does not suspect {id:?} to {peer}, which swallows what is sent"
            ),
        }
    }
}
