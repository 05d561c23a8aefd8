//! The command line of `parlor-room` as others script against it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use assert_cmd::cargo::CommandCargoExt;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use parlor_protocol::address::RoomAddress;
use parlor_room::password::PasswordHash;
use support::Connected;

/// A Room on a machine with better things to do says something within this.
const PATIENCE: Duration = Duration::from_secs(30);

const FOO: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";

#[test]
fn a_hash_is_made_of_the_first_line_of_stdin() {
    let home = Home::new();
    let hash = home.ok(&["hash", "--cost", "10"], "123456\nsomething else\n");
    let hash: PasswordHash = hash.trim_end().parse().unwrap();
    assert!(hash.verify("123456") && hash.cost() == 10);
    let refused = home.fails(2, &["hash"], "\n");
    assert_eq!(refused, "parlor-room: the password is empty: give one of 1 to 71 bytes\n");
    assert!(home.fails(2, &["hash", "--cost", "9"], "x\n").contains("9 is not in 10..=14"));
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let home = Home::new();
    for (args, part) in [
        (&["--colour"][..], "unexpected argument '--colour' found"),
        (&["user", "add"], "<NAME>"),
        (&["user", "add", "a b"], "a user name cannot contain ' '"),
        (&["ban", "add", "300.1.1.1"], "is neither an IP address nor a range"),
        (&["--listen", "localhost"], "\"localhost\" is no ADDR:PORT such as 127.0.0.1:2428"),
        (&["user"], "requires a subcommand but one was not provided [subcommands: add, passwd"),
        (&["frobnicate"], "unrecognized subcommand 'frobnicate'"),
        (&["--log", "loud"], "configuration: --log: \"loud\" is none of off, error"),
    ] {
        let error = home.fails(2, args, "");
        assert!(error.contains(part), "{error}");
    }
    assert!(home.ok(&["--help"], "").contains("--allow-unencrypted"));
    assert!(home.ok(&["--version"], "").starts_with("parlor-room "));
}

#[test]
fn accounts_are_kept_where_no_room_runs() {
    let home = Home::new();
    assert_eq!(home.ok(&["user", "list"], ""), "NAME  FROM  ONLINE  IDENTITY\n");
    assert!(!home.data().exists(), "a question makes no directory");
    home.ok(&["user", "add", "Foo", "--cost", "10"], "123456\n");
    let twice = home.fails(1, &["user", "add", "foo", "--cost", "10"], "x\n");
    assert!(twice.contains("there is an account Foo already"), "{twice}");
    home.ok(&["user", "passwd", "FOO", "--cost", "10"], "other\n");
    home.ok(&["user", "reset-identity", "Foo"], "");
    let listed: serde_json::Value = serde_json::from_str(&home.ok(&["user", "list", "--json"], "")).unwrap();
    assert_eq!(listed["source"], "store");
    assert_eq!(listed["online"], false);
    home.ok(&["user", "remove", "foo"], "");
    for command in ["remove", "passwd", "reset-identity"] {
        let error = home.fails(4, &["user", command, "Foo"], "x\n");
        assert!(error.contains("there is no account Foo"), "{error}");
    }
    let secret = std::fs::read_to_string(home.data().join("accounts.toml")).unwrap();
    assert!(!secret.contains("123456") && !secret.contains("other"));
}

#[test]
fn bans_are_kept_where_no_room_runs() {
    let home = Home::new();
    home.ok(&["ban", "add", "198.51.100.0/24"], "");
    home.ok(&["ban", "add", "192.0.2.7", "--for", "1h"], "");
    let listed = home.ok(&["ban", "list"], "");
    assert!(listed.contains("198.51.100.0/24  never") && listed.contains("192.0.2.7/32"), "{listed}");
    home.ok(&["ban", "remove", "198.51.100.0/24"], "");
    let error = home.fails(4, &["ban", "remove", "198.51.100.0/24"], "");
    assert!(error.contains("198.51.100.0/24 is not banned"), "{error}");
    let listed: serde_json::Value = serde_json::from_str(&home.ok(&["ban", "list", "--json"], "")).unwrap();
    assert_eq!(listed["net"], "192.0.2.7/32");
    assert!(listed["until"].is_u64());
}

#[test]
fn what_the_configuration_file_says_changes_there() {
    let home = Home::new();
    let config = home.file(&format!("blacklist = [\"192.0.2.7\"]\n[accounts]\nFoo = \"{FOO}\"\n"));
    let config = config.to_str().unwrap();
    assert!(home.ok(&["user", "list", "--config", config], "").contains("configuration"));
    assert!(home.ok(&["ban", "list", "--config", config], "").contains("by the configuration"));
    assert!(home.fails(1, &["user", "remove", "foo", "--config", config], "").contains("change it there"));
    let error = home.fails(1, &["ban", "remove", "192.0.2.7", "--config", config], "");
    assert!(error.contains("stands in the configuration file"), "{error}");
}

#[test]
fn a_configuration_that_cannot_be_is_one_line_and_exit_code_2() {
    let home = Home::new();
    let says = |text: &str| {
        let path = home.file(text);
        home.fails(2, &["--config", path.to_str().unwrap()], "").replace(path.to_str().unwrap(), "room.toml")
    };
    insta::assert_snapshot!(says("lisen = []"), @"parlor-room: room.toml, line 1: lisen: unknown field `lisen`, expected one of `listen`, `data`, `open`, `allow_unencrypted`, `log`, `json`, `room_password`, `blacklist`, `accounts`, `tls`, `relay`, `limits`");
    insta::assert_snapshot!(says("[accounts]\nFoo = \"123456\""), @"parlor-room: room.toml, line 2: accounts.Foo: this is no bcrypt hash ($2b$, cost, $, 53 characters): it starts with none of $2a$, $2b$, $2y$; make one with: parlor-room hash");
    insta::assert_snapshot!(says(&format!("[accounts]\nFoo = \"{FOO}\"\nFOO = \"{FOO}\"")), @"parlor-room: room.toml, line 3: accounts.FOO: line 2 has the account Foo already and names are equal without regard to case: remove one");
    insta::assert_snapshot!(says("blacklist = [\"10.0.0.1/8\"]"), @"parlor-room: room.toml, line 1: blacklist: 10.0.0.1/8 has bits set beyond its prefix: write 10.0.0.0/8 for the range or 10.0.0.1 for the address");
    insta::assert_snapshot!(says(&format!("room_password = \"{}\"", FOO.replace("$10$", "$04$"))), @"parlor-room: room.toml, line 1: room_password: bcrypt cost 4 is not from 10 to 14: make a new hash with: parlor-room hash");
    insta::assert_snapshot!(home.fails(2, &["--listen", "0.0.0.0:0"], ""), @r#"parlor-room: listen: everybody who reaches 0.0.0.0:0 could enter this Room, because it has no accounts and no room password: add an account with "parlor-room user add NAME", set room_password, or start it with --open"#);
    insta::assert_snapshot!(says("[tls]\ncertificate = \"/nowhere/chain.pem\"\nkey = \"/nowhere/key.pem\""), @"parlor-room: tls.certificate: /nowhere/chain.pem: No such file or directory (os error 2)");
    let missing = home.fails(2, &["--config", "/nowhere/room.toml"], "");
    assert!(missing.contains("cannot read the configuration file /nowhere/room.toml"), "{missing}");
}

#[test]
fn status_says_so_when_no_room_runs() {
    let home = Home::new();
    let error = home.fails(1, &["status"], "");
    assert!(
        error.contains("no Room is running on") && error.contains("start it with parlor-room --data"),
        "{error}"
    );
}

#[test]
fn a_running_room_is_asked_and_changes_at_once() {
    let home = Home::new();
    let room = Running::start(&home, &[]);
    assert!(room.ready.starts_with("room://127.0.0.1:") && room.ready.contains("/#"), "{}", room.ready);
    home.ok(&["user", "add", "Foo", "--cost", "10"], "123456\n");
    assert!(home.fails(1, &["user", "add", "foo", "--cost", "10"], "x\n").contains("already"));
    assert!(home.ok(&["user", "list"], "").contains("Foo"));
    home.ok(&["user", "reset-identity", "Foo"], "");
    home.ok(&["user", "passwd", "Foo", "--cost", "10"], "other\n");
    assert!(home.fails(4, &["user", "remove", "Bar"], "").contains("Bar"));
    home.ok(&["ban", "add", "198.51.100.0/24", "--for", "1h"], "");
    home.ok(&["ban", "add", "192.0.2.7"], "");
    assert!(home.ok(&["ban", "list"], "").contains("192.0.2.7/32"));
    home.ok(&["ban", "remove", "192.0.2.7"], "");
    assert!(home.fails(4, &["ban", "remove", "192.0.2.7"], "").contains("192.0.2.7"));
    let status: serde_json::Value = serde_json::from_str(&home.ok(&["status", "--json"], "")).unwrap();
    assert_eq!(status["addresses"][0], room.ready.as_str());
    assert_eq!((&status["users"], &status["relayed_pairs"]), (&serde_json::json!([]), &0.into()));
    assert!(status["totals"]["logins"].is_u64());
    assert!(home.ok(&["status"], "").contains("online 0"));

    let second = home.fails(1, &["--listen", "127.0.0.1:0"], "");
    assert!(second.contains("is in use by another parlor-room (process"), "{second}");
    room.ends_well();
    assert!(!home.data().join("admin.sock").exists());

    assert!(home.ok(&["user", "list"], "").contains("Foo"), "it was on disk");
    assert!(home.ok(&["ban", "list"], "").contains("198.51.100.0/24"));
    let again = Running::start(&home, &["--json"]);
    let ready: serde_json::Value = serde_json::from_str(&again.ready).unwrap();
    assert_eq!(ready["event"], "ready");
    let address = ready["address"].as_str().unwrap();
    let fingerprint = |address: &str| address.split_once('#').unwrap().1.to_owned();
    assert_eq!(fingerprint(address), fingerprint(&room_address(&status)), "the identity stays");
    for line in again.ends_well().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "logs are JSON as well: {line}");
    }
}

#[test]
fn a_room_beyond_loopback_starts_with_an_account_or_when_told_that_it_is_open() {
    let home = Home::new();
    let refused = home.fails(2, &["--listen", "0.0.0.0:0"], "");
    assert!(refused.contains("--open"), "{refused}");
    let open = Running::spawn(&home, &["run", "--listen", "0.0.0.0:0", "--open"]);
    open.ends_well();
    home.ok(&["user", "add", "Foo", "--cost", "10"], "123456\n");
    Running::spawn(&home, &["run", "--listen", "0.0.0.0:0"]).ends_well();
}

/// Sends SIGHUP and gives what the Room says of it.
fn hang_up(room: Pid, log: &Receiver<String>) -> String {
    kill(room, Signal::SIGHUP).unwrap();
    loop {
        let Ok(line) = log.recv_timeout(PATIENCE) else {
            panic!("the Room has ended, or does not take the signal");
        };
        if line.contains("SIGHUP") {
            return line;
        }
    }
}

/// The certificate that a Room shows now.
fn certificate(room: &Running) -> Vec<u8> {
    let address: RoomAddress = room.ready.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Connected::to(&address).await.unwrap().certificate() })
}

/// Makes a certificate in these files and gives what is shown of it.
fn issue(home: &Home) -> Vec<u8> {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["room.example".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(home.path().join("chain.pem"), certificate.pem()).unwrap();
    std::fs::write(home.path().join("key.pem"), key.serialize_pem()).unwrap();
    certificate.der().to_vec()
}

#[test]
fn on_sighup_a_certificate_is_read_again_and_one_that_cannot_be_used_changes_nothing() {
    let home = Home::new();
    let first = issue(&home);
    let config = home.file("[tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n");
    let mut room = Running::start(&home, &["--config", config.to_str().unwrap()]);
    let (pid, log) = (room.pid(), room.log());
    let hang_up = || hang_up(pid, &log);
    assert_eq!(certificate(&room), first);
    let second = issue(&home);
    assert!(hang_up().contains("was read again"));
    assert_eq!(certificate(&room), second);
    std::fs::write(home.path().join("key.pem"), "torn").unwrap();
    let refused = hang_up();
    assert!(refused.contains("stays as it is") && refused.contains("tls.key"), "{refused}");
    assert_eq!(certificate(&room), second);
    std::fs::remove_file(home.path().join("key.pem")).unwrap();
    nix::unistd::mkfifo(&home.path().join("key.pem"), Mode::S_IRWXU).unwrap();
    let refused = hang_up();
    assert!(refused.contains("stays as it is") && refused.contains("it is no regular file"), "{refused}");
    room.ends();
}

#[test]
fn sighup_does_not_end_a_room_without_a_certificate() {
    let home = Home::new();
    let mut room = Running::start(&home, &["--open"]);
    let log = room.log();
    assert!(hang_up(room.pid(), &log).contains("there is no certificate to read again"));
    home.ok(&["status"], "");
    room.ends();
}

/// Sends the beginning of a link of a version that does not exist and says whether the Room answered.
fn is_answered(room: &str) -> bool {
    let ask = || {
        let mut link = TcpStream::connect(room)?;
        link.set_read_timeout(Some(Duration::from_secs(20)))?;
        link.write_all(&[b'R', 9])?;
        let mut told = Vec::new();
        link.read_to_end(&mut told).map(|_| told.len() == 3)
    };
    ask().unwrap_or(false)
}

#[test]
fn a_room_that_runs_out_of_descriptors_hangs_up_and_recovers() {
    let home = Home::new();
    let program = home.command(&[]).get_program().to_owned();
    let mut command = Command::new("/bin/sh");
    let limited = "ulimit -n 48; exec \"$0\" --listen 127.0.0.1:0";
    command.env_clear().env("XDG_STATE_HOME", home.path().join("state"));
    let room = Running::of(command.args(["-c", limited]).arg(program));
    let address = room.ready.strip_prefix("room://").unwrap().split('/').next().unwrap().to_owned();
    assert!(is_answered(&address));
    // Silent ones take what there is, and those that come then are not left waiting.
    let connect = || TcpStream::connect(&address).unwrap();
    let mut silent: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let is_hung_up_on = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let end = stream.read(&mut [0; 1]);
        assert!(
            !matches!(&end, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
            "left waiting"
        );
    };
    is_hung_up_on(&mut connect());
    silent.iter_mut().for_each(is_hung_up_on);
    drop(silent);
    assert!((0..100).any(|_| is_answered(&address)), "descriptors have come back");
    home.ok(&["status"], "");
    let log = room.ends_well();
    assert!(log.contains("no connection can be accepted at the moment"), "{log}");
    assert!(log.lines().count() < 500, "{log}");
}

#[test]
fn a_killed_room_is_in_nobody_s_way() {
    let home = Home::new();
    let mut room = Running::start(&home, &[]);
    room.child.kill().unwrap();
    room.child.wait().unwrap();
    assert!(home.data().join("admin.sock").exists());
    home.ok(&["ban", "add", "192.0.2.7"], "");
    Running::start(&home, &[]).ends_well();
}

#[test]
fn the_operators_guide_lists_every_key_with_its_variable() {
    let home = Home::new();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    for table in ["", "tls", "relay", "limits"] {
        let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
        let path = home.file(&format!("{header}no_such_key = 1"));
        let error = home.fails(2, &["--config", path.to_str().unwrap()], "");
        // The refusal of an unknown key lists those that are known.
        let known = error.split_once("expected ").unwrap().1.replace("one of ", "").replace(" or ", ", ");
        for key in known.trim().split(", ").map(|key| key.trim_matches('`')) {
            let whole = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
            match whole.as_str() {
                "tls" | "relay" | "limits" => {}
                "accounts" => assert!(guide.contains("| `accounts` (table) |")),
                key => {
                    let variable = format!("PARLOR_ROOM_{}", key.to_uppercase().replace('.', "_"));
                    assert!(guide.contains(&format!("| `{key}` | `{variable}`")), "{key}");
                }
            }
        }
    }
}

fn room_address(status: &serde_json::Value) -> String {
    status["addresses"][0].as_str().unwrap().to_owned()
}

/// A home directory of the test's own, and `parlor-room` in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("state/parlor-room")
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.path().join("room.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("parlor-room").unwrap();
        command.env_clear().env("XDG_STATE_HOME", self.path().join("state")).args(args);
        command
    }

    fn run(&self, args: &[&str], stdin: &str) -> std::process::Output {
        assert_cmd::Command::from_std(self.command(args)).write_stdin(stdin).output().unwrap()
    }

    fn ok(&self, args: &[&str], stdin: &str) -> String {
        let output = self.run(args, stdin);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {error}");
        assert_eq!(error, "", "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The one line on stderr.
    fn fails(&self, code: i32, args: &[&str], stdin: &str) -> String {
        let output = self.run(args, stdin);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{args:?}");
        assert!(error.starts_with("parlor-room: ") && error.lines().count() == 1, "{args:?}: {error}");
        error
    }
}

/// A Room that runs as a process of its own. It is killed when the test is over, whatever happened.
struct Running {
    child: Child,
    ready: String,
}

impl Running {
    fn start(home: &Home, more: &[&str]) -> Self {
        Self::spawn(home, &[&["--listen", "127.0.0.1:0"], more].concat())
    }

    fn spawn(home: &Home, args: &[&str]) -> Self {
        Self::of(&mut home.command(args))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        Self { child, ready: ready.trim_end().to_owned() }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Its log, line by line.
    fn log(&mut self) -> Receiver<String> {
        let (sender, lines) = mpsc::channel();
        let log = BufReader::new(self.child.stderr.take().unwrap());
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        lines
    }

    /// Ends it with SIGTERM, where its log is read by somebody else.
    fn ends(mut self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// Ends it with SIGTERM and gives its log.
    fn ends_well(mut self) -> String {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        assert!(!self.ready.is_empty() && status.code() == Some(0), "{status}: {log}");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
