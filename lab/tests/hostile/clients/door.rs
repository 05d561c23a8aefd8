//! Before the first frame: what is no TLS, no Parlor, no haste.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parlor_lab::hostile::client::{read_all, socket};
use parlor_lab::hostile::ground::Ground;
use parlor_lab::hostile::outcome::Outcome::{Alert, Closed, Dropped, LoginRefused, Served};
use parlor_lab::hostile::outcome::{Cost, Outcome};
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{Hello, MAGIC, ToRoom};
use parlor_user::net::tls::client_config;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;

use super::Place::{Crowded, Open};
use super::{Place, Scene};
use crate::table::Row;

/// Between two bytes of who says one at a time.
const DRIP: Duration = Duration::from_millis(200);

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    use CloseCode::{LimitExceeded, Malformed, TimedOut, Unexpected, Version};
    let version = LoginRefused(LoginRefusal::Version { min: 1, max: 1 });
    vec![
        (
            Open,
            Row::new(
                "HTTP is spoken to the Room's port",
                |s| Box::pin(says(s, b"GET / HTTP/1.1\r\n\r\n")),
                Dropped,
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("an SSH client calls", |s| Box::pin(says(s, b"SSH-2.0-x\r\n")), Dropped)
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new("a preface comes that is for users", |s| Box::pin(says(s, &[b'L'; 64])), Dropped)
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a TLS record lies about its length",
                |s| Box::pin(says(s, &[0x16u8, 3, 1, 0xff, 0xff, 0, 0])),
                Alert(50),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a TLS record holds garbage",
                |s| Box::pin(says(s, [[0x16, 3, 1, 0, 36, 1, 0, 0, 32].as_slice(), &[0xff; 32]].concat())),
                Alert(50),
            )
            .costs(Cost::Bars),
        ),
        (Open, Row::new("TLS 1.2 is offered and no more", |s| Box::pin(says(s, tls_1_2())), Alert(70))),
        (
            Open,
            Row::new(
                "another protocol is asked for by ALPN",
                |s| Box::pin(shakes_hands(s, &[b"h2"])),
                Alert(120),
            ),
        ),
        (Open, Row::new("a connection comes and goes without a word", |s| Box::pin(leaves(s)), Dropped)),
        (
            Open,
            Row::new("a connection says nothing for 5 s", |s| Box::pin(says(s, b"")), Dropped)
                .costs(Cost::AddsUp(2)),
        ),
        (
            Open,
            Row::new(
                "a ClientHello begins and does not go on",
                |s| Box::pin(says(s, &[0x16u8, 3, 1, 2, 0])),
                Dropped,
            )
            .costs(Cost::AddsUp(2)),
        ),
        (
            Open,
            Row::new("a ClientHello comes byte by byte", |s| Box::pin(drips(s, tls_1_2())), Dropped)
                .costs(Cost::AddsUp(2)),
        ),
        (
            Open,
            Row::new(
                "TLS is shaken and nothing is said for 10 s",
                |s| Box::pin(in_tls(s, b"")),
                Closed(TimedOut),
            )
            .costs(Cost::AddsUp(2)),
        ),
        (
            Open,
            Row::new("a Hello comes byte by byte", |s| Box::pin(drips_in_tls(s)), Closed(TimedOut))
                .costs(Cost::AddsUp(2)),
        ),
        (Open, Row::new("TLS ends before anything is said", |s| Box::pin(ends_in_tls(s, b"")), Dropped)),
        (
            Open,
            Row::new("a frame is cut off", |s| Box::pin(ends_in_tls(s, &[40u8, 0, 0, 0, 1, b'P'])), Dropped),
        ),
        (
            Open,
            Row::new("a frame's length is 0", |s| Box::pin(in_tls(s, &[0u8; 4])), Closed(Malformed))
                .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a frame before login is a byte too long",
                |s| Box::pin(in_tls(s, &[1u8, 0x10, 0, 0, 1])),
                Closed(LimitExceeded),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a frame says that it is 4 GiB long",
                |s| Box::pin(in_tls(s, &[0xffu8, 0xff, 0xff, 0xff, 1])),
                Closed(LimitExceeded),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a Hello ends before its fields do",
                |s| Box::pin(in_tls(s, framed(1, &MAGIC))),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a Hello claims a text of 2^64 - 1 bytes",
                |s| Box::pin(in_tls(s, endless())),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "bytes follow the fields of a Hello",
                |s| Box::pin(in_tls(s, trailing())),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a Hello has another magic",
                |s| Box::pin(in_tls(s, framed(1, b"PARLOUR rooms"))),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a Hello's agent is longer than 64 bytes",
                |s| Box::pin(in_tls(s, ToRoom::Hello(Hello::new("a".repeat(65))).encode())),
                Closed(Malformed),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a frame is of a kind that is not known",
                |s| Box::pin(in_tls(s, framed(99, b"?"))),
                Closed(Unexpected),
            )
            .costs(Cost::Bars),
        ),
        (
            Open,
            Row::new(
                "a frame is of a kind that only Rooms send",
                |s| Box::pin(in_tls(s, framed(136, &[7]))),
                Closed(Unexpected),
            )
            .costs(Cost::Bars),
        ),
        (Open, Row::new("a Hello of a later version comes", |s| Box::pin(in_tls(s, later())), version)),
        (
            Open,
            Row::new(
                "a Hello offers versions in the wrong order",
                |s| Box::pin(in_tls(s, inverted())),
                LoginRefused(LoginRefusal::Version { min: 1, max: 1 }),
            ),
        ),
        (
            Open,
            Row::new(
                "a Hello of a later version does not wait for the answer",
                |s| Box::pin(pipelines_after_version(s)),
                Closed(Version),
            ),
        ),
        (
            Open,
            Row::new(
                "one address holds more than 8 connections that are not logged in",
                |s| Box::pin(holds_places(s)),
                Dropped,
            ),
        ),
        (Crowded, Row::new("200 connections come and go at once", |s| Box::pin(storms(s)), Served)),
    ]
}

/// A frame of this kind.
pub(super) fn framed(kind: u8, message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32 + 1).to_le_bytes(), [kind].as_slice(), message].concat()
}

fn endless() -> Vec<u8> {
    let mut fields = MAGIC.to_vec();
    fields.extend([1, 1, 0, 253]);
    fields.extend(u64::MAX.to_le_bytes());
    framed(1, &fields)
}

fn trailing() -> Vec<u8> {
    let mut frame = ToRoom::Hello(Hello::new("x")).encode();
    frame[0] += 1;
    frame.push(0);
    frame
}

fn later() -> Vec<u8> {
    ToRoom::Hello(Hello { min_version: 2, max_version: 9, ..Hello::new("later") }).encode()
}

fn inverted() -> Vec<u8> {
    ToRoom::Hello(Hello { min_version: 9, max_version: 1, ..Hello::new("inverted") }).encode()
}

/// A ClientHello without the extension by which TLS 1.3 is offered.
fn tls_1_2() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    // supported_groups: secp256r1; signature_algorithms: ecdsa_secp256r1_sha256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let handshake = [[1, 0, 0, hello.len() as u8].as_slice(), &hello].concat();
    [[0x16, 3, 1, 0, handshake.len() as u8].as_slice(), &handshake].concat()
}

pub(super) async fn plain(scene: &Scene) -> Result<TcpStream> {
    Ok(Ground::connect(scene.from, socket(&scene.room())?).await?)
}

/// What the Room answered before it hung up.
async fn end(mut stream: TcpStream) -> Result<Outcome> {
    match read_all(&mut stream).await?[..] {
        [] => Ok(Dropped),
        [0x15, 3, _, 0, 2, 2, alert] => Ok(Alert(alert)),
        ref other => bail!("the Room answers {other:?}"),
    }
}

async fn says(scene: &Scene, bytes: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    let mut stream = plain(scene).await?;
    stream.write_all(&bytes.into()).await?;
    end(stream).await
}

async fn leaves(scene: &Scene) -> Result<Outcome> {
    let mut stream = plain(scene).await?;
    stream.shutdown().await?;
    end(stream).await
}

async fn drips(scene: &Scene, bytes: Vec<u8>) -> Result<Outcome> {
    let mut stream = plain(scene).await?;
    for byte in bytes {
        if stream.write_all(&[byte]).await.is_err() {
            return Ok(Dropped);
        }
        sleep(DRIP).await;
    }
    end(stream).await
}

/// TLS with these protocols offered, and no more.
pub(super) async fn shakes_hands(scene: &Scene, protocols: &[&[u8]]) -> Result<Outcome> {
    let mut config = ClientConfig::clone(&*client_config()?);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    let shaken = connector.connect(ServerName::try_from("parlor-room")?, plain(scene).await?).await;
    let Err(error) = shaken else { return Ok(Served) };
    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => Ok(Alert((*alert).into())),
        _ => Ok(Dropped),
    }
}

async fn in_tls(scene: &Scene, bytes: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    let mut client = scene.connected().await?;
    client.send_bytes(&bytes.into()).await?;
    client.end().await
}

async fn ends_in_tls(scene: &Scene, bytes: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    let mut client = scene.connected().await?;
    client.send_bytes(&bytes.into()).await?;
    client.ends().await;
    client.end().await
}

async fn drips_in_tls(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.connected().await?;
    for byte in ToRoom::Hello(Hello::new("drip".repeat(16))).encode() {
        client.send_bytes(&[byte]).await?;
        sleep(DRIP).await;
    }
    client.end().await
}

async fn pipelines_after_version(scene: &Scene) -> Result<Outcome> {
    let mut client = scene.connected().await?;
    let login = ToRoom::Login(Box::new(scene.who(1).login(&client.exporter)?));
    client.send_bytes(&[later(), login.encode()].concat()).await?;
    match client.end().await? {
        LoginRefused(LoginRefusal::Version { .. }) => client.end().await,
        other => Ok(other),
    }
}

/// More connections than one address may hold: the last is turned away, or, from loopback, all are taken.
async fn holds_places(scene: &Scene) -> Result<Outcome> {
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(scene.connected().await?);
    }
    if !scene.ground.has_strangers() {
        return Ok(Dropped);
    }
    let last = shakes_hands(scene, &[parlor_protocol::wire::control::ALPN]).await?;
    for client in &mut held {
        client.hello().await.context("one of the 8")?;
    }
    Ok(last)
}

async fn storms(scene: &Scene) -> Result<Outcome> {
    for _ in 0..4 {
        let mut storm = Vec::new();
        for _ in 0..50 {
            storm.push(Ground::connect(scene.ground.elsewhere(), socket(&scene.room())?).await?);
        }
    }
    Ok(Served)
}
