//! Epochs that are not what they were, links that are too many or silent.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use parlor_lab::hostile::link::{Link, begin, piece, record};
use parlor_lab::hostile::outcome::Outcome::{self, Closed, Dropped, NotUsed, Refused, Served};
use parlor_lab::hostile::peer::first_words;
use parlor_protocol::noise::payload::{Epoch, LinkHello};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::peer::kind;
use parlor_user::SendError;
use tokio::time::timeout;

use super::Way::{Answers, Both, Dials};
use super::records::{begun, says};
use super::{PeerRow, Scene, delivering, row};

/// What a user keeps for a peer that takes nothing over, in bytes: 8 MiB, and what a message may add.
const KEPT: usize = 9 * 1024 * 1024;
/// For a program to hear that its messages are lost.
const HEARD: Duration = Duration::from_secs(20);

pub(super) fn rows() -> Vec<PeerRow> {
    use CloseCode::{Superseded, Unexpected};
    let before = |row| delivering(&["before"], row);
    vec![
        before(row(
            Dials,
            "a hello is of an earlier session of the same run",
            |s| Box::pin(goes_back(s)),
            Refused(Superseded),
        )),
        before(row(
            Dials,
            "a hello knows the victim by a session that is not its",
            |s| Box::pin(mistakes_victim(s)),
            Refused(Superseded),
        )),
        row(
            Dials,
            "a hello has received what was not sent, in a session that begins",
            |s| Box::pin(begins_ahead(s)),
            Dropped,
        ),
        before(row(
            Dials,
            "a hello has received what was not sent, in a session that goes on",
            |s| Box::pin(goes_on_ahead(s)),
            Dropped,
        )),
        row(Answers, "an accept has received what was not sent", |s| Box::pin(accepts_ahead(s)), Dropped),
        before(row(
            Dials,
            "a session begins anew within a body in pieces",
            |s| Box::pin(forgets_pieces(s)),
            Closed(Unexpected),
        )),
        before(row(
            Dials,
            "a session begins anew while the victim's message is not taken over",
            |s| Box::pin(forgets_message(s)),
            NotUsed,
        )),
        delivering(
            &["before", "again"],
            row(
                Dials,
                "a session begins anew, and the numbers with it",
                |s| Box::pin(begins_anew(s)),
                Served,
            ),
        ),
        before(row(Dials, "300 sessions begin anew", |s| Box::pin(begins_on(s)), Served)),
        before(row(Both, "a peer takes no bodies at all", |s| Box::pin(takes_nothing(s)), NotUsed)),
        before(row(
            Dials,
            "a ninth link opens, and one ends for it that carried no data",
            |s| Box::pin(opens_links(s)),
            Dropped,
        )),
        before(row(Dials, "100 links open and are cut", |s| Box::pin(cuts_links(s)), Served)),
        before(row(Dials, "100 links open and are closed in order", |s| Box::pin(closes_links(s)), Served)),
        before(row(
            Both,
            "a peer reads nothing more, and the victim's program sends on",
            |s| Box::pin(reads_nothing(s)),
            NotUsed,
        )),
    ]
}

/// The hello of another link of a session.
fn next(scene: &Scene, link: &Link) -> LinkHello {
    LinkHello { peer_epoch: Some(link.theirs), ..scene.peer.hello() }
}

/// The hello of a session that has forgotten the one before.
fn anew(scene: &Scene, generation: u32) -> LinkHello {
    let epoch = Epoch { generation, ..scene.peer.epoch() };
    LinkHello { epoch, ..scene.peer.hello() }
}

/// What becomes of a link with this hello.
async fn tries(scene: &mut Scene, hello: &LinkHello) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    match scene.peer.dialled(&meeting, hello).await? {
        Ok(mut link) => {
            link.say(&record(first_words(), &[])).await?;
            link.verdict().await
        }
        Err(outcome) => Ok(outcome),
    }
}

/// A link with this hello.
async fn links(scene: &mut Scene, hello: &LinkHello) -> Result<Link> {
    let meeting = scene.meeting().await?;
    let Ok(mut link) = scene.peer.dialled(&meeting, hello).await? else { bail!("refused") };
    link.say(&record(first_words(), &[])).await?;
    Ok(link)
}

/// A session of generation 1 in which one message was said and has arrived.
async fn second_session(scene: &mut Scene) -> Result<Link> {
    let mut link = links(scene, &anew(scene, 1)).await?;
    says(&mut link, "before").await?;
    ensure!(link.verdict().await? == Served);
    Ok(link)
}

async fn goes_back(scene: &mut Scene) -> Result<Outcome> {
    let _link = second_session(scene).await?;
    let hello = anew(scene, 0);
    tries(scene, &hello).await
}

async fn mistakes_victim(scene: &mut Scene) -> Result<Outcome> {
    let link = second_session(scene).await?;
    let mistaken = Epoch { generation: link.theirs.generation + 7, ..link.theirs };
    let hello = LinkHello { peer_epoch: Some(mistaken), ..anew(scene, 1) };
    tries(scene, &hello).await
}

async fn begins_ahead(scene: &mut Scene) -> Result<Outcome> {
    // Its epoch the victim tells who comes, in a link that is then not used.
    let meeting = scene.meeting().await?;
    let Ok(link) = scene.peer.dialled(&meeting, &scene.peer.hello()).await? else { bail!("refused") };
    let hello = LinkHello { recv_next: 1, ..next(scene, &link) };
    tries(scene, &hello).await
}

async fn goes_on_ahead(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    ensure!(link.verdict().await? == Served);
    let hello = LinkHello { recv_next: u64::MAX, ..next(scene, &link) };
    let tried = tries(scene, &hello).await?;
    ensure!(link.verdict().await? == Served, "the first link ended with the second");
    Ok(tried)
}

async fn accepts_ahead(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let accept = parlor_protocol::noise::payload::LinkAccept { recv_next: 1, ..scene.peer.accept() };
    let mut link = scene.peer.answered(&meeting, &accept).await?;
    link.say(&record(first_words(), &[])).await?;
    link.verdict().await
}

async fn forgets_pieces(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.reliable(&[(kind::BEGIN, &begin(5, 2)), (kind::PIECE, &piece(5, b"\xa1"))]).await?;
    ensure!(link.verdict().await? == Served);
    let mut again = links(scene, &anew(scene, 1)).await?;
    again.reliable(&[(kind::PIECE, &piece(5, b"x"))]).await?;
    again.verdict().await
}

async fn forgets_message(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let receipt = scene.victim.peer(&scene.name)?.try_send("lost")?;
    ensure!(link.frame(kind::SEND).await?.is_ok(), "nothing came");
    let _again = links(scene, &anew(scene, 1)).await?;
    match timeout(HEARD, receipt.delivered()).await? {
        Err(_) => Ok(NotUsed),
        Ok(()) => Ok(Served),
    }
}

async fn begins_anew(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    ensure!(link.verdict().await? == Served);
    let mut again = links(scene, &anew(scene, 1)).await?;
    says(&mut again, "again").await?;
    let verdict = again.verdict().await?;
    ensure!(link.end().await? != Served, "a link of the session before goes on");
    Ok(verdict)
}

async fn begins_on(scene: &mut Scene) -> Result<Outcome> {
    let _link = second_session(scene).await?;
    let meeting = scene.meeting().await?;
    for generation in 2..302 {
        let hello = anew(scene, generation);
        let Ok(mut link) = scene.peer.dialled(&meeting, &hello).await? else { bail!("refused") };
        link.say(&record(first_words(), &[])).await?;
        ensure!(link.verdict().await? == Served, "in session {generation}");
    }
    let hello = anew(scene, 302);
    tries(scene, &hello).await
}

async fn takes_nothing(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let mut link = match scene.way {
        Answers => {
            let accept = parlor_protocol::noise::payload::LinkAccept { max_body: 0, ..scene.peer.accept() };
            scene.peer.answered(&meeting, &accept).await?
        }
        Dials | Both => {
            let hello = LinkHello { max_body: 0, ..scene.peer.hello() };
            let Ok(link) = scene.peer.dialled(&meeting, &hello).await? else { bail!("refused") };
            link
        }
    };
    link.say(&record(first_words(), &[])).await?;
    says(&mut link, "before").await?;
    ensure!(link.verdict().await? == Served);
    match scene.victim.peer(&scene.name)?.send("too much").await {
        Err(SendError::TooLarge { .. }) => Ok(NotUsed),
        other => bail!("{other:?}"),
    }
}

async fn opens_links(scene: &mut Scene) -> Result<Outcome> {
    let mut first = begun(scene).await?;
    ensure!(first.verdict().await? == Served);
    let mut rest = Vec::new();
    for _ in 0..8 {
        let hello = next(scene, &first);
        let mut link = links(scene, &hello).await?;
        ensure!(link.verdict().await? == Served);
        rest.push(link);
    }
    // Of those on which the victim has heard no data, the one that was silent for longest.
    let ended = rest.remove(0).end().await?;
    for link in rest.iter_mut().chain([&mut first]) {
        ensure!(link.verdict().await? == Served, "another link ended as well");
    }
    Ok(ended)
}

async fn cuts_links(scene: &mut Scene) -> Result<Outcome> {
    let mut first = begun(scene).await?;
    let meeting = scene.meeting().await?;
    for _ in 0..100 {
        let hello = next(scene, &first);
        let Ok(mut link) = scene.peer.dialled(&meeting, &hello).await? else { bail!("refused") };
        link.say(&record(first_words(), &[])).await?;
    }
    drop(first);
    let hello = scene.peer.hello();
    first = links(scene, &hello).await?;
    first.verdict().await
}

async fn closes_links(scene: &mut Scene) -> Result<Outcome> {
    let first = begun(scene).await?;
    let meeting = scene.meeting().await?;
    for _ in 0..100 {
        let hello = next(scene, &first);
        let Ok(mut link) = scene.peer.dialled(&meeting, &hello).await? else { bail!("refused") };
        link.say(&record(first_words(), &[])).await?;
        link.frames(&[(kind::CLOSE, &[1, 0])]).await?;
    }
    let hello = next(scene, &first);
    tries(scene, &hello).await
}

async fn reads_nothing(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    // As much credit as anybody could want.
    let header = parlor_protocol::wire::peer::RecordHeader { credit: Some(u64::MAX), ..Default::default() };
    link.say(&record(header, &[])).await?;
    ensure!(link.verdict().await? == Served);
    let peer = scene.victim.peer(&scene.name)?;
    let body = "x".repeat(32 * 1024);
    let mut kept = 0;
    while peer.try_send(&body).is_ok() {
        kept += body.len();
        ensure!(kept <= KEPT, "{kept} bytes are kept for who reads nothing");
    }
    let refused = peer.try_send(&body);
    ensure!(matches!(refused, Err(SendError::Full)), "{refused:?}");
    drop(link);
    Ok(NotUsed)
}
