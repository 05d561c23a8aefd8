//! The command lines as others script against them: every exit code with its one sentence, every command in
//! both forms, on loopback, by the real programs.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod calendars;
mod keeping;
mod operator;
mod refusals;
mod talking;

use parlor_lab::process::{Finished, Program};
use parlor_lab::programs::{RoomProgram, Stage, UserSetup};

/// A Room of two accounts. Both hashes are of `123456` and were made by another program.
const TWO_ACCOUNTS: &str = r#"
[accounts]
Foo = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e"
Bar = "$2b$10$rTQtNZDzfO7484b/UZltROJ/Yy5f1WOxZIeymjv8JhSQrFoGuGS8i"
"#;

/// A stage with an open Room on it.
fn open_room() -> (Stage, RoomProgram) {
    let stage = Stage::new().unwrap();
    let room = stage.room("room").start().unwrap();
    (stage, room)
}

/// A stage with a Room of two accounts on it.
fn accounts_room() -> (Stage, RoomProgram) {
    let stage = Stage::new().unwrap();
    let config = stage.file("room.toml", TWO_ACCOUNTS).unwrap();
    let room = stage.room("room").arg("--config").arg(config).start().unwrap();
    (stage, room)
}

/// A user with a password.
fn with_password(stage: &Stage, room: &RoomProgram, name: &str, password: &str) -> UserSetup {
    let file = stage.file(&format!("{name}.password"), &format!("{password}\n")).unwrap();
    stage.named(&room.address, name).arg("--password-file").arg(file)
}

/// Starts a command of a user that stays, and waits until the user is online.
fn online(room: &RoomProgram, user: &UserSetup, name: &str, command: &[&str]) -> Program {
    room.online(user, name, command).unwrap()
}

/// The one line that a failed command says on stderr, and nothing on stdout.
#[track_caller]
fn failure(done: &Finished, code: i32) -> &str {
    assert_eq!(done.code, Some(code), "{done:?}");
    let lines: Vec<&str> = done.stderr.lines().collect();
    assert!(matches!(lines[..], [line] if !line.trim().is_empty()), "not one line: {done:?}");
    lines[0]
}

/// [`failure`], with all of these words in its sentence, in any case.
#[track_caller]
fn failure_with(done: &Finished, code: i32, words: &[&str]) {
    let line = failure(done, code).to_lowercase();
    for word in words {
        assert!(line.contains(&word.to_lowercase()), "{word:?} should be in {line:?}");
    }
}

/// The output of a command that ended well.
#[track_caller]
fn success(done: &Finished) -> &str {
    assert_eq!(done.code, Some(0), "{done:?}");
    &done.stdout
}
