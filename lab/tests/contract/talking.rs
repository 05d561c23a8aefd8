//! What goes right: messages, calls, pings and lists, in text and in JSON.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use parlor_lab::process::Finished;
use parlor_lab::programs::{PATIENCE, mentions};

use super::{accounts_room, failure, failure_with, online, open_room, success, with_password};

/// Between two looks at what a program has written.
const LOOK: Duration = Duration::from_millis(20);

#[test]
fn a_text_arrives_with_its_time_and_sender() {
    let (stage, room) = open_room();
    let mut bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    success(&stage.named(&room.address, "Foo").run(&["send", "Bar", "Hello!"]).unwrap());
    let line = bar.line(PATIENCE).unwrap();
    assert!(line.starts_with('[') && line.ends_with("] Foo: Hello!"), "{line:?}");
}

#[test]
fn what_is_sent_arrives_as_it_was_text_json_and_event() {
    let (stage, room) = open_room();
    let mut bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["--json", "listen"]);
    let foo = stage.named(&room.address, "Foo");
    let body = json!({"a": [1, 2.5, null, true], "text": "ß"}).to_string();
    for args in [
        vec!["send", "Bar", "Hello!"],
        vec!["send", "Bar", "--body", &body],
        vec!["send", "Bar", "--event", "note", "with an event"],
        vec!["send", "Bar", "[1]"],
    ] {
        success(&foo.run(&args).unwrap());
    }
    let mut next = || serde_json::from_str::<Value>(&bar.line(PATIENCE).unwrap()).unwrap();
    let expected = [
        json!({"from": "Foo", "event": null, "body": "Hello!"}),
        json!({"from": "Foo", "event": null, "body": {"a": [1, 2.5, null, true], "text": "ß"}}),
        json!({"from": "Foo", "event": "note", "body": "with an event"}),
        json!({"from": "Foo", "event": null, "body": "[1]"}),
    ];
    for wanted in expected {
        let got = next();
        for field in ["from", "event", "body"] {
            assert_eq!(got[field], wanted[field], "{got}");
        }
    }
}

#[test]
fn a_thousand_lines_arrive_complete_and_in_order() {
    let (stage, room) = open_room();
    let mut bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["--json", "listen"]);
    let lines: String = (0..1000).flat_map(|n| [n.to_string(), " of a thousand\n".into()]).collect();
    success(&stage.named(&room.address, "Foo").run_with(&["send", "Bar", "-"], &lines).unwrap());
    for n in 0..1000 {
        let message: Value = serde_json::from_str(&bar.line(PATIENCE).unwrap()).unwrap();
        assert_eq!(message["body"], json!(format!("{n} of a thousand")));
    }
}

#[test]
fn nothing_in_a_text_reaches_the_terminal_as_a_command() {
    let (stage, room) = open_room();
    let mut bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    let hostile = "red \u{1b}[31m and \u{202e}reversed";
    success(&stage.named(&room.address, "Foo").run(&["send", "Bar", hostile]).unwrap());
    let line = bar.line(PATIENCE).unwrap();
    assert!(line.contains("red ") && !line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
}

#[test]
fn a_get_is_answered_by_a_command_in_json_or_as_a_string() {
    let (stage, room) = open_room();
    let served = [
        "serve",
        "up=tr a-z A-Z",
        "same=cat",
        "words=echo plain words",
        "sum=cat >/dev/null; echo '{\"n\": 3}'",
    ];
    let _bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &served);
    let foo = stage.named(&room.address, "Foo");
    for (args, answer) in [
        (vec!["get", "Bar", "up", "\"abc\""], json!("ABC")),
        (vec!["get", "Bar", "same", "{\"x\": [1, 2]}"], json!({"x": [1, 2]})),
        (vec!["get", "Bar", "same"], Value::Null),
        (vec!["get", "Bar", "words"], json!("plain words")),
        (vec!["--json", "get", "Bar", "sum", "[1, 2]", "--timeout", "20s"], json!({"n": 3})),
    ] {
        let done = foo.run(&args).unwrap();
        let printed: Value = serde_json::from_str(success(&done)).unwrap();
        assert_eq!(printed, answer, "{args:?}");
    }
    let done = foo.run(&["get", "Bar", "up", "\"abc\""]).unwrap();
    assert_eq!(success(&done), "\"ABC\"\n");
}

#[test]
fn on_one_host_a_ping_takes_the_rung_same_host() {
    let (stage, room) = open_room();
    let _bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    let foo = stage.named(&room.address, "Foo");
    // Where the handshake of the best rung is held up, another carries first.
    let run_until = |args: &[&str], wanted: fn(&Finished) -> bool| {
        let began = now();
        loop {
            let done = foo.run(args).unwrap();
            success(&done);
            if wanted(&done) {
                return done;
            }
            assert!(began.elapsed() < PATIENCE, "{done:?}");
        }
    };
    let done = run_until(&["--json", "ping", "Bar", "-c", "3"], |done| {
        done.json_lines().unwrap().last().unwrap()["rung"] == json!("same-host")
    });
    let pings = done.json_lines().unwrap();
    assert_eq!(pings.len(), 3);
    for (seq, ping) in pings.iter().enumerate() {
        assert_eq!(ping["peer"], json!("Bar"), "{ping}");
        assert!(ping["rung"].is_string() && ping["rtt_us"].is_number(), "{ping}");
        assert_eq!(ping["seq"].as_u64().unwrap() - pings[0]["seq"].as_u64().unwrap(), seq as u64);
    }
    let done = run_until(&["ping", "Bar", "-c", "2"], |done| {
        done.stdout.lines().last().unwrap().contains(" rung=same-host ")
    });
    assert_eq!(done.stdout.matches(" rung=").count(), 2, "{done:?}");
}

#[test]
fn peers_are_listed_and_their_paths_explained() {
    let (stage, room) = open_room();
    let _bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    let foo = stage.named(&room.address, "Foo");
    assert!(success(&foo.run(&["peers"]).unwrap()).contains("Bar"));
    let done = foo.run(&["--json", "peers"]).unwrap();
    success(&done);
    let peers = done.json_lines().unwrap();
    let bar = peers.iter().find(|peer| peer["name"] == "Bar").unwrap();
    assert_eq!(bar["online"], json!(true));
    let done = foo.run(&["explain", "Bar"]).unwrap();
    let told = success(&done);
    assert!(told.contains("same-host") && told.contains("relay"), "{told}");
    let done = foo.run(&["--json", "explain", "Bar"]).unwrap();
    success(&done);
    assert!(done.json_lines().unwrap().iter().any(|line| mentions(line, "same-host")), "{done:?}");
}

#[test]
fn without_a_name_a_guest_joins_an_open_room_and_each_has_another_name() {
    let (stage, room) = open_room();
    let mut bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["--json", "listen"]);
    let mut names = std::collections::HashSet::new();
    for guest in ["one", "two"] {
        success(&stage.user(&room.address, guest).run(&["send", "Bar", "anonymous"]).unwrap());
        let message: Value = serde_json::from_str(&bar.line(PATIENCE).unwrap()).unwrap();
        names.insert(message["from"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 2, "{names:?}");
    for args in [vec!["ping", "Bar", "-c", "1"], vec!["explain", "Bar"], vec!["peers"]] {
        success(&stage.user(&room.address, "three").run(&args).unwrap());
    }
    failure(&stage.user(&room.address, "four").run(&["listen"]).unwrap(), 2);
}

#[test]
fn both_accounts_of_the_original_log_in_and_talk_each_way() {
    let (stage, room) = accounts_room();
    let foo = with_password(&stage, &room, "Foo", "123456");
    let bar = with_password(&stage, &room, "Bar", "123456");
    let listening = online(&room, &bar, "Bar", &["serve", "up=tr a-z A-Z"]);
    assert_eq!(success(&foo.run(&["get", "Bar", "up", "\"x\""]).unwrap()), "\"X\"\n");
    listening.terminate(PATIENCE).unwrap();
    room.await_offline(&["Bar"], PATIENCE).unwrap();
    let _serving = online(&room, &foo, "Foo", &["serve", "up=tr a-z A-Z"]);
    assert_eq!(success(&bar.run(&["get", "Foo", "up", "\"y\""]).unwrap()), "\"Y\"\n");
}

#[test]
fn what_the_flags_say_the_environment_can_say_too_and_flags_win() {
    let (stage, room) = accounts_room();
    let _bar = online(&room, &with_password(&stage, &room, "Bar", "123456"), "Bar", &["listen"]);
    let password = stage.file("password", "123456\n").unwrap();
    let data = stage.path().join("environment").to_string_lossy().into_owned();
    let user = stage
        .user(&room.address, "unused")
        .without_args()
        .env("PARLOR_ROOM", &room.address)
        .env("PARLOR_NAME", "Foo")
        .env("PARLOR_PASSWORD_FILE", &password)
        .env("PARLOR_LAN_ID", "office")
        .env("PARLOR_PORT", "0")
        .env("PARLOR_DATA", &data);
    success(&user.run(&["send", "Bar", "from the environment"]).unwrap());
    assert!(stage.path().join("environment").is_dir());
    let done = user.arg("--name").arg("Nobody").run(&["peers"]).unwrap();
    failure(&done, 3);
}

#[test]
fn a_listener_leaves_on_sigterm_and_the_room_knows_at_once() {
    let (stage, room) = open_room();
    let bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["listen"]);
    assert_eq!(bar.terminate(PATIENCE).unwrap().code, Some(0));
    room.await_offline(&["Bar"], PATIENCE).unwrap();
}

#[test]
fn a_room_that_was_killed_and_came_back_finds_its_users_again_and_pairs_them() {
    let stage = parlor_lab::programs::Stage::new().unwrap();
    let address = format!("{}:0", parlor_lab::programs::own_loopback());
    let room = stage.room("room").listen(address).start().unwrap();
    let mut bar = online(&room, &stage.named(&room.address, "Bar"), "Bar", &["--json", "listen"]);
    let mut foo = stage.named(&room.address, "Foo").start(&["send", "Bar", "-"]).unwrap();
    let mut talk = |text: &str| {
        foo.write(format!("{text}\n").as_bytes()).unwrap();
        assert!(bar.line(PATIENCE).unwrap().contains(text));
    };
    talk("before");
    let (setup, socket) = (room.setup.clone(), room.socket());
    room.program.kill().unwrap();
    talk("while the Room is dead");
    let room = setup.listen(socket).start().unwrap();
    room.await_online(&["Foo", "Bar"], PATIENCE * 2).unwrap();
    talk("after");
    success(&stage.named(&room.address, "Baz").run(&["ping", "Bar", "-c", "1"]).unwrap());
    foo.close_stdin();
    success(&foo.wait(PATIENCE).unwrap());
}

#[test]
fn a_user_that_starts_while_the_room_is_dead_reaches_who_it_knows_and_says_why_it_reaches_nobody_else() {
    let stage = parlor_lab::programs::Stage::new().unwrap();
    let address = format!("{}:0", parlor_lab::programs::own_loopback());
    let room = stage.room("room").listen(address).start().unwrap();
    let serve = ["serve", "up=tr a-z A-Z"];
    let (foo, bar) = (stage.named(&room.address, "Foo"), stage.named(&room.address, "Bar"));
    let baz = stage.named(&room.address, "Baz");
    let running = online(&room, &bar, "Bar", &serve);
    let ask = ["get", "Bar", "up", "\"abc\""];
    assert_eq!(success(&foo.run(&ask).unwrap()), "\"ABC\"\n");
    // Bar is killed below, with what it has not written yet.
    let began = now();
    while !keeps_introductions(&bar.data, "bar") {
        assert!(began.elapsed() < PATIENCE, "Bar writes nothing");
        std::thread::sleep(LOOK);
    }
    let (setup, socket, room_address) = (room.setup.clone(), room.socket(), room.address.clone());
    room.program.kill().unwrap();

    assert_eq!(success(&foo.run(&ask).unwrap()), "\"ABC\"\n");
    failure_with(&foo.run(&["get", "Qux", "up"]).unwrap(), 7, &["no introduction", "Qux"]);
    failure_with(&baz.run(&ask).unwrap(), 7, &["cannot be reached", "not in this Room before"]);
    failure_with(&stage.user(&room_address, "guest").run(&ask).unwrap(), 7, &["a guest keeps nothing"]);
    // The other one was restarted, too.
    drop(running);
    let running = bar.start(&serve).unwrap();
    let began = now();
    while foo.run(&ask).unwrap().code != Some(0) {
        assert!(began.elapsed() < PATIENCE, "Bar is not found again");
    }

    let room = setup.listen(socket).start().unwrap();
    room.await_online(&["Bar"], PATIENCE * 2).unwrap();
    assert_eq!(success(&baz.run(&ask).unwrap()), "\"ABC\"\n");
    assert_eq!(success(&foo.run(&ask).unwrap()), "\"ABC\"\n");
    drop(running);
}

/// Whether a user has an introduction on disk.
fn keeps_introductions(data: &Path, name: &str) -> bool {
    let mut rooms = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    rooms.any(|room| room.join(format!("introductions_{name}.toml")).exists())
}

#[expect(clippy::disallowed_methods, reason = "a deadline for real programs")]
fn now() -> Instant {
    Instant::now()
}
