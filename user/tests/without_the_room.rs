//! Users that start while their Room is down, with what they kept of earlier times.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[allow(dead_code, reason = "each test file uses its part")]
mod support_room;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use parlor_user::error::{JoinError, NoPast};
use parlor_user::protocol::introduction::Cipher;
use parlor_user::protocol::refusal::LoginRefusal;
use parlor_user::{BuildError, Encryption, Event, OpenError, SendError, User, UserBuilder};
use support_room::{Lobby, within};

/// Users that keep what they learn in directories of their own.
struct Kept {
    foo: tempfile::TempDir,
    bar: tempfile::TempDir,
}

impl Kept {
    fn new() -> Self {
        Self { foo: tempfile::tempdir().unwrap(), bar: tempfile::tempdir().unwrap() }
    }

    async fn foo(&self, lobby: &Lobby) -> User {
        of(lobby, "Foo", self.foo.path()).join().await.unwrap()
    }

    async fn bar(&self, lobby: &Lobby) -> User {
        of(lobby, "Bar", self.bar.path()).join().await.unwrap()
    }

    /// Waits until Foo's introduction is on disk. Returns the length of its file.
    async fn introduced(&self) -> u64 {
        written(self.foo.path(), "foo", |_| true).await
    }

    /// Waits until less is on disk than that.
    async fn forgotten(&self, before: u64) {
        written(self.foo.path(), "foo", |length| length < before).await;
    }
}

/// Waits until the file of a user's introductions has a length that is `wanted`: a user that leaves waits for its
/// disk for a while only.
async fn written(data: &Path, name: &str, wanted: impl Fn(u64) -> bool) -> u64 {
    let length = || {
        let rooms = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
        let mut files = rooms.map(|room| room.join(format!("introductions_{name}.toml")));
        files.find_map(|file| Some(std::fs::metadata(file).ok()?.len()))
    };
    within(async {
        loop {
            if let Some(length) = length().filter(|length| wanted(*length)) {
                return length;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn of(lobby: &Lobby, name: &str, data: &Path) -> UserBuilder {
    lobby
        .user(name)
        .data(data)
        .on_get("who", |ctx, (): ()| async move { Ok::<_, String>(format!("{} is known", ctx.from())) })
}

async fn ask(user: &User, peer: &str) -> String {
    within(user.peer(peer).unwrap().get("who", &()).into_future()).await.unwrap()
}

async fn room_is_back(user: &User) {
    let mut events = user.events();
    if user.room_outage().is_some() {
        within(async { while events.next().await.unwrap() != Event::RoomBack {} }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_restarted_while_the_room_is_down_reaches_who_it_knows_and_rejoins_by_itself() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    assert_eq!(ask(&foo, "Bar").await, "Foo is known");
    let identity = foo.fingerprint();
    kept.introduced().await;
    let lobby = lobby.stop_room().await;
    within(foo.leave()).await;

    let foo = kept.foo(&lobby).await;
    assert_eq!(foo.fingerprint(), identity);
    let outage = foo.room_outage().unwrap();
    assert!(outage.contains("cannot be reached") && !foo.room_is_up(), "{outage}");
    assert_eq!(ask(&foo, "Bar").await, "Foo is known");
    assert_eq!(ask(&bar, "Foo").await, "Bar is known");
    let story = foo.peer("Bar").unwrap().explain();
    assert!(story.iter().any(|step| step.what.contains("the Room cannot be asked")), "{story:?}");

    let lobby = lobby.start_room().await;
    room_is_back(&foo).await;
    assert_eq!(foo.room_outage(), None);
    let baz = lobby.user("Baz").join().await.unwrap();
    assert_eq!(ask(&baz, "Foo").await, "Baz is known");
    assert_eq!(ask(&foo, "Bar").await, "Foo is known");
    lobby.close([foo, bar, baz]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_that_both_restarted_while_the_room_is_down_find_each_other() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    ask(&foo, "Bar").await;
    kept.introduced().await;
    written(kept.bar.path(), "bar", |_| true).await;
    let lobby = lobby.stop_room().await;
    within(foo.leave()).await;
    within(bar.leave()).await;

    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    assert_eq!(ask(&bar, "Foo").await, "Bar is known");
    assert_eq!(ask(&foo, "Bar").await, "Foo is known");
    lobby.close([foo, bar]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anything_kept_the_error_says_so() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let guest = lobby.user("Foo");
    within(kept.foo(&lobby).await.leave()).await;
    let lobby = lobby.stop_room().await;
    let why = |builder: UserBuilder| async {
        match builder.join().await.unwrap_err() {
            BuildError::RoomDown { room, why } if matches!(*room, JoinError::Unreachable { .. }) => why,
            other => panic!("{other}"),
        }
    };
    let nothing = why(of(&lobby, "Foo", kept.foo.path())).await;
    assert!(matches!(nothing, NoPast::NoIntroduction(_)), "{nothing}");
    let never = why(of(&lobby, "Bar", kept.bar.path())).await;
    assert!(matches!(never, NoPast::NeverHere(_)), "{never}");
    let guest = why(guest).await;
    assert!(matches!(guest, NoPast::Guest), "{guest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_never_met_is_not_found_without_the_room() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    ask(&foo, "Bar").await;
    kept.introduced().await;
    let lobby = lobby.stop_room().await;
    within(foo.leave()).await;
    let foo = kept.foo(&lobby).await;
    let error = within(foo.peer("Stranger").unwrap().send(&1)).await.unwrap_err();
    assert!(matches!(error, SendError::Open(OpenError::RoomLost(_))), "{error}");
    lobby.close([foo, bar]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_peer_is_not_reached_by_its_earlier_introduction() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    ask(&foo, "Bar").await;
    let before = kept.introduced().await;
    assert!(foo.forget("Bar").unwrap());
    kept.forgotten(before).await;
    let lobby = lobby.stop_room().await;
    within(foo.leave()).await;
    let error = of(&lobby, "Foo", kept.foo.path()).join().await.unwrap_err();
    assert!(matches!(error, BuildError::RoomDown { why: NoPast::NoIntroduction(_), .. }), "{error}");
    lobby.close([bar]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_came_back_with_another_key_is_not_reached_by_its_earlier_introduction() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    ask(&foo, "Bar").await;
    let before = kept.introduced().await;
    within(bar.leave()).await;
    let other = lobby.user("Bar").join().await.unwrap();
    kept.forgotten(before).await;
    let lobby = lobby.stop_room().await;
    within(foo.leave()).await;
    let error = of(&lobby, "Foo", kept.foo.path()).join().await.unwrap_err();
    assert!(matches!(error, BuildError::RoomDown { why: NoPast::NoIntroduction(_), .. }), "{error}");
    lobby.close([other]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_at_a_start_keeps_no_introduction_and_who_is_only_too_many_does() {
    // Of 123456.
    let hash = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";
    let accounts = ["Foo", "Bar"].map(|name| (name.parse().unwrap(), hash.parse().unwrap())).into();
    let lobby = Lobby::open_with(|config| parlor_room::config::RoomConfig { accounts, ..config });
    let (lobby, kept) = (lobby.await, Kept::new());
    let foo_with = |password: &str| of(&lobby, "Foo", kept.foo.path()).password(password);
    let bar = of(&lobby, "Bar", kept.bar.path()).password("123456").join().await.unwrap();
    let foo = foo_with("123456").join().await.unwrap();
    ask(&foo, "Bar").await;
    let refusal = |error: BuildError| match error {
        BuildError::Join(JoinError::Refused(why)) => why,
        other => panic!("{other}"),
    };
    // A second program of the same user, with a copy of what the first has kept, is one too many.
    let twin = tempfile::tempdir().unwrap();
    kept.introduced().await;
    within(foo.leave()).await;
    copy(kept.foo.path(), twin.path());
    let foo = foo_with("123456").join().await.unwrap();
    let twin_with = |password: &str| of(&lobby, "Foo", twin.path()).password(password);
    let why = refusal(twin_with("123456").join().await.unwrap_err());
    assert!(matches!(why, LoginRefusal::NameInUse { .. }), "{why}");
    within(foo.leave()).await;
    // The first has a wrong password. Its ticket would let it in where both passwords leave the same note of 8 bits.
    remove_ticket(kept.foo.path());
    let why = refusal(foo_with("654321").join().await.unwrap_err());
    assert_eq!(why, LoginRefusal::Credentials);

    let (foo, twin) = (foo_with("123456"), twin_with("123456"));
    let lobby = lobby.stop_room().await;
    let error = foo.join().await.unwrap_err();
    assert!(matches!(error, BuildError::RoomDown { why: NoPast::NoIntroduction(_), .. }), "{error}");
    let twin = twin.join().await.unwrap();
    assert_eq!(ask(&twin, "Bar").await, "Foo is known");
    lobby.close([bar, twin]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_introduction_in_the_clear_serves_only_who_still_wants_that() {
    let lobby =
        Lobby::open_with(|config| parlor_room::config::RoomConfig { allow_unencrypted: true, ..config });
    let (lobby, kept) = (lobby.await, Kept::new());
    let clear = |lobby: &Lobby, name: &str, data: &Path| of(lobby, name, data).encryption(Encryption::Off);
    let foo = clear(&lobby, "Foo", kept.foo.path()).join().await.unwrap();
    let bar = clear(&lobby, "Bar", kept.bar.path()).join().await.unwrap();
    ask(&foo, "Bar").await;
    kept.introduced().await;
    within(foo.leave()).await;
    let lobby = lobby.stop_room().await;
    let error = of(&lobby, "Foo", kept.foo.path()).join().await.unwrap_err();
    assert!(matches!(error, BuildError::RoomDown { why: NoPast::NoIntroduction(_), .. }), "{error}");
    let foo = clear(&lobby, "Foo", kept.foo.path()).join().await.unwrap();
    assert_eq!(ask(&foo, "Bar").await, "Foo is known");
    assert_eq!(foo.peer("Bar").unwrap().path().unwrap().cipher, Cipher::Cleartext);
    within(foo.leave()).await;
    lobby.close([bar]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_program_kept_is_there_at_its_next_start() {
    let (lobby, kept) = (Lobby::open().await, Kept::new());
    let (foo, bar) = (kept.foo(&lobby).await, kept.bar(&lobby).await);
    ask(&foo, "Bar").await;
    kept.introduced().await;
    let other = tempfile::tempdir().unwrap();
    copy(kept.foo.path(), other.path());
    let lobby = lobby.stop_room().await;
    let twin = of(&lobby, "Foo", other.path()).join().await.unwrap();
    assert_eq!(ask(&twin, "Bar").await, "Foo is known");
    lobby.close([foo, bar, twin]).await;
}

fn remove_ticket(data: &Path) {
    let rooms = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let ticket = rooms.map(|room| room.join("ticket_foo.toml")).find(|path| path.exists());
    std::fs::remove_file(ticket.unwrap()).unwrap();
}

/// Copies a data directory, also while it is in use.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&path, &to);
        } else if let Err(error) = std::fs::copy(&path, &to) {
            // What was being written has its name by now.
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
}
