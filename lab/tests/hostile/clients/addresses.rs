//! What a user says of where it is: addresses that are no one's own, or a stranger's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::client::{Client, Who};
use parlor_lab::hostile::outcome::Outcome::{self, Closed, Served, Withheld};
use parlor_protocol::presence::Presence;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{ToRoom, ToUser};
use parlor_protocol::wire::preface;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Place::Open;
use super::door::framed;
use super::online::says;
use super::{Place, Scene};
use crate::table::Row;

/// A port that users say they listen on.
const PORT: u16 = 4000;
/// For a Room to check an address, twice.
const CHECKS: Duration = Duration::from_secs(3);

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    use CloseCode::{LimitExceeded, Malformed};
    vec![
        (
            Open,
            Row::new(
                "a user announces 17 addresses",
                |s| Box::pin(announces(s, vec![IpAddr::from([10, 0, 0, 1]); 17])),
                Closed(LimitExceeded),
            ),
        ),
        (
            Open,
            Row::new(
                "a user's LAN has a name of 65 bytes",
                |s| Box::pin(is_in_lan(s, &[b'x'; 65])),
                Closed(Malformed),
            ),
        ),
        (
            Open,
            Row::new(
                "a user's LAN has a name with an escape sequence",
                |s| Box::pin(is_in_lan(s, b"\x1b]0;owned\x07")),
                Closed(Malformed),
            ),
        ),
        (
            Open,
            Row::new(
                "a user announces loopback",
                |s| Box::pin(is_told(s, &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user announces what is no address of one machine",
                |s| {
                    Box::pin(is_told(
                        s,
                        &["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "0.1.2.3"],
                    ))
                },
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user announces a link-local v6 address",
                |s| Box::pin(is_told(s, &["fe80::1"])),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user announces a stranger's public addresses as its own in the LAN",
                |s| Box::pin(is_told(s, &["198.51.100.7", "2001:db8::7", "::ffff:198.51.100.7"])),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user announces addresses without a port",
                |s| Box::pin(is_told_without_port(s)),
                Withheld,
            ),
        ),
        (Open, Row::new("a user announces a banned address", |s| Box::pin(is_told_banned(s)), Withheld)),
        (
            Open,
            Row::new(
                "a user declares loopback as its public address",
                |s| Box::pin(declares(s, [127, 0, 0, 1].into())),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user declares a multicast address as its public one",
                |s| Box::pin(declares(s, [224, 0, 0, 251].into())),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user declares another v6 network's address as its public one",
                |s| Box::pin(declares(s, Ipv6Addr::LOCALHOST.into())),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user declares a stranger's address, and the stranger says nothing",
                |s| Box::pin(aims_at_stranger(s, None)),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user declares a stranger's address, and the stranger repeats what it is asked",
                |s| Box::pin(aims_at_stranger(s, Some(Answers::Echo))),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user declares a stranger's address, and the stranger answers with chance",
                |s| Box::pin(aims_at_stranger(s, Some(Answers::Chance))),
                Withheld,
            ),
        ),
        (
            Open,
            Row::new(
                "a user declares another port 50 times to have a stranger knocked at",
                |s| Box::pin(knocks(s)),
                Served,
            ),
        ),
    ]
}

async fn announces(scene: &Scene, private: Vec<IpAddr>) -> Result<Outcome> {
    let presence = Presence { private, ..scene.who(1).presence };
    says(scene, ToRoom::Presence(presence).encode()).await
}

async fn is_in_lan(scene: &Scene, name: &'static [u8]) -> Result<Outcome> {
    let mut presence = framed(3, &[1; 16]);
    presence.push(name.len() as u8);
    presence.extend(name);
    presence.extend([0, 0, 0, 0, 0]);
    let length = (presence.len() - 4) as u32;
    presence[..4].copy_from_slice(&length.to_le_bytes());
    says(scene, presence).await
}

/// A user that says it can be reached so, and what somebody else is told to dial.
async fn handed_out(scene: &Scene, presence: Presence) -> Result<Vec<SocketAddr>> {
    let who = Who { presence, ..scene.who(1) };
    let (mut user, _) = Client::joined(scene.from, &scene.room(), &who).await?;
    // What the Room checks it tells the user of.
    if who.presence.public.is_some() {
        let told = async {
            while !matches!(user.next().await?, None | Some(ToUser::Reachable(_))) {}
            anyhow::Ok(())
        };
        timeout(CHECKS, told).await.unwrap_or(Ok(()))?;
    }
    let (mut asker, _) = Client::joined(scene.ground.elsewhere(), &scene.room(), &scene.who(2)).await?;
    asker.asks_for(1, &who.name).await?;
    let introduced = asker.answer(1).await?.ok().context("not introduced")?;
    Ok(introduced.rungs.into_iter().flat_map(|offer| offer.dial).collect())
}

/// What somebody else is told of a user that says, besides, an address at which it may well be.
async fn told_besides(scene: &Scene, mut presence: Presence) -> Result<Outcome> {
    let its_own = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 9), presence.port));
    presence.private.push(its_own.ip());
    let dialled = handed_out(scene, presence).await?;
    ensure!(dialled.contains(&its_own), "not even its own address is told: {dialled:?}");
    Ok(if dialled == [its_own] { Withheld } else { Served })
}

async fn is_told(scene: &Scene, private: &[&str]) -> Result<Outcome> {
    let private = private.iter().map(|ip| Ok(ip.parse()?)).collect::<Result<_>>()?;
    told_besides(scene, Presence { private, port: PORT, ..scene.who(1).presence }).await
}

async fn is_told_without_port(scene: &Scene) -> Result<Outcome> {
    let presence = Presence { private: vec![[10, 0, 0, 9].into()], port: 0, ..scene.who(1).presence };
    Ok(if handed_out(scene, presence).await?.is_empty() { Withheld } else { Served })
}

async fn is_told_banned(scene: &Scene) -> Result<Outcome> {
    scene.venue.room.ban("10.66.6.0/24".parse()?, None).await?;
    is_told(scene, &["10.66.6.7", "::ffff:10.66.6.8"]).await
}

async fn declares(scene: &Scene, public: IpAddr) -> Result<Outcome> {
    let presence = Presence { public: Some(public), private: vec![], port: PORT, ..scene.who(1).presence };
    told_besides(scene, presence).await
}

/// How a stranger answers a Room that knocks.
#[derive(Debug, Clone, Copy)]
enum Answers {
    Echo,
    Chance,
}

/// A listener that has nothing to do with Parlor, and how often it was knocked at.
struct Stranger {
    address: SocketAddr,
    knocks: Arc<AtomicUsize>,
    _serves: JoinSet<()>,
}

impl Stranger {
    async fn at(ip: IpAddr, answers: Option<Answers>) -> Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let (address, knocks) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let mut serves = JoinSet::new();
        let counted = Arc::clone(&knocks);
        serves.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut asked = [0; preface::CHECK_BYTES];
                if stream.read_exact(&mut asked).await.is_ok() {
                    let _ = match answers {
                        Some(Answers::Echo) => stream.write_all(&asked[2..]).await,
                        Some(Answers::Chance) => stream.write_all(&[4; 32]).await,
                        None => Ok(()),
                    };
                }
            }
        });
        Ok(Self { address, knocks, _serves: serves })
    }
}

async fn aims_at_stranger(scene: &Scene, answers: Option<Answers>) -> Result<Outcome> {
    let stranger = Stranger::at(scene.ground.elsewhere(), answers).await?;
    let (public, port) = (Some(stranger.address.ip()), stranger.address.port());
    let presence = Presence { public, private: vec![], port, ..scene.who(1).presence };
    let found = told_besides(scene, presence).await?;
    if scene.ground.has_strangers() {
        ensure!(stranger.knocks.load(Ordering::Relaxed) > 0, "the Room did not check");
    }
    Ok(found)
}

async fn knocks(scene: &Scene) -> Result<Outcome> {
    let stranger = Stranger::at(scene.ground.elsewhere(), None).await?;
    let (mut client, who) = scene.joined(1).await?;
    for n in 0..50 {
        let port = if n % 2 == 0 { stranger.address.port() } else { PORT };
        let public = Some(stranger.address.ip());
        client.send(&ToRoom::Presence(Presence { public, port, ..who.presence.clone() })).await?;
    }
    let verdict = client.verdict().await?;
    sleep(CHECKS).await;
    let knocks = stranger.knocks.load(Ordering::Relaxed);
    ensure!(knocks <= 8, "a stranger was knocked at {knocks} times");
    Ok(verdict)
}
