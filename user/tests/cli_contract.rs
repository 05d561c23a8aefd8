//! The command line as others script against it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

mod cli_support;

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use cli_support::{Done, Stage, run, within};
use parlor_room::RoomConfig;
use parlor_room::password::PasswordHash;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn a_text_is_printed_with_time_and_sender_and_anything_else_as_json() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["listen"]).await;
    for args in [
        &["send", "Bar", "Hello!"][..],
        &["send", "Bar", "--body", r#"{"a":[1,2.5,null]}"#],
        &["send", "Bar", "--event", "note", "two\nlines \u{1b}[31m"],
        &["send", "bar", "-5"],
    ] {
        assert_eq!(stage.run("Foo", args).await.well(), "");
    }
    let mut said = Vec::new();
    for _ in 0..4 {
        let line = bar.line().await;
        let (time, rest) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
        assert!(time.len() == 8 && time.bytes().all(|b| b.is_ascii_digit() || b == b':'), "{line}");
        said.push(rest.to_owned());
    }
    let expected =
        ["Foo: Hello!", r#"Foo: {"a":[1,2.5,null]}"#, r"Foo (note): two\nlines \u{1b}[31m", "Foo: -5"];
    assert_eq!(said, expected);
    assert_eq!(bar.terminate().await, Some(0));
}

#[tokio::test]
async fn with_json_a_message_is_an_object_a_line() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["--json", "listen"]).await;
    stage.run("Foo", &["send", "Bar", "Hello!"]).await.well();
    stage.run("Foo", &["send", "Bar", "--event", "note", "--body", "[1]"]).await.well();
    assert_eq!(bar.line().await, r#"{"from":"Foo","event":null,"body":"Hello!"}"#);
    let mut next = async || serde_json::from_str::<Value>(&bar.line().await).unwrap();
    assert_eq!(next().await, json!({ "from": "Foo", "event": "note", "body": [1] }));
}

#[tokio::test]
async fn two_thousand_lines_of_stdin_arrive_complete_and_in_order() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["--json", "listen"]).await;
    let lines: String =
        (0..2000).flat_map(|n| ["line ".to_owned(), n.to_string(), "\n".to_owned()]).collect();
    let sending = run(stage.named("Foo", &["send", "Bar", "-"]), lines.as_bytes());
    let reading = async {
        for n in 0..2000 {
            let message: Value = serde_json::from_str(&bar.line().await).unwrap();
            assert_eq!(message["body"], json!(format!("line {n}")));
        }
    };
    let (done, ()) = within(async { tokio::join!(sending, reading) }).await;
    assert_eq!(done.well(), "");
}

#[tokio::test]
async fn a_line_that_is_no_text_is_named_and_those_before_it_are_delivered() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["--json", "listen"]).await;
    let done = run(stage.named("Foo", &["send", "Bar", "-"]), b"one\n\xff\nthree\n").await;
    assert!(done.failed(2).contains("line 2"), "{done:?}");
    assert!(bar.line().await.contains("one"));
}

#[tokio::test]
async fn a_call_is_answered_by_a_command() {
    let stage = Stage::open().await;
    let serve =
        ["serve", "up=tr a-z A-Z", "words=echo two words", "who=printf %s-%s $PARLOR_FROM $PARLOR_CALLBACK"];
    let bar = stage.stay("Bar", &serve).await;
    for (args, answer) in [
        (&["get", "Bar", "up", "\"abc\""][..], "\"ABC\"\n"),
        (&["get", "Bar", "up"], "\"NULL\"\n"),
        (&["get", "Bar", "words", "{\"any\": 1}"], "\"two words\"\n"),
        (&["get", "Bar", "who", "--timeout", "20s", "--json"], "\"Foo-who\"\n"),
    ] {
        assert_eq!(stage.run("Foo", args).await.well(), answer, "{args:?}");
    }
    assert_eq!(bar.terminate().await, Some(0));
}

#[tokio::test]
async fn a_command_that_fails_is_6_with_its_last_words() {
    let stage = Stage::open().await;
    let serve = ["serve", "bad=echo first >&2; echo last words >&2; exit 3", "mute=exit 4", "much=yes"];
    let _bar = stage.stay("Bar", &serve).await;
    assert_eq!(stage.run("Foo", &["get", "Bar", "bad"]).await.failed(6), "last words");
    assert_eq!(stage.run("Foo", &["get", "Bar", "mute"]).await.failed(6), "exit code 4");
    assert!(stage.run("Foo", &["get", "Bar", "much"]).await.failed(6).contains("1 MiB"));
}

/// Says when a command has opened this pipe, and when the last process that the command started is gone.
fn watch(pipe: PathBuf) -> tokio::sync::mpsc::Receiver<()> {
    let (says, hears) = tokio::sync::mpsc::channel(2);
    std::thread::spawn(move || {
        // Opens when the command does.
        let mut held = std::fs::File::open(pipe).unwrap();
        let _ = says.blocking_send(());
        held.read_to_end(&mut Vec::new()).unwrap();
        let _ = says.blocking_send(());
    });
    hears
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_5_and_its_command_is_killed_with_all_it_started() {
    let stage = Stage::open().await;
    let held = stage.path().join("held");
    nix::unistd::mkfifo(&held, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let serve = format!("slow=exec >{}; sleep 600 & wait", held.display());
    let bar = stage.stay("Bar", &["serve", &serve]).await;
    let mut pipe = watch(held);
    // On a busy machine a call may end before its command has opened the pipe.
    let started = async {
        loop {
            let done = stage.run("Foo", &["get", "Bar", "slow", "--timeout", "1s"]).await;
            assert!(done.failed(5).contains("--timeout"), "{done:?}");
            if let Ok(opened) = pipe.try_recv() {
                return opened;
            }
        }
    };
    within(started).await;
    within(pipe.recv()).await.unwrap();
    assert_eq!(bar.terminate().await, Some(0));
}

#[tokio::test]
async fn what_serve_runs_when_it_is_told_to_stop_is_stopped_too() {
    let stage = Stage::open().await;
    let held = stage.path().join("held");
    nix::unistd::mkfifo(&held, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let serve = format!("slow=exec >{}; sleep 600 & wait", held.display());
    let bar = stage.stay("Bar", &["serve", &serve]).await;
    let mut pipe = watch(held);
    let get = ["get", "Bar", "slow", "--timeout", "60s"];
    let mut waiting = stage.named("Foo", &get).spawn().unwrap();
    within(pipe.recv()).await.unwrap();
    assert_eq!(bar.terminate().await, Some(0));
    within(pipe.recv()).await.unwrap();
    assert_eq!(within(waiting.wait()).await.unwrap().code(), Some(4));
}

#[tokio::test]
async fn who_or_what_is_not_there_is_4_at_once() {
    let stage = Stage::open().await;
    let _bar = stage.stay("Bar", &["serve", "up=cat"]).await;
    for args in [
        &["send", "Nobody", "hello"][..],
        &["send", "Nobody", "--body", "1"],
        &["get", "Nobody", "up"],
        &["ping", "Nobody"],
        &["explain", "Nobody"],
    ] {
        let done = stage.run("Foo", args).await;
        assert!(done.failed(4).contains("Nobody"), "{done:?}");
    }
    let done = run(stage.named("Foo", &["send", "Nobody", "-"]), b"a\nb\n").await;
    assert!(done.failed(4).contains("line 1"), "{done:?}");
    assert!(stage.run("Foo", &["get", "Bar", "down"]).await.failed(4).contains("down"));
    assert!(stage.run("Foo", &["forget", "Stranger"]).await.failed(4).contains("Stranger"));
}

#[tokio::test]
async fn a_wrong_password_is_3_and_a_right_one_comes_from_a_file() {
    let hash = PasswordHash::make("123456", 10, [7; 16]).unwrap();
    let accounts = [("Foo".parse().unwrap(), hash)].into();
    let stage = Stage::with(RoomConfig { accounts, ..RoomConfig::default() }).await;
    let (right, wrong) = (stage.secret("right", "123456\n"), stage.secret("wrong", "12345\n"));
    let done = stage.run("Foo", &["peers", "--password-file", &right]).await;
    assert!(done.well().starts_with("NAME"), "{done:?}");
    // A ticket would stand in for the password, so this is another machine.
    let mut elsewhere = stage.parlor("elsewhere", &["peers", "--password-file", &wrong]);
    elsewhere.env("PARLOR_NAME", "Foo");
    assert!(run(elsewhere, b"").await.failed(3).contains("password"));
    assert!(run(stage.parlor("guest", &["peers"]), b"").await.failed(3).contains("--name"));
    let mut unarmed = stage.parlor("unarmed", &["peers"]);
    unarmed.env("PARLOR_NAME", "Foo");
    assert!(run(unarmed, b"").await.failed(3).contains("--password-file"));
}

#[tokio::test]
async fn a_room_that_is_not_there_is_7() {
    let stage = Stage::open().await;
    // Bound and not listening, it refuses, and nobody else can have its port.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    let done = stage.run("Foo", &["--room", &address, "peers"]).await;
    assert!(done.failed(7).contains("cannot be reached"), "{done:?}");
}

#[tokio::test]
async fn a_command_line_that_makes_no_sense_is_2_and_one_line() {
    let stage = Stage::open().await;
    for args in [
        &[][..],
        &["send"],
        &["send", "Bar"],
        &["no-such-command"],
        &["send", "not a name", "text"],
        &["send", "Bar", "--body", "{not json"],
        &["get", "Bar", "up", "{not json"],
        &["get", "Bar", "up", "--timeout", "soon"],
        &["serve"],
        &["serve", "up"],
        &["serve", "up=cat", "up=tac"],
        &["ping", "Bar", "-c", "0"],
        &["peers", "--room", "http://x"],
        &["peers", "--port", "70000"],
        &["peers", "--encryption", "maybe"],
        &["peers", "--log", "loud=very=much"],
        &["peers", "--password-file", "/nowhere"],
        &["send", "Foo", "to myself"],
    ] {
        stage.run("Foo", args).await.failed(2);
    }
    for args in [&["listen"][..], &["serve", "up=cat"]] {
        assert!(run(stage.parlor("nameless", args), b"").await.failed(2).contains("--name"));
    }
    let help = stage.run("Foo", &["--help"]).await;
    assert!(help.well().contains("PARLOR_ROOM_PASSWORD_FILE"), "{help:?}");
}

#[tokio::test]
async fn a_name_in_use_is_3_and_its_owner_takes_it_over_when_asked_to() {
    let stage = Stage::open().await;
    let first = stage.stay("Bar", &["listen"]).await;
    let mut stranger = stage.parlor("stranger", &["--take-over", "peers"]);
    stranger.env("PARLOR_NAME", "Bar");
    assert!(run(stranger, b"").await.failed(3).contains("another name"));
    assert!(stage.run("Bar", &["peers"]).await.failed(3).contains("--take-over"));
    stage.run("Bar", &["--take-over", "peers"]).await.well();
    assert_eq!(first.end().await, Some(3));
}

#[tokio::test]
async fn a_ban_ends_a_listener_with_3() {
    let stage = Stage::open().await;
    let bar = stage.stay("Bar", &["listen"]).await;
    stage.room.ban("127.0.0.0/8".parse().unwrap(), None).await.unwrap();
    assert_eq!(bar.end().await, Some(3));
    assert!(stage.run("Foo", &["peers"]).await.failed(3).contains("ban"));
}

#[tokio::test]
async fn without_a_name_each_command_has_a_guest_name_of_its_own() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["--json", "listen"]).await;
    let mut names = Vec::new();
    for _ in 0..2 {
        assert_eq!(run(stage.parlor("guest", &["send", "Bar", "hi"]), b"").await.well(), "");
        let message: Value = serde_json::from_str(&bar.line().await).unwrap();
        names.push(message["from"].as_str().unwrap().to_owned());
    }
    assert!(names[0].starts_with("guest-") && names[0].len() == 12 && names[0] != names[1], "{names:?}");
}

/// Whether the last line says `same-host` there: where the handshake of a better rung is held up, another carries.
fn on_same_host(done: &Done, field: &str) -> bool {
    done.json().last().unwrap()[field] == json!("same-host")
}

#[tokio::test]
async fn peers_ping_and_explain_have_their_shapes() {
    let stage = Stage::open().await;
    let bar = stage.stay("Bar", &["listen"]).await;
    let args = ["--json", "ping", "Bar", "-c", "3", "--interval", "10ms"];
    let pings = stage.run_until("Foo", &args, |done| on_same_host(done, "rung")).await.json();
    assert_eq!(pings.iter().map(|ping| ping["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    for ping in &pings {
        assert_eq!(ping["peer"], json!("Bar"));
        assert!(ping["rung"].is_string() && ping["rtt_us"].is_u64(), "{ping}");
    }
    let same_host = |done: &Done| done.well().starts_with("Bar: seq=1 rung=same-host time=");
    let ping = stage.run_until("Foo", &["ping", "Bar", "-c", "1"], same_host).await;
    assert!(ping.out.ends_with(" ms\n"), "{ping:?}");

    let args = ["--json", "peers"];
    let peers = stage.run_until("Foo", &args, |done| on_same_host(done, "rung")).await.json();
    assert_eq!(peers.len(), 1);
    assert_eq!((&peers[0]["name"], &peers[0]["online"]), (&json!("Bar"), &json!(true)));
    assert!(peers[0]["rtt_us"].is_u64() && peers[0]["fingerprint"].is_string(), "{peers:?}");

    let told = stage.run("Foo", &["explain", "Bar"]).await;
    for rung in ["same-host", "lan", "public", "relay"] {
        assert!(told.well().lines().any(|line| line.starts_with(rung)), "{told:?}");
    }
    let args = ["--json", "explain", "Bar"];
    // Without a pong in time the round trip is not known.
    let measured =
        |done: &Done| on_same_host(done, "chosen") && !done.json().last().unwrap()["rtt_us"].is_null();
    let steps = stage.run_until("Foo", &args, measured).await.json();
    let (last, steps) = steps.split_last().unwrap();
    assert!(last["rtt_us"].is_u64() && last["cipher"].is_string(), "{last}");
    assert!(steps.iter().all(|step| step["at_ms"].is_u64() && step["what"].is_string()), "{steps:?}");
    assert!(steps.iter().any(|step| step["rung"] == json!("same-host")), "{steps:?}");

    assert_eq!(bar.terminate().await, Some(0));
    let peers = stage.run("Foo", &["--json", "peers", "--no-probe"]).await.json();
    assert_eq!((&peers[0]["online"], &peers[0]["rung"]), (&json!(false), &Value::Null));
    stage.run("Foo", &["forget", "Bar"]).await.well();
    assert!(stage.run("Foo", &["--json", "peers"]).await.json().is_empty());
}

#[tokio::test]
async fn a_peer_with_another_key_is_refused_until_the_old_one_is_forgotten() {
    let stage = Stage::open().await;
    let bar = stage.stay("Bar", &["listen"]).await;
    stage.run("Foo", &["send", "Bar", "hello"]).await.well();
    assert_eq!(bar.terminate().await, Some(0));
    std::fs::remove_dir_all(stage.path().join("Bar")).unwrap();
    let mut stranger = stage.stay("Bar", &["listen"]).await;
    let done = stage.run("Foo", &["send", "Bar", "secret"]).await;
    assert!(done.failed(3).contains("parlor forget Bar"), "{done:?}");
    stage.run("Foo", &["forget", "Bar"]).await.well();
    stage.run("Foo", &["send", "Bar", "hello, stranger"]).await.well();
    assert!(stranger.line().await.ends_with("hello, stranger"));
}

#[tokio::test]
async fn a_listener_whose_reader_is_gone_ends_with_0() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["listen"]).await.hang_up();
    // The first message meets the closed pipe.
    stage.run("Foo", &["send", "Bar", "anybody there?"]).await;
    assert_eq!(within(bar.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_listener_whose_reader_stalls_holds_up_who_sends_and_still_ends_when_told() {
    let stage = Stage::open().await;
    // Nobody reads its stdout, and a pipe holds 64 KiB.
    let bar = stage.stay("Bar", &["listen"]).await;
    let long = "x".repeat(8000) + "\n";
    let mut sending = stage.named("Foo", &["send", "Bar", "-"]).spawn().unwrap();
    let mut stdin = sending.stdin.take().unwrap();
    // More than the pipes and the window hold: Foo sends when Bar is told.
    within(stdin.write_all(long.repeat(400).as_bytes())).await.unwrap();
    let feeding = async {
        // Ends when the command does, long before all is taken.
        while stdin.write_all(long.as_bytes()).await.is_ok() {}
    };
    let stopping = async {
        // By now the sender's queue, the window and the pipes are full, or soon will be: either way it ends.
        let code = bar.terminate().await;
        (code, within(sending.wait()).await.unwrap().code())
    };
    let ((), codes) = within(async { tokio::join!(feeding, stopping) }).await;
    assert_eq!(codes, (Some(0), Some(4)));
}

#[tokio::test]
async fn lines_do_not_wait_for_a_peer_that_left_without_taking_those_before() {
    let stage = Stage::open().await;
    // Nobody reads its stdout: it takes no more than the window.
    let bar = stage.stay("Bar", &["listen"]).await;
    let mut sending = stage.named("Foo", &["send", "Bar", "-"]).spawn().unwrap();
    let mut stdin = sending.stdin.take().unwrap();
    let line = "x".repeat(8000) + "\n";
    within(stdin.write_all(line.repeat(400).as_bytes())).await.unwrap();
    assert_eq!(bar.terminate().await, Some(0));
    // A closed pipe says that one of the lines before was the one that could not be sent.
    within(stdin.write_all(b"anybody there?\n")).await.ok();
    // It stays open: only a line that cannot be sent ends the command.
    assert_eq!(within(sending.wait()).await.unwrap().code(), Some(4));
    drop(stdin);
}

#[tokio::test]
async fn a_ping_without_a_count_goes_on_until_it_is_interrupted() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let stage = Stage::open().await;
    let _bar = stage.stay("Bar", &["listen"]).await;
    let mut ping = stage.named("Foo", &["ping", "Bar", "--interval", "10ms"]).spawn().unwrap();
    let mut lines = BufReader::new(ping.stdout.take().unwrap()).lines();
    for seq in 1..=3 {
        let line = within(lines.next_line()).await.unwrap().unwrap();
        assert!(line.contains(&format!("seq={seq} ")), "{line}");
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(ping.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(within(ping.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn lines_are_sent_as_they_come() {
    let stage = Stage::open().await;
    let mut bar = stage.stay("Bar", &["listen"]).await;
    let mut foo = stage.named("Foo", &["send", "Bar", "-"]).spawn().unwrap();
    let mut stdin = foo.stdin.take().unwrap();
    for line in ["first\n", "second\n"] {
        stdin.write_all(line.as_bytes()).await.unwrap();
        assert!(bar.line().await.ends_with(line.trim()));
    }
    drop(stdin);
    assert_eq!(within(foo.wait()).await.unwrap().code(), Some(0));
}

/// Long enough for a local command, short enough to notice a wait that should not be.
const PROMPT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn nobody_waits_for_a_stdin_that_says_nothing() {
    let stage = Stage::open().await;
    // Its stdin stays open and silent.
    let mut foo = stage.named("Foo", &["send", "Nobody", "hello"]).spawn().unwrap();
    let status = tokio::time::timeout(PROMPT, foo.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(4));
}
