//! What a user finds of its last time in a Room, with which it can start while the Room cannot be reached.
//!
//! The Room's key is the one that its address names or that was believed there before; everything else is kept
//! under that key, and the introductions are encrypted under the user's own. Nothing of it is believed for being
//! there: each introduction must be signed by that Room, name this user with its identity, and agree with the
//! keys of peers seen before.

use std::collections::BTreeMap;
use std::sync::Arc;

use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::{Identity, PublicIdentity};
use parlor_protocol::introduction::Introduction;
use parlor_protocol::name::UserName;
use parlor_protocol::presence::Encryption;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::data::{CachedIntroduction, CachedIntroductions, DataDir, DataError, NONCE_BYTES, StoredTicket};
use crate::error::BuildError;
use crate::hub::{Start, takes};
use crate::net::room::{Passport, RoomClient, RoomEvent, RoomOptions};
use crate::trust::pin_key;

/// Why a user cannot start without its Room.
#[derive(Debug, thiserror::Error)]
pub enum NoPast {
    /// Nothing outlives the program.
    #[error(
        "a guest keeps nothing to go on with; a user with a name and a data directory does, once it has talked \
         to a peer"
    )]
    Guest,
    /// The user was never in that Room.
    #[error("{0} was not in this Room before, from this data directory")]
    NeverHere(UserName),
    /// There is no introduction that still holds.
    #[error("{0} has kept no introduction to any peer that is of the last 24 h by this machine's clock")]
    NoIntroduction(UserName),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What is kept of an earlier time in a Room.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) room: PublicIdentity,
    pub(crate) identity: Arc<Identity>,
    pub(crate) ticket: Option<StoredTicket>,
    pub(crate) kept: CachedIntroductions,
    pins: BTreeMap<UserName, PublicIdentity>,
}

/// A kept introduction that holds.
#[derive(Debug, Clone)]
pub(crate) struct Valid {
    pub(crate) introduction: Introduction,
    pub(crate) identity: PublicIdentity,
    pub(crate) cached: CachedIntroduction,
}

/// Reads what is kept for `name`. `now` is in seconds since 1970. Waits for the disk.
pub(crate) fn recall(
    data: &DataDir,
    address: &RoomAddress,
    name: &UserName,
    now: u64,
) -> Result<Past, NoPast> {
    let pinned = match address.fingerprint() {
        Some(fingerprint) => Some(fingerprint),
        None => data.room_pin(&pin_key(address))?,
    };
    let room = pinned.ok_or_else(|| NoPast::NeverHere(name.clone()))?;
    let identity = data.known_identity(room, name)?.ok_or_else(|| NoPast::NeverHere(name.clone()))?;
    let kept = data.introductions(room, name, &identity, now)?;
    let kept = kept.ok_or_else(|| NoPast::NoIntroduction(name.clone()))?;
    let pins = data.pinned_peers(room)?;
    let ticket = data.ticket(room, name).unwrap_or_else(|error| {
        tracing::warn!(%error, "the resume ticket cannot be read: logging in without it");
        None
    });
    Ok(Past { room: kept.room, identity: Arc::new(identity), ticket, kept, pins })
}

impl Past {
    /// The introductions that hold, for a user that wants its channels so. Checks three signatures of each: call it
    /// where a thread may be busy.
    pub(crate) fn valid(&self, name: &UserName, encryption: Encryption) -> Vec<Valid> {
        let checked = self.kept.entries.iter().filter_map(|cached| self.check(name, cached));
        checked.filter(|valid| takes(&valid.introduction, encryption)).collect()
    }

    fn check(&self, name: &UserName, cached: &CachedIntroduction) -> Option<Valid> {
        let introduction = cached.introduction.verify(&self.room).ok()?;
        let (me, peer) = introduction.sides(name)?;
        let identity = peer.identity;
        let same = me.identity == self.identity.public() && peer.name == cached.peer;
        let expected = self.pins.get(&peer.name).is_none_or(|pinned| *pinned == identity);
        (same && expected).then(|| Valid { introduction, identity, cached: cached.clone() })
    }
}

/// [`recall`], where a thread may block.
pub(crate) async fn look_back(
    tasks: &TaskTracker,
    data: &DataDir,
    address: RoomAddress,
    name: &UserName,
) -> Result<Past, NoPast> {
    let (data, name, now) = (data.clone(), name.clone(), clock::unix_now());
    let past = match tasks.spawn_blocking(move || recall(&data, &address, &name, now)).await {
        Ok(past) => past,
        Err(error) => {
            let source = std::io::Error::other(error);
            Err(DataError::Io { op: "use", path: "the data directory".into(), source }.into())
        }
    };
    if let Err(NoPast::Data(error)) = &past {
        tracing::warn!(%error, "what was kept for a start without the Room cannot be used");
    }
    past
}

/// Keeps this for the next start, in place of what was kept. Waits for the disk.
pub(crate) fn keep(
    data: &DataDir,
    name: &UserName,
    identity: &Identity,
    cache: CachedIntroductions,
) -> Result<(), String> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| error.to_string())?;
    data.set_introductions(name, identity, cache, nonce).map_err(|error| error.to_string())
}

/// A user that has begun, in the room or without it.
pub(crate) struct Begun {
    pub(crate) client: RoomClient,
    pub(crate) events: mpsc::Receiver<RoomEvent>,
    pub(crate) room: PublicIdentity,
    pub(crate) identity: Arc<Identity>,
    pub(crate) kept: Vec<Valid>,
    pub(crate) start: Start,
}

/// Joins the Room, or begins with what was kept if it cannot be reached.
pub(crate) async fn begin(
    options: RoomOptions,
    past: Result<Past, NoPast>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Begun, BuildError> {
    let (name, encryption) = (options.name.clone(), options.reachability.encryption);
    // What was kept is checked while the Room is asked.
    let checking = tasks.spawn_blocking(move || {
        let past = past?;
        let kept = past.valid(&name, encryption);
        Ok::<_, NoPast>((past, kept))
    });
    let joined = RoomClient::join(options.clone(), tasks, stop).await;
    let broken = |error| {
        let source = std::io::Error::other(error);
        Err(DataError::Io { op: "use", path: "the data directory".into(), source }.into())
    };
    let past = checking.await.unwrap_or_else(broken);
    match joined {
        Ok((client, joined, events)) => {
            let (room, identity) = (joined.room, Arc::clone(&joined.identity));
            let same = |past: &Past| past.room == room && past.identity.public() == identity.public();
            let kept = past.ok().filter(|(past, _)| same(past)).map(|(_, kept)| kept).unwrap_or_default();
            Ok(Begun { client, events, room, identity, kept, start: Start::Joined(joined) })
        }
        Err(room) if room.is_outage() => {
            let something = past.and_then(|(past, kept)| {
                let none = || NoPast::NoIntroduction(options.name.clone());
                if kept.is_empty() { Err(none()) } else { Ok((past, kept)) }
            });
            let (past, kept) = match something {
                Ok(past) => past,
                Err(why) => return Err(BuildError::RoomDown { room: Box::new(room), why }),
            };
            tracing::warn!(error = %room, "starts without the Room, with introductions that were kept");
            let (known, identity) = (past.room, past.identity);
            let passport = Passport { room: known, identity: Arc::clone(&identity), ticket: past.ticket };
            let (client, events) = RoomClient::join_later(options, passport, &room, tasks, stop)?;
            let start = Start::Alone { why: room.to_string(), blacklist: past.kept.blacklist };
            Ok(Begun { client, events, room: known, identity, kept, start })
        }
        Err(error) => {
            if let Ok((past, _)) = past
                && error.ends_introductions()
            {
                forget(&options, past, tasks).await;
            }
            Err(error.into())
        }
    }
}

/// The Room wants this user no more: its earlier introductions are void.
async fn forget(options: &RoomOptions, past: Past, tasks: &TaskTracker) {
    let (data, name) = (options.data.clone(), options.name.clone());
    let forgotten = tasks.spawn_blocking(move || {
        keep(&data, &name, &past.identity, CachedIntroductions { entries: Vec::new(), ..past.kept })
    });
    match forgotten.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "void introductions are still kept"),
        Err(error) => tracing::warn!(%error, "void introductions are still kept"),
    }
}
