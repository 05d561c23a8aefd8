//! The control connection to the Room.
//!
//! [`RoomClient::join`] reaches the Room, believes it or stops (see [`trust`](crate::trust)), and only then
//! says who it is. From then on a task keeps the connection: what the Room says comes out as [`RoomEvent`]s,
//! what the user wants goes in as [`RoomCommand`]s. When the Room is lost the task reports it once and comes
//! back by itself, with waits that [`Backoff`] draws; a refusal that waiting does not change ends it. The
//! instance id stays the same, so that the Room replaces the old connection without asking.
//!
//! Both queues are bounded. Events that nobody takes hold the reading of the connection up, never its
//! writing, so that a user that waits for room in the command queue cannot wait for ever.

mod connect;
mod error;
mod frames;
mod login;
mod run;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::{Identity, InstanceId, PublicIdentity};
use parlor_protocol::limits::WHOLE_LOGIN;
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::{LoginRefusal, PairRefusal};
use parlor_protocol::wire::control::{Features, Introduced, Member, Roster, Secret};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

pub use self::error::{JoinError, LostReason, RoomFault};
use self::login::Membership;
pub(crate) use self::login::Passport;
use crate::clock;
use crate::core::reconnect::Backoff;
use crate::data::DataDir;
use crate::net::interfaces::Reachability;
use crate::net::listener::CheckKey;

/// How long a first join goes on asking a Room that says it is busy, or hangs up in a crowd.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Events that wait to be taken.
const EVENTS: usize = 256;
/// Commands that wait to be sent.
const COMMANDS: usize = 256;

/// What a user needs to join a room. The seed is hidden from `Debug`, as passwords are.
#[derive(Clone)]
pub struct RoomOptions {
    /// Where the Room is.
    pub address: RoomAddress,
    /// The name to join under.
    pub name: UserName,
    /// The password of the account, if there is one. It is sent to Rooms with accounts only.
    pub password: Option<Secret>,
    /// The Room's own password, if it has one.
    pub room_password: Option<Secret>,
    /// Trust the key that an unknown Room shows, and remember it.
    pub tofu: bool,
    /// On the first login, replace another program of the same identity. Never later, so that two
    /// programs do not replace each other for ever.
    pub take_over: bool,
    /// Tells this run of the program from others.
    pub instance: InstanceId,
    /// 32 random bytes: the seed of the identity if none is kept for this Room and name.
    pub seed: Zeroizing<[u8; 32]>,
    /// False for a guest, whose identity and ticket are forgotten with the program. What it learns of
    /// Rooms is kept.
    pub remember: bool,
    /// Name and version of the program, for the Room's operator; at most 64 bytes.
    pub agent: String,
    /// Where this user can be reached.
    pub reachability: Reachability,
    /// Where the listener finds the key for the Room's checks: it is stored as soon as the Room has said it, and
    /// taken away when another login begins.
    pub check_key: CheckKey,
    /// What is kept on this machine.
    pub data: DataDir,
}

impl fmt::Debug for RoomOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomOptions")
            .field("address", &self.address)
            .field("name", &self.name)
            .field("password", &self.password)
            .field("room_password", &self.room_password)
            .field("tofu", &self.tofu)
            .field("take_over", &self.take_over)
            .field("instance", &self.instance)
            .field("remember", &self.remember)
            .field("agent", &self.agent)
            .field("reachability", &self.reachability)
            .finish_non_exhaustive()
    }
}

/// A login that succeeded. The check key is hidden from `Debug`.
#[derive(Clone)]
pub struct Joined {
    /// The Room's identity, which signs introductions.
    pub room: PublicIdentity,
    /// The identity of this user in the room.
    pub identity: Arc<Identity>,
    /// True if the Room's key was trusted because it is the first one seen there.
    pub first_use: bool,
    /// The address of the control connection: where the relay is reached, too.
    pub room_socket: SocketAddr,
    /// Where the Room sees this user come from.
    pub observed: SocketAddr,
    /// The key with which the listener answers the Room's checks.
    pub check_key: [u8; 32],
    /// The addresses that users refuse links from.
    pub blacklist: Vec<IpNet>,
    /// What the Room can do beyond the protocol's version.
    pub features: Features,
    /// True if users may agree on channels without encryption.
    pub allow_unencrypted: bool,
    /// Everybody who is online.
    pub members: Vec<Member>,
}

impl fmt::Debug for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joined")
            .field("room", &self.room)
            .field("identity", &self.identity)
            .field("first_use", &self.first_use)
            .field("room_socket", &self.room_socket)
            .field("observed", &self.observed)
            .field("blacklist", &self.blacklist)
            .field("features", &self.features)
            .field("allow_unencrypted", &self.allow_unencrypted)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// What the Room, or the connection to it, has to say.
#[derive(Debug)]
pub enum RoomEvent {
    /// Users came or went.
    Roster(Roster),
    /// The Room introduces this user to a peer.
    Introduced(Box<Introduced>),
    /// The Room does not introduce.
    IntroductionRefused {
        /// The number of the request.
        request: u32,
        /// Why.
        why: PairRefusal,
    },
    /// The addresses that users refuse links from are now these.
    Blacklist(Vec<IpNet>),
    /// What others are told to dial for this user.
    Reachable(Vec<IpAddr>),
    /// The Room is gone and will be tried again. Requests that had no answer yet get none.
    Lost {
        /// How it went.
        why: LostReason,
        /// When it is tried first.
        retry_in: Duration,
    },
    /// The Room is back. Everything in here may differ from before.
    Back(Box<Joined>),
    /// The Room does not let this user in again; nothing follows.
    Refused(JoinError),
}

/// What a user wants of its Room. Sent while the Room is lost, it waits in the queue for its return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoomCommand {
    /// Introduce this user to a peer.
    Introduce {
        /// Comes back in the answer.
        request: u32,
        /// The peer.
        peer: UserName,
    },
    /// This user can now be reached elsewhere. Also what later logins say.
    Presence(Reachability),
}

/// A membership in a room. Dropping it leaves the room in the background.
#[derive(Debug)]
pub struct RoomClient {
    commands: mpsc::Sender<RoomCommand>,
    task: JoinHandle<()>,
    leave: DropGuard,
}

impl RoomClient {
    /// Joins a room. `tasks` owns the task that keeps the membership; cancelling `stop` leaves the room.
    ///
    /// A Room that is busy, or that hangs up before anything was said, as Rooms do in a crowd, is asked again for up
    /// to [`PATIENCE`]; every other refusal is returned at once.
    pub async fn join(
        options: RoomOptions,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Self, Joined, mpsc::Receiver<RoomEvent>), JoinError> {
        let mut membership = Membership::new(options, None)?;
        let mut backoff = Backoff::default();
        let give_up = clock::now() + PATIENCE;
        let session = loop {
            let refused = match membership.join().await {
                Ok(session) => break session,
                Err(error) => error,
            };
            if !is_crowded(&refused) {
                return Err(refused);
            }
            let wait = backoff.next(random(), refused.retry_after());
            if clock::now() + wait + WHOLE_LOGIN > give_up {
                return Err(refused);
            }
            tokio::time::sleep(wait).await;
        };
        let joined = session.joined.clone();
        let (client, received) = Self::keep(membership, run::Begin::Joined(Box::new(session)), tasks, stop);
        Ok((client, joined, received))
    }

    /// Begins without the Room, which could not be joined for the reason `error`: it is tried until it is back, which
    /// [`RoomEvent::Back`] reports. `passport` says who this user is there; another Room in its place is refused.
    pub(crate) fn join_later(
        options: RoomOptions,
        passport: Passport,
        error: &JoinError,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Self, mpsc::Receiver<RoomEvent>), JoinError> {
        let membership = Membership::new(options, Some(passport))?;
        Ok(Self::keep(membership, run::Begin::Lost { retry_after: error.retry_after() }, tasks, stop))
    }

    fn keep(
        membership: Membership,
        begin: run::Begin,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> (Self, mpsc::Receiver<RoomEvent>) {
        let (commands, to_send) = mpsc::channel(COMMANDS);
        let (events, received) = mpsc::channel(EVENTS);
        let stop = stop.child_token();
        let task = tasks.spawn(run::run(membership, begin, to_send, events, stop.clone()));
        (Self { commands, task, leave: stop.drop_guard() }, received)
    }

    /// Where commands go.
    pub fn commands(&self) -> &mpsc::Sender<RoomCommand> {
        &self.commands
    }

    /// Says goodbye to the Room and waits until that is done, at most a second.
    pub async fn leave(self) {
        drop(self.leave);
        // A panic of the task is its own; there is nothing left to say goodbye with.
        let _ = self.task.await;
    }
}

/// True if the Room may have room soon. An address that it does not want is told so, not hung up on.
fn is_crowded(error: &JoinError) -> bool {
    matches!(error, JoinError::Refused(LoginRefusal::Busy { .. }) | JoinError::HungUp { .. })
}

/// 64 random bits for jitter. Where the system has none, the same ones: waits then differ less.
fn random() -> u64 {
    getrandom::u64().unwrap_or(u64::MAX / 2)
}
