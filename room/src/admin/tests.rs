use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::clock;

/// A Room that answers `UserList` with no users, `Status` never, and everything else with `Done`.
struct Desk {
    data: tempfile::TempDir,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Desk {
    fn open() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (calls, mut asked) = mpsc::channel::<AdminCall>(1);
        tasks.spawn(serve(AdminSocket::bind(data.path()).unwrap(), calls, stop.clone()));
        tasks.spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(call) = asked.recv().await {
                let answer = match call.request {
                    AdminRequest::Status => {
                        unanswered.push(call.reply);
                        continue;
                    }
                    AdminRequest::UserList => AdminResponse::Users { users: Vec::new() },
                    _ => AdminResponse::Done,
                };
                call.reply.send(answer).unwrap();
            }
        });
        Self { data, stop, tasks }
    }

    async fn close(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        assert!(!self.data.path().join("admin.sock").exists());
    }

    /// Runs blocking client code beside the server.
    async fn ask<T: Send + 'static>(&self, client: impl FnOnce(&Path) -> T + Send + 'static) -> T {
        let data = self.data.path().to_owned();
        tokio::task::spawn_blocking(move || client(&data)).await.unwrap()
    }
}

fn raw(data: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(data.join("admin.sock")).unwrap();
    stream.write_all(bytes).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

#[tokio::test]
async fn a_request_reaches_the_room_and_its_answer_the_operator() {
    let desk = Desk::open();
    let (net, name) = ("192.0.2.0/24".parse().unwrap(), "Foo".parse().unwrap());
    let done = desk.ask(move |data| call(data, &AdminRequest::BanAdd { net, seconds: Some(600) })).await;
    assert_eq!(done.unwrap(), Some(AdminResponse::Done));
    let hash = PasswordHash::dummy(12);
    let done = desk.ask(move |data| call(data, &AdminRequest::UserAdd { name, hash })).await;
    assert_eq!(done.unwrap(), Some(AdminResponse::Done));
    let users = desk.ask(|data| call(data, &AdminRequest::UserList)).await;
    assert_eq!(users.unwrap(), Some(AdminResponse::Users { users: Vec::new() }));
    desk.close().await;
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let desk = Desk::open();
    let answers = desk.ask(|data| {
        let mut stream = UnixStream::connect(data.join("admin.sock")).unwrap();
        stream.write_all(b"{\"request\":\"user-list\"}\n{\"request\":\"ban-list\"}\n").unwrap();
        BufReader::new(stream).lines().take(2).collect::<Result<Vec<_>, _>>().unwrap()
    });
    assert_eq!(answers.await, [r#"{"answer":"users","users":[]}"#, r#"{"answer":"done"}"#]);
    desk.close().await;
}

#[tokio::test]
async fn nonsense_gets_a_sentence_and_harms_nobody() {
    let desk = Desk::open();
    for (bytes, part) in [
        (b"hello\n".to_vec(), "not understood"),
        (b"{\"request\":\"ban-add\",\"net\":\"x\",\"seconds\":null}\n".to_vec(), "not understood"),
        (vec![b'x'; server::REQUEST_BYTES], "longer than 65536 bytes"),
    ] {
        let answer = desk.ask(move |data| raw(data, &bytes)).await;
        assert!(answer.contains(part), "{answer}");
    }
    assert!(desk.ask(|data| call(data, &AdminRequest::UserList)).await.is_ok());
    desk.close().await;
}

#[tokio::test]
async fn more_callers_than_places_wait_for_their_turn() {
    let desk = Desk::open();
    let answer = desk.ask(|data| {
        let mut idle: Vec<_> =
            (0..server::CONNECTIONS).map(|_| UnixStream::connect(data.join("admin.sock")).unwrap()).collect();
        let data = data.to_owned();
        let late = std::thread::spawn(move || call(&data, &AdminRequest::UserList));
        idle.pop();
        late.join().unwrap()
    });
    assert!(matches!(answer.await, Ok(Some(AdminResponse::Users { .. }))));
    desk.close().await;
}

#[tokio::test]
async fn stopping_does_not_wait_for_a_call_without_an_answer() {
    let desk = Desk::open();
    let mut stream = UnixStream::connect(desk.data.path().join("admin.sock")).unwrap();
    stream.write_all(b"{\"request\":\"status\"}\n").unwrap();
    desk.close().await;
    let mut line = String::new();
    let _ = BufReader::new(stream).read_line(&mut line);
    assert_eq!(line, "");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone_and_replaces_only_a_dead_one() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    // A process that another test starts at this moment holds the socket for as long as it takes to start.
    let dead = || matches!(call(data.path(), &AdminRequest::Status), Ok(None));
    let given_up = clock::now().instant + Duration::from_secs(10);
    while !dead() {
        assert!(clock::now().instant < given_up, "a dead Room's socket");
    }
    let socket = AdminSocket::bind(data.path()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(AdminSocket::bind(data.path()), Err(SocketError::InUse(_))));
    drop(socket);
    assert!(matches!(call(data.path(), &AdminRequest::Status), Ok(None)), "no socket");
}

#[tokio::test]
async fn a_path_that_no_socket_can_have_is_said_to_be_too_long() {
    let data = tempfile::tempdir().unwrap();
    let deep = data.path().join("d".repeat(100));
    let error = AdminSocket::bind(&deep).unwrap_err().to_string();
    assert!(error.contains("allows 107") && error.contains("shorter"), "{error}");
    assert!(matches!(call(&deep, &AdminRequest::Status), Ok(None)));
}

#[test]
fn the_words_on_the_socket_do_not_change() {
    let request = AdminRequest::BanAdd { net: "192.0.2.7/32".parse().unwrap(), seconds: None };
    insta::assert_snapshot!(serde_json::to_string(&request).unwrap(), @r#"{"request":"ban-add","net":"192.0.2.7/32","seconds":null}"#);
    let failed =
        AdminResponse::Failed(AdminError { kind: AdminErrorKind::NotFound, sentence: "no".to_owned() });
    insta::assert_snapshot!(serde_json::to_string(&failed).unwrap(), @r#"{"answer":"failed","kind":"not-found","sentence":"no"}"#);
}
