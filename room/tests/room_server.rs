//! A Room in process and users that speak the bare wire: what the Room promises on its sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use parlor_protocol::introduction::Cipher;
use parlor_protocol::limits::DRAIN;
use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{Credentials, Hello, ToRoom, ToUser, VERSION};
use parlor_protocol::wire::preface;
use parlor_room::admin::{AdminRequest, AdminResponse};
use parlor_room::config::CertificateFiles;
use parlor_room::password::PasswordHash;
use parlor_room::{Room, RoomConfig, RoomError, RoomHandle};
use support::{Client, Connected, Who, lone_room, relayed, room, socket, who};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `123456`, made elsewhere.
const FOO: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";

fn with_account() -> RoomConfig {
    let accounts = BTreeMap::from([("Foo".parse().unwrap(), FOO.parse::<PasswordHash>().unwrap())]);
    RoomConfig { accounts, ..RoomConfig::default() }
}

#[tokio::test]
async fn in_an_open_room_everybody_gets_in_and_sees_who_is_there_and_who_comes_and_goes() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, welcome) = Client::join(&room, &who("Foo", 1)).await;
    assert!(welcome.observed.ip().is_loopback() && welcome.ticket.is_none());
    assert!(!foo.hello.accounts && !foo.hello.room_password);
    assert_eq!(foo.roster().await.len(), 1);

    let (mut bar, _) = Client::join(&room, &who("Bar", 2)).await;
    let names: Vec<_> = bar.roster().await.into_iter().map(|m| m.name.to_string()).collect();
    assert_eq!(names, ["Bar", "Foo"]);
    foo.sees_join("Bar").await;
    bar.send(ToRoom::Bye(CloseCode::Done)).await;
    assert_eq!(bar.close_code().await, CloseCode::Done);
    foo.sees_leave("Bar").await;
    let (baz, _) = Client::join(&room, &who("Baz", 3)).await;
    foo.sees_join("Baz").await;
    drop(baz);
    foo.sees_leave("Baz").await;
    room.shutdown().await;
}

#[tokio::test]
async fn the_certificate_is_made_of_the_key_that_the_fingerprint_names() {
    let room = room(RoomConfig::default()).await;
    let connected = Connected::to(&room.addresses()[0]).await.unwrap();
    let key = room.identity().0;
    assert!(connected.certificate().windows(32).any(|bytes| bytes == key));
    assert_eq!(room.addresses()[0].fingerprint(), Some(room.fingerprint()));
}

#[tokio::test]
async fn both_ends_of_an_introduction_get_the_same_statement_and_each_its_own_side() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let (mut bar, _) = Client::join(&room, &who("Bar", 2)).await;
    foo.ask_for(7, "bar").await;
    let (to_bar, to_foo) = (bar.introduced().await, foo.introduced().await);
    assert_eq!((to_foo.request, to_bar.request), (Some(7), None));
    assert_eq!(to_foo.introduction, to_bar.introduction);
    let introduction = to_foo.introduction.verify(&room.identity()).unwrap();
    assert_eq!((introduction.asker.name.as_str(), introduction.asked.name.as_str()), ("Foo", "Bar"));
    assert_eq!(introduction.cipher, Cipher::AesGcm);
    assert_eq!(to_foo.rungs.iter().map(|r| r.rung).collect::<Vec<_>>(), [Rung::Lan, Rung::Relay]);
    assert_eq!(to_foo.rungs[0].dial, ["10.0.0.2:4002".parse().unwrap()]);
    assert_eq!(to_bar.rungs[0].dial, ["10.0.0.1:4001".parse().unwrap()]);
    assert_ne!(to_foo.rungs[1].relay.unwrap(), to_bar.rungs[1].relay.unwrap());

    foo.ask_for(8, "Nobody").await;
    assert!(matches!(foo.next().await, ToUser::IntroductionRefused(8, PairRefusal::Offline)));
    foo.ask_for(9, "FOO").await;
    assert!(matches!(foo.next().await, ToUser::IntroductionRefused(9, PairRefusal::Yourself)));
}

#[tokio::test]
async fn two_links_with_the_tokens_of_one_introduction_are_one_link() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let (mut bar, _) = Client::join(&room, &who("Bar", 2)).await;
    foo.ask_for(1, "Bar").await;
    let token = |rungs: &[parlor_protocol::wire::control::RungOffer]| rungs.last().unwrap().relay.unwrap();
    let (for_bar, for_foo) = (token(&bar.introduced().await.rungs), token(&foo.introduced().await.rungs));

    let (mut one, mut other) = (relayed(&room, &for_foo).await, relayed(&room, &for_bar).await);
    assert_eq!((one.read_u8().await.unwrap(), other.read_u8().await.unwrap()), (1, 1));
    let long: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let mut received = vec![0; long.len()];
    let (sent, got) = tokio::join!(one.write_all(&long), other.read_exact(&mut received));
    sent.unwrap();
    got.unwrap();
    assert_eq!(received, long);
    other.write_all(b"and back").await.unwrap();
    let mut back = [0; 8];
    one.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"and back");
    assert_eq!(room.status().await.unwrap().relayed_pairs, 1);

    // The same token again, and the end of one link.
    let mut again = relayed(&room, &for_foo).await;
    let mut refused = Vec::new();
    again.read_to_end(&mut refused).await.unwrap();
    assert_eq!(refused, [preface::RELAY_REFUSED, 32, 0]);
    drop(one);
    assert_eq!(other.read(&mut back).await.unwrap(), 0);
}

#[tokio::test]
async fn a_link_with_a_preface_of_another_version_is_told_so() {
    let room = room(RoomConfig::default()).await;
    let mut link = TcpStream::connect(socket(&room.addresses()[0])).await.unwrap();
    link.write_all(&[preface::RELAY, 9, 1, 2, 3]).await.unwrap();
    let mut told = Vec::new();
    link.read_to_end(&mut told).await.unwrap();
    let [low, high] = u16::from(CloseCode::Version).to_le_bytes();
    assert_eq!(told, [preface::RELAY_REFUSED, low, high]);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_get_the_same_words() {
    let room = room(with_account()).await;
    let mut client = Client::connect(&room).await;
    assert!(client.hello.accounts);
    let refusals = [
        client.login(&who("Foo", 1).password("wrong")).await.unwrap_err(),
        client.login(&who("Nobody", 1).password("123456")).await.unwrap_err(),
        client.login(&who("Foo", 1)).await.unwrap_err(),
    ];
    assert_eq!(
        refusals,
        [LoginRefusal::Credentials, LoginRefusal::Credentials, LoginRefusal::PasswordNeeded]
    );
    assert_eq!(client.close_code().await, CloseCode::LimitExceeded, "three attempts a connection");
    let (_foo, welcome) = Client::join(&room, &who("Foo", 1).password("123456")).await;
    assert!(welcome.ticket.is_some());
    let totals = room.status().await.unwrap().totals;
    assert_eq!((totals.logins, totals.refused_logins), (1, 3));
}

#[tokio::test]
async fn after_three_wrong_passwords_a_minute_the_account_waits_for_this_address_only() {
    let room = room(with_account()).await;
    let mut client = Client::connect(&room).await;
    for _ in 0..3 {
        client.login(&who("Foo", 1).password("wrong")).await.unwrap_err();
    }
    let mut client = Client::connect(&room).await;
    let refusal = client.login(&who("Foo", 1).password("123456")).await.unwrap_err();
    assert!(matches!(refusal, LoginRefusal::TooManyAttempts { seconds: 1..=60 }), "{refusal:?}");
    let refusal = client.login(&who("Bar", 1).password("123456")).await.unwrap_err();
    assert_eq!(refusal, LoginRefusal::Credentials);
}

#[tokio::test]
async fn a_ticket_outlives_the_room_and_is_good_for_its_identity_and_password_only() {
    let directory = tempfile::tempdir().unwrap();
    let config = RoomConfig { data: Some(directory.path().join("room")), ..with_account() };
    let first = room(config.clone()).await;
    let fingerprint = first.fingerprint();
    let (foo, welcome) = Client::join(&first, &who("Foo", 1).password("123456")).await;
    let credentials = Credentials::Ticket(welcome.ticket.unwrap().secret);
    drop(foo);
    first.shutdown().await;

    let second = room(config.clone()).await;
    assert_eq!(second.fingerprint(), fingerprint);
    let mut thief = Client::connect(&second).await;
    let stolen = Who { credentials: credentials.clone(), ..who("Foo", 2) };
    assert_eq!(thief.login(&stolen).await.unwrap_err(), LoginRefusal::Ticket);
    let back = Who { credentials, ..who("Foo", 1) };
    let (foo, welcome) = Client::join(&second, &back).await;
    let totals = second.status().await.unwrap().totals;
    assert_eq!((totals.logins, totals.resumed), (1, 1));
    drop((thief, foo));
    second.shutdown().await;

    // The operator has given the account another password meanwhile.
    let hash = PasswordHash::make("654321", 10, [4; 16]).unwrap();
    let accounts = BTreeMap::from([("Foo".parse().unwrap(), hash)]);
    let third = room(RoomConfig { accounts, ..config }).await;
    let mut client = Client::connect(&third).await;
    let outdated = Who { credentials: Credentials::Ticket(welcome.ticket.unwrap().secret), ..who("Foo", 1) };
    assert_eq!(client.login(&outdated).await.unwrap_err(), LoginRefusal::Ticket);
    client.login(&who("Foo", 1).password("654321")).await.unwrap();
    drop(client);
    third.shutdown().await;
}

#[tokio::test]
async fn an_account_belongs_to_the_identity_of_its_first_login() {
    let room = room(with_account()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1).password("123456")).await;
    foo.send(ToRoom::Bye(CloseCode::Done)).await;
    foo.close_code().await;
    let other = who("Foo", 2).password("123456");
    let mut client = Client::connect(&room).await;
    assert_eq!(client.login(&other).await.unwrap_err(), LoginRefusal::IdentityMismatch);
    let reset = AdminRequest::ResetIdentity { name: "Foo".parse().unwrap() };
    assert_eq!(room.admin(reset).await, AdminResponse::Done);
    client.login(&other).await.unwrap();
}

#[tokio::test]
async fn a_room_password_is_asked_for_besides() {
    let hash = PasswordHash::make("sesame", 10, [3; 16]).unwrap();
    let room = room(RoomConfig { room_password: Some(hash), ..RoomConfig::default() }).await;
    let mut client = Client::connect(&room).await;
    assert!(client.hello.room_password && !client.hello.accounts);
    assert_eq!(client.login(&who("Foo", 1)).await.unwrap_err(), LoginRefusal::RoomPassword);
    let secret = |text: &str| Some(parlor_protocol::wire::control::Secret::new(text.into()).unwrap());
    let wrong = Who { room_password: secret("wrong"), ..who("Foo", 1) };
    assert_eq!(client.login(&wrong).await.unwrap_err(), LoginRefusal::RoomPassword);
    let right = Who { room_password: secret("sesame"), ..who("Foo", 1) };
    assert!(client.login(&right).await.unwrap().ticket.is_some());
}

#[tokio::test]
async fn a_name_is_taken_over_by_its_own_program_or_on_demand_by_its_own_identity() {
    let room = room(RoomConfig::default()).await;
    let (mut first, _) = Client::join(&room, &who("Foo", 1)).await;

    let mut stranger = Client::connect(&room).await;
    let refusal = stranger.login(&Who { take_over: true, ..who("foo", 2) }).await.unwrap_err();
    assert_eq!(refusal, LoginRefusal::NameInUse { same_identity: false });
    let another = Who { instance: 9, ..who("Foo", 1) };
    assert_eq!(stranger.login(&another).await.unwrap_err(), LoginRefusal::NameInUse { same_identity: true });

    let (mut again, _) = Client::join(&room, &who("Foo", 1)).await;
    assert_eq!(first.close_code().await, CloseCode::Replaced);
    let takes_over = Who { take_over: true, ..another };
    let late = stranger.login(&takes_over).await.unwrap_err();
    assert_eq!(
        late,
        LoginRefusal::NameInUse { same_identity: true },
        "its connection is older than the login"
    );
    Client::join(&room, &takes_over).await;
    assert_eq!(again.close_code().await, CloseCode::Replaced);
    assert_eq!(room.status().await.unwrap().users.len(), 1);
}

#[tokio::test]
async fn a_ban_cuts_who_is_in_and_tells_who_comes_why() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    room.ban("127.0.0.0/8".parse().unwrap(), None).await.unwrap();
    // It is over before the operator hears that it is done; the word of it is under way.
    assert!(room.status().await.unwrap().users.is_empty());
    assert_eq!(foo.close_code().await, CloseCode::Banned);
    let error = Connected::to(&room.addresses()[0]).await.err().unwrap();
    let cause = error.get_ref().unwrap().downcast_ref::<rustls::Error>();
    assert_eq!(cause, Some(&rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied)));
    let lifted = room.admin(AdminRequest::BanRemove { net: "127.0.0.0/8".parse().unwrap() }).await;
    assert_eq!(lifted, AdminResponse::Done);
    Client::join(&room, &who("Foo", 1)).await;
}

#[tokio::test]
async fn a_ban_ends_relayed_links_and_what_shows_a_token_afterwards() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let (mut bar, _) = Client::join(&room, &who("Bar", 2)).await;
    let token = |rungs: &[parlor_protocol::wire::control::RungOffer]| rungs.last().unwrap().relay.unwrap();
    let mut pairs = Vec::new();
    for request in 1..=2 {
        foo.ask_for(request, "Bar").await;
        pairs.push([token(&foo.introduced().await.rungs), token(&bar.introduced().await.rungs)]);
    }
    let (mut one, mut other) = (relayed(&room, &pairs[0][0]).await, relayed(&room, &pairs[0][1]).await);
    assert_eq!((one.read_u8().await.unwrap(), other.read_u8().await.unwrap()), (1, 1));
    let mut waits = relayed(&room, &pairs[1][0]).await;
    let ended = async {
        for link in [&mut one, &mut other] {
            // An end or a reset: either is the end.
            assert_eq!(link.read(&mut [0; 8]).await.unwrap_or(0), 0);
        }
        let mut refused = Vec::new();
        let _ = waits.read_to_end(&mut refused).await;
        assert!(matches!(refused[..], [] | [preface::RELAY_REFUSED, 35, 0]), "{refused:?}");
    };
    room.ban("127.0.0.0/8".parse().unwrap(), None).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.unwrap();
    let mut late = relayed(&room, &pairs[1][1]).await;
    assert_eq!(late.read(&mut [0; 8]).await.unwrap_or(0), 0, "not even told why");
    assert_eq!(room.status().await.unwrap().relayed_pairs, 0);
}

#[tokio::test]
async fn an_issued_certificate_is_shown_and_can_be_renewed_while_the_room_runs() {
    let home = tempfile::tempdir().unwrap();
    let files =
        CertificateFiles { certificate: home.path().join("chain.pem"), key: home.path().join("key.pem") };
    let issue = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["room.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    };
    let first = issue();
    let room = room(RoomConfig { tls: Some(files.clone()), ..RoomConfig::default() }).await;
    let shown = async || Connected::to(&room.addresses()[0]).await.unwrap().certificate();
    assert_eq!(shown().await, first);
    // The proof in the hello is of the Room's own key all the same.
    let (_foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let second = issue();
    assert_eq!(shown().await, first, "until it is told");
    room.renew_certificate().await.unwrap();
    assert_eq!(shown().await, second);
    std::fs::write(&files.key, "torn").unwrap();
    let error = room.renew_certificate().await.unwrap_err().to_string();
    assert!(error.contains("tls.key"), "{error}");
    assert_eq!(shown().await, second);
}

#[tokio::test]
async fn everybody_is_handed_the_blacklist_and_its_changes() {
    let config = RoomConfig { blacklist: vec!["192.0.2.7/32".parse().unwrap()], ..RoomConfig::default() };
    let room = room(config).await;
    let (mut foo, welcome) = Client::join(&room, &who("Foo", 1)).await;
    assert_eq!(welcome.blacklist, ["192.0.2.7/32".parse().unwrap()]);
    room.ban("198.51.100.0/24".parse().unwrap(), None).await.unwrap();
    loop {
        if let ToUser::Blacklist(nets) = foo.next().await {
            assert_eq!(nets.len(), 2);
            break;
        }
    }
}

#[tokio::test]
async fn an_old_version_is_refused_in_words() {
    let room = room(RoomConfig::default()).await;
    let mut connected = Connected::to(&room.addresses()[0]).await.unwrap();
    let newer = Hello { min_version: 2, max_version: 3, ..Hello::new("newer") };
    connected.send(ToRoom::Hello(newer)).await;
    let refusal = LoginRefusal::Version { min: VERSION, max: VERSION };
    assert_eq!(connected.next().await, Some(ToUser::LoginRefused(refusal)));
    assert!(
        matches!(connected.next().await, Some(ToUser::Closing(closing)) if closing.code == CloseCode::Version)
    );
    assert_eq!(connected.next().await, None);
}

#[tokio::test]
async fn bytes_that_are_no_parlor_are_closed_and_cost_the_others_nothing() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\0", b"R\x07", &[0x16, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]]
    {
        let mut stream = TcpStream::connect(socket(&room.addresses()[0])).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.write_all(&[b'x'; 40]).await.unwrap();
        let mut answer = Vec::new();
        // An end or a reset: either is the end.
        let _ = stream.read_to_end(&mut answer).await;
    }
    let mut no_hello = Connected::to(&room.addresses()[0]).await.unwrap();
    no_hello.send_bytes(&[5, 0, 0, 0, 1, b'H', b'T', b'T', b'P']).await;
    assert!(matches!(no_hello.next().await, Some(ToUser::Closing(c)) if c.code == CloseCode::Malformed));
    let mut too_long = Connected::to(&room.addresses()[0]).await.unwrap();
    too_long.send_bytes(&[0, 0x20, 0, 0, 1]).await;
    assert!(matches!(too_long.next().await, Some(ToUser::Closing(c)) if c.code == CloseCode::LimitExceeded));
    foo.send(ToRoom::Ping(5)).await;
    while foo.next().await != ToUser::Pong(5) {}
}

#[tokio::test]
async fn a_user_that_breaks_the_rules_is_told_and_the_others_go_on() {
    let room = room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let (mut bar, _) = Client::join(&room, &who("Bar", 2)).await;
    foo.send(ToRoom::Hello(Hello::new("again"))).await;
    assert_eq!(foo.close_code().await, CloseCode::Unexpected);
    bar.sees_leave("Foo").await;
}

#[tokio::test]
async fn a_room_that_stops_sends_everybody_away_with_a_time_to_come_back() {
    let room = lone_room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let (mut bar, _) = Client::join(&room, &who("Bar", 2)).await;
    let address = room.addresses()[0].clone();
    let ((), foo, bar) = tokio::join!(room.shutdown(), foo.closing(), bar.closing());
    for closing in [foo, bar] {
        assert_eq!(closing.code, CloseCode::ShuttingDown);
        assert!(closing.reconnect_in_ms.is_some_and(|ms| (250..=1250).contains(&ms)));
    }
    assert!(TcpStream::connect(socket(&address)).await.is_err());
}

#[tokio::test]
async fn a_room_whose_handle_is_dropped_is_gone() {
    let room = lone_room(RoomConfig::default()).await;
    let (mut foo, _) = Client::join(&room, &who("Foo", 1)).await;
    let address = room.addresses()[0].clone();
    drop(room);
    foo.hears_nothing_more().await;
    while TcpStream::connect(socket(&address)).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_program_in_one_room_is_nobody_in_another() {
    let (one, other) = (room(RoomConfig::default()).await, room(RoomConfig::default()).await);
    assert_ne!(one.fingerprint(), other.fingerprint());
    let (_foo, _) = Client::join(&one, &who("Foo", 1)).await;
    let (mut bar, _) = Client::join(&other, &who("Bar", 2)).await;
    assert_eq!(bar.roster().await.len(), 1);
    bar.ask_for(1, "Foo").await;
    assert!(matches!(bar.next().await, ToUser::IntroductionRefused(1, PairRefusal::Offline)));
}

#[tokio::test]
async fn accounts_made_while_the_room_runs_log_in_and_removed_ones_are_cut() {
    let directory = tempfile::tempdir().unwrap();
    let config = RoomConfig { data: Some(directory.path().join("room")), ..RoomConfig::default() };
    let room = room(config).await;
    let (name, hash) = ("Foo".parse().unwrap(), FOO.parse::<PasswordHash>().unwrap());
    let add = AdminRequest::UserAdd { name, hash };
    assert_eq!(room.admin(add.clone()).await, AdminResponse::Done);
    assert!(matches!(room.admin(add).await, AdminResponse::Failed(_)));
    let (mut foo, _) = Client::join(&room, &who("Foo", 1).password("123456")).await;
    assert!(foo.hello.accounts);
    foo.ask_for(1, "Nobody").await;
    loop {
        if let ToUser::IntroductionRefused(1, why) = foo.next().await {
            assert_eq!(why, PairRefusal::NoSuchPeer);
            break;
        }
    }
    let remove = AdminRequest::UserRemove { name: "Foo".parse().unwrap() };
    assert_eq!(room.admin(remove).await, AdminResponse::Done);
    assert!(room.status().await.unwrap().users.is_empty(), "over before the operator hears that it is done");
    assert_eq!(foo.close_code().await, CloseCode::Removed);
    room.shutdown().await;
}

#[tokio::test]
async fn a_room_whose_accounts_are_gone_does_not_start_as_an_open_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("room");
    let config = RoomConfig {
        data: Some(data.clone()),
        listen: vec![([127, 0, 0, 1], 0).into()],
        open: true,
        ..RoomConfig::default()
    };
    let first = Room::bind(config.clone()).await.unwrap();
    let (name, hash) = ("Foo".parse().unwrap(), FOO.parse::<PasswordHash>().unwrap());
    assert_eq!(first.admin(AdminRequest::UserAdd { name, hash }).await, AdminResponse::Done);
    Client::join(&first, &who("Foo", 1).password("123456")).await;
    first.shutdown().await;

    std::fs::remove_file(data.join("accounts.toml")).unwrap();
    let error = Room::bind(config.clone()).await.unwrap_err().to_string();
    assert!(error.contains("accounts.toml is gone") && error.contains("identities.toml"), "{error}");
    let accounts = RoomConfig { accounts: with_account().accounts, ..config.clone() };
    Room::bind(accounts).await.unwrap().shutdown().await;
    // The operator means it.
    std::fs::rename(data.join("identities.toml"), data.join("old.toml")).unwrap();
    let open = Room::bind(config).await.unwrap();
    let (anybody, _) = Client::join(&open, &who("Anybody", 2)).await;
    assert!(!anybody.hello.accounts);
}

/// A Room in which each ban is a frame of 12 KiB to everybody.
async fn talkative_room() -> RoomHandle {
    let blacklist = (0..1_900u16).map(|n| {
        let [high, low] = n.to_be_bytes();
        std::net::IpAddr::from([198, 18 + (high & 1), high, low]).into()
    });
    room(RoomConfig { blacklist: blacklist.collect(), ..RoomConfig::default() }).await
}

#[tokio::test]
async fn a_user_that_reads_nothing_is_let_go_and_the_others_miss_nothing() {
    let room = talkative_room().await;
    let stuck = Connected::with_little_room(&room.addresses()[0]).await.unwrap();
    let mut stuck = Client::greet(&room, stuck).await;
    stuck.login(&who("Stuck", 1)).await.unwrap();
    let (mut foo, _) = Client::join(&room, &who("Foo", 2)).await;
    let mut bans = 0..=u16::MAX;
    while room.status().await.unwrap().users.len() > 1 {
        let [high, low] = bans.next().unwrap().to_be_bytes();
        room.ban(std::net::IpAddr::from([203, 0, high, low]).into(), None).await.unwrap();
        while !matches!(foo.next().await, ToUser::Blacklist(_)) {}
    }
    assert!(bans.start() > &100, "{} are no 2 MiB", bans.start());
    foo.sees_leave("Stuck").await;
    drop(stuck);
    room.shutdown().await;
}

#[tokio::test]
async fn a_room_ends_in_time_although_a_user_reads_nothing_and_does_not_go() {
    let room = talkative_room().await;
    let stuck = Connected::with_little_room(&room.addresses()[0]).await.unwrap();
    let mut stuck = Client::greet(&room, stuck).await;
    stuck.login(&who("Stuck", 1)).await.unwrap();
    let (mut foo, _) = Client::join(&room, &who("Foo", 2)).await;
    // More than its connection takes, and less than would cut it off as a slow reader.
    for n in 0..30u8 {
        room.ban(std::net::IpAddr::from([203, 0, 113, n]).into(), None).await.unwrap();
        while !matches!(foo.next().await, ToUser::Blacklist(_)) {}
    }
    assert_eq!(room.status().await.unwrap().users.len(), 2);
    let ends = async { tokio::join!(room.shutdown(), foo.closing()) };
    // A Room that waited for it would wait for 45 s.
    tokio::time::timeout(2 * DRAIN, ends).await.expect("the Room does not end");
    drop(stuck);
}

#[tokio::test]
async fn a_room_does_not_listen_beyond_loopback_without_a_password_unless_told_to() {
    let config = RoomConfig { listen: vec![([0, 0, 0, 0], 0).into()], ..RoomConfig::default() };
    assert!(matches!(parlor_room::Room::bind(config).await, Err(RoomError::Config(_))));
}
