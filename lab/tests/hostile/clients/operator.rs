//! The operator's socket, in the hands of a program that is no operator's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::outcome::Outcome::{self, Dropped, NotDone, Served};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Place::Open;
use super::{Place, Scene};
use crate::table::Row;

/// For the Room to answer, its own deadlines included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is told of a line that is no request.
const NOT_UNDERSTOOD: &str = "the request is not understood: ";

pub(super) fn rows() -> Vec<(Place, Row<Scene>)> {
    let row = |name, does, outcome| (Open, Row::new(name, does, outcome));
    vec![
        row(
            "an operator's line has no end",
            |s| Box::pin(fails(s, vec![b' '; 70_000], "longer than 65536 bytes")),
            NotDone,
        ),
        row(
            "an operator's line is cut off",
            |s| Box::pin(fails(s, "{\"request\":\"status\"}", "ends before its line does")),
            NotDone,
        ),
        row("an operator's line is no JSON", |s| Box::pin(fails(s, "shutdown\n", NOT_UNDERSTOOD)), NotDone),
        row(
            "an operator's line is no text",
            |s| Box::pin(fails(s, b"\xff\xfe\0\x01\n", NOT_UNDERSTOOD)),
            NotDone,
        ),
        row(
            "an operator's line nests 60,000 deep",
            |s| Box::pin(fails(s, nested(), NOT_UNDERSTOOD)),
            NotDone,
        ),
        row(
            "an operator asks for what is not known",
            |s| Box::pin(fails(s, "{\"request\":\"stop\"}\n", "unknown variant `stop`")),
            NotDone,
        ),
        row(
            "an operator's request has a field too many",
            |s| {
                let request = "{\"request\":\"user-remove\",\"name\":\"Foo\",\"force\":true}\n";
                Box::pin(fails(s, request, "unknown field `force`"))
            },
            NotDone,
        ),
        row(
            "an operator makes an account with a name that is none",
            |s| Box::pin(fails(s, account("\\u001b[31m", super::HASH), NOT_UNDERSTOOD)),
            NotDone,
        ),
        row(
            "an operator makes an account with a hash of cost 4",
            |s| Box::pin(fails(s, account("Baz", &super::HASH.replace("$10$", "$04$")), "bcrypt cost 4 ")),
            NotDone,
        ),
        row(
            "an operator makes an account with a hash of cost 31",
            |s| Box::pin(fails(s, account("Baz", &super::HASH.replace("$10$", "$31$")), "bcrypt cost 31 ")),
            NotDone,
        ),
        row(
            "an operator bans what is no network",
            |s| {
                let request = "{\"request\":\"ban-add\",\"net\":\"10.0.0.0/99\",\"seconds\":1}\n";
                Box::pin(fails(s, request, NOT_UNDERSTOOD))
            },
            NotDone,
        ),
        row("an operator says nothing for 5 s", |s| Box::pin(is_silent(s)), Dropped),
        row("an operator asks without end and reads nothing", |s| Box::pin(never_reads(s)), Dropped),
        row(
            "an operator holds all 8 connections: the next one waits for them to end",
            |s| Box::pin(holds_all(s)),
            Served,
        ),
    ]
}

fn nested() -> Vec<u8> {
    [vec![b'['; 60_000], b"\n".to_vec()].concat()
}

fn account(name: &str, hash: &str) -> String {
    format!("{{\"request\":\"user-add\",\"name\":\"{name}\",\"hash\":\"{hash}\"}}\n")
}

async fn connect(scene: &Scene) -> Result<UnixStream> {
    UnixStream::connect(scene.data.join("admin.sock")).await.context("the admin socket")
}

/// The first line of the Room's answer. `None`: it hung up without one.
async fn answer(mut stream: UnixStream) -> Result<Option<serde_json::Value>> {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.context("no end")?;
    let first = answer.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(if first.is_empty() { None } else { Some(serde_json::from_slice(first)?) })
}

async fn asks(scene: &Scene, line: &[u8]) -> Result<Option<serde_json::Value>> {
    let mut stream = connect(scene).await?;
    let _ = stream.write_all(line).await;
    let _ = stream.shutdown().await;
    answer(stream).await
}

/// A line that the Room does not act on, and part of its reason: it has others, such as that there is no such account.
async fn fails(scene: &Scene, line: impl AsRef<[u8]> + Send, why: &str) -> Result<Outcome> {
    let answered = asks(scene, line.as_ref()).await?.context("the Room does not answer")?;
    if answered["answer"] != "failed" {
        return Ok(Served);
    }
    let sentence = answered["sentence"].as_str().unwrap_or_default();
    ensure!(sentence.contains(why), "not done because {sentence:?}");
    Ok(NotDone)
}

async fn is_silent(scene: &Scene) -> Result<Outcome> {
    let answered = answer(connect(scene).await?).await?;
    ensure!(answered.is_none(), "the Room answers {answered:?}");
    Ok(Dropped)
}

async fn never_reads(scene: &Scene) -> Result<Outcome> {
    let mut stream = connect(scene).await?;
    let lines = b"{\"request\":\"user-list\"}\n".repeat(1000);
    let asks = async { while stream.write_all(&lines).await.is_ok() {} };
    timeout(PATIENCE, asks).await.context("the Room reads on without being read")?;
    Ok(Dropped)
}

/// The ninth is answered when the Room has given up one of those that say nothing, and not before.
async fn holds_all(scene: &Scene) -> Result<Outcome> {
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(connect(scene).await?);
    }
    let answered = asks(scene, b"{\"request\":\"status\"}\n").await?.context("the ninth is not answered")?;
    ensure!(answered["answer"] == "status", "the Room answers {answered}");
    let ended = held.iter().filter(|stream| matches!(stream.try_read(&mut [0]), Ok(0))).count();
    ensure!(ended > 0, "all 8 are held still");
    Ok(Served)
}
