//! The configuration of the daemon: file, then environment, then flags, then the check of the whole.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::file::{self, parse_listen};
use super::{CertificateFiles, RoomConfig, parse_net};
use crate::password::HashError;

/// What `parlor-room run` was told on its command line.
#[derive(Debug, Clone, Default)]
pub struct RunFlags {
    /// `--listen`, as often as it was given.
    pub listen: Vec<SocketAddr>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--open`.
    pub open: bool,
    /// `--allow-unencrypted`.
    pub allow_unencrypted: bool,
    /// `--log`.
    pub log: Option<String>,
    /// `--json`.
    pub json: bool,
}

/// The configuration of the daemon: a Room's, and how it talks to its operator.
#[derive(Debug, Clone)]
pub struct DaemonConfig {
    /// The Room's.
    pub room: RoomConfig,
    /// What is logged, as tracing-subscriber's filters are written: `info`, `info,parlor_room=debug`.
    pub log: String,
    /// Whether ready lines and logs are JSON.
    pub json: bool,
    /// What was said so far of an issued certificate; both or neither make it into the Room's configuration.
    pub(super) certificate: CertificateSettings,
}

/// The two settings of an issued certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CertificateSettings {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl CertificateSettings {
    fn complete(self) -> Result<Option<CertificateFiles>, ConfigError> {
        match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => Ok(Some(CertificateFiles { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => {
                Err(whole("tls.key", "the certificate needs its key: name its file".to_owned()))
            }
            (None, Some(_)) => {
                Err(whole("tls.certificate", "the key needs its certificate: name its file".to_owned()))
            }
        }
    }
}

impl Default for DaemonConfig {
    fn default() -> Self {
        Self {
            room: RoomConfig::default(),
            log: "info".to_owned(),
            json: false,
            certificate: CertificateSettings::default(),
        }
    }
}

/// Why a configuration cannot be used. The operator's move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {why}; check --config and PARLOR_ROOM_CONFIG", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A field has a value that cannot be.
    #[error("{place}: {field}: {why}")]
    Field {
        /// Where it was said.
        place: Place,
        /// The field, as it is written there.
        field: String,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// Everybody on the network could enter.
    #[error(
        "listen: everybody who reaches {address} could enter this Room, because it has no accounts and no room \
         password: add an account with \"parlor-room user add NAME\", set room_password, or start it with --open"
    )]
    Exposed {
        /// The address beyond loopback.
        address: SocketAddr,
    },
    /// Nothing says where the data directory is.
    #[error(
        "there is no place for the data directory, because neither XDG_STATE_HOME nor HOME is set: give --data DIR"
    )]
    NoDataDirectory,
}

/// Where a field was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the configuration file.
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In an environment variable.
    Environment,
    /// In the whole of file, environment and flags.
    Whole,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line { path, line } => write!(f, "{}, line {line}", path.display()),
            Place::Environment => f.write_str("environment"),
            Place::Whole => f.write_str("configuration"),
        }
    }
}

impl DaemonConfig {
    /// Reads the file (`file`, else the one that `PARLOR_ROOM_CONFIG` names, else none), then the environment, then the
    /// flags; the later wins. Then checks the whole. The data directory of the result is always set.
    pub fn load(
        file: Option<&Path>,
        env: impl Fn(&str) -> Option<String>,
        flags: &RunFlags,
    ) -> Result<DaemonConfig, ConfigError> {
        let env = |name: &str| env(name).filter(|value| !value.trim().is_empty());
        let mut config = DaemonConfig::default();
        let from_env = env("PARLOR_ROOM_CONFIG").map(PathBuf::from);
        if let Some(path) = file.or(from_env.as_deref()) {
            file::apply(&mut config, path)?;
        }
        apply_environment(&mut config, &Environment { get: &env })?;
        apply_flags(&mut config, flags)?;
        if config.room.data.is_none() {
            config.room.data = Some(data_directory(env).ok_or(ConfigError::NoDataDirectory)?);
        }
        config.room.tls = std::mem::take(&mut config.certificate).complete()?;
        check(&config.room)?;
        Ok(config)
    }
}

/// Every key of the file has a variable: its name in capitals after `PARLOR_ROOM_`, a table's name before it.
/// Accounts have none, because there can be many and each has a name of its own.
fn apply_environment(config: &mut DaemonConfig, env: &Environment<'_>) -> Result<(), ConfigError> {
    let room = &mut config.room;
    env.list("LISTEN", &mut room.listen, parse_listen)?;
    env.list("BLACKLIST", &mut room.blacklist, |text| parse_net(text).map_err(|error| error.to_string()))?;
    env.read("DATA", |text| {
        room.data = Some(text.into());
        Ok(())
    })?;
    env.flag("OPEN", &mut room.open)?;
    env.flag("ALLOW_UNENCRYPTED", &mut room.allow_unencrypted)?;
    env.flag("JSON", &mut config.json)?;
    env.read("LOG", |text| {
        check_log(text)?;
        text.clone_into(&mut config.log);
        Ok(())
    })?;
    env.read("ROOM_PASSWORD", |text| {
        let hash = text.parse().map_err(|error: HashError| error.to_string())?;
        room.room_password = Some(hash);
        Ok(())
    })?;
    let certificate = &mut config.certificate;
    for (key, into) in [("TLS_CERTIFICATE", &mut certificate.certificate), ("TLS_KEY", &mut certificate.key)]
    {
        env.read(key, |text| {
            *into = Some(text.into());
            Ok(())
        })?;
    }
    let relay = &mut room.limits.relay;
    env.flag("RELAY_ENABLED", &mut relay.enabled)?;
    env.number("RELAY_PAIRS_PER_USER", &mut relay.pairs_per_user)?;
    env.number("RELAY_PAIRS_TOTAL", &mut relay.pairs_total)?;
    env.number("RELAY_RATE", &mut relay.rate)?;
    env.number("RELAY_BURST", &mut relay.burst)?;
    let limits = &mut room.limits;
    env.number("LIMITS_MAX_USERS", &mut limits.max_users)?;
    env.number("LIMITS_USERS_PER_ADDRESS", &mut limits.users_per_address)?;
    env.flag("LIMITS_PENALTIES", &mut limits.penalties)?;
    let mut bans = limits.ban_forever_after.unwrap_or_default();
    env.number("LIMITS_BAN_FOREVER_AFTER", &mut bans)?;
    if env.text("LIMITS_BAN_FOREVER_AFTER").is_some() {
        limits.ban_forever_after = Some(bans);
    }
    env.number("LIMITS_BCRYPT_THREADS", &mut limits.bcrypt_threads)?;
    env.number("LIMITS_BCRYPT_QUEUE", &mut limits.bcrypt_queue)
}

fn apply_flags(config: &mut DaemonConfig, flags: &RunFlags) -> Result<(), ConfigError> {
    if !flags.listen.is_empty() {
        config.room.listen.clone_from(&flags.listen);
    }
    if let Some(data) = &flags.data {
        config.room.data = Some(data.clone());
    }
    if let Some(log) = &flags.log {
        check_log(log).map_err(|why| whole("--log", why))?;
        config.log.clone_from(log);
    }
    config.room.open |= flags.open;
    config.room.allow_unencrypted |= flags.allow_unencrypted;
    config.json |= flags.json;
    Ok(())
}

/// What no single place can see.
fn check(room: &RoomConfig) -> Result<(), ConfigError> {
    if room.listen.is_empty() {
        return Err(whole("listen", "the list is empty: name an address such as 127.0.0.1:2428".to_owned()));
    }
    for (at, address) in room.listen.iter().enumerate() {
        if address.port() != 0 && room.listen[..at].contains(address) {
            return Err(whole("listen", format!("{address} stands there twice: remove one")));
        }
    }
    let limits = &room.limits;
    for (field, value) in [
        ("limits.max_users", limits.max_users),
        ("limits.bcrypt_threads", limits.bcrypt_threads),
        ("limits.bcrypt_queue", limits.bcrypt_queue),
        ("relay.pairs_per_user", limits.relay.pairs_per_user),
        ("relay.pairs_total", limits.relay.pairs_total),
    ] {
        if value == 0 {
            return Err(whole(field, "0 would let nobody in: give 1 or more".to_owned()));
        }
    }
    if limits.ban_forever_after == Some(0) {
        return Err(whole(
            "limits.ban_forever_after",
            "give 1 or more, or leave it out for never".to_owned(),
        ));
    }
    let relay = &limits.relay;
    if relay.enabled && relay.rate > 0 && relay.burst < SMALLEST_BURST {
        let why = format!("{} is less than one buffer: give {SMALLEST_BURST} bytes or more", relay.burst);
        return Err(whole("relay.burst", why));
    }
    Ok(())
}

/// A relay reads into one buffer at a time, so a burst below its size would never let it through.
const SMALLEST_BURST: u64 = parlor_protocol::limits::RELAY_BUFFER as u64;

fn whole(field: &str, why: String) -> ConfigError {
    ConfigError::Field { place: Place::Whole, field: field.to_owned(), why }
}

/// A level or a filter. A lone word that is no level would read as a target and silence everything.
pub(super) fn check_log(text: &str) -> Result<(), String> {
    let level =
        ["off", "error", "warn", "info", "debug", "trace"].iter().any(|l| text.eq_ignore_ascii_case(l));
    let filter = text.contains('=') && tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
    if level || filter {
        return Ok(());
    }
    Err(format!(
        "{text:?} is none of off, error, warn, info, debug, trace, and no filter such as info,parlor_room=debug"
    ))
}

struct Environment<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Environment<'_> {
    fn text(&self, key: &str) -> Option<String> {
        (self.get)(&format!("PARLOR_ROOM_{key}"))
    }

    fn read(&self, key: &str, take: impl FnOnce(&str) -> Result<(), String>) -> Result<(), ConfigError> {
        let Some(text) = self.text(key) else { return Ok(()) };
        take(text.trim()).map_err(|why| ConfigError::Field {
            place: Place::Environment,
            field: format!("PARLOR_ROOM_{key}"),
            why,
        })
    }

    fn list<T>(
        &self,
        key: &str,
        into: &mut Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        self.read(key, |text| {
            *into = text.split(',').map(parse).collect::<Result<_, _>>()?;
            Ok(())
        })
    }

    fn flag(&self, key: &str, into: &mut bool) -> Result<(), ConfigError> {
        self.read(key, |text| {
            *into = match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => true,
                "false" | "0" | "no" | "off" => false,
                _ => return Err(format!("{text:?} is neither true nor false")),
            };
            Ok(())
        })
    }

    fn number<T: FromStr<Err = std::num::ParseIntError>>(
        &self,
        key: &str,
        into: &mut T,
    ) -> Result<(), ConfigError> {
        self.read(key, |text| {
            *into = text.parse().map_err(|error| format!("{text:?} is no number that fits: {error}"))?;
            Ok(())
        })
    }
}

/// The data directory when none is configured: `$XDG_STATE_HOME/parlor-room`, else `~/.local/state/parlor-room`.
pub fn data_directory(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|state| state.join("parlor-room"))
}

#[cfg(test)]
mod tests;
