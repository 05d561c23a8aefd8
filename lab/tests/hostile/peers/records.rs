//! Records that are not what was sealed, or not for this link, or not now.

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::link::{Link, message, numbered, record, text};
use parlor_lab::hostile::outcome::Outcome::{self, Closed, Dropped, Served};
use parlor_protocol::noise::records::LENGTH_BYTES;
use parlor_protocol::refusal::CloseCode::Unexpected;
use parlor_protocol::wire::peer::kind;

use super::Way::{Both, Dials};
use super::{PeerRow, Scene, delivering, row};

const BEFORE: &[&str] = &["before"];

pub(super) fn rows() -> Vec<PeerRow> {
    let before = |row| delivering(BEFORE, row);
    vec![
        before(row(Both, "a record's length is 0", |s| Box::pin(writes(s, [0, 0])), Dropped)),
        before(row(
            Both,
            "a record is shorter than its tag",
            |s| Box::pin(writes(s, [15, 0, 1, 2, 3])),
            Dropped,
        )),
        before(row(
            Both,
            "a record is a tag and nothing else",
            |s| Box::pin(writes(s, [[16, 0].as_slice(), &[7; 16]].concat())),
            Dropped,
        )),
        before(row(
            Both,
            "a record is as long as can be, and garbage",
            |s| Box::pin(writes(s, vec![0xff; 65_537])),
            Dropped,
        )),
        before(row(Both, "a record's first bit is another", |s| Box::pin(flips(s, Place::First)), Dropped)),
        before(row(
            Both,
            "a record's bit in the middle is another",
            |s| Box::pin(flips(s, Place::Middle)),
            Dropped,
        )),
        before(row(Both, "a record's last bit is another", |s| Box::pin(flips(s, Place::Last)), Dropped)),
        before(row(Both, "a record's length is one less", |s| Box::pin(shortens(s)), Dropped)),
        before(row(Both, "a record is sent twice", |s| Box::pin(repeats(s)), Dropped)),
        before(row(Both, "a record is left out", |s| Box::pin(leaves_out(s)), Dropped)),
        before(row(Both, "two records change places", |s| Box::pin(swaps(s)), Dropped)),
        before(row(Both, "a record is cut off by the end of the link", |s| Box::pin(cuts_off(s)), Dropped)),
        before(row(Both, "the victim's own record is sent back to it", |s| Box::pin(reflects(s)), Dropped)),
        before(row(Both, "a record is sealed under the key before", |s| Box::pin(keeps_key(s)), Dropped)),
        before(row(
            Both,
            "a record is sealed under the next key, and nobody said so",
            |s| Box::pin(changes_key(s)),
            Dropped,
        )),
        before(row(Dials, "a record of one link is sent on another", |s| Box::pin(splices(s)), Dropped)),
        delivering(
            &["before", "after"],
            row(Both, "the key is changed 1,000 times", |s| Box::pin(rekeys(s)), Served),
        ),
        before(row(
            Both,
            "a message stands behind the word that the key changes",
            |s| Box::pin(talks_behind_rekey(s)),
            Closed(Unexpected),
        )),
    ]
}

/// A link on which one message has been said.
pub(super) async fn begun(scene: &mut Scene) -> Result<Link> {
    let mut link = scene.linked().await?;
    says(&mut link, "before").await?;
    let verdict = link.verdict().await?;
    ensure!(verdict == Served, "{verdict}");
    Ok(link)
}

pub(super) async fn says(link: &mut Link, what: &str) -> Result<()> {
    link.reliable(&[(kind::SEND, &message(None, &text(what)))]).await
}

/// A record with a message under the right number, sealed and not sent.
fn sealed(link: &mut Link, what: &str) -> Result<Vec<u8>> {
    let header = numbered(link.seq);
    link.seq += 1;
    link.seal(&record(header, &[(kind::SEND, &message(None, &text(what)))]))
}

async fn writes(scene: &mut Scene, bytes: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.write(&bytes.into()).await?;
    link.verdict().await
}

#[derive(Debug, Clone, Copy)]
enum Place {
    First,
    Middle,
    Last,
}

async fn flips(scene: &mut Scene, place: Place) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let mut bytes = sealed(&mut link, "altered")?;
    let at = match place {
        Place::First => LENGTH_BYTES,
        Place::Middle => bytes.len() / 2,
        Place::Last => bytes.len() - 1,
    };
    bytes[at] ^= 1;
    link.write(&bytes).await?;
    link.verdict().await
}

async fn shortens(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let mut bytes = sealed(&mut link, "altered")?;
    bytes[0] -= 1;
    link.write(&bytes).await?;
    link.verdict().await
}

async fn repeats(scene: &mut Scene) -> Result<Outcome> {
    let mut link = scene.linked().await?;
    let bytes = sealed(&mut link, "before")?;
    link.write(&[bytes.clone(), bytes].concat()).await?;
    link.verdict().await
}

async fn leaves_out(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    sealed(&mut link, "left out")?;
    says(&mut link, "after").await?;
    link.verdict().await
}

async fn swaps(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let (one, other) = (sealed(&mut link, "one")?, sealed(&mut link, "other")?);
    link.write(&[other, one].concat()).await?;
    link.verdict().await
}

async fn cuts_off(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let bytes = sealed(&mut link, "cut off")?;
    link.write(&bytes[..bytes.len() - 1]).await?;
    link.ends().await;
    link.end().await
}

async fn reflects(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.frames(&[(kind::PING, &[1; 8])]).await?;
    let sealed = link.next_sealed().await?.context("the victim says nothing")?;
    link.write(&sealed).await?;
    link.verdict().await
}

async fn keeps_key(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.frames(&[(kind::REKEY, b"")]).await?;
    says(&mut link, "after").await?;
    link.verdict().await
}

async fn changes_key(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.rekey()?;
    says(&mut link, "after").await?;
    link.verdict().await
}

async fn splices(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let meeting = scene.meeting().await?;
    let mut other = scene.peer.links(&meeting).await?;
    let bytes = sealed(&mut link, "spliced")?;
    other.write(&bytes).await?;
    other.verdict().await
}

async fn rekeys(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    for _ in 0..1000 {
        link.frames(&[(kind::REKEY, b"")]).await?;
        link.rekey()?;
    }
    says(&mut link, "after").await?;
    link.verdict().await
}

async fn talks_behind_rekey(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let header = numbered(link.seq);
    let frames: [(u8, &[u8]); 2] = [(kind::REKEY, b""), (kind::SEND, &message(None, &text("after")))];
    link.say(&record(header, &frames)).await?;
    link.rekey()?;
    link.verdict().await
}
