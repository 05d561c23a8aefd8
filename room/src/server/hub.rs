//! The task that owns the core: it takes one event after the other and carries out what the core says.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::ToUser;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Pushed};
use super::passwords::PasswordThreads;
use super::relay::{self, Quotas};
use super::storage::{Job, not_kept};
use super::{Event, Place, Shared, dialback, lock};
use crate::admin::{AdminCall, AdminResponse};
use crate::clock;
use crate::core::coordinator::{CallId, Command, Coordinator, Input};
use crate::core::relay::PairId;
use crate::core::{ConnId, LinkId};
use crate::store::StoreChange;

/// The hub and everything it can hand work to.
pub(crate) struct Hub {
    core: Coordinator,
    shared: Arc<Shared>,
    connections: HashMap<ConnId, Connection>,
    /// Links that have shown a token and wait for the other one.
    waiting: HashMap<LinkId, Link>,
    pairs: HashMap<PairId, Pair>,
    quotas: Quotas,
    calls: HashMap<CallId, oneshot::Sender<AdminResponse>>,
    store: mpsc::Sender<Job>,
    passwords: PasswordThreads,
    /// What became of commands at once, such as a connection that was given up. The core hears of it next.
    at_once: Vec<Input>,
}

/// A link that waits. A valid token gives its place at the door back: links that wait are as many as tokens.
struct Link {
    stream: TcpStream,
    place: Option<Place>,
}

/// A pair that runs.
struct Pair {
    running: CancellationToken,
    copied: relay::Copied,
}

struct Connection {
    outbox: Outbox,
    /// Its place at the door. Its task holds it until it has logged in or its socket is gone.
    place: Weak<Place>,
}

impl Hub {
    pub(crate) fn new(
        core: Coordinator,
        shared: Arc<Shared>,
        limits: &crate::config::RoomLimits,
        store: mpsc::Sender<Job>,
    ) -> Self {
        Self {
            core,
            shared,
            connections: HashMap::new(),
            waiting: HashMap::new(),
            pairs: HashMap::new(),
            quotas: Quotas::new(&limits.relay),
            calls: HashMap::new(),
            store,
            passwords: PasswordThreads::new(limits.bcrypt_threads, limits.bcrypt_queue),
            at_once: Vec::new(),
        }
    }

    /// Runs until the Room stops. `drained` is told when everybody was sent away.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut calls: mpsc::Receiver<AdminCall>,
        drained: oneshot::Sender<()>,
    ) {
        let (stop, closing) = (self.shared.stop.clone(), self.shared.closing.clone());
        // Without its hub, for whatever reason, a Room is none: everything ends with it.
        let _ends_everything = stop.clone().drop_guard();
        let mut drained = Some(drained);
        let mut commands = Vec::new();
        loop {
            let wake_at = self.core.wake_at().into();
            let input = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = closing.cancelled(), if drained.is_some() => Input::Drain,
                Some(call) = calls.recv() => {
                    let id = CallId(self.shared.next_id());
                    self.calls.insert(id, call.reply);
                    Input::Admin { call: id, request: call.request }
                }
                Some(event) = events.recv() => self.take_in(event),
                () = sleep_until(wake_at) => Input::Tick,
            };
            let drains = matches!(input, Input::Drain);
            let link = if let Input::RelayHello { link, .. } = &input { Some(*link) } else { None };
            self.decide(input, &mut commands);
            while let Some(input) = self.at_once.pop() {
                self.decide(input, &mut commands);
            }
            if let Some(link) = link.and_then(|link| self.waiting.get_mut(&link)) {
                link.place = None;
            }
            if drains && let Some(drained) = drained.take() {
                let _ = drained.send(());
            }
        }
    }

    fn decide(&mut self, input: Input, commands: &mut Vec<Command>) {
        self.core.handle(input, clock::now(), commands);
        for command in commands.drain(..) {
            self.carry_out(command);
        }
    }

    /// Keeps what belongs to the shell and gives the core the rest.
    fn take_in(&mut self, event: Event) -> Input {
        match event {
            Event::Opened { conn, from, exporter, outbox, place } => {
                self.connections.insert(conn, Connection { outbox, place });
                Input::Opened { conn, from, exporter }
            }
            Event::RelayHello { link, token, stream, from, place } => {
                self.waiting.insert(link, Link { stream, place: Some(place) });
                Input::RelayHello { link, from: from.ip(), token }
            }
            Event::Core(input) => {
                match &input {
                    Input::Closed { conn } => {
                        self.connections.remove(conn);
                    }
                    Input::RelayEnded { pair, .. } => {
                        self.pairs.remove(pair);
                    }
                    _ => {}
                }
                input
            }
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Send { conn, frame } => {
                if matches!(frame, ToUser::LoginRefused(_))
                    && let Some(place) = self.place(conn)
                {
                    place.refused();
                }
                self.send(conn, frame.encode().into());
            }
            Command::SendEncoded { conn, frame } => self.send(conn, frame),
            Command::Broadcast(frame) => self.broadcast(&frame),
            Command::Admitted { conn } => {
                if let Some(connection) = self.connections.get(&conn) {
                    // It may have been refused before, and is not to make room for another now.
                    if let Some(place) = connection.place.upgrade() {
                        place.spoke();
                    }
                    connection.outbox.admit();
                }
            }
            Command::Close { conn, closing } => {
                if let Some(connection) = self.connections.remove(&conn) {
                    connection.outbox.close(&closing);
                }
            }
            Command::CheckPasswords { conn, attempt, checks, precedence } => {
                let passwords = self.passwords.clone();
                let connection = self.connections.get(&conn);
                let outbox = connection.map(|connection| connection.outbox.clone());
                // Whoever goes meanwhile keeps its place at the door until the answer is there.
                let place = connection.and_then(|connection| connection.place.upgrade());
                if let Some(place) = &place {
                    place.spoke();
                }
                self.report(async move {
                    let gone = || outbox.is_none_or(|outbox| outbox.has_ended());
                    let verdict = passwords.verify(checks, precedence, gone).await;
                    drop(place);
                    Input::PasswordsChecked { conn, attempt, verdict }
                });
            }
            Command::Bind { conn, name, identity } => self.bind(conn, name, identity),
            Command::CheckAddress { conn, generation, address, key, nonce } => {
                self.report(async move {
                    let reached = dialback::reaches(address, key, nonce).await;
                    Input::AddressChecked { conn, generation, address: address.ip(), reached }
                });
            }
            Command::RelayReady { pair, links, users } => self.splice(pair, links, users),
            Command::RelayRefuse { link, code } => self.refuse(link, code),
            Command::RelayEnd { pair } => {
                if let Some(pair) = self.pairs.get(&pair) {
                    pair.running.cancel();
                }
            }
            Command::Bar { source, until } => {
                lock(&self.shared.door).bar(source, until, clock::now().instant);
            }
            Command::Pardon(net) => lock(&self.shared.door).pardon(net),
            Command::Blacklist(blacklist) => lock(&self.shared.door).set_blacklist(blacklist),
            Command::Store { change, call } => {
                let reply = call.and_then(|call| self.calls.remove(&call));
                if let Err(error) = self.store.try_send(Job { change, reply }) {
                    tracing::error!("a change is in force but not on disk: the disk does not keep up");
                    if let mpsc::error::TrySendError::Full(Job { reply: Some(reply), .. }) = error {
                        let _ = reply.send(not_kept("the disk does not keep up"));
                    }
                }
            }
            Command::Answer { call, response } => self.answer(call, response),
        }
    }

    /// The login goes on when the disk has answered.
    fn bind(&mut self, conn: ConnId, name: UserName, identity: PublicIdentity) {
        let change = StoreChange::Binding { name: name.clone(), identity: Some(identity) };
        let (reply, answer) = oneshot::channel();
        if self.store.try_send(Job { change, reply: Some(reply) }).is_err() {
            return self.at_once.push(Input::Bound { conn, name, kept: false });
        }
        self.report(async move {
            let kept = matches!(answer.await, Ok(AdminResponse::Done));
            Input::Bound { conn, name, kept }
        });
    }

    /// The place at the door of a connection that has not logged in.
    fn place(&self, conn: ConnId) -> Option<Arc<Place>> {
        self.connections.get(&conn)?.place.upgrade()
    }

    fn send(&mut self, conn: ConnId, frame: Bytes) {
        let Some(connection) = self.connections.get(&conn) else { return };
        if connection.outbox.push(frame) == Pushed::SlowReader {
            tracing::warn!(?conn, "closed: {}", CloseCode::SlowReader);
            self.connections.remove(&conn);
            self.at_once.push(Input::Closed { conn });
        }
    }

    /// Encodes once; every connection shares the bytes.
    fn broadcast(&mut self, frame: &ToUser) {
        let frame: Bytes = frame.encode().into();
        let admitted = self.connections.iter().filter(|(_, connection)| connection.outbox.is_admitted());
        let conns: Vec<ConnId> = admitted.map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.send(conn, frame.clone());
        }
    }

    /// Runs slow work and gives the core its result.
    fn report(&self, work: impl Future<Output = Input> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let reported = async move {
            let input = work.await;
            shared.tell(Event::Core(input)).await;
        };
        self.shared.tasks.spawn(self.shared.stop.clone().run_until_cancelled_owned(reported));
    }

    fn splice(&mut self, pair: PairId, links: [LinkId; 2], users: [UserName; 2]) {
        let [first, second] = links.map(|link| self.waiting.remove(&link));
        let (Some(first), Some(second)) = (first, second) else {
            return self.report(async move { Input::RelayEnded { pair, bytes: 0 } });
        };
        let now = clock::now().instant;
        let quotas = users.map(|user| self.quotas.of(user, now));
        let running = self.shared.stop.child_token();
        let copied = relay::Copied::default();
        self.pairs.insert(pair, Pair { running: running.clone(), copied: copied.clone() });
        let splice = relay::splice([first.stream, second.stream], quotas, copied.clone());
        self.report(async move {
            running.run_until_cancelled(splice).await;
            Input::RelayEnded { pair, bytes: copied.bytes() }
        });
    }

    fn refuse(&mut self, link: LinkId, code: CloseCode) {
        if let Some(Link { stream, place }) = self.waiting.remove(&link) {
            let told = async move {
                relay::refuse(stream, code).await;
                drop(place);
            };
            self.shared.spawn_connection(told);
        }
    }

    fn answer(&mut self, call: CallId, mut response: AdminResponse) {
        if let AdminResponse::Status(report) = &mut response {
            report.totals.passwords_checked = self.passwords.checked();
            report.totals.connections = self.shared.counters.connections.load(Ordering::Relaxed);
            report.totals.relayed_bytes += self.pairs.values().map(|pair| pair.copied.bytes()).sum::<u64>();
            report.totals.turned_away = self.shared.counters.turned_away.load(Ordering::Relaxed);
        }
        if let Some(reply) = self.calls.remove(&call) {
            // The operator may have gone meanwhile.
            let _ = reply.send(response);
        }
    }
}
