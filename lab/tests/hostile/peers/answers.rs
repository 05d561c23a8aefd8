//! The victim dials: message 2 that proves nothing, or does not come.

use anyhow::{Result, bail};
use parlor_lab::hostile::client::{Who, who};
use parlor_lab::hostile::outcome::Outcome::{self, Dropped, NotUsed};
use parlor_lab::hostile::peer::Peer;
use parlor_protocol::identity::{NoiseCertificate, NoiseKey, Purpose};
use parlor_protocol::noise::handshake::{framed_message, framed_refusal};
use parlor_protocol::refusal::CloseCode;
use parlor_user::OpenError;
use tokio::io::AsyncWriteExt;

use super::Way::Answers;
use super::handshakes::{LOW_ORDER, end, flipped, keyed};
use super::{PeerRow, Scene, row};

pub(super) fn rows() -> Vec<PeerRow> {
    vec![
        row(
            Answers,
            "message 2 is garbage",
            |s| Box::pin(answers(s, |message| vec![0x5a; message.len()])),
            Dropped,
        ),
        row(
            Answers,
            "message 2 is longer than any may be",
            |s| Box::pin(answers(s, |_| vec![1; 4097])),
            Dropped,
        ),
        row(Answers, "message 2 has one byte", |s| Box::pin(answers(s, |_| vec![1])), Dropped),
        row(
            Answers,
            "message 2 has another bit",
            |s| Box::pin(answers(s, |message| flipped(message, 60))),
            Dropped,
        ),
        row(
            Answers,
            "message 2's key is a point of low order",
            |s| Box::pin(answers(s, |message| keyed(message, 2))),
            Dropped,
        ),
        row(Answers, "message 1 is sent back in place of message 2", |s| Box::pin(reflects(s)), Dropped),
        row(Answers, "message 2's payload is no accept", |s| Box::pin(accepts_badly(s)), Dropped),
        row(Answers, "message 2 does not come for 5 s", |s| Box::pin(never_answers(s)), Dropped),
        row(Answers, "a link is refused with a code that is not known", |s| Box::pin(refuses(s)), Dropped),
        row(
            Answers,
            "the peer's certified handshake key is a point of low order",
            |s| Box::pin(certifies_low_order(s)),
            NotUsed,
        ),
    ]
}

async fn answers(scene: &mut Scene, altered: fn(&[u8]) -> Vec<u8>) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let (mut stream, message) = scene.peer.is_dialled().await?;
    let (_, pending) = scene.peer.reads(&meeting, &message)?;
    let (message, _) = pending.reply(&scene.peer.accept().encode())?;
    let altered = altered(&message);
    let framed = [(altered.len() as u16).to_le_bytes().as_slice(), &altered].concat();
    stream.write_all(&framed).await?;
    end(stream).await
}

async fn reflects(scene: &mut Scene) -> Result<Outcome> {
    let _meeting = scene.meeting().await?;
    let (mut stream, message) = scene.peer.is_dialled().await?;
    stream.write_all(&framed_message(&message)).await?;
    end(stream).await
}

async fn accepts_badly(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let (mut stream, message) = scene.peer.is_dialled().await?;
    let (_, pending) = scene.peer.reads(&meeting, &message)?;
    let (message, _) = pending.reply(b"accept?")?;
    stream.write_all(&framed_message(&message)).await?;
    end(stream).await
}

async fn never_answers(scene: &mut Scene) -> Result<Outcome> {
    let _meeting = scene.meeting().await?;
    let (stream, _) = scene.peer.is_dialled().await?;
    end(stream).await
}

async fn refuses(scene: &mut Scene) -> Result<Outcome> {
    let _meeting = scene.meeting().await?;
    let (mut stream, _) = scene.peer.is_dialled().await?;
    stream.write_all(&framed_refusal(CloseCode::Unknown(999))).await?;
    end(stream).await
}

/// A peer whose identity certifies what is no key.
async fn certifies_low_order(scene: &mut Scene) -> Result<Outcome> {
    let honest = who(format!("{}.low", scene.name), 6);
    let key = NoiseKey(LOW_ORDER[2]);
    let signature = honest.identity().sign(Purpose::NoiseKey, &key.0);
    let low = Who { noise: Some(NoiseCertificate { key, signature }), ..honest };
    let _peer = Peer::join(&scene.room, low.clone(), true).await?;
    match scene.victim.peer(&low.name)?.connect().await {
        Err(OpenError::NoPath { tried, .. }) if tried.contains("low order") => Ok(NotUsed),
        other => bail!("{other:?}"),
    }
}
