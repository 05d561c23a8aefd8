use std::collections::BTreeMap;

use super::*;

fn load(file: Option<&str>, env: &[(&str, &str)], flags: &RunFlags) -> Result<DaemonConfig, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("room.toml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let env: BTreeMap<_, _> = env.iter().copied().chain([("HOME", "/home/foo")]).collect();
    DaemonConfig::load(file.map(|_| path.as_path()), |name| env.get(name).map(|&v| v.to_owned()), flags)
}

#[test]
fn without_a_word_the_room_is_for_this_machine_and_keeps_its_data_in_the_home_directory() {
    let config = load(None, &[("PARLOR_ROOM_OPEN", "")], &RunFlags::default()).unwrap();
    assert_eq!(config.room.listen, ["127.0.0.1:2428".parse().unwrap()]);
    assert_eq!(config.room.data, Some("/home/foo/.local/state/parlor-room".into()));
    assert!(!config.room.open && !config.json && config.log == "info");
    let state = [("XDG_STATE_HOME", "/state")];
    let config = load(None, &state, &RunFlags::default()).unwrap();
    assert_eq!(config.room.data, Some("/state/parlor-room".into()));
    let nowhere = DaemonConfig::load(None, |_| None, &RunFlags::default());
    assert_eq!(nowhere.unwrap_err(), ConfigError::NoDataDirectory);
}

#[test]
fn the_environment_beats_the_file_and_a_flag_beats_both() {
    let file = "listen = [\"127.0.0.1:1\"]\nlog = \"warn\"\nopen = true\n[limits]\nmax_users = 1\n";
    let env = [
        ("PARLOR_ROOM_LISTEN", "127.0.0.1:2, [::1]:2"),
        ("PARLOR_ROOM_LOG", "debug"),
        ("PARLOR_ROOM_OPEN", "no"),
        ("PARLOR_ROOM_LIMITS_BAN_FOREVER_AFTER", "5"),
    ];
    let from_both = load(Some(file), &env, &RunFlags::default()).unwrap();
    assert_eq!(from_both.room.listen.len(), 2);
    assert_eq!((from_both.log.as_str(), from_both.room.open), ("debug", false));
    assert_eq!(from_both.room.limits.max_users, 1);
    assert_eq!(from_both.room.limits.ban_forever_after, Some(5));
    let flags = RunFlags {
        listen: vec!["127.0.0.1:3".parse().unwrap()],
        log: Some("error".to_owned()),
        open: true,
        ..RunFlags::default()
    };
    let config = load(Some(file), &env, &flags).unwrap();
    assert_eq!(config.room.listen, flags.listen);
    assert_eq!((config.log.as_str(), config.room.open), ("error", true));
}

#[test]
fn every_key_of_the_file_has_a_variable() {
    let hash = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";
    let env = [
        ("PARLOR_ROOM_DATA", "/data"),
        ("PARLOR_ROOM_ALLOW_UNENCRYPTED", "true"),
        ("PARLOR_ROOM_JSON", "1"),
        ("PARLOR_ROOM_ROOM_PASSWORD", hash),
        ("PARLOR_ROOM_BLACKLIST", "192.0.2.7,198.51.100.0/24"),
        ("PARLOR_ROOM_RELAY_ENABLED", "off"),
        ("PARLOR_ROOM_RELAY_PAIRS_PER_USER", "2"),
        ("PARLOR_ROOM_RELAY_PAIRS_TOTAL", "20"),
        ("PARLOR_ROOM_RELAY_RATE", "3"),
        ("PARLOR_ROOM_RELAY_BURST", "4"),
        ("PARLOR_ROOM_LIMITS_MAX_USERS", "5"),
        ("PARLOR_ROOM_LIMITS_PENALTIES", "false"),
        ("PARLOR_ROOM_LIMITS_BCRYPT_THREADS", "6"),
        ("PARLOR_ROOM_LIMITS_BCRYPT_QUEUE", "7"),
    ];
    let DaemonConfig { room, json, .. } = load(None, &env, &RunFlags::default()).unwrap();
    assert!(json && room.allow_unencrypted && room.room_password.is_some());
    assert_eq!((room.data, room.blacklist.len()), (Some("/data".into()), 2));
    let relay = room.limits.relay;
    assert_eq!((relay.enabled, relay.pairs_per_user, relay.pairs_total), (false, 2, 20));
    assert_eq!((relay.rate, relay.burst), (3, 4));
    assert_eq!((room.limits.max_users, room.limits.penalties), (5, false));
    assert_eq!((room.limits.bcrypt_threads, room.limits.bcrypt_queue), (6, 7));
}

#[test]
fn a_variable_that_cannot_be_is_named() {
    for (key, value, part) in [
        ("PARLOR_ROOM_LISTEN", "localhost:1", "is no ADDR:PORT"),
        ("PARLOR_ROOM_OPEN", "maybe", "neither true nor false"),
        ("PARLOR_ROOM_LIMITS_MAX_USERS", "-1", "is no number"),
        ("PARLOR_ROOM_ROOM_PASSWORD", "123456", "no bcrypt hash"),
        ("PARLOR_ROOM_CONFIG", "/nowhere/room.toml", "cannot read the configuration file /nowhere/room.toml"),
    ] {
        let error = load(None, &[(key, value)], &RunFlags::default()).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(part), "{error}");
    }
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    for (file, part) in [
        ("listen = []", "configuration: listen: the list is empty"),
        ("listen = [\"[::1]:1\", \"[::1]:1\"]", "stands there twice"),
        ("[limits]\nmax_users = 0", "limits.max_users: 0 would let nobody in"),
        ("[limits]\nban_forever_after = 0", "leave it out"),
        ("[relay]\nburst = 1", "relay.burst: 1 is less than one buffer: give 65536"),
        ("[tls]\ncertificate = \"chain.pem\"", "tls.key: the certificate needs its key"),
        ("[tls]\nkey = \"key.pem\"", "tls.certificate: the key needs its certificate"),
    ] {
        let error = load(Some(file), &[], &RunFlags::default()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(load(Some("listen = [\"[::1]:0\", \"[::1]:0\"]"), &[], &RunFlags::default()).is_ok());
}

#[test]
fn a_room_that_asks_for_nothing_listens_on_loopback_only_unless_told() {
    let beyond = RoomConfig { listen: vec!["0.0.0.0:2428".parse().unwrap()], ..RoomConfig::default() };
    assert!(beyond.check_exposure(0).unwrap_err().to_string().contains("--open"));
    assert!(beyond.check_exposure(1).is_ok(), "an account in the data directory");
    assert!(RoomConfig { open: true, ..beyond.clone() }.check_exposure(0).is_ok());
    let hash = crate::password::PasswordHash::dummy(10);
    assert!(RoomConfig { room_password: Some(hash), ..beyond }.check_exposure(0).is_ok());
    for loopback in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
        let listen = vec![loopback.parse().unwrap()];
        assert!(RoomConfig { listen, ..RoomConfig::default() }.check_exposure(0).is_ok());
    }
}
