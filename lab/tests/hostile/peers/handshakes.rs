//! Before there is a link: prefaces, introductions that are not for this, messages that prove nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parlor_lab::hostile::client::{Client, read_all, who};
use parlor_lab::hostile::link::record;
use parlor_lab::hostile::outcome::Outcome::{self, Dropped, NotIntroduced, NotUsed, Refused, Served};
use parlor_lab::hostile::peer::{Meeting, Peer, first_words, message_2};
use parlor_protocol::identity::Identity;
use parlor_protocol::introduction::IntroductionId;
use parlor_protocol::noise::handshake::{framed_message, framed_refusal};
use parlor_protocol::presence::Encryption;
use parlor_protocol::refusal::{CloseCode, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::preface;
use parlor_user::OpenError;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Way::{Answers, Dials};
use super::records::begun;
use super::{PeerRow, Scene, delivering, row};

/// For a ban to reach a user, which takes half a second on a machine that has nothing else to do.
const BANNED: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Points of low order on Curve25519 (RFC 7748 section 6.1), among them 0, 1 and one of order 8.
pub(super) const LOW_ORDER: [[u8; 32]; 3] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
];

pub(super) fn rows() -> Vec<PeerRow> {
    use CloseCode::{IdentityChanged, Introduction, Malformed};
    let before = |row| delivering(&["before"], row);
    vec![
        row(
            Dials,
            "HTTP is spoken to a user's port",
            |s| Box::pin(says(s, b"GET / HTTP/1.1\r\n\r\n")),
            Dropped,
        ),
        row(
            Dials,
            "TLS is spoken to a user's port",
            |s| Box::pin(says(s, [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0])),
            Dropped,
        ),
        row(Dials, "a relay's preface comes to a user's port", |s| Box::pin(says(s, [b'R'; 34])), Dropped),
        row(
            Dials,
            "a link preface is of a later version",
            |s| Box::pin(says(s, [preface::LINK; 18])),
            Dropped,
        ),
        row(Dials, "a link preface is cut off", |s| Box::pin(cuts_off(s)), Dropped),
        row(
            Dials,
            "a link preface does not go on for 5 s",
            |s| Box::pin(says(s, [preface::LINK, preface::VERSION, 1])),
            Dropped,
        ),
        row(
            Dials,
            "an introduction is made up",
            |s| Box::pin(says(s, [preface::link(&IntroductionId([7; 16])).as_slice(), &[9; 200]].concat())),
            Dropped,
        ),
        row(Dials, "an introduction is one of two others", |s| Box::pin(shows_anothers(s)), Dropped),
        row(Dials, "an address check comes from who is no Room", |s| Box::pin(checks(s)), Served),
        row(Dials, "message 1 does not come for 5 s", |s| Box::pin(stalls(s, 0)), Dropped),
        row(Dials, "message 1 does not go on for 5 s", |s| Box::pin(stalls(s, 60)), Dropped),
        row(Dials, "message 1 is longer than any may be", |s| Box::pin(opens(s, |_| vec![1; 4097])), Dropped),
        row(
            Dials,
            "message 1 is longer than a payload makes it",
            |s| Box::pin(opens(s, |_| vec![1; 4096])),
            Refused(CloseCode::LimitExceeded),
        ),
        row(Dials, "message 1 has one byte", |s| Box::pin(opens(s, |_| vec![1])), Refused(Malformed)),
        row(
            Dials,
            "message 1 is garbage",
            |s| Box::pin(opens(s, |message| vec![0x5a; message.len()])),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1 has another bit in its first key",
            |s| Box::pin(opens(s, |message| flipped(message, 3))),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1 has another bit in its second key",
            |s| Box::pin(opens(s, |message| flipped(message, 40))),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1 has another bit in its payload",
            |s| Box::pin(opens(s, |message| flipped(message, 100))),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1's key is 0, a point of low order",
            |s| Box::pin(opens(s, |message| keyed(message, 0))),
            Refused(Malformed),
        ),
        row(
            Dials,
            "message 1's key is 1, a point of low order",
            |s| Box::pin(opens(s, |message| keyed(message, 1))),
            Refused(Malformed),
        ),
        row(
            Dials,
            "message 1's key is a point of order 8",
            |s| Box::pin(opens(s, |message| keyed(message, 2))),
            Refused(Malformed),
        ),
        row(
            Dials,
            "message 1 is for another rung than a direct one",
            |s| Box::pin(says_message(s, Rung::Relay, None)),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1 is for another cipher",
            |s| Box::pin(is_for_another_cipher(s)),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1 is for another room",
            |s| Box::pin(is_for_another_room(s)),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1 is by another identity than the introduction's",
            |s| Box::pin(is_by_another(s)),
            Refused(Introduction),
        ),
        row(
            Dials,
            "message 1's payload is no hello",
            |s| Box::pin(says_message(s, Rung::SameHost, Some(b"hello?".to_vec()))),
            Refused(Malformed),
        ),
        row(
            Dials,
            "message 1's payload has bytes behind the hello",
            |s| Box::pin(says_more(s)),
            Refused(Malformed),
        ),
        row(Dials, "a refusal comes in place of message 1", |s| Box::pin(refuses_first(s)), Dropped),
        row(Dials, "no record follows message 2 for 5 s", |s| Box::pin(never_goes_on(s)), Dropped),
        row(Dials, "garbage follows message 2", |s| Box::pin(goes_on_badly(s)), Dropped),
        before(row(
            Dials,
            "message 1 of a link that runs is played again",
            |s| Box::pin(replays_message(s)),
            Dropped,
        )),
        before(row(Dials, "a whole link is played again", |s| Box::pin(replays_link(s)), Dropped)),
        row(Dials, "40 handshakes begin at once and none goes on", |s| Box::pin(begins_on(s)), Served),
        row(
            Dials,
            "the peer wants no encryption, and the victim does",
            |s| Box::pin(wants_no_encryption(s)),
            NotIntroduced(PairRefusal::EncryptionMismatch { asker_is_off: true }),
        ),
        row(Dials, "the peer's address is banned, and it dials", |s| Box::pin(dials_banned(s)), Dropped),
        row(
            Dials,
            "another identity comes under a name that was talked to before",
            |s| Box::pin(changes_identity(s, Dials)),
            Refused(IdentityChanged),
        ),
        row(
            Dials,
            "another identity is dialled under a name that was talked to before",
            |s| Box::pin(changes_identity(s, Answers)),
            NotUsed,
        ),
    ]
}

pub(super) fn flipped(message: &[u8], at: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] ^= 1;
    message
}

/// A message whose ephemeral key is a point of low order.
pub(super) fn keyed(message: &[u8], point: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[..32].copy_from_slice(&LOW_ORDER[point]);
    message
}

pub(super) async fn end(mut stream: TcpStream) -> Result<Outcome> {
    let answer = read_all(&mut stream).await?;
    ensure!(answer.is_empty(), "the victim answers {answer:?}");
    Ok(Dropped)
}

async fn says(scene: &mut Scene, bytes: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let mut stream = scene.peer.connects(&meeting).await?;
    stream.write_all(&bytes.into()).await?;
    end(stream).await
}

async fn cuts_off(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let mut stream = scene.peer.connects(&meeting).await?;
    stream.write_all(&preface::link(&meeting.introduction.id)[..9]).await?;
    stream.shutdown().await?;
    end(stream).await
}

async fn checks(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let mut stream = scene.peer.connects(&meeting).await?;
    stream.write_all(&preface::check(&[9; 32])).await?;
    let answer = read_all(&mut stream).await?;
    // It is answered, with what nobody without the key can tell from chance.
    ensure!(answer.len() == 32 && answer != [9; 32], "the victim answers {answer:?}");
    Ok(Served)
}

/// What the victim answers to a preface and these bytes.
async fn answer_to(scene: &mut Scene, meeting: &Meeting, bytes: &[u8]) -> Result<Outcome> {
    let mut stream = scene.peer.connects(meeting).await?;
    stream.write_all(&[preface::link(&meeting.introduction.id).as_slice(), bytes].concat()).await?;
    match message_2(&mut stream).await? {
        Ok(_) => Ok(Served),
        Err(outcome) => Ok(outcome),
    }
}

async fn stalls(scene: &mut Scene, after: usize) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let (_, message) = scene.peer.opens(&meeting, Rung::SameHost, &scene.peer.hello().encode())?;
    answer_to(scene, &meeting, &framed_message(&message)[..after]).await
}

async fn opens(scene: &mut Scene, altered: fn(&[u8]) -> Vec<u8>) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let (_, message) = scene.peer.opens(&meeting, Rung::SameHost, &scene.peer.hello().encode())?;
    let altered = altered(&message);
    let framed = [(altered.len() as u16).to_le_bytes().as_slice(), &altered].concat();
    answer_to(scene, &meeting, &framed).await
}

async fn says_message(scene: &mut Scene, rung: Rung, payload: Option<Vec<u8>>) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let payload = payload.unwrap_or_else(|| scene.peer.hello().encode());
    let (_, message) = scene.peer.opens(&meeting, rung, &payload)?;
    answer_to(scene, &meeting, &framed_message(&message)).await
}

async fn says_more(scene: &mut Scene) -> Result<Outcome> {
    let payload = [scene.peer.hello().encode(), vec![0]].concat();
    says_message(scene, Rung::SameHost, Some(payload)).await
}

/// Message 1 made under another statement than the Room's, shown under the Room's.
async fn states(scene: &mut Scene, otherwise: fn(&mut Meeting)) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let mut other = meeting.clone();
    otherwise(&mut other);
    let (_, message) = scene.peer.opens(&other, Rung::SameHost, &scene.peer.hello().encode())?;
    answer_to(scene, &meeting, &framed_message(&message)).await
}

async fn is_for_another_cipher(scene: &mut Scene) -> Result<Outcome> {
    states(scene, |meeting| meeting.introduction.cipher = parlor_protocol::introduction::Cipher::Cleartext)
        .await
}

async fn is_for_another_room(scene: &mut Scene) -> Result<Outcome> {
    states(scene, |meeting| meeting.introduction.room = Identity::from_seed(&[3; 32]).public()).await
}

async fn is_by_another(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let room = scene.room.clone();
    let other = Peer::named(&room, &format!("{}.other", scene.name), false).await?;
    // It has the introduction, and says what its owner would.
    let mut stolen = meeting.clone();
    stolen.introduction.asker = other.party();
    let (_, message) = other.opens(&stolen, Rung::SameHost, &other.hello().encode())?;
    answer_to(scene, &meeting, &framed_message(&message)).await
}

async fn shows_anothers(scene: &mut Scene) -> Result<Outcome> {
    let room = scene.room.clone();
    let meeting = scene.meeting().await?;
    let mut other = Peer::named(&room, &format!("{}.other", scene.name), false).await?;
    let third = other.asks_for(&scene.name).await?;
    let stream = scene.peer.connects(&meeting).await?;
    let mut stream = stream;
    stream.write_all(&[preface::link(&third.introduction.id).as_slice(), &[9; 200]].concat()).await?;
    end(stream).await
}

async fn refuses_first(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    answer_to(scene, &meeting, &framed_refusal(CloseCode::Done)).await
}

async fn never_goes_on(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let Ok(mut link) = scene.peer.dialled(&meeting, &scene.peer.hello()).await? else { bail!("refused") };
    link.end().await
}

async fn goes_on_badly(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let Ok(mut link) = scene.peer.dialled(&meeting, &scene.peer.hello()).await? else { bail!("refused") };
    link.write(&[[40, 0].as_slice(), &[7; 40]].concat()).await?;
    link.end().await
}

/// A link on which something was said, and all that it said.
async fn recorded(scene: &mut Scene) -> Result<(parlor_lab::hostile::link::Link, Meeting, Vec<u8>, Vec<u8>)> {
    let meeting = scene.meeting().await?;
    let (stream, initiator, first) = scene.peer.dials(&meeting, &scene.peer.hello()).await?;
    let mut link = scene.peer.finishes(stream, initiator).await?;
    let words = link.seal(&record(first_words(), &[]))?;
    let message = parlor_lab::hostile::link::message(None, &parlor_lab::hostile::link::text("before"));
    let header = parlor_lab::hostile::link::numbered(0);
    let said = link.seal(&record(header, &[(parlor_protocol::wire::peer::kind::SEND, &message)]))?;
    let said = [words, said].concat();
    link.seq = 1;
    link.write(&said).await?;
    ensure!(link.verdict().await? == Served);
    Ok((link, meeting, first, said))
}

async fn replays_message(scene: &mut Scene) -> Result<Outcome> {
    let (mut link, meeting, first, _) = recorded(scene).await?;
    let mut stream = scene.peer.connects(&meeting).await?;
    stream.write_all(&first).await?;
    ensure!(message_2(&mut stream).await?.is_ok(), "not even answered");
    let mut rest = stream;
    let answer = read_all(&mut rest).await?;
    ensure!(answer.is_empty(), "the victim says {answer:?}");
    ensure!(link.verdict().await? == Served, "the link that runs has ended");
    Ok(Dropped)
}

async fn replays_link(scene: &mut Scene) -> Result<Outcome> {
    let (mut link, meeting, first, said) = recorded(scene).await?;
    let mut stream = scene.peer.connects(&meeting).await?;
    stream.write_all(&[first, said].concat()).await?;
    ensure!(message_2(&mut stream).await?.is_ok(), "not even answered");
    let mut rest = stream;
    let answer = read_all(&mut rest).await?;
    ensure!(answer.is_empty(), "the victim says {answer:?}");
    ensure!(link.verdict().await? == Served, "the link that runs has ended");
    Ok(Dropped)
}

async fn begins_on(scene: &mut Scene) -> Result<Outcome> {
    let meeting = scene.meeting().await?;
    let mut halves = Vec::new();
    for _ in 0..40 {
        let mut stream = scene.peer.connects(&meeting).await?;
        // Beyond 32 it is hung up on.
        let _ = stream.write_all(&preface::link(&meeting.introduction.id)).await;
        halves.push(stream);
    }
    for half in halves {
        end(half).await?;
    }
    let verdict = begun(scene).await?.verdict().await?;
    scene.delivered();
    Ok(verdict)
}

/// Dials from an address of its own until it is not answered there any more: the victim hears of the ban from the Room.
async fn dials_banned(scene: &mut Scene) -> Result<Outcome> {
    let banned = IpAddr::from([127, 66, 6, 6]);
    let meeting = scene.meeting().await?;
    let (_, message) = scene.peer.opens(&meeting, Rung::SameHost, &scene.peer.hello().encode())?;
    let said = [preface::link(&meeting.introduction.id).as_slice(), &framed_message(&message)].concat();
    let mut answers = 0;
    let dropped = timeout(BANNED, async {
        loop {
            let mut stream = scene.peer.connects_from(banned, &meeting).await?;
            // It may be hung up on before it says anything.
            let _ = stream.write_all(&said).await;
            if message_2(&mut stream).await? == Err(Dropped) {
                return anyhow::Ok(());
            }
            if answers == 0 {
                scene.operator.ban(banned.into(), None).await?;
            }
            answers += 1;
            sleep(LOOK).await;
        }
    });
    dropped.await.context("the victim goes on answering")??;
    ensure!(answers > 0, "it is not answered before the ban either");
    let mut stream = scene.peer.connects(&meeting).await?;
    stream.write_all(&said).await?;
    ensure!(message_2(&mut stream).await?.is_ok(), "nor is who comes from elsewhere");
    Ok(Dropped)
}

async fn wants_no_encryption(scene: &mut Scene) -> Result<Outcome> {
    let mut off = who(format!("{}.off", scene.name), 8);
    off.presence.encryption = Encryption::Off;
    let (mut client, _) = Client::joined(Ipv4Addr::LOCALHOST.into(), &scene.room, &off).await?;
    client.asks_for(1, &scene.victim_name).await?;
    Ok(client.answer(1).await?.err().unwrap_or(Served))
}

/// Talks, leaves, and comes again as somebody else under the same name.
async fn changes_identity(scene: &mut Scene, way: super::Way) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    ensure!(link.verdict().await? == Served);
    scene.delivered();
    drop(link);
    scene.peer.client.send(&parlor_protocol::wire::control::ToRoom::Bye(CloseCode::Done)).await?;
    scene.peer.client.end().await?;
    let listens = way == Answers;
    let other = who(scene.name.clone(), 77);
    scene.peer = Peer::join(&scene.room, other, listens).await?;
    if listens {
        return match scene.victim.peer(&scene.name)?.connect().await {
            Err(OpenError::IdentityChanged { .. }) => Ok(NotUsed),
            other => bail!("{other:?}"),
        };
    }
    let meeting = scene.meeting().await?;
    let (_, message) = scene.peer.opens(&meeting, Rung::SameHost, &scene.peer.hello().encode())?;
    answer_to(scene, &meeting, &framed_message(&message)).await
}
