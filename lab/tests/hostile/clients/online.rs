//! After Welcome: floods, bans, and what only Rooms may say.

use anyhow::{Result, ensure};
use parlor_lab::hostile::client::{Client, Who};
use parlor_lab::hostile::outcome::Cost;
use parlor_lab::hostile::outcome::Outcome::{self, Closed, Dropped, NotIntroduced, Served};
use parlor_protocol::refusal::{CloseCode, PairRefusal};
use parlor_protocol::wire::control::{Hello, RelayToken, ToRoom};
use parlor_protocol::wire::preface;
use parlor_room::admin::{AdminRequest, AdminResponse};
use parlor_room::password::PasswordHash;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Place::{Accounts, Crowded, Open};
use super::door::framed;
use super::{PASSWORD, Place, Scene};
use crate::table::Row;

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    use CloseCode::{Banned, Done, LimitExceeded, Malformed, Removed, Unexpected};
    let busy = || NotIntroduced(PairRefusal::Busy { retry_after_ms: 0 });
    vec![
        (
            Open,
            Row::new(
                "a second Login comes after Welcome",
                |s| Box::pin(logs_in_again(s)),
                Closed(Unexpected),
            ),
        ),
        (
            Open,
            Row::new(
                "a Hello comes after Welcome",
                |s| Box::pin(says(s, ToRoom::Hello(Hello::new("x")).encode())),
                Closed(Unexpected),
            ),
        ),
        (
            Open,
            Row::new(
                "a frame after Welcome is a byte too long",
                |s| Box::pin(says(s, [1, 0, 1, 0, 5])),
                Closed(LimitExceeded),
            ),
        ),
        (
            Open,
            Row::new(
                "a frame after Welcome says that it is 4 GiB long",
                |s| Box::pin(says(s, [0xff; 5])),
                Closed(LimitExceeded),
            ),
        ),
        (
            Open,
            Row::new("a frame after Welcome has no bytes", |s| Box::pin(says(s, [0; 4])), Closed(Malformed)),
        ),
        (
            Open,
            Row::new(
                "a frame after Welcome is of a kind that is not known",
                |s| Box::pin(says(s, framed(0, b""))),
                Closed(Unexpected),
            ),
        ),
        (
            Open,
            Row::new(
                "a user says Introduced as if it were the Room",
                |s| Box::pin(says(s, framed(133, &[0; 64]))),
                Closed(Unexpected),
            ),
        ),
        (
            Open,
            Row::new(
                "a user says Closing as if it were the Room",
                |s| Box::pin(says(s, framed(138, &[3, 0]))),
                Closed(Unexpected),
            ),
        ),
        (
            Open,
            Row::new(
                "bytes follow the number of a Ping",
                |s| Box::pin(says(s, framed(5, &[1, 2]))),
                Closed(Malformed),
            ),
        ),
        (
            Open,
            Row::new(
                "a Pong comes that nobody asked for",
                |s| Box::pin(says(s, ToRoom::Pong(77).encode())),
                Served,
            ),
        ),
        (Open, Row::new("a user goes on talking after its Bye", |s| Box::pin(talks_on(s)), Closed(Done))),
        (
            Open,
            Row::new(
                "a user asks to be introduced to itself",
                |s| Box::pin(asks_for_itself(s)),
                NotIntroduced(PairRefusal::Yourself),
            ),
        ),
        (
            Open,
            Row::new(
                "a user asks for who is not there",
                |s| Box::pin(asks_for_nobody(s)),
                NotIntroduced(PairRefusal::Offline),
            ),
        ),
        (
            Accounts,
            Row::new(
                "a user asks for who has no account",
                |s| Box::pin(asks_for_no_account(s)),
                NotIntroduced(PairRefusal::NoSuchPeer),
            ),
        ),
        (
            Open,
            Row::new(
                "a user asks for a name that is none",
                |s| Box::pin(says(s, framed(4, b"\x01\x04\x1b[2J"))),
                Closed(Malformed),
            ),
        ),
        (Crowded, Row::new("a user asks for 2,000 introductions at once", |s| Box::pin(asks_on(s)), busy())),
        (
            Open,
            Row::new(
                "a user says 20,000 Pings and reads nothing meanwhile",
                |s| Box::pin(pings_on(s)),
                Served,
            ),
        ),
        (
            Open,
            Row::new("a user's address is banned while it is in", |s| Box::pin(is_banned(s)), Closed(Banned))
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("a banned address shows a relay token", |s| Box::pin(relays_banned(s)), Dropped)
                .costs(Cost::Bars),
        ),
        (
            Accounts,
            Row::new(
                "a user's account is removed while it is in",
                |s| Box::pin(is_removed(s)),
                Closed(Removed),
            ),
        ),
    ]
}

/// Says this once it is in.
pub(super) async fn says(scene: &Scene, bytes: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    let (mut client, _) = scene.joined(1).await?;
    client.send_bytes(&bytes.into()).await?;
    client.verdict().await
}

async fn logs_in_again(scene: &Scene) -> Result<Outcome> {
    let (mut client, who) = scene.joined(1).await?;
    let login = who.login(&client.exporter)?;
    client.send(&ToRoom::Login(Box::new(login))).await?;
    client.verdict().await
}

async fn talks_on(scene: &Scene) -> Result<Outcome> {
    let (mut client, _) = scene.joined(1).await?;
    let bye = ToRoom::Bye(CloseCode::Done).encode();
    client.send_bytes(&[bye, ToRoom::Ping(1).encode(), framed(99, b"")].concat()).await?;
    client.end().await
}

async fn asks(scene: &Scene, peer: &str) -> Result<Outcome> {
    let (mut client, _) = scene.joined(1).await?;
    client.asks_for(1, peer).await?;
    Ok(client.answer(1).await?.err().unwrap_or(Served))
}

async fn asks_for_itself(scene: &Scene) -> Result<Outcome> {
    asks(scene, &scene.who(1).name.to_uppercase()).await
}

async fn asks_for_nobody(scene: &Scene) -> Result<Outcome> {
    asks(scene, "nobody-at-all").await
}

async fn asks_for_no_account(scene: &Scene) -> Result<Outcome> {
    let who = Who { name: scene.account(), ..scene.who(1).password(PASSWORD)? };
    let (mut client, _) = Client::joined(scene.from, &scene.room(), &who).await?;
    client.asks_for(1, "nobody-at-all").await?;
    Ok(client.answer(1).await?.err().unwrap_or(Served))
}

async fn asks_on(scene: &Scene) -> Result<Outcome> {
    let (mut client, _) = scene.joined(1).await?;
    for request in 0..2_000 {
        client.asks_for(request, "nobody-at-all").await?;
    }
    for request in 0..2_000 {
        match client.answer(request).await? {
            Err(NotIntroduced(PairRefusal::Offline)) => {}
            Err(other) => return Ok(other),
            Ok(_) => return Ok(Served),
        }
    }
    Ok(Served)
}

async fn pings_on(scene: &Scene) -> Result<Outcome> {
    let (mut client, _) = scene.joined(1).await?;
    let pings: Vec<u8> = (0..20_000).flat_map(|nonce| ToRoom::Ping(nonce).encode()).collect();
    client.send_bytes(&pings).await?;
    client.verdict().await
}

async fn is_banned(scene: &Scene) -> Result<Outcome> {
    let (mut client, _) = scene.joined(1).await?;
    scene.venue.room.ban(scene.from.into(), None).await?;
    client.end().await
}

async fn relays_banned(scene: &Scene) -> Result<Outcome> {
    scene.venue.room.ban(scene.from.into(), None).await?;
    let mut stream = super::door::plain(scene).await?;
    stream.write_all(&preface::relay(&RelayToken([1; 32]))).await?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    ensure!(answer.is_empty(), "the Room answers {answer:?}");
    Ok(Dropped)
}

async fn is_removed(scene: &Scene) -> Result<Outcome> {
    let room = &scene.venue.room;
    let name = format!("removed{}", scene.number);
    let (parsed, hash) = (name.parse()?, super::HASH.parse::<PasswordHash>()?);
    ensure!(room.admin(AdminRequest::UserAdd { name: parsed, hash }).await == AdminResponse::Done);
    let who = Who { name: name.clone(), ..scene.who(1).password(PASSWORD)? };
    let (mut client, _) = Client::joined(scene.from, &scene.room(), &who).await?;
    ensure!(room.admin(AdminRequest::UserRemove { name: name.parse()? }).await == AdminResponse::Done);
    client.end().await
}
