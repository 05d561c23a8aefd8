//! A named program in a room.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parlor_protocol::identity::Fingerprint;
use parlor_protocol::name::{NameError, UserName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::DropGuard;

use crate::builder::UserBuilder;
use crate::callbacks::{Context, Registration};
use crate::data::DataError;
use crate::events::Events;
use crate::hub::Hub;
use crate::inbox::Inbox;
use crate::net::room::RoomClient;
use crate::peer::{Path, Peer};

/// How long leaving waits for what was sent to be taken over.
const LEAVE: Duration = Duration::from_secs(5);
/// How long leaving waits for this user's own tasks after that.
const TASKS: Duration = Duration::from_secs(2);

/// A named program in a room. Clones are the same user; when the last one is dropped, the user is gone from
/// the room at once. [`leave`](Self::leave) lets what was sent arrive first.
#[derive(Clone)]
pub struct User {
    hub: Arc<Hub>,
    membership: Arc<Membership>,
}

struct Membership {
    room: Mutex<Option<RoomClient>>,
    hub: Arc<Hub>,
    /// Stops every task when the last user handle goes.
    _stop: DropGuard,
}

impl Drop for Membership {
    fn drop(&mut self) {
        // Not needed after `leave`, harmless then.
        self.hub.end_all();
        self.hub.clear();
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "User({:?})", self.hub.name)
    }
}

/// A user that is online or is being talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its name.
    pub name: UserName,
    /// True if the Room says that it is online.
    pub online: bool,
    /// What people compare of its key, where it is known.
    pub fingerprint: Option<Fingerprint>,
    /// The path that carries the conversation, if there is a link.
    pub path: Option<Path>,
}

impl User {
    /// Begins to build a user of this name. The name is checked by [`join`](UserBuilder::join).
    pub fn builder(name: &str) -> UserBuilder {
        UserBuilder::new(name)
    }

    pub(crate) fn new(hub: Arc<Hub>, room: RoomClient, stop: DropGuard) -> Self {
        let membership = Membership { room: Mutex::new(Some(room)), hub: Arc::clone(&hub), _stop: stop };
        Self { hub, membership: Arc::new(membership) }
    }

    /// The name of this user.
    pub fn name(&self) -> &UserName {
        &self.hub.name
    }

    /// What people compare of this user's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.hub.identity.fingerprint()
    }

    /// What people compare of the Room's key.
    pub fn room_fingerprint(&self) -> Fingerprint {
        self.hub.room.fingerprint()
    }

    /// Where the Room sees this user come from. `0.0.0.0:0` until it was reached.
    pub fn observed_address(&self) -> SocketAddr {
        self.hub.observed()
    }

    /// True while the Room can be asked.
    pub fn room_is_up(&self) -> bool {
        self.hub.room_is_up()
    }

    /// Why the Room cannot be asked now. `None`: it can. While it is gone, the peers that it introduced in the last
    /// 24 h are reached without it, and it is tried again by itself.
    pub fn room_outage(&self) -> Option<String> {
        self.hub.outage()
    }

    /// Another user, online or not.
    ///
    /// # Errors
    ///
    /// The text is no user name.
    pub fn peer(&self, name: impl AsRef<str>) -> Result<Peer, NameError> {
        let name: UserName = name.as_ref().parse()?;
        let conversation = self.hub.conversation(&name);
        Ok(Peer { hub: Arc::clone(&self.hub), conversation })
    }

    /// Everybody who is online besides this user, by name, and the paths to those it talks to.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut infos: Vec<PeerInfo> = Vec::new();
        for member in self.hub.members() {
            if member.name != self.hub.name {
                let fingerprint = Some(member.identity.fingerprint());
                infos.push(PeerInfo { name: member.name, online: true, fingerprint, path: None });
            }
        }
        for conversation in self.hub.conversations() {
            let path = Peer { hub: Arc::clone(&self.hub), conversation: Arc::clone(&conversation) }.path();
            match infos.iter_mut().find(|info| info.name == conversation.peer) {
                Some(info) => info.path = path,
                None if path.is_some() => infos.push(PeerInfo {
                    name: conversation.peer.clone(),
                    online: false,
                    fingerprint: None,
                    path,
                }),
                None => {}
            }
        }
        infos.sort_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// Answers other users' `get` of `name`. The callback takes the caller's [`Context`] and the argument; its
    /// error goes to the caller as it is.
    ///
    /// Calls run at the same time, each in a task of its own. One that panics, never ends or answers too much
    /// harms itself only. A later registration of the same name replaces this one.
    ///
    /// # Errors
    ///
    /// The text is no callback name.
    pub fn on_get<F, Fut, A, T, E>(&self, name: &str, callback: F) -> Result<Registration, NameError>
    where
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
        T: Serialize,
        E: Serialize,
    {
        Ok(self.hub.callbacks.on_get(name.parse()?, callback))
    }

    /// Takes the messages that other users send to the event `name`: one after another from each of them, in
    /// their order. While it works, that peer's later messages wait, and so in the end does the peer.
    ///
    /// # Errors
    ///
    /// The text is no event name.
    pub fn on_send<F, Fut, A>(&self, name: &str, handler: F) -> Result<Registration, NameError>
    where
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
    {
        Ok(self.hub.callbacks.on_send(name.parse()?, handler))
    }

    /// Everything that no handler took. Readers of the same user's inbox share it.
    pub fn inbox(&self) -> Inbox {
        Inbox { queue: Arc::clone(&self.hub.inbox) }
    }

    /// What happens from now on; first, if the Room went and is not back, how it went.
    pub fn events(&self) -> Events {
        self.hub.events.listen()
    }

    /// Forgets the key that was seen under a name, so that the next one is believed. True if there was one.
    ///
    /// # Errors
    ///
    /// The data directory cannot be used, or the text is no user name.
    pub fn forget(&self, name: impl AsRef<str>) -> Result<bool, ForgetError> {
        Ok(self.hub.forget(&name.as_ref().parse()?)?)
    }

    /// Leaves the room: lets what was sent be taken over, for at most 5 s, tells peers and Room, and ends every
    /// task.
    pub async fn leave(self) {
        self.hub.drain(LEAVE).await;
        let room = self.membership.room.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(room) = room {
            room.leave().await;
        }
        self.hub.stop.cancel();
        self.hub.tasks.close();
        // A callback that never ends does not hold this up.
        let _ = tokio::time::timeout(TASKS, self.hub.tasks.wait()).await;
        self.hub.clear();
    }
}

/// Why a key was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The text is no user name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
}
