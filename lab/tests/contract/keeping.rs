//! What the programs leave on disk: where, with which rights, and what they need again.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use parlor_lab::programs::PATIENCE;

use super::{accounts_room, online, open_room, success, with_password};

/// Every file and directory below, with its mode. Programs may write there meanwhile.
fn modes(directory: &Path) -> Vec<(String, bool, u32)> {
    let metadata = fs::metadata(directory).unwrap();
    let mut found = vec![(directory.display().to_string(), true, metadata.permissions().mode() & 0o777)];
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // What was being written has its name by now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        if metadata.is_dir() {
            found.extend(modes(&path));
        } else {
            found.push((path.display().to_string(), false, metadata.permissions().mode() & 0o777));
        }
    }
    found
}

#[test]
fn keys_pins_and_tickets_are_for_their_owner_alone() {
    let (stage, room) = accounts_room();
    let bar = with_password(&stage, &room, "Bar", "123456");
    let _bar = online(&room, &bar, "Bar", &["listen"]);
    let foo = with_password(&stage, &room, "Foo", "123456");
    success(&foo.run(&["send", "Bar", "hello"]).unwrap());
    success(&room.setup.admin(&["user", "add", "Baz"], "another password\n").unwrap());
    for directory in [&foo.data, &bar.data, &stage.path().join("room")] {
        let found = modes(directory);
        assert!(found.iter().any(|(_, is_directory, _)| !is_directory), "{} is empty", directory.display());
        for (path, is_directory, mode) in found {
            assert_eq!(mode, if is_directory { 0o700 } else { 0o600 }, "{path}: {mode:o}");
        }
    }
}

#[test]
fn no_password_is_written_anywhere() {
    let (stage, room) = accounts_room();
    let password = "correct horse battery staple";
    success(&room.setup.admin(&["user", "add", "Baz"], &format!("{password}\n")).unwrap());
    let baz = with_password(&stage, &room, "Baz", password);
    success(&baz.run(&["peers"]).unwrap());
    for (path, is_directory, _) in [modes(&baz.data), modes(&stage.path().join("room"))].concat() {
        // A socket has nothing to read.
        let content = if is_directory { Vec::new() } else { fs::read(&path).unwrap_or_default() };
        assert_eq!(parlor_lab::memory::positions(&content, password.as_bytes()).next(), None, "{path}");
    }
    assert!(!room.program.stderr_so_far().contains(password));
}

#[test]
fn an_identity_is_made_once_for_each_room_and_name_and_used_again() {
    let (stage, room) = open_room();
    let both = |name: &str| stage.user(&room.address, "shared").arg("--name").arg(name);
    let first = online(&room, &both("Bar"), "Bar", &["listen"]);
    let foo = stage.named(&room.address, "Foo");
    success(&foo.run(&["ping", "Bar", "-c", "1"]).unwrap());
    success(&both("Baz").run(&["ping", "Bar", "-c", "1"]).unwrap());
    first.terminate(PATIENCE).unwrap();
    room.await_offline(&["Bar"], PATIENCE).unwrap();
    // Foo pinned Bar's key; a new one would be refused.
    let _again = online(&room, &both("Bar"), "Bar", &["listen"]);
    success(&foo.run(&["ping", "Bar", "-c", "1"]).unwrap());
}

#[test]
fn without_data_the_state_directory_of_the_desktop_standard_is_used() {
    let (stage, room) = open_room();
    let user = stage.user(&room.address, "unused").without_args().arg("--room").arg(&room.address);
    success(&user.arg("--name").arg("Foo").run(&["peers"]).unwrap());
    let directory = stage.path().join("home/state/parlor");
    assert!(modes(&directory).len() > 1);
}

#[test]
fn an_account_is_bound_to_the_identity_of_its_first_login_until_the_operator_resets_it() {
    let (stage, room) = accounts_room();
    let foo = with_password(&stage, &room, "Foo", "123456");
    success(&foo.run(&["peers"]).unwrap());
    let elsewhere = stage.path().join("elsewhere").to_string_lossy().into_owned();
    let other = || {
        let password = stage.file("password", "123456").unwrap();
        let user = stage.user(&room.address, "unused").without_args().arg("--room").arg(&room.address);
        user.arg("--name").arg("Foo").arg("--password-file").arg(password).arg("--data").arg(&elsewhere)
    };
    super::failure_with(&other().run(&["peers"]).unwrap(), 3, &["identity"]);
    success(&room.setup.admin(&["user", "reset-identity", "Foo"], "").unwrap());
    success(&other().run(&["peers"]).unwrap());
}
