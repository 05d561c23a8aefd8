//! What all conversations of a user share: its identity, its Room, its callbacks, its tasks.

mod arrivals;
#[cfg(test)]
pub(crate) mod harness;
mod introductions;
mod kept;
mod room;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parlor_protocol::identity::{Identity, InstanceId, PublicIdentity};
use parlor_protocol::introduction::{Introduction, IntroductionId};
use parlor_protocol::name::UserName;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::presence::Encryption;
use parlor_protocol::refusal::PairRefusal;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{self, Member};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callbacks::Callbacks;
use crate::conversation::{Budget, Conversation};
use crate::core::channel::LinkId;
use crate::core::roster::Members;
use crate::data::DataDir;
use crate::events::{Event, Herald};
use crate::inbox::Queue;
use crate::net::blacklist::Blacklist;
use crate::net::room::{Joined, RoomCommand};
use crate::start::Valid;

pub(crate) use self::introductions::{Introduced, takes};
use self::kept::Latest;

/// Conversations at rest are forgotten when there are this many.
const PEERS_AT_REST: usize = 1024;

/// An introduction that holds.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) introduction: Introduction,
    pub(crate) peer: UserName,
    pub(crate) identity: PublicIdentity,
    pub(crate) until: Instant,
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

type Answer = Result<Box<control::Introduced>, PairRefusal>;

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
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the user leaves: every task ends.
    pub(crate) stop: CancellationToken,
    commands: mpsc::Sender<RoomCommand>,
    pub(crate) events: Herald,
    data: DataDir,
    state: Mutex<State>,
    introductions: Mutex<HashMap<IntroductionId, Arc<Known>>>,
    introduced: Notify,
    /// What is to be kept for the next start has changed.
    changed: Notify,
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
    /// Why the Room cannot be asked.
    outage: Option<String>,
    peers: HashMap<UserName, Arc<Conversation>>,
    requests: HashMap<u32, oneshot::Sender<Answer>>,
    /// The latest introduction to each peer, for when the Room is gone.
    latest: HashMap<UserName, Latest>,
    pins: HashMap<UserName, PublicIdentity>,
    /// Introductions of keys that were refused, the latest last.
    refused: VecDeque<IntroductionId>,
}

/// What the hub is made of.
pub(crate) struct Parts {
    pub(crate) name: UserName,
    pub(crate) instance: InstanceId,
    pub(crate) settings: Settings,
    pub(crate) blacklist: Blacklist,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) commands: mpsc::Sender<RoomCommand>,
    pub(crate) callbacks: Arc<Callbacks>,
    pub(crate) data: DataDir,
    pub(crate) identity: Arc<Identity>,
    pub(crate) room: PublicIdentity,
    /// What an earlier run kept.
    pub(crate) kept: Vec<Valid>,
    pub(crate) start: Start,
}

/// How a user begins.
pub(crate) enum Start {
    /// In the room.
    Joined(Joined),
    /// With what it has kept, until the Room is back.
    Alone {
        /// Why the Room was not joined.
        why: String,
        /// The addresses that the Room had users refuse links from.
        blacklist: Vec<IpNet>,
    },
}

/// Events that a slow reader may be behind before it misses some.
const EVENTS: usize = 1024;
/// What stands for the addresses that only the Room can tell, until it was reached.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Hub {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let hub = Arc::new(Self {
            name: parts.name,
            identity: parts.identity,
            instance: parts.instance,
            room: parts.room,
            settings: parts.settings,
            callbacks: parts.callbacks,
            inbox: Arc::default(),
            budget: Arc::default(),
            blacklist: parts.blacklist,
            tasks: parts.tasks,
            stop: parts.stop,
            commands: parts.commands,
            events: Herald::new(EVENTS),
            data: parts.data,
            state: Mutex::new(State {
                members: Members::default(),
                room_socket: NOWHERE,
                observed: NOWHERE,
                outage: None,
                peers: HashMap::new(),
                requests: HashMap::new(),
                latest: HashMap::new(),
                pins: HashMap::new(),
                refused: VecDeque::new(),
            }),
            introductions: Mutex::new(HashMap::new()),
            introduced: Notify::new(),
            changed: Notify::new(),
            room_is_up: AtomicBool::new(false),
            left: AtomicBool::new(false),
            next_link: AtomicU64::new(1),
            next_request: AtomicU32::new(1),
            next_generation: AtomicU32::new(0),
        });
        hub.restore(parts.kept);
        match parts.start {
            Start::Joined(joined) => hub.joined(joined),
            Start::Alone { why, blacklist } => {
                hub.blacklist.set(blacklist);
                hub.lock().outage = Some(why);
            }
        }
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

    /// Why the Room cannot be asked. `None`: it can.
    pub(crate) fn outage(&self) -> Option<String> {
        self.lock().outage.clone()
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

    pub(crate) fn tell(&self, event: Event) {
        self.events.tell(event);
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
