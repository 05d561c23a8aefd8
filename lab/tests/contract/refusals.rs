//! What goes wrong, by exit code: 2 usage, 3 refused, 4 not there, 5 too late, 6 failed there, 7 no Room.

use parlor_lab::programs::{PATIENCE, Stage, own_loopback};

use super::{accounts_room, failure, failure_with, online, open_room, success, with_password};

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2_before_anything_is_sent() {
    let stage = Stage::new().unwrap();
    // Nothing listens there: reaching for the Room would end with 7.
    let nobody = format!("room://{}:1/", own_loopback());
    let user = stage.named(&nobody, "Foo");
    for args in [
        vec![],
        vec!["send"],
        vec!["send", "Bar"],
        vec!["no-such-command"],
        vec!["send", "not a name", "text"],
        vec!["send", "Bar", "--body", "{not json"],
        vec!["get", "Bar", "up", "{not json"],
        vec!["get", "Bar", "up", "--timeout", "soon"],
        vec!["serve", "no-equals-sign"],
        vec!["serve"],
        vec!["ping", "Bar", "-c", "none"],
    ] {
        let done = user.run(&args).unwrap();
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        failure(&done, 2);
    }
    for flags in
        [["--room", "http://x"], ["--name", "two words"], ["--port", "70000"], ["--public-ip", "here"]]
    {
        let user = user.clone().without_args().arg(flags[0]).arg(flags[1]);
        failure(&user.run(&["peers"]).unwrap(), 2);
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_are_refused_in_the_same_words_and_the_room_goes_on() {
    let (stage, room) = accounts_room();
    let wrong = with_password(&stage, &room, "Foo", "wrong").run(&["peers"]).unwrap();
    failure_with(&wrong, 3, &["password"]);
    let unknown = with_password(&stage, &room, "Nobody", "123456").run(&["peers"]).unwrap();
    let sentence = failure(&unknown, 3).replace("Nobody", "Foo");
    assert_eq!(sentence, failure(&wrong, 3));
    let right = with_password(&stage, &room, "Foo", "123456").run(&["--json", "peers"]).unwrap();
    success(&right);
}

#[test]
fn without_a_password_an_account_is_refused_and_nothing_asks_when_stdin_is_no_terminal() {
    let (stage, room) = accounts_room();
    let done = stage.named(&room.address, "Foo").run(&["peers"]).unwrap();
    assert!(matches!(done.code, Some(2 | 3)), "{done:?}");
    failure_with(&done, done.code.unwrap(), &["password"]);
    let guest = stage.user(&room.address, "guest").run(&["peers"]).unwrap();
    assert!(matches!(guest.code, Some(2 | 3)), "{guest:?}");
    failure(&guest, guest.code.unwrap());
}

#[test]
fn a_controlling_terminal_is_not_asked_either_when_stdin_is_something_else() {
    let (stage, room) = accounts_room();
    let setup = stage.named(&room.address, "Foo");
    let data = setup.data.to_string_lossy().into_owned();
    let binary = setup.command(&[]).get_program().to_string_lossy().into_owned();
    let script = format!("'{binary}' --room '{}' --name Foo --data '{data}' peers </dev/null", room.address);
    let mut terminal = std::process::Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &script, "/dev/null"]);
    let done = parlor_lab::process::run(terminal, b"", PATIENCE).unwrap();
    assert!(matches!(done.code, Some(2 | 3)), "{done:?}");
}

#[test]
fn a_banned_address_is_refused_until_the_ban_is_lifted() {
    let (stage, room) = open_room();
    let foo = stage.named(&room.address, "Foo");
    success(&foo.run(&["peers"]).unwrap());
    success(&room.setup.admin(&["ban", "add", "127.0.0.0/8"], "").unwrap());
    failure_with(&foo.run(&["peers"]).unwrap(), 3, &["ban"]);
    success(&room.setup.admin(&["ban", "remove", "127.0.0.0/8"], "").unwrap());
    success(&foo.run(&["peers"]).unwrap());
}

#[test]
fn a_ban_cuts_those_who_are_online() {
    let (stage, room) = open_room();
    let bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    success(&room.setup.admin(&["ban", "add", "127.0.0.1", "--for", "10m"], "").unwrap());
    let listed = room.setup.admin(&["ban", "list"], "").unwrap();
    assert!(success(&listed).contains("127.0.0.1"), "{listed:?}");
    failure_with(&bar.wait(PATIENCE).unwrap(), 3, &["ban"]);
}

#[test]
fn a_room_with_another_key_than_its_address_says_is_refused() {
    let (stage, room) = accounts_room();
    let other = stage.room("other").start().unwrap();
    let fingerprint = other.address.split_once('#').unwrap().1;
    let address = format!("{}#{fingerprint}", room.bare_address());
    let file = stage.file("password", "123456").unwrap();
    let done = stage.named(&address, "Foo").arg("--password-file").arg(file).run(&["peers"]).unwrap();
    failure_with(&done, 3, &["key"]);
    // The Room was shown no password, so there is nothing it could have let in or punished.
    success(&with_password(&stage, &room, "Foo", "123456").run(&["peers"]).unwrap());
}

#[test]
fn a_loopback_room_is_trusted_once_and_refused_when_its_key_changes() {
    let stage = Stage::new().unwrap();
    let first = stage.room("first").listen(format!("{}:0", own_loopback())).start().unwrap();
    let (socket, bare) = (first.socket(), first.bare_address());
    let foo = stage.named(&bare, "Foo");
    success(&foo.run(&["peers"]).unwrap());
    success(&foo.run(&["peers"]).unwrap());
    first.program.terminate(PATIENCE).unwrap();
    let second = stage.room("second").listen(socket).start().unwrap();
    assert_eq!(second.bare_address(), bare);
    failure_with(&foo.run(&["peers"]).unwrap(), 3, &["key"]);
    success(&stage.named(&bare, "Baz").run(&["peers"]).unwrap());
}

#[test]
fn a_peer_with_another_key_than_before_is_refused_until_it_is_forgotten() {
    let (stage, room) = open_room();
    let foo = stage.named(&room.address, "Foo");
    let bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    success(&foo.run(&["ping", "Bar", "-c", "1"]).unwrap());
    bar.terminate(PATIENCE).unwrap();
    room.await_offline(&["Bar"], PATIENCE).unwrap();
    let impostor = stage.user(&room.address, "impostor").arg("--name").arg("Bar");
    let mut impostor = online(&room, &impostor, "Bar", &["--json", "listen"]);
    failure_with(&foo.run(&["send", "Bar", "secret"]).unwrap(), 3, &["Bar", "forget"]);
    success(&foo.run(&["forget", "Bar"]).unwrap());
    success(&foo.run(&["send", "Bar", "hello, stranger"]).unwrap());
    // What was meant for the old Bar never came.
    assert!(impostor.line(PATIENCE).unwrap().contains("hello, stranger"));
}

#[test]
fn a_name_that_is_taken_is_refused_and_taken_over_only_by_its_owner_who_says_so() {
    let (stage, room) = open_room();
    let owner = stage.named(&room.address, "Bar");
    let first = online(&room, &owner, "Bar", &["listen"]);
    let stranger = stage.user(&room.address, "stranger").arg("--name").arg("Bar");
    failure_with(&stranger.run(&["peers"]).unwrap(), 3, &["another", "name"]);
    failure_with(&stranger.clone().arg("--take-over").run(&["peers"]).unwrap(), 3, &["another", "name"]);
    failure_with(&owner.run(&["peers"]).unwrap(), 3, &["--take-over"]);
    assert!(first.is_running());
    success(&owner.clone().arg("--take-over").run(&["peers"]).unwrap());
    failure(&first.wait(PATIENCE).unwrap(), 3);
}

#[test]
fn who_is_not_there_is_said_at_once_with_4() {
    let (stage, room) = open_room();
    let foo = stage.named(&room.address, "Foo");
    for args in [
        vec!["send", "Nobody", "hello"],
        vec!["get", "Nobody", "up", "1"],
        vec!["ping", "Nobody", "-c", "1"],
        vec!["explain", "Nobody"],
    ] {
        failure_with(&foo.run(&args).unwrap(), 4, &["Nobody"]);
    }
    let bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["serve", "up=tr a-z A-Z"]);
    failure_with(&foo.run(&["get", "Bar", "down", "1"]).unwrap(), 4, &["down"]);
    bar.terminate(PATIENCE).unwrap();
    room.await_offline(&["Bar"], PATIENCE).unwrap();
    failure_with(&foo.run(&["send", "Bar", "late"]).unwrap(), 4, &["Bar"]);
}

#[test]
fn an_answer_that_does_not_come_in_time_is_5_and_a_callback_that_fails_is_6_with_its_last_words() {
    let (stage, room) = open_room();
    let served = ["serve", "slow=sleep 20", "bad=echo first >&2; echo last words >&2; exit 3", "mute=exit 1"];
    let _bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &served);
    let foo = stage.named(&room.address, "Foo");
    failure(&foo.run(&["get", "Bar", "slow", "--timeout", "300ms"]).unwrap(), 5);
    let failed = foo.run(&["get", "Bar", "bad"]).unwrap();
    failure_with(&failed, 6, &["last words"]);
    assert!(!failed.stderr.contains("first"), "{failed:?}");
    failure(&foo.run(&["get", "Bar", "mute"]).unwrap(), 6);
}

#[test]
fn a_room_that_is_not_there_is_7() {
    let stage = Stage::new().unwrap();
    let address = format!("room://{}:1/", own_loopback());
    for args in [vec!["peers"], vec!["send", "Bar", "hello"], vec!["listen"]] {
        let done = stage.named(&address, "Foo").run(&args).unwrap();
        failure_with(&done, 7, &[&own_loopback()[..4]]);
    }
}

#[test]
fn a_service_on_the_port_that_is_no_room_is_no_success_and_no_crash() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("room://{}/", listener.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
    });
    let stage = Stage::new().unwrap();
    let done = stage.named(&address, "Foo").run(&["peers"]).unwrap();
    assert!(matches!(done.code, Some(1 | 3 | 7)), "{done:?}");
    failure(&done, done.code.unwrap());
    answering.join().unwrap();
}
