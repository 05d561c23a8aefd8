//! What all conversations of a user share: its identity, its Room, its callbacks, its tasks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use parlor_protocol::identity::{Identity, InstanceId, PublicIdentity};
use parlor_protocol::introduction::{Cipher, Introduction, IntroductionId};
use parlor_protocol::limits::WHOLE_LOGIN;
use parlor_protocol::name::UserName;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::presence::Encryption;
use parlor_protocol::refusal::{CloseCode, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{Introduced, Member, Roster, RungOffer};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callbacks::Callbacks;
use crate::clock;
use crate::conversation::{Budget, Conversation, Incoming};
use crate::core::channel::LinkId;
use crate::core::roster::{Change, Members};
use crate::data::DataDir;
use crate::error::OpenError;
use crate::events::Event;
use crate::inbox::Queue;
use crate::net::blacklist::Blacklist;
use crate::net::interfaces::{self, Reachability};
use crate::net::listener::{Arrival, CheckKey};
use crate::net::room::{Joined, LostReason, RoomCommand, RoomEvent};

/// A peer that dials before the Room's word of it has arrived is waited for this long.
const EARLY: Duration = Duration::from_secs(2);
/// Introductions that are remembered. A room in which more are under way at once is not this program's.
const INTRODUCTIONS: usize = 4096;
/// How often a Room that is asked too much is asked again.
const BUSY_TRIES: usize = 8;
/// How often this machine's addresses are looked at.
const NETWORK_LOOK: Duration = Duration::from_secs(5);
/// Conversations at rest are forgotten when there are this many.
const PEERS_AT_REST: usize = 1024;
/// A handshake that a peer opened on the listener must be done by then.
const ANSWER: Duration = parlor_protocol::limits::LINK_ATTEMPT;
/// The rungs on which a peer comes to the listener.
const DIRECT: &[Rung] = &[Rung::SameHost, Rung::Lan, Rung::Public];

/// An introduction that holds.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) introduction: Introduction,
    pub(crate) peer: UserName,
    pub(crate) identity: PublicIdentity,
    pub(crate) until: Instant,
}

impl Known {
    /// False if records in the clear would leave the host or the LAN that the rung stands for: the Room's word is not
    /// enough for that.
    pub(crate) fn allows(&self, rung: Rung, address: IpAddr) -> bool {
        if self.introduction.cipher != Cipher::Cleartext {
            return true;
        }
        match rung {
            Rung::SameHost => address.to_canonical().is_loopback(),
            Rung::Lan => is_local(address.to_canonical()),
            Rung::Public | Rung::Relay => false,
        }
    }
}

/// Addresses that do not lead out of a local network: RFC 1918, RFC 4193, link-local.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// What the builder settled.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Whether this user's channels are to be encrypted.
    pub(crate) encryption: Encryption,
    /// The kinds of path this user takes.
    pub(crate) rungs: Vec<Rung>,
    pub(crate) max_body: u32,
    pub(crate) calls_running: usize,
    pub(crate) get_timeout: Option<Duration>,
}

type Answer = Result<Box<Introduced>, PairRefusal>;

/// See the module.
pub(crate) struct Hub {
    pub(crate) name: UserName,
    pub(crate) identity: Arc<Identity>,
    pub(crate) instance: InstanceId,
    pub(crate) room: PublicIdentity,
    pub(crate) settings: Settings,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) inbox: Arc<Queue>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) blacklist: Blacklist,
    pub(crate) check_key: CheckKey,
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the user leaves: every task ends.
    pub(crate) stop: CancellationToken,
    commands: mpsc::Sender<RoomCommand>,
    events: broadcast::Sender<Event>,
    data: DataDir,
    state: Mutex<State>,
    introductions: Mutex<HashMap<IntroductionId, Arc<Known>>>,
    introduced: Notify,
    room_is_up: AtomicBool,
    left: AtomicBool,
    next_link: AtomicU64,
    next_request: AtomicU32,
    next_generation: AtomicU32,
}

struct State {
    members: Members,
    room_socket: SocketAddr,
    observed: SocketAddr,
    peers: HashMap<UserName, Arc<Conversation>>,
    requests: HashMap<u32, oneshot::Sender<Answer>>,
    /// The latest introduction to each peer, for when the Room is gone.
    latest: HashMap<UserName, (Arc<Known>, Vec<RungOffer>)>,
    pins: HashMap<UserName, PublicIdentity>,
}

/// What the hub is made of.
pub(crate) struct Parts {
    pub(crate) name: UserName,
    pub(crate) instance: InstanceId,
    pub(crate) settings: Settings,
    pub(crate) blacklist: Blacklist,
    pub(crate) check_key: CheckKey,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) commands: mpsc::Sender<RoomCommand>,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) data: DataDir,
    pub(crate) joined: Joined,
}

/// Events that a slow reader may be behind before it misses some.
const EVENTS: usize = 1024;

impl Hub {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let joined = parts.joined;
        let hub = Arc::new(Self {
            name: parts.name,
            identity: Arc::clone(&joined.identity),
            instance: parts.instance,
            room: joined.room,
            settings: parts.settings,
            callbacks: parts.callbacks,
            inbox: Arc::default(),
            budget: Arc::default(),
            blacklist: parts.blacklist,
            check_key: parts.check_key,
            tasks: parts.tasks,
            stop: parts.stop,
            commands: parts.commands,
            events: broadcast::channel(EVENTS).0,
            data: parts.data,
            state: Mutex::new(State {
                members: Members::default(),
                room_socket: joined.room_socket,
                observed: joined.observed,
                peers: HashMap::new(),
                requests: HashMap::new(),
                latest: HashMap::new(),
                pins: HashMap::new(),
            }),
            introductions: Mutex::new(HashMap::new()),
            introduced: Notify::new(),
            room_is_up: AtomicBool::new(true),
            left: AtomicBool::new(false),
            next_link: AtomicU64::new(1),
            next_request: AtomicU32::new(1),
            next_generation: AtomicU32::new(0),
        });
        hub.joined(joined);
        hub
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    /// An epoch that no conversation of this run has had.
    pub(crate) fn next_epoch(&self) -> Epoch {
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        Epoch { instance: self.instance, generation }
    }

    pub(crate) fn room_socket(&self) -> SocketAddr {
        self.lock().room_socket
    }

    pub(crate) fn room_is_up(&self) -> bool {
        self.room_is_up.load(Ordering::SeqCst)
    }

    /// True when this user's channels have been ended for good.
    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    pub(crate) fn observed(&self) -> SocketAddr {
        self.lock().observed
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.lock().members.iter().cloned().collect()
    }

    /// The user that is online under this name, as it writes it.
    pub(crate) fn is_online(&self, peer: &UserName) -> bool {
        self.lock().members.get(peer).is_some()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listening is no fault.
        let _ = self.events.send(event);
    }

    /// The conversation with a peer, which may not have begun.
    pub(crate) fn conversation(self: &Arc<Self>, peer: &UserName) -> Arc<Conversation> {
        let mut state = self.lock();
        if let Some(conversation) = state.peers.get(peer) {
            return Arc::clone(conversation);
        }
        if state.peers.len() >= PEERS_AT_REST {
            // Who holds a peer keeps its conversation; the rest begin anew when they are needed.
            state.peers.retain(|_, peer| Arc::strong_count(peer) > 1 || !peer.is_at_rest());
        }
        let conversation = Conversation::new(peer.clone(), self);
        state.peers.insert(peer.clone(), Arc::clone(&conversation));
        conversation
    }

    pub(crate) fn conversations(&self) -> Vec<Arc<Conversation>> {
        self.lock().peers.values().cloned().collect()
    }

    /// Asks the Room for an introduction; while it is gone, the latest one serves.
    pub(crate) async fn introduce(&self, peer: &UserName) -> Result<(Arc<Known>, Vec<RungOffer>), OpenError> {
        if *peer == self.name {
            return Err(OpenError::Refused { peer: peer.clone(), why: PairRefusal::Yourself });
        }
        for _ in 0..BUSY_TRIES {
            match self.ask_for_introduction(peer).await {
                Err(OpenError::Refused { why: PairRefusal::Busy { retry_after_ms }, .. }) => {
                    tokio::time::sleep(Duration::from_millis(u64::from(retry_after_ms))).await;
                }
                answer => return answer,
            }
        }
        self.ask_for_introduction(peer).await
    }

    async fn ask_for_introduction(&self, peer: &UserName) -> Result<(Arc<Known>, Vec<RungOffer>), OpenError> {
        if !self.room_is_up() {
            return self.latest(peer);
        }
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.lock().requests.insert(request, sender);
        let command = RoomCommand::Introduce { request, peer: peer.clone() };
        let answered = timeout(WHOLE_LOGIN, async {
            self.commands.send(command).await.ok()?;
            answer.await.ok()
        });
        let answer = answered.await;
        self.lock().requests.remove(&request);
        match answer {
            Ok(Some(Ok(introduced))) => {
                let (known, offers) = self.know(*introduced)?;
                if known.peer != *peer {
                    let why = format!("it introduces {} instead", known.peer);
                    return Err(OpenError::BadIntroduction { peer: peer.clone(), why });
                }
                Ok((known, offers))
            }
            Ok(Some(Err(why))) => Err(refused(peer, why)),
            Ok(None) | Err(_) => self.latest(peer),
        }
    }

    fn latest(&self, peer: &UserName) -> Result<(Arc<Known>, Vec<RungOffer>), OpenError> {
        let now = clock::now();
        let latest = self.lock().latest.get(peer).cloned();
        let Some((known, offers)) = latest.filter(|(known, _)| known.until > now) else {
            return Err(OpenError::RoomLost(peer.clone()));
        };
        // Relay tokens are used up, and the relay is gone with the Room.
        let offers = offers.into_iter().filter(|offer| offer.rung.is_direct()).collect();
        Ok((known, offers))
    }

    /// Verifies an introduction and remembers it.
    fn know(&self, introduced: Introduced) -> Result<(Arc<Known>, Vec<RungOffer>), OpenError> {
        let bad = |why: String| OpenError::BadIntroduction { peer: self.name.clone(), why };
        let introduction =
            introduced.introduction.verify(&self.room).map_err(|error| bad(error.to_string()))?;
        let Some((me, peer)) = introduction.sides(&self.name) else {
            return Err(bad("it does not name this user".to_owned()));
        };
        if me.identity != self.identity.public() {
            return Err(bad("it names this user with another identity".to_owned()));
        }
        let (name, identity) = (peer.name.clone(), peer.identity);
        if introduction.cipher == Cipher::Cleartext && self.settings.encryption == Encryption::On {
            let why = "it says that records go in the clear, and this user wants encryption".to_owned();
            return Err(OpenError::BadIntroduction { peer: name, why });
        }
        self.check_pin(&name, &identity)?;
        let now = clock::now();
        let until = now + introduction.lifetime();
        let id = introduction.id;
        let known = Arc::new(Known { introduction, peer: name.clone(), identity, until });
        {
            let mut introductions = self.introductions.lock().unwrap_or_else(PoisonError::into_inner);
            if introductions.len() >= INTRODUCTIONS {
                introductions.retain(|_, known| known.until > now);
            }
            if introductions.len() >= INTRODUCTIONS
                && let Some(oldest) =
                    introductions.iter().min_by_key(|(_, known)| known.until).map(|(id, _)| *id)
            {
                introductions.remove(&oldest);
            }
            introductions.insert(id, Arc::clone(&known));
        }
        self.introduced.notify_waiters();
        let mut offers = introduced.rungs;
        offers.retain(|offer| self.settings.rungs.contains(&offer.rung));
        let mut state = self.lock();
        if state.latest.len() >= INTRODUCTIONS {
            state.latest.retain(|_, (known, _)| known.until > now);
        }
        if state.latest.len() < INTRODUCTIONS || state.latest.contains_key(&name) {
            state.latest.insert(name, (Arc::clone(&known), offers.clone()));
        }
        drop(state);
        Ok((known, offers))
    }

    /// Holds a peer's key against the one seen before.
    fn check_pin(&self, peer: &UserName, identity: &PublicIdentity) -> Result<(), OpenError> {
        let seen_in_this_run = self.lock().pins.get(peer).copied();
        let pinned = match seen_in_this_run {
            Some(pinned) => Some(pinned),
            // A key that cannot be compared is not believed.
            None => self.data.peer_pin(self.room.fingerprint(), peer).map_err(|error| {
                let why = format!("its key cannot be held against the one seen before: {error}");
                OpenError::BadIntroduction { peer: peer.clone(), why }
            })?,
        };
        match pinned {
            Some(pinned) if pinned != *identity => {
                let error = OpenError::IdentityChanged {
                    peer: peer.clone(),
                    pinned: pinned.fingerprint(),
                    seen: identity.fingerprint(),
                };
                self.tell(Event::IdentityChanged { peer: peer.clone(), why: error.to_string() });
                Err(error)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A peer has proved this key: it is the one expected from now on. False if another one was proved first.
    pub(crate) fn pin(self: &Arc<Self>, known: &Known) -> bool {
        let (peer, identity) = (known.peer.clone(), known.identity);
        match self.lock().pins.entry(peer.clone()) {
            Entry::Occupied(pinned) => return *pinned.get() == identity,
            Entry::Vacant(place) => place.insert(identity),
        };
        if peer.is_guest() {
            return true;
        }
        let (data, room) = (self.data.clone(), self.room.fingerprint());
        self.tasks.spawn_blocking(move || {
            if let Ok(Some(_)) = data.peer_pin(room, &peer) {
                return;
            }
            if let Err(error) = data.pin_peer(room, &peer, &identity) {
                tracing::warn!(%peer, %error, "the key of a peer cannot be kept");
            }
        });
        true
    }

    /// Forgets the key seen before under a name. True if there was one.
    pub(crate) fn forget(&self, peer: &UserName) -> Result<bool, crate::data::DataError> {
        let here = self.lock().pins.remove(peer).is_some();
        Ok(self.data.forget_peer(self.room.fingerprint(), peer)? || here)
    }

    /// Takes what the Room says, until the user leaves.
    pub(crate) async fn listen_to_room(self: Arc<Self>, mut events: mpsc::Receiver<RoomEvent>) {
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = events.recv() => event,
            };
            let Some(event) = event else { return };
            self.on_room_event(event);
        }
    }

    /// Tells the Room when this machine's addresses change, and looks for better paths then.
    pub(crate) async fn watch_network(self: Arc<Self>, reachability: Reachability) {
        let mut known = interfaces::addresses();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(NETWORK_LOOK) => {}
            }
            let now = interfaces::addresses();
            if now == known {
                continue;
            }
            tracing::info!(addresses = ?now, "this machine's addresses changed");
            known = now;
            // While the Room is gone this would wait for it; the next login says the same.
            if self.room_is_up()
                && self.commands.try_send(RoomCommand::Presence(reachability.clone())).is_err()
            {
                tracing::warn!("the Room was not told of this machine's new addresses");
            }
            for conversation in self.conversations() {
                conversation.try_again();
                conversation.climb_now();
            }
        }
    }

    fn on_room_event(self: &Arc<Self>, event: RoomEvent) {
        match event {
            RoomEvent::Roster(delta) => self.on_roster(delta),
            RoomEvent::Introduced(introduced) => match introduced.request {
                Some(request) => self.answer(request, Ok(introduced)),
                None => self.on_asked(*introduced),
            },
            RoomEvent::IntroductionRefused { request, why } => self.answer(request, Err(why)),
            RoomEvent::Blacklist(nets) => self.blacklist.set(nets),
            RoomEvent::Reachable(addresses) => {
                tracing::debug!(?addresses, "what peers are told to dial from outside");
                if !addresses.is_empty() {
                    for conversation in self.conversations() {
                        conversation.climb_now();
                    }
                }
            }
            RoomEvent::Lost { why, retry_in } => {
                self.room_is_up.store(false, Ordering::SeqCst);
                let mut state = self.lock();
                state.members.room_lost();
                // Who waits for an introduction falls back to an earlier one.
                state.requests.clear();
                drop(state);
                tracing::warn!(%why, ?retry_in, "the Room is lost");
                let code = match &why {
                    LostReason::Closed(closing) => Some(closing.code),
                    _ => None,
                };
                self.tell(Event::RoomLost { why: why.to_string(), code, retry_in });
            }
            RoomEvent::Back(joined) => {
                tracing::info!("the Room is back");
                self.joined(*joined);
                self.room_is_up.store(true, Ordering::SeqCst);
                self.tell(Event::RoomBack);
                for conversation in self.conversations() {
                    conversation.try_again();
                }
            }
            RoomEvent::Refused(error) => {
                tracing::error!(%error, "the Room does not let this user in again");
                self.room_is_up.store(false, Ordering::SeqCst);
                self.lock().requests.clear();
                self.tell(Event::RoomRefused { why: error.to_string() });
            }
        }
    }

    /// A login succeeded, the first or a later one.
    fn joined(self: &Arc<Self>, joined: Joined) {
        self.blacklist.set(joined.blacklist);
        self.check_key.store(Some(Arc::new(joined.check_key)));
        let mut state = self.lock();
        state.room_socket = joined.room_socket;
        state.observed = joined.observed;
        let changes = state.members.replace(joined.members);
        drop(state);
        self.on_changes(changes);
    }

    fn on_roster(self: &Arc<Self>, delta: Roster) {
        let changes = self.lock().members.apply(delta);
        self.on_changes(changes);
    }

    fn on_changes(self: &Arc<Self>, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Joined(member) if member.name == self.name => {}
                Change::Joined(member) => {
                    let waiting = self.lock().peers.get(&member.name).cloned();
                    if let Some(conversation) = waiting {
                        conversation.try_again();
                    }
                    self.tell(Event::Joined { peer: member.name });
                }
                Change::Left(name) => {
                    if name != self.name {
                        let talked_to = self.lock().peers.get(&name).cloned();
                        if let Some(conversation) = talked_to {
                            conversation.peer_left();
                        }
                        self.tell(Event::Left { peer: name });
                    }
                }
            }
        }
    }

    fn answer(&self, request: u32, answer: Answer) {
        if let Some(waiting) = self.lock().requests.remove(&request) {
            let _ = waiting.send(answer);
        }
    }

    /// A peer asked to be introduced to this user.
    fn on_asked(self: &Arc<Self>, introduced: Introduced) {
        match self.know(introduced) {
            Ok(_) if self.has_left() => {}
            Ok((known, offers)) => {
                let conversation = self.conversation(&known.peer);
                self.tasks.spawn(conversation.asked(Arc::clone(self), known, offers));
            }
            Err(error) => {
                tracing::warn!(%error, "an introduction is refused");
                let peer = match &error {
                    OpenError::IdentityChanged { peer, .. } => Some(peer.clone()),
                    _ => None,
                };
                self.tell(Event::Refused { peer, why: error.to_string() });
            }
        }
    }

    /// Answers peers that come to the listener, until the user leaves.
    pub(crate) async fn answer_arrivals(self: Arc<Self>, mut arrivals: mpsc::Receiver<Arrival>) {
        loop {
            let arrival = tokio::select! {
                () = self.stop.cancelled() => return,
                arrival = arrivals.recv() => arrival,
            };
            let Some(arrival) = arrival else { return };
            let hub = Arc::clone(&self);
            self.tasks.spawn(async move {
                let from = arrival.from;
                let answered = tokio::select! {
                    () = hub.stop.cancelled() => return,
                    answered = timeout(ANSWER, hub.answer_arrival(arrival)) => answered,
                };
                match answered {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => tracing::debug!(%from, %why, "a peer's link was not taken"),
                    Err(_) => tracing::debug!(%from, "a peer's handshake took too long"),
                }
            });
        }
    }

    async fn answer_arrival(self: &Arc<Self>, arrival: Arrival) -> Result<(), String> {
        if self.has_left() {
            return Err("this user has left".to_owned());
        }
        let known = self.expected(arrival.introduction).await.ok_or("nobody was introduced so")?;
        let conversation = self.conversation(&known.peer);
        let from = arrival.from.ip();
        let fits = |rung: &Rung| self.settings.rungs.contains(rung) && known.allows(*rung, from);
        let rungs: Vec<Rung> = DIRECT.iter().copied().filter(fits).collect();
        if rungs.is_empty() {
            return Err(format!("no rung that this user takes fits {from}"));
        }
        let incoming = Incoming { stream: arrival.stream, known, rungs };
        conversation.answer_link(self, incoming).await.map_err(|error| error.to_string())?;
        drop(arrival.place);
        Ok(())
    }

    /// The introduction a peer comes with. It may be here before the Room's word of it.
    async fn expected(&self, id: IntroductionId) -> Option<Arc<Known>> {
        let find = || {
            let introductions = self.introductions.lock().unwrap_or_else(PoisonError::into_inner);
            introductions.get(&id).filter(|known| known.until > clock::now()).cloned()
        };
        let early = timeout(EARLY, async {
            loop {
                let news = self.introduced.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(known) = find() {
                    return known;
                }
                news.await;
            }
        });
        early.await.ok()
    }

    /// Leaves: lets what was sent arrive, for at most `patience`, then ends every channel.
    pub(crate) async fn drain(self: &Arc<Self>, patience: Duration) {
        let conversations = self.conversations();
        let flushed = timeout(patience, async {
            for conversation in &conversations {
                conversation.flushed().await;
            }
        });
        if flushed.await.is_err() {
            tracing::warn!("not everything that was sent was taken over in time");
        }
        self.end_all();
    }

    /// Ends every channel for good.
    pub(crate) fn end_all(self: &Arc<Self>) {
        self.left.store(true, Ordering::SeqCst);
        for conversation in self.conversations() {
            conversation.end(CloseCode::Done, "this user left");
            conversation.leave();
        }
    }

    /// Lets go of everything, so that nothing keeps anything else alive.
    pub(crate) fn clear(&self) {
        self.inbox.close();
        // Callbacks may hold users and peers, which hold this.
        self.callbacks.clear();
        let mut state = self.lock();
        let peers = std::mem::take(&mut state.peers);
        state.requests.clear();
        drop(state);
        drop(peers);
    }
}

fn refused(peer: &UserName, why: PairRefusal) -> OpenError {
    let peer = peer.clone();
    match why {
        PairRefusal::Offline => OpenError::Offline(peer),
        PairRefusal::NoSuchPeer => OpenError::NoSuchPeer(peer),
        why => OpenError::Refused { peer, why },
    }
}
