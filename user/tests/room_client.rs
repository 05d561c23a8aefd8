//! How a user meets its Room: whom it believes, what it says when, and how it comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};

use parlor_protocol::identity::Identity;
use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_protocol::wire::control::{Closing, Credentials, Introduce, Roster, Secret, ToRoom, ToUser};
use parlor_user::data::DataDir;
use parlor_user::net::blacklist::Blacklist;
use parlor_user::net::listener::Listener;
use parlor_user::net::room::{JoinError, LostReason, RoomCommand, RoomEvent, RoomFault, RoomOptions};
use parlor_user::trust::{Distrust, pin_key};
use support::{Certificate, Character, FakeRoom, LONG, User, has_password, options, welcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

impl User {
    async fn event(&mut self) -> Option<RoomEvent> {
        timeout(LONG, self.events.recv()).await.unwrap()
    }
}

async fn refused(options: RoomOptions) -> JoinError {
    match User::join(options).await {
        Ok(user) => panic!("joined: {:?}", user.joined),
        Err(error) => error,
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned()).unwrap()
}

fn with_accounts() -> Character {
    Character { accounts: true, ..Character::default() }
}

/// A Room whose address is not loopback in writing, so that trust on first use needs the user's word.
fn far(room: &FakeRoom) -> parlor_protocol::address::RoomAddress {
    // 0.0.0.0 reaches this machine and is no loopback address.
    parlor_protocol::address::RoomAddress::from_socket(SocketAddr::from((
        Ipv4Addr::UNSPECIFIED,
        room.socket.port(),
    )))
}

#[tokio::test]
async fn a_user_joins_and_learns_who_is_online() {
    let mut room = FakeRoom::start(Character::default()).await;
    let user = User::join(options(room.address())).await.unwrap();
    assert_eq!(user.joined.room, room.identity.public());
    assert_eq!(user.joined.room_socket, room.socket);
    assert_eq!(user.joined.identity.public(), Identity::from_seed(&[2; 32]).public());
    assert_eq!(user.joined.check_key, [4; 32]);
    assert!(user.joined.first_use);
    let online: Vec<&str> = user.joined.members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(online, ["Bar", "Baz"]);
    let login = room.logins().remove(0);
    assert_eq!((login.presence.port, login.presence.lan_id.as_str()), (7, "office"));
    let mut session = room.session().await;
    user.client.leave().await;
    assert_eq!(session.read().await, Some(ToRoom::Bye(CloseCode::Done)));
    assert_eq!(session.read().await, None);
}

#[tokio::test]
async fn the_rooms_check_is_answered_before_its_list_of_users_is_there() {
    let listener = Listener::bind(0).unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let room = FakeRoom::start(Character { checks: true, ..Character::default() }).await;
    let mut wanted = options(room.address());
    wanted.reachability.port = listener.port();
    let (arrivals, _arrivals) = mpsc::channel(1);
    let (key, blacklist) = (wanted.check_key.clone(), Blacklist::default());
    tasks.spawn(listener.run(arrivals, blacklist, key, tasks.clone(), stop.clone()));
    User::join(wanted).await.unwrap();
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn another_fingerprint_than_the_addresss_stops_the_user_before_it_says_who_it_is() {
    let room = FakeRoom::start(with_accounts()).await;
    let expected = Identity::from_seed(&[9; 32]).fingerprint();
    let mut wanted = options(room.address().with_fingerprint(expected));
    wanted.password = Some(secret("open sesame"));
    wanted.tofu = true;
    let error = refused(wanted).await;
    let JoinError::Distrusted(Distrust::Changed { expected: named, seen, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!((*named, *seen), (expected, room.identity.fingerprint()));
    assert_eq!(room.greeted(), 1);
    assert!(room.logins().is_empty());
}

#[tokio::test]
async fn a_room_that_shows_another_key_than_before_is_not_told_anything() {
    let room = FakeRoom::start(Character::default()).await;
    let data = DataDir::ephemeral();
    let wanted = RoomOptions { data: data.clone(), ..options(room.address()) };
    User::join(wanted.clone()).await.unwrap().client.leave().await;
    let place = room.stop().await;
    let other = FakeRoom::start_on(place, Character { seed: 5, ..Character::default() });
    let error = refused(wanted).await;
    assert!(matches!(error, JoinError::Distrusted(Distrust::Changed { .. })), "{error}");
    assert!(other.logins().is_empty());
    // The new fingerprint in the address is the way out.
    let given = other.address().with_fingerprint(other.identity.fingerprint());
    User::join(RoomOptions { data: data.clone(), ..options(given) }).await.unwrap();
    assert_eq!(data.room_pin(&pin_key(&other.address())).unwrap(), Some(other.identity.fingerprint()));
}

#[tokio::test]
async fn an_unknown_room_elsewhere_needs_tofu_and_hears_nothing_without_it() {
    let room = FakeRoom::start(Character::default()).await;
    let error = refused(options(far(&room))).await;
    assert!(matches!(error, JoinError::Distrusted(Distrust::Unknown { .. })), "{error}");
    assert!(error.to_string().contains(&room.identity.fingerprint().to_string()));
    assert!(room.logins().is_empty());
}

#[tokio::test]
async fn a_key_trusted_on_first_use_is_stored_before_the_password_is_sent() {
    let parent = tempfile::tempdir().unwrap();
    let data = DataDir::open(parent.path()).unwrap();
    let (seen, pins) = std::sync::mpsc::channel();
    let at_login = data.clone();
    let verdict = move |login: &_| {
        assert!(has_password(login, "open sesame"));
        // The Room asks the user's disk at the moment the password arrives.
        let text = std::fs::read_to_string(parent.path().join("rooms.toml")).unwrap();
        seen.send((text, at_login.clone())).unwrap();
        welcome(None)
    };
    let room = FakeRoom::start(Character { verdict: Box::new(verdict), ..with_accounts() }).await;
    let mut wanted = RoomOptions { tofu: true, data, ..options(far(&room)) };
    wanted.password = Some(secret("open sesame"));
    let user = User::join(wanted).await.unwrap();
    assert!(user.joined.first_use);
    let (text, data) = pins.recv().unwrap();
    assert!(text.contains(&room.identity.fingerprint().to_string()));
    assert_eq!(data.room_pin(&pin_key(&far(&room))).unwrap(), Some(room.identity.fingerprint()));
}

#[tokio::test]
async fn nothing_is_sent_if_the_key_cannot_be_stored() {
    let parent = tempfile::tempdir().unwrap();
    let data = DataDir::open(parent.path()).unwrap();
    std::fs::write(parent.path().join("rooms.toml"), "version = 1\n").unwrap();
    let room = FakeRoom::start(Character::default()).await;
    let error = refused(RoomOptions { data, ..options(room.address()) }).await;
    assert!(matches!(error, JoinError::Data(_)), "{error}");
    assert!(room.logins().is_empty());
}

#[tokio::test]
async fn a_room_that_cannot_prove_its_identity_on_this_connection_is_none() {
    let liar = FakeRoom::start(Character { honest_proof: false, ..Character::default() }).await;
    let error = refused(options(liar.address())).await;
    assert!(matches!(error, JoinError::Misbehaved { fault: RoomFault::Proof, .. }), "{error}");
    // A middleman that passes another Room's identity on has another key in its certificate.
    let middle =
        FakeRoom::start(Character { certificate: Certificate::OfAnotherKey, ..Character::default() }).await;
    let error = refused(options(middle.address())).await;
    assert!(matches!(error, JoinError::Misbehaved { fault: RoomFault::CertificateKey, .. }), "{error}");
    assert!(liar.logins().is_empty() && middle.logins().is_empty());
}

#[tokio::test]
async fn a_certificate_without_its_key_or_without_anybodys_word_ends_in_the_handshake() {
    for certificate in [Certificate::Stolen, Certificate::OfNobody] {
        let room = FakeRoom::start(Character { certificate, ..Character::default() }).await;
        // Even the right fingerprint does not make up for it.
        let given = room.address().with_fingerprint(room.identity.fingerprint());
        let error = refused(options(given)).await;
        assert!(matches!(error, JoinError::Certificate { .. }), "{error}");
        assert_eq!(room.greeted(), 0);
    }
}

#[tokio::test]
async fn what_is_no_room_gets_a_sentence_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = parlor_protocol::address::RoomAddress::from_socket(listener.local_addr().unwrap());
    // A Room tells a banned address so with a TLS alert, access_denied.
    let turn_away = async |listener: &TcpListener| {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49]).await.unwrap();
        // Closing with bytes unread would cut the alert off.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let (error, ()) = tokio::join!(refused(options(address.clone())), turn_away(&listener));
    assert!(matches!(error, JoinError::TurnedAway { .. }), "{error}");
    // A Room in a crowd hangs up: the user tries again.
    let hang_up = async {
        drop(listener.accept().await.unwrap());
        drop(listener.accept().await.unwrap());
        turn_away(&listener).await;
    };
    let (error, ()) = tokio::join!(refused(options(address)), hang_up);
    assert!(matches!(error, JoinError::TurnedAway { .. }), "{error}");
    // Bound and not listening, it refuses, and nobody else can have its port.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = parlor_protocol::address::RoomAddress::from_socket(nobody.local_addr().unwrap());
    let error = refused(options(address)).await;
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("Room is running"), "{error}");
}

#[tokio::test]
async fn an_open_room_is_not_told_a_password_and_a_closed_one_not_asked_without() {
    let open = FakeRoom::start(Character::default()).await;
    let mut wanted = options(open.address());
    wanted.password = Some(secret("p"));
    wanted.room_password = Some(secret("r"));
    User::join(wanted).await.unwrap();
    let login = open.logins().remove(0);
    assert_eq!((login.credentials, login.room_password), (Credentials::Open, None));

    let closed = FakeRoom::start(with_accounts()).await;
    let error = refused(options(closed.address())).await;
    assert!(matches!(error, JoinError::Refused(LoginRefusal::PasswordNeeded)), "{error}");
    assert!(closed.logins().is_empty());
}

#[tokio::test]
async fn a_busy_room_is_asked_again_and_any_other_refusal_comes_out_at_once() {
    let mut answers = vec![
        ToUser::LoginRefused(LoginRefusal::Credentials),
        welcome(None),
        ToUser::LoginRefused(LoginRefusal::Busy { retry_after_ms: 1 }),
    ];
    let verdict = move |_: &_| answers.pop().unwrap();
    let room = FakeRoom::start(Character { verdict: Box::new(verdict), ..Character::default() }).await;
    User::join(options(room.address())).await.unwrap();
    assert_eq!(room.logins().len(), 2);
    let error = refused(options(room.address())).await;
    assert!(matches!(error, JoinError::Refused(LoginRefusal::Credentials)), "{error}");
    assert_eq!(room.logins().len(), 3);
}

#[tokio::test]
async fn a_ticket_is_tried_first_and_the_password_on_the_same_connection_if_it_is_no_longer_good() {
    let verdict = |login: &parlor_protocol::wire::control::Login| match &login.credentials {
        Credentials::Ticket(_) => ToUser::LoginRefused(LoginRefusal::Ticket),
        _ => welcome(Some(6)),
    };
    let room = FakeRoom::start(Character { verdict: Box::new(verdict), ..with_accounts() }).await;
    let mut wanted = options(room.address());
    wanted.password = Some(secret("p"));
    User::join(wanted.clone()).await.unwrap();
    User::join(wanted.clone()).await.unwrap();
    let logins = room.logins();
    assert_eq!(logins.len(), 3);
    assert!(has_password(&logins[0], "p"));
    assert!(matches!(&logins[1].credentials, Credentials::Ticket(ticket) if ticket.0 == [6; 32]));
    assert!(has_password(&logins[2], "p"));
    assert_eq!(room.greeted(), 2);
}

#[tokio::test]
async fn a_good_ticket_does_not_hide_a_wrong_password() {
    let verdict = |login: &parlor_protocol::wire::control::Login| match &login.credentials {
        Credentials::Password(secret) if secret.expose() != "right" => {
            ToUser::LoginRefused(LoginRefusal::Credentials)
        }
        _ => welcome(Some(6)),
    };
    let room = FakeRoom::start(Character { verdict: Box::new(verdict), ..with_accounts() }).await;
    let mut wanted = options(room.address());
    wanted.password = Some(secret("right"));
    User::join(wanted.clone()).await.unwrap();
    wanted.password = Some(secret("wrong"));
    let error = refused(wanted.clone()).await;
    assert!(matches!(error, JoinError::Refused(LoginRefusal::Credentials)), "{error}");
    wanted.password = Some(secret("right"));
    User::join(wanted).await.unwrap();
    assert!(matches!(room.logins()[2].credentials, Credentials::Ticket(_)));
}

#[tokio::test]
async fn a_guest_leaves_nothing_but_the_rooms_key_behind() {
    let parent = tempfile::tempdir().unwrap();
    let room = FakeRoom::start(Character::default()).await;
    let data = DataDir::open(parent.path()).unwrap();
    User::join(RoomOptions { data, remember: false, ..options(room.address()) }).await.unwrap();
    let mut files: Vec<_> =
        std::fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["lock", "rooms.toml"]);
}

#[tokio::test]
async fn commands_reach_the_room_and_what_it_says_comes_out_as_events() {
    let mut room = FakeRoom::start(Character::default()).await;
    let mut user = User::join(options(room.address())).await.unwrap();
    let mut session = room.session().await;
    let peer: parlor_protocol::name::UserName = "Bar".parse().unwrap();
    user.client.commands().send(RoomCommand::Introduce { request: 5, peer: peer.clone() }).await.unwrap();
    assert_eq!(session.read().await, Some(ToRoom::Introduce(Introduce { request: 5, peer: peer.clone() })));
    session.write(&ToUser::IntroductionRefused(5, PairRefusal::Offline)).await;
    session.write(&ToUser::Ping(77)).await;
    session.write(&ToUser::Blacklist(vec!["192.0.2.0/24".parse().unwrap()])).await;
    session.write(&ToUser::Roster(Roster { joined: vec![], left: vec![peer], complete: true })).await;
    assert!(matches!(
        user.event().await,
        Some(RoomEvent::IntroductionRefused { request: 5, why: PairRefusal::Offline })
    ));
    assert!(matches!(user.event().await, Some(RoomEvent::Blacklist(nets)) if nets.len() == 1));
    assert!(matches!(user.event().await, Some(RoomEvent::Roster(roster)) if roster.left.len() == 1));
    assert_eq!(session.read().await, Some(ToRoom::Pong(77)));
    let mut elsewhere = options(room.address()).reachability;
    elsewhere.port = 99;
    user.client.commands().send(RoomCommand::Presence(elsewhere)).await.unwrap();
    assert!(matches!(session.read().await, Some(ToRoom::Presence(presence)) if presence.port == 99));
}

#[tokio::test]
async fn a_user_comes_back_by_itself_with_its_ticket_and_as_the_same_program() {
    let character = || Character { verdict: Box::new(|_| welcome(Some(6))), ..with_accounts() };
    let mut room = FakeRoom::start(character()).await;
    let mut wanted = options(room.address());
    wanted.password = Some(secret("p"));
    wanted.take_over = true;
    let mut user = User::join(wanted).await.unwrap();
    let first = room.logins().remove(0);
    assert!(first.take_over);
    room.session().await.close(CloseCode::ShuttingDown, Some(1)).await;
    let place = room.stop().await;
    let lost = user.event().await.unwrap();
    let RoomEvent::Lost { why: LostReason::Closed(closing), .. } = lost else { panic!("{lost:?}") };
    assert_eq!(closing.code, CloseCode::ShuttingDown);
    // Asked for while the Room is away, sent when it is back.
    let peer = "Bar".parse().unwrap();
    user.client.commands().send(RoomCommand::Introduce { request: 1, peer }).await.unwrap();

    let mut room = FakeRoom::start_on(place, character());
    let back = user.event().await.unwrap();
    let RoomEvent::Back(joined) = back else { panic!("{back:?}") };
    assert_eq!(joined.members.len(), 2);
    let again = room.logins().remove(0);
    assert!(matches!(again.credentials, Credentials::Ticket(ref ticket) if ticket.0 == [6; 32]));
    assert_eq!((again.instance, again.identity), (first.instance, first.identity));
    assert!(!again.take_over);
    assert!(matches!(room.session().await.read().await, Some(ToRoom::Introduce(_))));
}

#[tokio::test]
async fn a_room_that_ends_a_membership_for_good_is_not_asked_again() {
    for code in [CloseCode::Replaced, CloseCode::Removed, CloseCode::Banned] {
        let mut room = FakeRoom::start(Character::default()).await;
        let mut user = User::join(options(room.address())).await.unwrap();
        room.session().await.close(code, None).await;
        let refused = user.event().await.unwrap();
        let RoomEvent::Refused(JoinError::Ended(Closing { code: named, .. })) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(named, code);
        assert!(user.event().await.is_none());
        assert_eq!(room.greeted(), 1);
    }
}

#[tokio::test]
async fn a_password_that_is_no_longer_right_ends_the_returning() {
    let mut answers = vec![ToUser::LoginRefused(LoginRefusal::Credentials), welcome(None)];
    let verdict = move |_: &_| answers.pop().unwrap();
    let mut room = FakeRoom::start(Character { verdict: Box::new(verdict), ..with_accounts() }).await;
    let mut wanted = options(room.address());
    wanted.password = Some(secret("p"));
    let mut user = User::join(wanted).await.unwrap();
    // The connection breaks without a word.
    drop(room.session().await);
    assert!(matches!(user.event().await, Some(RoomEvent::Lost { .. })));
    let refused = user.event().await.unwrap();
    assert!(
        matches!(refused, RoomEvent::Refused(JoinError::Refused(LoginRefusal::Credentials))),
        "{refused:?}"
    );
    assert!(user.event().await.is_none());
    assert_eq!(room.logins().len(), 2);
}

#[tokio::test]
async fn a_room_that_says_what_it_may_not_say_is_left_and_tried_again() {
    let mut room = FakeRoom::start(Character::default()).await;
    let mut user = User::join(options(room.address())).await.unwrap();
    room.session().await.write(&welcome(None)).await;
    let lost = user.event().await.unwrap();
    assert!(matches!(lost, RoomEvent::Lost { why: LostReason::Misbehaved(_), .. }), "{lost:?}");
    assert!(matches!(user.event().await, Some(RoomEvent::Back(_))));
}
