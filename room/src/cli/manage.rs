//! `user`, `ban` and `status`: a request, sent to the Room that runs on the data directory or answered from the
//! directory itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{BanCommand, ListArgs, NameArgs, PasswordArgs, PlaceArgs, UserCommand};
use super::offline::Offline;
use super::{Failure, environment, make_hash, output};
use crate::admin::{self, AdminRequest, AdminResponse};
use crate::clock;
use crate::config::{DaemonConfig, RoomConfig, RunFlags};
use crate::store::StoreError;

/// Between two looks at a directory that another command or a starting Room has.
const RETRY: Duration = Duration::from_millis(50);
/// How often: 12 s, in which a Room has started or drained and another command is done.
const RETRIES: u32 = 240;

pub(super) fn user(command: UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add(PasswordArgs { account: NameArgs { name, place }, cost }) => {
            let room = room(&place)?;
            let hash = make_hash(cost)?;
            done(ask(&room, AdminRequest::UserAdd { name, hash })?)
        }
        UserCommand::Passwd(PasswordArgs { account: NameArgs { name, place }, cost }) => {
            let room = room(&place)?;
            let hash = make_hash(cost)?;
            done(ask(&room, AdminRequest::UserPassword { name, hash })?)
        }
        UserCommand::Remove(NameArgs { name, place }) => {
            done(ask(&room(&place)?, AdminRequest::UserRemove { name })?)
        }
        UserCommand::ResetIdentity(NameArgs { name, place }) => {
            done(ask(&room(&place)?, AdminRequest::ResetIdentity { name })?)
        }
        UserCommand::List(ListArgs { place, json }) => match ask(&room(&place)?, AdminRequest::UserList)? {
            AdminResponse::Users { users } if json => output::print_json(&users),
            AdminResponse::Users { users } => output::print(&output::users(&users)),
            other => done(other),
        },
    }
}

pub(super) fn ban(command: BanCommand) -> Result<(), Failure> {
    match command {
        BanCommand::Add { net, time, place } => {
            let seconds = time.map(|time| time.as_secs());
            done(ask(&room(&place)?, AdminRequest::BanAdd { net, seconds })?)
        }
        BanCommand::Remove { net, place } => done(ask(&room(&place)?, AdminRequest::BanRemove { net })?),
        BanCommand::List(ListArgs { place, json }) => match ask(&room(&place)?, AdminRequest::BanList)? {
            AdminResponse::Bans { bans } if json => output::print_json(&bans),
            AdminResponse::Bans { bans } => output::print(&output::bans(&bans)),
            other => done(other),
        },
    }
}

pub(super) fn status(args: &ListArgs) -> Result<(), Failure> {
    let room = room(&args.place)?;
    let data = directory(&room)?;
    match admin::call(&data, &AdminRequest::Status)? {
        None => {
            let data = data.display();
            Err(Failure::other(format!(
                "no Room is running on {data}: start it with parlor-room --data {data}"
            )))
        }
        Some(AdminResponse::Status(report)) if args.json => output::print_json(&[report]),
        Some(AdminResponse::Status(report)) => output::print(&output::status(&report)),
        Some(other) => done(other),
    }
}

/// The Room that is meant: its data directory, and the accounts and bans of its configuration file.
fn room(place: &PlaceArgs) -> Result<RoomConfig, Failure> {
    let flags = RunFlags { data: place.data.clone(), ..RunFlags::default() };
    Ok(DaemonConfig::load(place.config.as_deref(), environment, &flags)?.room)
}

fn directory(room: &RoomConfig) -> Result<PathBuf, Failure> {
    room.data.clone().ok_or_else(|| Failure::from(crate::config::ConfigError::NoDataDirectory))
}

/// Asks the Room that runs, or else the directory. A directory that somebody else has for the moment is waited for: it is a
/// Room that starts or stops, or another command.
fn ask(room: &RoomConfig, request: AdminRequest) -> Result<AdminResponse, Failure> {
    let data = directory(room)?;
    let mut tries = 0;
    loop {
        if let Some(response) = admin::call(&data, &request)? {
            return Ok(response);
        }
        match open(room, &data, &request) {
            Err(StoreError::InUse { .. }) if tries < RETRIES => {
                tries += 1;
                std::thread::sleep(RETRY);
            }
            opened => return Ok(opened?.answer(request, clock::now().unix)),
        }
    }
}

fn open<'a>(room: &'a RoomConfig, data: &Path, request: &AdminRequest) -> Result<Offline<'a>, StoreError> {
    let makes_something = matches!(request, AdminRequest::UserAdd { .. } | AdminRequest::BanAdd { .. });
    if makes_something || data.exists() { Offline::open(room, data) } else { Offline::nothing(room) }
}

fn done(response: AdminResponse) -> Result<(), Failure> {
    match response {
        AdminResponse::Done => Ok(()),
        AdminResponse::Failed(error) => Err(error.into()),
        AdminResponse::Users { .. } | AdminResponse::Bans { .. } | AdminResponse::Status(_) => {
            Err(Failure::other("the Room answered something else: use the parlor-room of the same version"))
        }
    }
}
