//! The configuration file. What it says is checked where it stands, so that an error can name its line.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parlor_protocol::name::UserName;
use serde::Deserialize;
use toml::Spanned;

use super::load::{ConfigError, DaemonConfig, Place};
use super::parse_net;
use crate::password::PasswordHash;

/// Longest file, in bytes: 200,000 accounts.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The file as TOML sees it. Texts keep their place until they have been parsed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Vec<Spanned<String>>>,
    data: Option<PathBuf>,
    open: Option<bool>,
    allow_unencrypted: Option<bool>,
    log: Option<Spanned<String>>,
    json: Option<bool>,
    room_password: Option<Spanned<String>>,
    blacklist: Option<Vec<Spanned<String>>>,
    accounts: Option<BTreeMap<Spanned<String>, Spanned<String>>>,
    tls: Option<Tls>,
    relay: Option<Relay>,
    limits: Option<Limits>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Relay {
    enabled: Option<bool>,
    pairs_per_user: Option<usize>,
    pairs_total: Option<usize>,
    rate: Option<u64>,
    burst: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    max_users: Option<usize>,
    users_per_address: Option<usize>,
    penalties: Option<bool>,
    ban_forever_after: Option<u32>,
    bcrypt_threads: Option<usize>,
    bcrypt_queue: Option<usize>,
}

/// Reads the file and lets it act on `config`.
pub(super) fn apply(config: &mut DaemonConfig, path: &Path) -> Result<(), ConfigError> {
    let unreadable = |why: String| ConfigError::File { path: path.to_owned(), why };
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > FILE_BYTES {
        return Err(unreadable(format!("it has {length} bytes, at most {FILE_BYTES} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    apply_text(config, path, &text)
}

fn apply_text(config: &mut DaemonConfig, path: &Path, text: &str) -> Result<(), ConfigError> {
    let source = Source { path, text };
    let file: File = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    let room = &mut config.room;
    if let Some(listen) = file.listen {
        room.listen = source.list("listen", &listen, parse_listen)?;
    }
    if let Some(data) = file.data {
        room.data = Some(beside(path, data));
    }
    if let Some(tls) = file.tls {
        config.certificate.certificate = tls.certificate.map(|certificate| beside(path, certificate));
        config.certificate.key = tls.key.map(|key| beside(path, key));
    }
    set(&mut room.open, file.open);
    set(&mut room.allow_unencrypted, file.allow_unencrypted);
    set(&mut config.json, file.json);
    if let Some(log) = file.log {
        super::load::check_log(log.get_ref()).map_err(|why| source.error("log", &log, why))?;
        config.log = log.into_inner();
    }
    if let Some(hash) = file.room_password {
        room.room_password = Some(source.parse("room_password", &hash, str::parse::<PasswordHash>)?);
    }
    if let Some(blacklist) = file.blacklist {
        room.blacklist = source.list("blacklist", &blacklist, parse_net)?;
    }
    if let Some(accounts) = file.accounts {
        room.accounts = accounts_of(&source, accounts)?;
    }
    if let Some(relay) = file.relay {
        let into = &mut room.limits.relay;
        set(&mut into.enabled, relay.enabled);
        set(&mut into.pairs_per_user, relay.pairs_per_user);
        set(&mut into.pairs_total, relay.pairs_total);
        set(&mut into.rate, relay.rate);
        set(&mut into.burst, relay.burst);
    }
    if let Some(limits) = file.limits {
        let into = &mut room.limits;
        set(&mut into.max_users, limits.max_users);
        set(&mut into.users_per_address, limits.users_per_address);
        set(&mut into.penalties, limits.penalties);
        into.ban_forever_after = limits.ban_forever_after.or(into.ban_forever_after);
        set(&mut into.bcrypt_threads, limits.bcrypt_threads);
        set(&mut into.bcrypt_queue, limits.bcrypt_queue);
    }
    Ok(())
}

/// Relative to the file, so that it means the same wherever the Room is started.
fn beside(file: &Path, path: PathBuf) -> PathBuf {
    file.parent().map_or(path.clone(), |parent| parent.join(path))
}

fn set<T>(into: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *into = value;
    }
}

/// An address to listen on: digits and a port.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("{text:?} is no ADDR:PORT such as 127.0.0.1:2428, 0.0.0.0:2428 or [::]:2428"))
}

/// Accounts in the order of the file, so that of two equal names the second is the wrong one.
fn accounts_of(
    source: &Source<'_>,
    accounts: BTreeMap<Spanned<String>, Spanned<String>>,
) -> Result<BTreeMap<UserName, PasswordHash>, ConfigError> {
    let mut accounts: Vec<_> = accounts.into_iter().collect();
    accounts.sort_by_key(|(name, _)| name.span().start);
    let mut checked = BTreeMap::new();
    let mut lines: BTreeMap<UserName, usize> = BTreeMap::new();
    for (written, hash) in accounts {
        let field = format!("accounts.{}", written.get_ref());
        let name = source.parse(&field, &written, str::parse::<UserName>)?;
        if let Some((first, line)) = lines.get_key_value(&name) {
            let why = format!(
                "line {line} has the account {first} already and names are equal without regard to case: remove one"
            );
            return Err(source.error(&field, &written, why));
        }
        checked.insert(name.clone(), source.parse(&field, &hash, str::parse::<PasswordHash>)?);
        lines.insert(name, source.line(written.span().start));
    }
    Ok(checked)
}

/// A file being read, for errors.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn list<T, E: Display>(
        &self,
        field: &str,
        items: &[Spanned<String>],
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ConfigError> {
        items.iter().map(|item| self.parse(field, item, &parse)).collect()
    }

    fn parse<T, E: Display>(
        &self,
        field: &str,
        item: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        parse(item.get_ref()).map_err(|why| self.error(field, item, why))
    }

    fn error(&self, field: &str, item: &Spanned<String>, why: impl Display) -> ConfigError {
        let place = Place::Line { path: self.path.to_owned(), line: self.line(item.span().start) };
        ConfigError::Field { place, field: field.to_owned(), why: why.to_string() }
    }

    /// What TOML itself found wrong. It knows the place, the field's name is read from there.
    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        let why = error.message().trim().replace('\n', ", ");
        let place = Place::Line { path: self.path.to_owned(), line: self.line(start) };
        ConfigError::Field { place, field: self.field_at(start), why }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.before(offset).matches('\n').count()
    }

    /// The key whose value, or which itself, stands at `offset`, with its table: `relay.rate`.
    fn field_at(&self, offset: usize) -> String {
        let line_end =
            self.text[self.before(offset).len()..].find('\n').map_or(self.text.len(), |n| offset + n);
        let mut key = None;
        for line in self.before(line_end).lines().rev().map(str::trim) {
            if let Some(table) = line.strip_prefix('[').and_then(|rest| rest.split_once(']'))
                && !line.contains(['"', ','])
            {
                let table = table.0;
                return key.map_or(table.to_owned(), |key| format!("{table}.{key}"));
            }
            if key.is_none()
                && !line.starts_with('#')
                && let Some((left, _)) = line.split_once('=')
            {
                key = Some(left.trim());
            }
        }
        key.unwrap_or("file").to_owned()
    }

    fn before(&self, offset: usize) -> &str {
        self.text.get(..offset).unwrap_or(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::CertificateSettings;
    use super::*;

    const FOO: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";

    fn read(text: &str) -> Result<DaemonConfig, ConfigError> {
        let mut config = DaemonConfig::default();
        apply_text(&mut config, Path::new("/etc/room.toml"), text).map(|()| config)
    }

    fn sentence(text: &str) -> String {
        read(&text.replace("FOO", FOO)).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_file_says_everything() {
        let config = read(&format!(
            r#"
            listen = ["127.0.0.1:2428", "[::1]:0"]
            data = "room"
            open = true
            allow_unencrypted = true
            log = "debug"
            json = true
            room_password = "{FOO}"
            blacklist = ["192.0.2.7", "198.51.100.0/24"]
            [accounts]
            Foo = "{FOO}"
            "bar.2" = "{FOO}"
            [tls]
            certificate = "chain.pem"
            key = "/run/key.pem"
            [relay]
            enabled = false
            pairs_per_user = 3
            pairs_total = 30
            rate = 0
            burst = 70000
            [limits]
            max_users = 5
            users_per_address = 0
            penalties = false
            ban_forever_after = 9
            bcrypt_threads = 2
            bcrypt_queue = 4
            "#
        ))
        .unwrap();
        let files = CertificateSettings {
            certificate: Some("/etc/chain.pem".into()),
            key: Some("/run/key.pem".into()),
        };
        assert_eq!(config.certificate, files);
        let room = config.room;
        assert_eq!(room.listen, ["127.0.0.1:2428".parse().unwrap(), "[::1]:0".parse().unwrap()]);
        assert_eq!(room.data, Some("/etc/room".into()));
        assert!(room.open && room.allow_unencrypted && config.json && config.log == "debug");
        assert!(room.room_password.is_some() && room.blacklist.len() == 2);
        let names: Vec<_> = room.accounts.keys().map(UserName::as_str).collect();
        assert_eq!(names, ["bar.2", "Foo"]);
        let limits = room.limits;
        let relay = &limits.relay;
        assert_eq!((relay.enabled, relay.pairs_per_user, relay.pairs_total), (false, 3, 30));
        assert_eq!((limits.relay.rate, limits.relay.burst), (0, 70_000));
        assert_eq!((limits.max_users, limits.users_per_address), (5, 0));
        assert_eq!((limits.penalties, limits.ban_forever_after), (false, Some(9)));
        assert_eq!((limits.bcrypt_threads, limits.bcrypt_queue), (2, 4));
    }

    #[test]
    fn an_error_names_file_line_field_and_reason() {
        insta::assert_snapshot!(sentence("listen = [\n  \"127.0.0.1\",\n]"), @r#"/etc/room.toml, line 2: listen: "127.0.0.1" is no ADDR:PORT such as 127.0.0.1:2428, 0.0.0.0:2428 or [::]:2428"#);
        insta::assert_snapshot!(sentence("blacklist = [\"10.0.0.1/8\"]"), @"/etc/room.toml, line 1: blacklist: 10.0.0.1/8 has bits set beyond its prefix: write 10.0.0.0/8 for the range or 10.0.0.1 for the address");
        insta::assert_snapshot!(sentence("[accounts]\nFoo = \"FOO\"\n# x\nfoo = \"FOO\""), @"/etc/room.toml, line 4: accounts.foo: line 2 has the account Foo already and names are equal without regard to case: remove one");
        insta::assert_snapshot!(sentence("[accounts]\nFoo = \"123456\""), @"/etc/room.toml, line 2: accounts.Foo: this is no bcrypt hash ($2b$, cost, $, 53 characters): it starts with none of $2a$, $2b$, $2y$; make one with: parlor-room hash");
        insta::assert_snapshot!(sentence("[accounts]\n\"a b\" = \"FOO\""), @"/etc/room.toml, line 2: accounts.a b: a user name cannot contain ' ' at position 1: use letters, digits, '.', '_' and '-', and start with a letter or digit");
        insta::assert_snapshot!(sentence(&format!("room_password = {:?}", FOO.replace("$10$", "$15$"))), @"/etc/room.toml, line 1: room_password: bcrypt cost 15 is not from 10 to 14: make a new hash with: parlor-room hash");
        insta::assert_snapshot!(sentence("open = true\nlog = \"loud\""), @"/etc/room.toml, line 2: log: \"loud\" is none of off, error, warn, info, debug, trace, and no filter such as info,parlor_room=debug");
    }

    #[test]
    fn what_toml_itself_refuses_names_line_and_field_too() {
        insta::assert_snapshot!(sentence("[relay]\nrate = \"8 MiB\""), @"/etc/room.toml, line 2: relay.rate: invalid type: string \"8 MiB\", expected u64");
        insta::assert_snapshot!(sentence("\nlisen = []"), @"/etc/room.toml, line 2: lisen: unknown field `lisen`, expected one of `listen`, `data`, `open`, `allow_unencrypted`, `log`, `json`, `room_password`, `blacklist`, `accounts`, `tls`, `relay`, `limits`");
        insta::assert_snapshot!(sentence("[limits]\nmax_users = -1"), @"/etc/room.toml, line 2: limits.max_users: invalid value: integer `-1`, expected usize");
        insta::assert_snapshot!(sentence("listen = [\n  2428\n]"), @"/etc/room.toml, line 2: listen: invalid type: integer `2428`, expected a string");
        insta::assert_snapshot!(sentence("open = maybe"), @"/etc/room.toml, line 1: open: string values must be quoted, expected literal string");
        insta::assert_snapshot!(sentence("open = true\nopen = true"), @"/etc/room.toml, line 2: open: duplicate key");
        insta::assert_snapshot!(sentence("[accounts]\nFoo = 1"), @"/etc/room.toml, line 2: accounts.Foo: invalid type: integer `1`, expected a string");
        insta::assert_snapshot!(sentence("[typo]\nFoo = 1"), @"/etc/room.toml, line 1: typo: unknown field `typo`, expected one of `listen`, `data`, `open`, `allow_unencrypted`, `log`, `json`, `room_password`, `blacklist`, `accounts`, `tls`, `relay`, `limits`");
    }
}
