//! Users and a real Room: what each expects of the other is one thing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::InstanceId;
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{Closing, Introduced, RungOffer, Secret};
use parlor_room::{Room, RoomConfig, RoomHandle};
use parlor_user::net::dial::dial_relay;
use parlor_user::net::room::{JoinError, RoomCommand, RoomEvent, RoomOptions};
use support::{LONG, User, options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use zeroize::Zeroizing;

impl User {
    /// The next event that `wanted` wants; others are let go.
    async fn until<T>(&mut self, mut wanted: impl FnMut(RoomEvent) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.unwrap()) {
                    return found;
                }
            }
        };
        timeout(LONG, found).await.unwrap()
    }

    async fn introduced(&mut self) -> Box<Introduced> {
        self.until(|event| match event {
            RoomEvent::Introduced(introduced) => Some(introduced),
            _ => None,
        })
        .await
    }

    async fn refused(&mut self) -> JoinError {
        self.until(|event| match event {
            RoomEvent::Refused(error) => Some(error),
            _ => None,
        })
        .await
    }
}

fn named(name: &str, seed: u8, address: RoomAddress) -> RoomOptions {
    RoomOptions {
        name: name.parse().unwrap(),
        seed: Zeroizing::new([seed; 32]),
        instance: InstanceId([seed; 16]),
        ..options(address)
    }
}

fn config() -> RoomConfig {
    RoomConfig { listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))], ..RoomConfig::default() }
}

/// A Room with one account, Foo, whose password is 123456.
fn with_account() -> RoomConfig {
    let hash = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";
    let accounts = [("Foo".parse().unwrap(), hash.parse().unwrap())].into();
    RoomConfig { accounts, ..config() }
}

fn socket_of(room: &RoomHandle) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, room.addresses()[0].port()).into()
}

fn offer(introduced: &Introduced, rung: Rung) -> &RungOffer {
    introduced.rungs.iter().find(|offer| offer.rung == rung).unwrap()
}

/// One address that leads to whichever Room runs now.
struct Door {
    address: RoomAddress,
    room: Arc<ArcSwap<SocketAddr>>,
    _task: AbortOnDropHandle<()>,
}

impl Door {
    async fn to(room: &RoomHandle) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = RoomAddress::from_socket(listener.local_addr().unwrap());
        let room = Arc::new(ArcSwap::from_pointee(socket_of(room)));
        let (to, tasks) = (Arc::clone(&room), TaskTracker::new());
        let copying = tasks.clone();
        let task = tasks.spawn(async move {
            loop {
                let (mut user, _) = listener.accept().await.unwrap();
                let to = **to.load();
                copying.spawn(async move {
                    if let Ok(mut room) = TcpStream::connect(to).await {
                        // Whichever end closes, the other one learns it from its own socket.
                        let _ = tokio::io::copy_bidirectional(&mut user, &mut room).await;
                    }
                });
            }
        });
        Self { address, room, _task: AbortOnDropHandle::new(task) }
    }
}

#[tokio::test]
async fn two_users_see_each_other_and_are_introduced() {
    let room = Room::bind(config()).await.unwrap();
    let mut foo = User::join(named("Foo", 1, room.addresses()[0].clone())).await.unwrap();
    let bar = User::join(named("Bar", 2, room.addresses()[0].clone())).await;
    let mut bar = bar.unwrap();
    assert!(!foo.joined.first_use);
    assert_eq!(foo.joined.room, room.identity());
    assert!(bar.joined.members.iter().any(|member| member.name.as_str() == "Foo"));
    let bar_name: UserName = "Bar".parse().unwrap();
    foo.until(|event| match event {
        RoomEvent::Roster(roster) => roster.joined.iter().any(|m| m.name == bar_name).then_some(()),
        _ => None,
    })
    .await;

    let peer = bar_name.clone();
    foo.client.commands().send(RoomCommand::Introduce { request: 7, peer }).await.unwrap();
    let (to_foo, to_bar) = (foo.introduced().await, bar.introduced().await);
    assert_eq!((to_foo.request, to_bar.request), (Some(7), None));
    let stated = to_foo.introduction.verify(&foo.joined.room).unwrap();
    assert_eq!(to_bar.introduction.verify(&bar.joined.room).unwrap(), stated);
    assert_eq!(stated.asker.identity, foo.joined.identity.public());
    assert_eq!(stated.asked.identity, bar.joined.identity.public());
    // They share a machine, so the Room offers loopback first and its relay last.
    assert_eq!(to_foo.rungs.first().unwrap().rung, Rung::SameHost);
    assert_eq!(to_foo.rungs.last().unwrap().rung, Rung::Relay);

    let nobody = "Nobody".parse().unwrap();
    foo.client.commands().send(RoomCommand::Introduce { request: 8, peer: nobody }).await.unwrap();
    let refusal = foo.until(|event| match event {
        RoomEvent::IntroductionRefused { request: 8, why } => Some(why),
        _ => None,
    });
    assert!(matches!(refusal.await, PairRefusal::Offline | PairRefusal::NoSuchPeer));
    bar.client.leave().await;
    foo.until(|event| match event {
        RoomEvent::Roster(roster) => roster.left.contains(&bar_name).then_some(()),
        _ => None,
    })
    .await;
    room.shutdown().await;
}

#[tokio::test]
async fn tokens_of_an_introduction_open_a_relayed_link() {
    let room = Room::bind(config()).await.unwrap();
    let mut foo = User::join(named("Foo", 1, room.addresses()[0].clone())).await.unwrap();
    let mut bar = User::join(named("Bar", 2, room.addresses()[0].clone())).await.unwrap();
    let peer = "Bar".parse().unwrap();
    foo.client.commands().send(RoomCommand::Introduce { request: 1, peer }).await.unwrap();
    let (to_foo, to_bar) = (foo.introduced().await, bar.introduced().await);
    let token = |introduced: &Introduced| offer(introduced, Rung::Relay).relay.unwrap();
    let (tokens, sockets) =
        ([token(&to_foo), token(&to_bar)], [foo.joined.room_socket, bar.joined.room_socket]);
    let (one, other) = tokio::join!(
        dial_relay(&sockets[..1], &tokens[0], LONG),
        dial_relay(&sockets[1..], &tokens[1], LONG)
    );
    let (mut one, mut other) = (one.unwrap(), other.unwrap());
    one.write_all(b"over the Room").await.unwrap();
    let mut heard = [0; 13];
    timeout(LONG, other.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"over the Room");
    // A token is good once.
    assert!(dial_relay(&sockets[..1], &tokens[0], LONG).await.is_err());
    room.shutdown().await;
}

#[tokio::test]
async fn accounts_want_their_password_and_a_taken_name_is_not_given_twice() {
    let room = Room::bind(with_account()).await.unwrap();
    let address = room.addresses()[0].clone();
    let with = |password: &str, seed| RoomOptions {
        password: Some(Secret::new(password.to_owned()).unwrap()),
        ..named("Foo", seed, address.clone())
    };
    let wrong = User::join(with("654321", 1)).await.err().unwrap();
    assert!(matches!(wrong, JoinError::Refused(LoginRefusal::Credentials)), "{wrong}");
    let mut foo = User::join(with("123456", 1)).await.unwrap();

    // Another program with the same identity: only if it asks to take over.
    let mut second = with("123456", 1);
    second.instance = InstanceId([99; 16]);
    let taken = User::join(second.clone()).await.err().unwrap();
    let in_use = JoinError::Refused(LoginRefusal::NameInUse { same_identity: true });
    assert_eq!(taken.to_string(), in_use.to_string());
    second.take_over = true;
    let second = User::join(second).await.unwrap();
    let ended = foo.refused().await;
    assert!(matches!(ended, JoinError::Ended(Closing { code: CloseCode::Replaced, .. })), "{ended}");

    second.client.leave().await;
    let other = User::join(with("123456", 2)).await.err().unwrap();
    assert!(matches!(other, JoinError::Refused(LoginRefusal::IdentityMismatch)), "{other}");
    room.shutdown().await;
}

#[tokio::test]
async fn a_restarted_room_has_its_users_back_without_their_passwords() {
    let data = tempfile::tempdir().unwrap();
    let config = || RoomConfig { data: Some(data.path().to_owned()), ..with_account() };
    let room = Room::bind(config()).await.unwrap();
    let door = Door::to(&room).await;
    let mut wanted = named("Foo", 1, door.address.clone());
    wanted.password = Some(Secret::new("123456".to_owned()).unwrap());
    let mut foo = User::join(wanted).await.unwrap();
    room.shutdown().await;
    foo.until(|event| matches!(event, RoomEvent::Lost { .. }).then_some(())).await;
    let room = Room::bind(config()).await.unwrap();
    door.room.store(Arc::new(socket_of(&room)));
    let back = foo.until(|event| match event {
        RoomEvent::Back(joined) => Some(joined),
        _ => None,
    });
    assert_eq!(back.await.room, foo.joined.room);
    let status = room.status().await.unwrap();
    assert_eq!((status.users.len(), status.totals.resumed), (1, 1));
    assert_eq!(status.totals.passwords_checked, 0, "no password is checked again");
    room.shutdown().await;
}

#[tokio::test]
async fn a_ban_ends_a_membership_and_is_called_by_its_name_at_the_door() {
    let room = Room::bind(config()).await.unwrap();
    let mut foo = User::join(named("Foo", 1, room.addresses()[0].clone())).await.unwrap();
    room.ban("127.0.0.1/32".parse().unwrap(), None).await.unwrap();
    let ended = foo.refused().await;
    assert!(matches!(ended, JoinError::Ended(Closing { code: CloseCode::Banned, .. })), "{ended}");
    let turned_away = User::join(named("Bar", 2, room.addresses()[0].clone())).await.err().unwrap();
    assert!(matches!(turned_away, JoinError::TurnedAway { .. }), "{turned_away}");
    room.shutdown().await;
}

#[tokio::test]
async fn a_rejoin_of_the_same_program_does_not_wait_for_its_old_connection() {
    let room = Room::bind(config()).await.unwrap();
    let first = User::join(named("Foo", 1, room.addresses()[0].clone())).await.unwrap();
    let again = timeout(Duration::from_secs(20), User::join(named("Foo", 1, room.addresses()[0].clone())));
    let again = again.await.unwrap().unwrap();
    assert_eq!(again.joined.identity.public(), first.joined.identity.public());
    room.shutdown().await;
}
