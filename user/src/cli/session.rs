//! Being in the room: under which name, with which secrets, and until when.

use std::path::PathBuf;

use parlor_user::data::DataDir;
use parlor_user::error::JoinError;
use parlor_user::protocol::refusal::{CloseCode, LoginRefusal};
use parlor_user::trust::pin_key;
use parlor_user::{BuildError, Event, Events, User, UserBuilder, UserName};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::Settings;
use super::error::Error;
use super::{output, secret};

/// Letters and digits of a guest's name after `guest-`.
const GUEST_CHARS: usize = 6;

/// Joins under the name that was given, with what `prepare` adds to the builder.
pub(super) async fn join_named(
    settings: &Settings,
    command: &str,
    prepare: impl FnOnce(UserBuilder) -> UserBuilder,
) -> Result<User, Error> {
    match &settings.name {
        Some(name) => join(settings, name.as_str(), prepare(builder(settings, name.as_str())?), false).await,
        None => Err(Error::Usage(format!("{command} needs a name for others to call: give one with --name"))),
    }
}

/// Joins under the name that was given, else as a guest.
pub(super) async fn join_anyhow(settings: &Settings) -> Result<User, Error> {
    match &settings.name {
        Some(name) => join(settings, name.as_str(), builder(settings, name.as_str())?, false).await,
        None if settings.password_file.is_some() => Err(Error::Usage(
            "a password belongs to an account: give its name with --name besides --password-file".to_owned(),
        )),
        None => {
            let name = guest_name()?;
            join(settings, &name, builder(settings, &name)?.guest(), true).await
        }
    }
}

async fn join(settings: &Settings, name: &str, mut builder: UserBuilder, guest: bool) -> Result<User, Error> {
    let password = settings.password_file.as_deref().map(secret::of_file).transpose()?;
    let room_password = settings.room_password_file.as_deref().map(secret::of_file).transpose()?;
    let (mut may_ask, mut may_ask_room) = (!guest && password.is_none(), room_password.is_none());
    if let Some(password) = password {
        builder = builder.password(password.as_str());
    }
    if let Some(password) = room_password {
        builder = builder.room_password(password.as_str());
    }
    let unknown = first_use(settings);
    let user = loop {
        let error = match builder.clone().join().await {
            Ok(user) => break user,
            Err(error) => error,
        };
        match refusal(&error) {
            Some(LoginRefusal::PasswordNeeded) if may_ask && secret::can_ask() => {
                may_ask = false;
                builder = builder.password(secret::ask(&format!("Password of {name}"))?.as_str());
            }
            Some(LoginRefusal::RoomPassword) if may_ask_room && secret::can_ask() => {
                may_ask_room = false;
                builder = builder.room_password(secret::ask("Password of the Room")?.as_str());
            }
            Some(LoginRefusal::PasswordNeeded | LoginRefusal::Credentials) if guest => {
                return Err(Error::NoGuests);
            }
            _ => return Err(error.into()),
        }
    };
    if unknown {
        let fingerprint = user.room_fingerprint();
        output::note(&format!("trusts this Room from now on, by its fingerprint {fingerprint}: compare it"));
    }
    if let Some(why) = user.room_outage() {
        output::note(&format!(
            "{why}; until it is back, only peers that it introduced in the last 24 h can be reached"
        ));
    } else {
        tracing::info!(name = user.name().as_str(), "joined");
    }
    Ok(user)
}

fn builder(settings: &Settings, name: &str) -> Result<UserBuilder, Error> {
    let mut builder = User::builder(name)
        .room(settings.room.to_string())
        .port(settings.port)
        .encryption(settings.encryption)
        .tofu(settings.tofu)
        .take_over(settings.take_over)
        .agent(concat!("parlor/", env!("CARGO_PKG_VERSION")))
        .data(data_path(settings)?);
    if let Some(lan_id) = &settings.lan_id {
        builder = builder.lan_id(lan_id.as_str());
    }
    if let Some(public_ip) = settings.public_ip {
        builder = builder.public_ip(public_ip);
    }
    Ok(builder)
}

fn refusal(error: &BuildError) -> Option<&LoginRefusal> {
    match error {
        BuildError::Join(JoinError::Refused(why)) => Some(why),
        _ => None,
    }
}

fn data_path(settings: &Settings) -> Result<PathBuf, Error> {
    match &settings.data {
        Some(path) => Ok(path.clone()),
        None => Ok(DataDir::default_path(|name| std::env::var_os(name))?),
    }
}

/// What is kept on this machine.
pub(super) fn data(settings: &Settings) -> Result<DataDir, Error> {
    Ok(DataDir::open(&data_path(settings)?)?)
}

/// True if nothing is known of the Room's key yet.
fn first_use(settings: &Settings) -> bool {
    let pinned = || data(settings).ok()?.room_pin(&pin_key(&settings.room)).ok()?;
    settings.room.fingerprint().is_none() && pinned().is_none()
}

fn guest_name() -> Result<String, Error> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0; GUEST_CHARS];
    getrandom::fill(&mut random).map_err(|error| BuildError::Random(error.to_string()))?;
    let chars = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(format!("guest-{}", chars.collect::<String>()))
}

/// Drops the pinned key of a peer. Needs no Room.
pub(super) fn forget(settings: &Settings, peer: &UserName) -> Result<(), Error> {
    let data = data(settings)?;
    let room = match settings.room.fingerprint() {
        Some(fingerprint) => Some(fingerprint),
        None => data.room_pin(&pin_key(&settings.room))?,
    };
    let Some(room) = room else {
        return Err(Error::NothingPinned(format!(
            "no Room at {} is known here, so no key of {peer} either: check --room and --data",
            settings.room
        )));
    };
    if data.forget_peer(room, peer)? {
        output::note(&format!("forgot the key of {peer}: the next one is believed"));
        return Ok(());
    }
    Err(Error::NothingPinned(format!(
        "no key of {peer} is pinned: `parlor peers` lists those that are; check --room and --data"
    )))
}

/// The signals that end a command that stays.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From now on the signals do not end the program by themselves.
    pub(super) fn new() -> Result<Self, Error> {
        let take = |kind| signal(kind).map_err(|source| Error::System { op: "take signals", source });
        Ok(Self { terminate: take(SignalKind::terminate())?, interrupt: take(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Leaves the room; a signal meanwhile says not to wait for it.
    pub(super) async fn leave(&mut self, user: User) {
        tokio::select! {
            () = user.leave() => {}
            () = self.next() => {}
        }
    }
}

/// Waits until the user is in the room no more, for good. A person is told of a peer that shows another key than before,
/// once while the same one tries again.
pub(super) async fn ended(events: &mut Events) -> Result<(), Error> {
    let mut told = None;
    loop {
        match events.next().await {
            Some(Event::RoomRefused { why }) => return Err(Error::Ended(why)),
            // A program may wait until a ban is over; who stands at a terminal is told.
            Some(Event::RoomLost { why, code: Some(CloseCode::Banned), .. }) => {
                return Err(Error::Ended(why));
            }
            Some(Event::IdentityChanged { why, .. }) if told.as_ref() != Some(&why) => {
                output::note(&why);
                told = Some(why);
            }
            Some(event) => tracing::info!(?event),
            None => return Ok(()),
        }
    }
}

/// Says that the command is there to be talked to.
pub(super) fn announce(user: &User, what: &str, settings: &Settings) {
    let (name, room) = (user.name(), settings.room.clone().without_fingerprint());
    tracing::info!("{name} {what} in {room}");
    output::note(&format!("{name} {what} in {room}"));
}
