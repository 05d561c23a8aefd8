use parlor_protocol::introduction::{Cipher, Introduction, IntroductionId, Party};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::RungOffer;

use super::*;

fn name(text: &str) -> UserName {
    text.parse().unwrap()
}

fn room() -> PublicIdentity {
    Identity::from_seed(&[9; 32]).public()
}

fn ticket(byte: u8) -> StoredTicket {
    StoredTicket { secret: TicketSecret([byte; 32]), password_tag: 7 }
}

fn on_disk() -> (tempfile::TempDir, DataDir) {
    let parent = tempfile::tempdir().unwrap();
    let data = DataDir::open(&parent.path().join("parlor")).unwrap();
    (parent, data)
}

#[test]
fn an_identity_is_made_once_for_a_room_and_a_name_in_any_case() {
    let (parent, data) = on_disk();
    let (here, there) = (room().fingerprint(), Identity::from_seed(&[8; 32]).fingerprint());
    let first = data.identity(here, &name("Foo"), &[1; 32]).unwrap().public();
    assert_eq!(first, Identity::from_seed(&[1; 32]).public());
    let again = DataDir::open(&parent.path().join("parlor")).unwrap();
    assert_eq!(again.identity(here, &name("fOO"), &[2; 32]).unwrap().public(), first);
    assert_ne!(again.identity(here, &name("Bar"), &[2; 32]).unwrap().public(), first);
    assert_ne!(again.identity(there, &name("Foo"), &[3; 32]).unwrap().public(), first);
}

#[test]
fn a_crowd_of_peers_cannot_make_their_keys_a_file_that_is_not_read() {
    let (_parent, data) = on_disk();
    let (here, key) = (room().fingerprint(), hex(&room().0));
    let peers_of = |number| (0..number).map(|n| (format!("{n:x<32}"), key.clone())).collect();
    let full = PeersFile { peers: peers_of(PEER_PINS) };
    data.files.exclusive().unwrap().write(&peers(here), &text(full)).unwrap();
    assert_eq!(data.pinned_peers(here).unwrap().len(), PEER_PINS);
    let error = data.pin_peer(here, &name("Bar"), &room()).unwrap_err();
    assert!(error.to_string().contains("parlor forget"), "{error}");
    let known = name(&format!("{:x<32}", 7));
    let other = Identity::from_seed(&[7; 32]).public();
    data.pin_peer(here, &known, &other).unwrap();
    assert_eq!(data.peer_pin(here, &known).unwrap(), Some(other));
    assert!(data.forget_peer(here, &known).unwrap());
    data.pin_peer(here, &name("Bar"), &room()).unwrap();
}

#[test]
fn pins_and_tickets_are_found_again_and_forgotten_when_told() {
    let (parent, data) = on_disk();
    let (foo, bar, key) = (name("Foo"), name("Bar"), room().fingerprint());
    data.pin_room("localhost:2428", key).unwrap();
    data.pin_peer(key, &bar, &room()).unwrap();
    data.set_ticket(key, &foo, Some(&ticket(5))).unwrap();

    let data = DataDir::open(&parent.path().join("parlor")).unwrap();
    assert_eq!(data.room_pin("localhost:2428").unwrap(), Some(key));
    assert_eq!(data.room_pin("localhost:2429").unwrap(), None);
    assert_eq!(data.peer_pin(key, &name("BAR")).unwrap(), Some(room()));
    assert_eq!(data.pinned_peers(key).unwrap().len(), 1);
    assert_eq!(data.ticket(key, &foo).unwrap(), Some(ticket(5)));
    assert_eq!(data.ticket(key, &bar).unwrap(), None);

    assert!(data.forget_peer(key, &bar).unwrap());
    assert!(!data.forget_peer(key, &bar).unwrap());
    assert_eq!(data.peer_pin(key, &bar).unwrap(), None);
    data.set_ticket(key, &foo, None).unwrap();
    assert_eq!(data.ticket(key, &foo).unwrap(), None);
}

#[test]
fn a_file_that_was_cut_short_or_changed_is_named_and_refused_and_left_as_it_is() {
    let (parent, data) = on_disk();
    let key = room().fingerprint();
    data.pin_room("a:1", key).unwrap();
    data.pin_room("b:2", key).unwrap();
    let path = parent.path().join("parlor/rooms.toml");
    let whole = std::fs::read_to_string(&path).unwrap();

    for cut in 0..whole.len() - 1 {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = data.room_pin("a:1").unwrap_err().to_string();
        assert!(error.contains("rooms.toml is damaged"), "{cut}: {error}");
        assert!(data.pin_room("c:3", key).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole[..cut]);
    }
    std::fs::write(&path, whole.replace("a:1", "c:1")).unwrap();
    assert!(matches!(data.room_pin("a:1"), Err(DataError::Damaged { .. })));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(data.room_pin("a:1"), Err(DataError::Damaged { .. })));
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(data.room_pin("a:1").unwrap(), Some(key));
}

#[test]
fn a_file_of_another_version_is_refused_with_both_versions() {
    let data = DataDir::ephemeral();
    data.files.exclusive().unwrap().write(ROOMS, "version = 2\nshape = 1\n").unwrap();
    let error = data.room_pin("a:1").unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("version 1"), "{error}");
}

#[cfg(unix)]
#[test]
fn nobody_but_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (parent, data) = on_disk();
    let key = room().fingerprint();
    data.identity(key, &name("Foo"), &[1; 32]).unwrap();
    let root = parent.path().join("parlor");
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(root.clone()), 0o700);
    assert_eq!(mode(root.join(key.to_string())), 0o700);
    assert_eq!(mode(root.join(key.to_string()).join("identity_foo.toml")), 0o600);
}

#[test]
fn programs_that_share_the_directory_lose_none_of_each_others_changes() {
    let (parent, _) = on_disk();
    let root = parent.path().join("parlor");
    let key = room().fingerprint();
    std::thread::scope(|scope| {
        for program in 0..4 {
            let root = &root;
            scope.spawn(move || {
                let data = DataDir::open(root).unwrap();
                for peer in 0..10 {
                    let peer = name(&format!("p{program}-{peer}"));
                    // The lock is not handed on in turn: on a slow disk one program may wait 3 s in vain.
                    let pinned = (0..20).any(|_| match data.pin_peer(key, &peer, &room()) {
                        Ok(()) => true,
                        Err(DataError::Busy { .. }) => false,
                        Err(error) => panic!("{error}"),
                    });
                    assert!(pinned, "busy for a minute");
                }
            });
        }
    });
    assert_eq!(DataDir::open(&root).unwrap().pinned_peers(key).unwrap().len(), 40);
}

#[test]
fn the_directory_follows_the_xdg_specification() {
    let path = |vars: &[(&str, &str)]| {
        DataDir::default_path(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    };
    assert_eq!(path(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).unwrap(), Path::new("/s/parlor"));
    let of_home = Path::new("/h/.local/state/parlor");
    assert_eq!(path(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")]).unwrap(), of_home);
    assert!(matches!(path(&[]), Err(DataError::NoHome)));
}

#[test]
fn introductions_are_kept_for_a_day_and_read_by_their_own_identity_only() {
    let (parent, data) = on_disk();
    let room_key = Identity::from_seed(&[9; 32]);
    let (me, other) = (Identity::from_seed(&[1; 32]), Identity::from_seed(&[2; 32]));
    let party = |text: &str, identity: &Identity| Party {
        name: name(text),
        identity: identity.public(),
        noise: identity.noise_certificate(),
    };
    let introduction = Introduction {
        room: room(),
        id: IntroductionId([3; 16]),
        asker: party("Foo", &me),
        asked: party("Bar", &other),
        cipher: Cipher::ChaChaPoly,
        issued_at: 0,
        lifetime: 86_400,
    };
    let entry = CachedIntroduction {
        peer: name("Bar"),
        introduction: introduction.sign(&room_key),
        rungs: vec![RungOffer { rung: Rung::Lan, dial: vec!["10.0.0.2:7".parse().unwrap()], relay: None }],
        received_at: 1000,
    };
    let blacklist = vec!["192.0.2.0/24".parse().unwrap()];
    let cache = CachedIntroductions { room: room(), blacklist, port: 4000, entries: vec![entry] };
    data.set_introductions(&name("Foo"), &me, cache.clone(), [4; 12]).unwrap();

    let read = |identity, now| data.introductions(room().fingerprint(), &name("foo"), identity, now);
    let kept = read(&me, 2000).unwrap().unwrap();
    assert_eq!(kept, cache);
    assert_eq!(kept.entries[0].introduction.verify(&room()), Ok(introduction));
    for (now, good) in [(1000 + 86_399, 1), (1000 + 86_400, 0), (1000 - 300, 1), (1000 - 301, 0), (0, 0)] {
        assert_eq!(read(&me, now).unwrap().unwrap().entries.len(), good, "at {now}");
    }
    assert!(matches!(read(&other, 2000), Err(DataError::Damaged { .. })));
    let path = parent.path().join("parlor").join(room().fingerprint().to_string());
    let text = std::fs::read_to_string(path.join("introductions_foo.toml")).unwrap();
    assert!(!text.contains("Bar") && !text.contains(&hex(b"Bar")), "{text}");
}
