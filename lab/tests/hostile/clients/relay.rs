//! Relayed links: tokens that are not one's own, halves that wait, bytes that are too many.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parlor_lab::hostile::client::{Client, read_all};
use parlor_lab::hostile::outcome::Cost;
use parlor_lab::hostile::outcome::Outcome::{self, Dropped, NotIntroduced, Refused, Served};
use parlor_protocol::refusal::{CloseCode, PairRefusal};
use parlor_protocol::wire::control::{Introduced, RelayToken};
use parlor_protocol::wire::preface;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Place::Open;
use super::door::plain;
use super::{Place, RELAY_PAIRS, RELAY_RATE, Scene};
use crate::table::Row;

/// A write that has not ended by then waits for somebody to read.
const STUCK: Duration = Duration::from_secs(2);

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    use CloseCode::{Introduction, TimedOut, Version};
    vec![
        (
            Open,
            Row::new(
                "a relay token is made up",
                |s| Box::pin(shows(s, preface::relay(&RelayToken([7; 32])))),
                Refused(Introduction),
            ),
        ),
        (
            Open,
            Row::new(
                "a relay preface is of a later version",
                |s| Box::pin(shows(s, &[preface::RELAY, 9, 0, 0])),
                Refused(Version),
            ),
        ),
        (Open, Row::new("a relay preface is cut off", |s| Box::pin(cuts_off(s)), Dropped)),
        (
            Open,
            Row::new(
                "a relay preface does not go on for 5 s",
                |s| Box::pin(shows(s, &[preface::RELAY, preface::VERSION, 1, 2])),
                Dropped,
            )
            .costs(Cost::AddsUp(2)),
        ),
        (
            Open,
            Row::new(
                "a relay token is shown again while its pair runs",
                |s| Box::pin(shows_again(s)),
                Refused(Introduction),
            ),
        ),
        (
            Open,
            Row::new(
                "a relay token is shown twice before the other has come",
                |s| Box::pin(shows_twice(s)),
                Refused(Introduction),
            ),
        ),
        (
            Open,
            Row::new(
                "tokens of two introductions are shown as if they were a pair's",
                |s| Box::pin(crosses(s)),
                Refused(TimedOut),
            ),
        ),
        (
            Open,
            Row::new(
                "a relay token's other half never comes",
                |s| Box::pin(waits_in_vain(s)),
                Refused(TimedOut),
            ),
        ),
        (
            Open,
            Row::new(
                "data follows a relay token before the other half has come",
                |s| Box::pin(talks_early(s)),
                Served,
            ),
        ),
        (
            Open,
            Row::new(
                "a relay token is shown after its user has left",
                |s| Box::pin(shows_after_leaving(s)),
                Refused(TimedOut),
            ),
        ),
        (
            Open,
            Row::new(
                "a user has more pairs relayed than it may",
                |s| Box::pin(wants_more_pairs(s)),
                NotIntroduced(PairRefusal::NoPath),
            ),
        ),
        (
            Open,
            Row::new(
                "a user hoards relay tokens",
                |s| Box::pin(hoards(s)),
                NotIntroduced(PairRefusal::NoPath),
            ),
        ),
        (
            Open,
            Row::new(
                "a user has more bytes relayed than it may: they wait",
                |s| Box::pin(sends_much(s)),
                Served,
            ),
        ),
        (
            Open,
            Row::new(
                "one end of a relayed link never reads: the other waits",
                |s| Box::pin(never_reads(s)),
                Served,
            ),
        ),
        (Open, Row::new("one end of a relayed link vanishes", |s| Box::pin(vanishes(s)), Dropped)),
    ]
}

async fn told(mut stream: TcpStream) -> Result<Outcome> {
    match read_all(&mut stream).await?[..] {
        [] => Ok(Dropped),
        [preface::RELAY_REFUSED, low, high] => Ok(Refused(u16::from_le_bytes([low, high]).into())),
        ref other => bail!("the Room answers {other:?}"),
    }
}

async fn linked(scene: &Scene, token: &RelayToken) -> Result<TcpStream> {
    let mut stream = plain(scene).await?;
    stream.write_all(&preface::relay(token)).await?;
    Ok(stream)
}

async fn shows(scene: &Scene, bytes: impl AsRef<[u8]> + Send) -> Result<Outcome> {
    let mut stream = plain(scene).await?;
    stream.write_all(bytes.as_ref()).await?;
    told(stream).await
}

async fn cuts_off(scene: &Scene) -> Result<Outcome> {
    let mut stream = plain(scene).await?;
    stream.write_all(&preface::relay(&RelayToken([7; 32]))[..20]).await?;
    stream.shutdown().await?;
    told(stream).await
}

/// Two users and the tokens that an introduction gave them.
struct Two {
    asker: Client,
    asked: Client,
    name: String,
    tokens: [RelayToken; 2],
}

fn token(introduced: &Introduced) -> Result<RelayToken> {
    introduced.rungs.iter().find_map(|offer| offer.relay).context("no relay is offered")
}

impl Two {
    async fn meet(scene: &Scene) -> Result<Self> {
        let ((mut asker, _), (mut asked, who)) = (scene.joined(1).await?, scene.joined(2).await?);
        let tokens = introduce(&mut asker, &mut asked, &who.name, 1).await?;
        Ok(Self { asker, asked, name: who.name, tokens })
    }

    async fn again(&mut self, request: u32) -> Result<[RelayToken; 2]> {
        introduce(&mut self.asker, &mut self.asked, &self.name, request).await
    }
}

async fn introduce(
    asker: &mut Client,
    asked: &mut Client,
    name: &str,
    request: u32,
) -> Result<[RelayToken; 2]> {
    asker.asks_for(request, name).await?;
    let first = asker.answer(request).await?.ok().context("not introduced")?;
    Ok([token(&first)?, token(&asked.introduced().await?)?])
}

/// Two links that are one.
async fn spliced(scene: &Scene, tokens: [RelayToken; 2]) -> Result<(TcpStream, TcpStream)> {
    let (mut one, mut other) = (linked(scene, &tokens[0]).await?, linked(scene, &tokens[1]).await?);
    let ready = [one.read_u8().await?, other.read_u8().await?];
    ensure!(ready == [preface::RELAY_READY; 2], "not ready: {ready:?}");
    Ok((one, other))
}

async fn shows_again(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    let _running = spliced(scene, two.tokens).await?;
    told(linked(scene, &two.tokens[0]).await?).await
}

async fn shows_twice(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    let mut first = linked(scene, &two.tokens[0]).await?;
    // The two links race for the hub; whichever is second is refused.
    let mut second = linked(scene, &two.tokens[0]).await?;
    let refused = tokio::select! {
        byte = first.read_u8() => { ensure!(byte? == preface::RELAY_REFUSED); first.read_u16_le().await? }
        byte = second.read_u8() => { ensure!(byte? == preface::RELAY_REFUSED); second.read_u16_le().await? }
    };
    Ok(Refused(refused.into()))
}

async fn crosses(scene: &Scene) -> Result<Outcome> {
    let mut two = Two::meet(scene).await?;
    let others = two.again(2).await?;
    let _one = linked(scene, &two.tokens[0]).await?;
    told(linked(scene, &others[1]).await?).await
}

async fn waits_in_vain(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    told(linked(scene, &two.tokens[0]).await?).await
}

async fn talks_early(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    let mut one = linked(scene, &two.tokens[0]).await?;
    one.write_all(b"early").await?;
    let mut other = linked(scene, &two.tokens[1]).await?;
    let mut heard = [0; 6];
    other.read_exact(&mut heard).await?;
    ensure!(heard == *b"\x01early", "the other half hears {heard:?}");
    Ok(Served)
}

async fn shows_after_leaving(scene: &Scene) -> Result<Outcome> {
    let mut two = Two::meet(scene).await?;
    let bye = parlor_protocol::wire::control::ToRoom::Bye(CloseCode::Done);
    two.asker.send(&bye).await?;
    two.asker.end().await?;
    told(linked(scene, &two.tokens[0]).await?).await
}

async fn wants_more_pairs(scene: &Scene) -> Result<Outcome> {
    let mut two = Two::meet(scene).await?;
    let mut running = vec![spliced(scene, two.tokens).await?];
    for request in 2..=RELAY_PAIRS as u32 {
        let tokens = two.again(request).await?;
        running.push(spliced(scene, tokens).await?);
    }
    two.asker.asks_for(9, &two.name).await?;
    Ok(two.asker.answer(9).await?.err().unwrap_or(Served))
}

async fn hoards(scene: &Scene) -> Result<Outcome> {
    let mut two = Two::meet(scene).await?;
    for request in 2..100 {
        two.asker.asks_for(request, &two.name).await?;
        if let Err(refused) = two.asker.answer(request).await? {
            return Ok(refused);
        }
    }
    Ok(Served)
}

async fn sends_much(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    let (mut one, mut other) = spliced(scene, two.tokens).await?;
    // The first part of it leaves at once, the rest at the rate.
    let bytes = vec![7; RELAY_RATE as usize * 4];
    let began = Instant::now();
    let mut heard = vec![0; bytes.len()];
    let (sent, read) = tokio::join!(one.write_all(&bytes), other.read_exact(&mut heard));
    sent?;
    read?;
    let took = began.elapsed();
    ensure!(heard == bytes, "what came is not what was sent");
    ensure!(took > Duration::from_secs(2), "four times the quota passed in {took:?}");
    Ok(Served)
}

async fn never_reads(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    let (mut one, _other) = spliced(scene, two.tokens).await?;
    let bytes = vec![7; 64 * 1024 * 1024];
    let sent = timeout(STUCK, one.write_all(&bytes)).await;
    ensure!(sent.is_err(), "64 MiB went somewhere");
    Ok(Served)
}

async fn vanishes(scene: &Scene) -> Result<Outcome> {
    let two = Two::meet(scene).await?;
    let (one, other) = spliced(scene, two.tokens).await?;
    drop(one);
    told(other).await
}
