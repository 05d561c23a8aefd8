use super::*;

fn open(directory: &Path) -> Result<(Store, Loaded), StoreError> {
    Store::open(Some(directory), [7; 32])
}

fn name(text: &str) -> UserName {
    text.parse().unwrap()
}

fn ban(net: &str, until: Option<u64>) -> Ban {
    Ban { net: net.parse().unwrap(), until, reason: "a \"reason\"\nof two lines".to_owned() }
}

#[test]
fn what_was_applied_is_there_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("a/b");
    let ticket = TicketRecord {
        hash: [1; 32],
        name: name("Foo"),
        identity: PublicIdentity([0xab; 32]),
        expires: 1_900_000_000,
    };
    let (mut store, loaded) = open(&data).unwrap();
    let fingerprint = loaded.identity.fingerprint();
    for change in [
        StoreChange::Account { name: name("Foo"), hash: Some(PasswordHash::dummy(10)) },
        StoreChange::Account { name: name("Gone"), hash: Some(PasswordHash::dummy(10)) },
        StoreChange::Account { name: name("gone"), hash: None },
        StoreChange::Binding { name: name("foo"), identity: Some(PublicIdentity([9; 32])) },
        StoreChange::Ban(ban("192.0.2.7/32", Some(5))),
        StoreChange::Ban(ban("2001:db8::/32", None)),
        StoreChange::Ban(ban("198.51.100.0/24", None)),
        StoreChange::Unban("198.51.100.0/24".parse().unwrap()),
        StoreChange::Tickets { all: vec![ticket.clone()] },
    ] {
        store.apply(change).unwrap();
    }
    drop(store);
    let (_store, loaded) = Store::open(Some(&data), [8; 32]).unwrap();
    assert_eq!(loaded.identity.fingerprint(), fingerprint, "the seed is used once");
    assert_eq!(loaded.accounts, BTreeMap::from([(name("Foo"), PasswordHash::dummy(10))]));
    assert_eq!(loaded.bindings, BTreeMap::from([(name("Foo"), PublicIdentity([9; 32]))]));
    assert_eq!(loaded.bans, [ban("192.0.2.7/32", Some(5)), ban("2001:db8::/32", None)]);
    assert_eq!(loaded.tickets, [ticket]);
}

#[test]
fn a_name_gets_the_spelling_it_was_last_given() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, _) = open(home.path()).unwrap();
    for spelling in ["foo", "Foo"] {
        let hash = Some(PasswordHash::dummy(10));
        store.apply(StoreChange::Account { name: name(spelling), hash }).unwrap();
    }
    drop(store);
    assert_eq!(open(home.path()).unwrap().1.accounts.keys().next().unwrap().as_str(), "Foo");
}

#[test]
fn without_a_directory_nothing_is_written() {
    let (mut store, loaded) = Store::open(None, [7; 32]).unwrap();
    store.apply(StoreChange::Ban(ban("192.0.2.7/32", None))).unwrap();
    assert_eq!(loaded.identity.fingerprint(), Identity::from_seed(&[7; 32]).fingerprint());
}

#[test]
fn two_processes_never_share_a_directory() {
    let home = tempfile::tempdir().unwrap();
    let (store, _) = open(home.path()).unwrap();
    let error = open(home.path()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("in use by another parlor-room (process {})", std::process::id())),
        "{error}"
    );
    drop(store);
    assert!(open(home.path()).is_ok());
}

#[test]
fn the_directory_and_its_files_are_for_their_owner_alone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("room");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (mut store, _) = open(&data).unwrap();
    store.apply(StoreChange::Ban(ban("192.0.2.7/32", None))).unwrap();
    drop(store);
    assert_eq!(mode(&data), 0o700);
    for file in [IDENTITY, BANS, LOCK] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    fs::set_permissions(data.join(IDENTITY), fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&data).unwrap());
    assert_eq!(mode(&data.join(IDENTITY)), 0o600, "a key that others could read is made private again");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(open(&data), Err(StoreError::Exposed(_))));
}

#[test]
fn tickets_that_cannot_be_read_are_set_aside_and_the_room_starts_without_them() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, loaded) = open(home.path()).unwrap();
    store.apply(StoreChange::Tickets { all: Vec::new() }).unwrap();
    drop(store);
    fs::write(home.path().join(TICKETS), "torn").unwrap();
    let (_store, again) = open(home.path()).unwrap();
    assert!(again.tickets.is_empty());
    assert_eq!(again.identity.fingerprint(), loaded.identity.fingerprint());
    assert_eq!(fs::read_to_string(home.path().join(TICKETS_ASIDE)).unwrap(), "torn");
    assert!(!home.path().join(TICKETS).exists());
}

#[test]
fn a_file_that_was_torn_or_altered_is_named_and_left_as_it_is() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, _) = open(home.path()).unwrap();
    for number in 0..3 {
        let hash = Some(PasswordHash::dummy(10));
        store.apply(StoreChange::Account { name: name(&format!("User{number}")), hash }).unwrap();
    }
    drop(store);
    let path = home.path().join(ACCOUNTS);
    let whole = fs::read_to_string(&path).unwrap();
    let last_line = whole.trim_end().rfind('\n').unwrap();
    for (damaged, part) in [
        (String::new(), "does not start"),
        (whole[..40.min(whole.len())].to_owned(), "no version"),
        (whole[..=last_line].to_owned(), "checksum differs"),
        (whole.replace("User1", "User9"), "checksum differs"),
        (whole.replace("version = 1", "version = 2"), "version 2"),
        (whole.replace("checksum = ", "sum = "), "no checksum"),
    ] {
        fs::write(&path, &damaged).unwrap();
        let error = open(home.path()).unwrap_err().to_string();
        assert!(error.contains("accounts.toml") && error.contains(part), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(open(home.path()).unwrap_err().to_string().contains("no text"));
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(home.path()).unwrap().1.accounts.len(), 3);
}

/// A file as it would be if somebody had put this in it and knew of the checksum.
fn forged(body: &str) -> String {
    let checksum = &blake3::hash(body.as_bytes()).to_hex()[..32];
    format!("# {NOTE}\nversion = 1\nchecksum = \"{checksum}\"\n{body}")
}

#[test]
fn accounts_that_cannot_be_are_refused_with_file_line_and_reason() {
    const GOOD: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()).unwrap());
    let good = format!("[accounts]\nFoo = \"{GOOD}\"\n");
    fs::write(home.path().join(ACCOUNTS), forged(&good)).unwrap();
    assert_eq!(open(home.path()).unwrap().1.accounts.len(), 1);
    for (body, part) in [
        (good.clone() + "Bar = \"123456\"\n", "line 6: this is no bcrypt hash"),
        (
            good.clone() + &format!("Bar = \"{}\"\n", GOOD.replace("$10$", "$09$")),
            "line 6: bcrypt cost 9 is not",
        ),
        (
            good.clone() + &format!("Bar = \"{}\"\n", GOOD.replace("$10$", "$15$")),
            "line 6: bcrypt cost 15 is not",
        ),
        (good.clone() + &format!("fOO = \"{GOOD}\"\n"), "Foo and fOO are one name"),
        (good.clone() + &format!("\"a b\" = \"{GOOD}\"\n"), "a user name cannot contain ' '"),
        (good.clone() + "Bar = 5\n", "line 6: invalid type"),
        (good.clone() + "[more]\n", "unknown field"),
    ] {
        fs::write(home.path().join(ACCOUNTS), forged(&body)).unwrap();
        let error = open(home.path()).unwrap_err().to_string();
        assert!(error.contains("accounts.toml is damaged: line ") && error.contains(part), "{error}");
        assert!(!error.contains(GOOD), "{error}");
    }
}

#[test]
fn wherever_a_file_is_cut_or_a_byte_of_it_changed_it_is_named_and_refused_or_set_aside() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, loaded) = open(home.path()).unwrap();
    let identity = loaded.identity.fingerprint();
    let public = PublicIdentity([9; 32]);
    for change in [
        StoreChange::Account { name: name("Foo"), hash: Some(PasswordHash::dummy(10)) },
        StoreChange::Binding { name: name("Foo"), identity: Some(public) },
        StoreChange::Ban(ban("192.0.2.7/32", Some(5))),
        StoreChange::Tickets {
            all: vec![TicketRecord { hash: [1; 32], name: name("Foo"), identity: public, expires: 5 }],
        },
    ] {
        store.apply(change).unwrap();
    }
    drop(store);
    for file in [IDENTITY, ACCOUNTS, BINDINGS, BANS, TICKETS] {
        let path = home.path().join(file);
        let whole = fs::read(&path).unwrap();
        let first_line = whole.iter().position(|byte| *byte == b'\n').unwrap();
        let cut = (0..whole.len()).map(|at| (at, whole[..at].to_vec()));
        let changed = (0..whole.len()).step_by(3).flat_map(|at| {
            [1, 0x80].map(|bit| {
                let mut bytes = whole.clone();
                bytes[at] ^= bit;
                (at, bytes)
            })
        });
        for (at, damaged) in cut.chain(changed) {
            fs::write(&path, &damaged).unwrap();
            match open(home.path()) {
                Err(error) => {
                    assert!(file != TICKETS && error.to_string().contains(file), "{file} at {at}: {error}");
                    assert_eq!(fs::read(&path).unwrap(), damaged, "{file} at {at} is left as it is");
                }
                Ok((_, loaded)) if file == TICKETS => {
                    assert!(loaded.tickets.is_empty() || at < first_line, "{file} at {at}");
                    assert_eq!(loaded.accounts.len(), 1, "{file} at {at}");
                }
                // The first line is a remark for people.
                Ok((_, loaded)) => {
                    assert!(damaged.len() == whole.len() && at < first_line, "{file} at {at}");
                    assert_eq!(loaded.identity.fingerprint(), identity);
                    assert_eq!((loaded.accounts.len(), loaded.bindings.len(), loaded.bans.len()), (1, 1, 1));
                }
            }
        }
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_key_file_that_was_altered_is_refused_and_never_replaced() {
    let home = tempfile::tempdir().unwrap();
    drop(open(home.path()).unwrap());
    let path = home.path().join(IDENTITY);
    let altered = fs::read_to_string(&path).unwrap().replace("07", "08");
    fs::write(&path, &altered).unwrap();
    assert!(matches!(open(home.path()), Err(StoreError::Damaged { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), altered);
}

#[test]
fn a_change_that_cannot_be_written_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (mut store, _) = open(home.path()).unwrap();
    // A directory in the place of the fresh file: even root cannot write there.
    fs::create_dir(home.path().join("bans.new")).unwrap();
    let error = store.apply(StoreChange::Ban(ban("192.0.2.7/32", None))).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("bans.toml"), "{error}");
    fs::remove_dir(home.path().join("bans.new")).unwrap();
    store.apply(StoreChange::Ban(ban("198.51.100.1/32", None))).unwrap();
    drop(store);
    assert_eq!(open(home.path()).unwrap().1.bans, [ban("198.51.100.1/32", None)]);
}

#[test]
fn what_a_crash_left_beside_a_file_is_in_nobody_s_way() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("bans.new"), "half a fi").unwrap();
    let (mut store, loaded) = open(home.path()).unwrap();
    assert!(loaded.bans.is_empty());
    store.apply(StoreChange::Ban(ban("192.0.2.7/32", None))).unwrap();
    assert!(!home.path().join("bans.new").exists());
}
