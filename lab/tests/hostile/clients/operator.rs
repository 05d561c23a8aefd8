//! The operator's socket, in the hands of a program that is no operator's.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parlor_lab::hostile::outcome::Outcome::{self, Dropped, NotDone, Served};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Place::Open;
use super::{Place, Scene};
use crate::table::Row;

/// For the Room to answer, its own deadlines included.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    vec![
        (Open, Row::new("an operator's line has no end", |s| Box::pin(asks(s, vec![b' '; 70_000])), NotDone)),
        (
            Open,
            Row::new(
                "an operator's line is cut off",
                |s| Box::pin(asks(s, b"{\"request\":\"status\"}".to_vec())),
                NotDone,
            ),
        ),
        (
            Open,
            Row::new("an operator's line is no JSON", |s| Box::pin(asks(s, b"shutdown\n".to_vec())), NotDone),
        ),
        (
            Open,
            Row::new(
                "an operator's line is no text",
                |s| Box::pin(asks(s, b"\xff\xfe\0\x01\n".to_vec())),
                NotDone,
            ),
        ),
        (Open, Row::new("an operator's line nests 60,000 deep", |s| Box::pin(asks(s, nested())), NotDone)),
        (
            Open,
            Row::new(
                "an operator asks for what is not known",
                |s| Box::pin(asks(s, b"{\"request\":\"stop\"}\n".to_vec())),
                NotDone,
            ),
        ),
        (
            Open,
            Row::new(
                "an operator's request has a field too many",
                |s| {
                    Box::pin(asks(
                        s,
                        b"{\"request\":\"user-remove\",\"name\":\"Foo\",\"force\":true}\n".to_vec(),
                    ))
                },
                NotDone,
            ),
        ),
        (
            Open,
            Row::new(
                "an operator makes an account with a name that is none",
                |s| Box::pin(asks(s, account("\\u001b[31m", super::HASH))),
                NotDone,
            ),
        ),
        (
            Open,
            Row::new(
                "an operator makes an account with a hash of cost 4",
                |s| Box::pin(asks(s, account("Baz", &super::HASH.replace("$10$", "$04$")))),
                NotDone,
            ),
        ),
        (
            Open,
            Row::new(
                "an operator makes an account with a hash of cost 31",
                |s| Box::pin(asks(s, account("Baz", &super::HASH.replace("$10$", "$31$")))),
                NotDone,
            ),
        ),
        (
            Open,
            Row::new(
                "an operator bans what is no network",
                |s| {
                    Box::pin(asks(
                        s,
                        b"{\"request\":\"ban-add\",\"net\":\"10.0.0.0/99\",\"seconds\":1}\n".to_vec(),
                    ))
                },
                NotDone,
            ),
        ),
        (Open, Row::new("an operator says nothing for 5 s", |s| Box::pin(is_silent(s)), Dropped)),
        (
            Open,
            Row::new("an operator asks without end and reads nothing", |s| Box::pin(never_reads(s)), Dropped),
        ),
        (
            Open,
            Row::new(
                "an operator holds all 8 connections: the next one waits for them to end",
                |s| Box::pin(holds_all(s)),
                Served,
            ),
        ),
    ]
}

fn nested() -> Vec<u8> {
    [vec![b'['; 60_000], b"\n".to_vec()].concat()
}

fn account(name: &str, hash: &str) -> Vec<u8> {
    format!("{{\"request\":\"user-add\",\"name\":\"{name}\",\"hash\":\"{hash}\"}}\n").into_bytes()
}

async fn connect(scene: &Scene) -> Result<UnixStream> {
    UnixStream::connect(scene.data.join("admin.sock")).await.context("the admin socket")
}

async fn answer(mut stream: UnixStream) -> Result<Outcome> {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("no end")?;
    let first = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first.is_empty() {
        return Ok(Dropped);
    }
    let answered: serde_json::Value = serde_json::from_slice(first)?;
    match answered["answer"].as_str() {
        Some("failed") => Ok(NotDone),
        Some(_) => Ok(Served),
        None => bail!("the Room answers {answered}"),
    }
}

async fn asks(scene: &Scene, line: Vec<u8>) -> Result<Outcome> {
    let mut stream = connect(scene).await?;
    let _ = stream.write_all(&line).await;
    let _ = stream.shutdown().await;
    answer(stream).await
}

async fn is_silent(scene: &Scene) -> Result<Outcome> {
    answer(connect(scene).await?).await
}

async fn never_reads(scene: &Scene) -> Result<Outcome> {
    let mut stream = connect(scene).await?;
    let lines = b"{\"request\":\"user-list\"}\n".repeat(1000);
    let asks = async { while stream.write_all(&lines).await.is_ok() {} };
    timeout(PATIENCE, asks).await.context("the Room reads on without being read")?;
    Ok(Dropped)
}

async fn holds_all(scene: &Scene) -> Result<Outcome> {
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(connect(scene).await?);
    }
    let status = asks(scene, b"{\"request\":\"status\"}\n".to_vec()).await?;
    ensure!(!held.is_empty());
    Ok(status)
}
