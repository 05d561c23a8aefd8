//! The Room's own command line.

use std::process::Command;

use parlor_lab::process::run;
use parlor_lab::programs::{PATIENCE, Stage, mentions};

use super::{accounts_room, failure_with, online, open_room, success, with_password};

#[test]
fn a_room_says_where_it_is_in_text_or_json_and_drains_on_sigterm() {
    let stage = Stage::new().unwrap();
    let plain = stage.room("plain").start().unwrap();
    assert!(plain.address.starts_with("room://127.0.0.1:"), "{}", plain.address);
    assert!(plain.address.contains("/#") && !plain.address.contains(":0/"), "{}", plain.address);
    let bar = online(&plain, &stage.named(&plain.address, "Bar"), "Bar", &["listen"]);
    let done = plain.program.terminate(PATIENCE).unwrap();
    assert_eq!((done.code, done.stdout.lines().count()), (Some(0), 1), "{done:?}");
    drop(bar);
    let json = stage.room("plain").arg("--json").start().unwrap();
    let fingerprint = |address: &str| address.split_once('#').unwrap().1.to_owned();
    assert_eq!(fingerprint(&json.address), fingerprint(&plain.address), "the identity is kept");
}

#[test]
fn without_a_word_it_is_run_that_is_meant() {
    let stage = Stage::new().unwrap();
    let setup = stage.room("room");
    let mut command = setup.command(&["--listen", "127.0.0.1:0"]);
    let mut room = parlor_lab::process::Program::start_without_input({
        command.arg("--json");
        command
    })
    .unwrap();
    let line = room.line(PATIENCE).unwrap();
    assert!(line.starts_with("{\"event\":\"ready\",\"address\":\"room://127.0.0.1:"), "{line}");
}

#[test]
fn beyond_loopback_a_room_without_any_password_refuses_to_start_unless_told() {
    let stage = Stage::new().unwrap();
    let setup = stage.room("room").listen("0.0.0.0:0");
    let done = run(setup.run_command(), b"", PATIENCE).unwrap();
    assert!(done.code.is_some_and(|code| code != 0), "{done:?}");
    failure_with(&done, done.code.unwrap(), &["--open"]);
    setup.arg("--open").start().unwrap();
}

#[test]
fn a_bad_configuration_is_refused_with_file_field_and_reason() {
    let stage = Stage::new().unwrap();
    for (name, content, words) in [
        ("typo.toml", "listn = [\"127.0.0.1:0\"]\n", ["typo.toml", "listn"]),
        ("hash.toml", "[accounts]\nFoo = \"123456\"\n", ["hash.toml", "Foo"]),
        ("range.toml", "blacklist = [\"300.0.0.0/8\"]\n", ["range.toml", "blacklist"]),
    ] {
        let file = stage.file(name, content).unwrap();
        let done = run(stage.room("room").arg("--config").arg(file).run_command(), b"", PATIENCE).unwrap();
        assert!(done.code.is_some_and(|code| code != 0), "{done:?}");
        failure_with(&done, done.code.unwrap(), &words);
    }
}

#[test]
fn accounts_are_made_changed_listed_and_removed_while_the_room_runs() {
    let (stage, room) = accounts_room();
    success(&room.setup.admin(&["user", "add", "Baz"], "first password\n").unwrap());
    let listed = room.setup.admin(&["user", "list"], "").unwrap();
    assert!(["Foo", "Bar", "Baz"].iter().all(|name| success(&listed).contains(name)), "{listed:?}");
    success(&with_password(&stage, &room, "Baz", "first password").run(&["peers"]).unwrap());
    success(&room.setup.admin(&["user", "passwd", "Baz"], "second password\n").unwrap());
    success(&with_password(&stage, &room, "Baz", "second password").run(&["peers"]).unwrap());
    success(&room.setup.admin(&["user", "remove", "Baz"], "").unwrap());
    let gone = with_password(&stage, &room, "Baz", "second password").run(&["peers"]).unwrap();
    failure_with(&gone, 3, &["password"]);
}

#[test]
fn accounts_made_before_the_room_starts_are_there_when_it_does() {
    let stage = Stage::new().unwrap();
    success(&stage.room("room").admin(&["user", "add", "Foo"], "a password\n").unwrap());
    let room = stage.room("room").start().unwrap();
    success(&with_password(&stage, &room, "Foo", "a password").run(&["peers"]).unwrap());
    let done = with_password(&stage, &room, "Foo", "another").run(&["peers"]).unwrap();
    // A ticket of the first login may let the second in without its password being looked at.
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    let elsewhere = stage.file("other.password", "another").unwrap();
    let stranger = stage.user(&room.address, "stranger").arg("--name").arg("Foo");
    let done = stranger.arg("--password-file").arg(elsewhere).run(&["peers"]).unwrap();
    failure_with(&done, 3, &["password"]);
}

#[test]
fn a_hash_is_made_from_stdin_and_its_cost_can_be_chosen() {
    let stage = Stage::new().unwrap();
    let hash = |args: &[&str]| {
        let setup = stage.room("unused");
        let mut command = Command::new(setup.command(&[]).get_program());
        command.arg("hash").args(args);
        run(command, b"123456\n", PATIENCE).unwrap()
    };
    assert!(success(&hash(&[])).starts_with("$2b$12$"));
    let cheap = hash(&["--cost", "10"]);
    assert!(success(&cheap).starts_with("$2b$10$"));
    assert_ne!(hash(&["--cost", "4"]).code, Some(0));
    let config = format!("[accounts]\nFoo = \"{}\"\n", cheap.stdout.trim());
    let file = stage.file("made.toml", &config).unwrap();
    let room = stage.room("room").arg("--config").arg(file).start().unwrap();
    success(&with_password(&stage, &room, "Foo", "123456").run(&["peers"]).unwrap());
}

#[test]
fn the_status_tells_who_is_online_and_from_where() {
    let (stage, room) = open_room();
    let _bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    let status = room.status().unwrap();
    assert!(mentions(&status, "Bar"), "{status}");
    assert!(status.to_string().contains("127.0.0.1:"), "{status}");
    let text = room.setup.admin(&["status"], "").unwrap();
    assert!(success(&text).contains("Bar") && success(&text).contains("127.0.0.1"), "{text:?}");
}

#[test]
fn two_rooms_do_not_share_a_data_directory() {
    let (_stage, room) = open_room();
    let done = run(room.setup.clone().run_command(), b"", PATIENCE).unwrap();
    assert!(done.code.is_some_and(|code| code != 0), "{done:?}");
    super::failure(&done, done.code.unwrap());
}
