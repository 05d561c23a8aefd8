//! Records that open, and what is in them.

use std::time::Duration;

use anyhow::{Result, ensure};
use parlor_lab::hostile::link::{begin, message, numbered, piece, record, text};
use parlor_lab::hostile::outcome::Outcome::{self, Closed, Dropped, Served};
use parlor_protocol::limits::STREAMS;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::peer::{ACK, CREDIT, DATA, RecordHeader, kind};

use tokio::time::timeout;

use super::Way::Both;
use super::records::{begun, says};
use super::{MAX_BODY, PeerRow, Scene, delivering, row};

/// A PING that has no answer by then has gone unanswered.
const UNANSWERED: Duration = Duration::from_secs(1);

/// One message, then this record, and how that ends. The number of the next reliable frame is 1.
async fn then(scene: &mut Scene, plain: Vec<u8>) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.say(&plain).await?;
    link.verdict().await
}

/// The same with frames of the link.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    record(RecordHeader::default(), &[(kind, payload)])
}

/// The same with reliable frames under their right numbers.
fn reliable(frames: &[(u8, &[u8])]) -> Vec<u8> {
    record(numbered(1), frames)
}

fn acknowledging(ack: u64) -> Vec<u8> {
    record(RecordHeader { ack: Some(ack), ..RecordHeader::default() }, &[])
}

fn crediting(credit: u64) -> Vec<u8> {
    record(RecordHeader { credit: Some(credit), ..RecordHeader::default() }, &[])
}

pub(super) fn rows() -> Vec<PeerRow> {
    use CloseCode::{LimitExceeded, Malformed, Unexpected};
    const BEFORE: &[&str] = &["before"];
    let before = |row| delivering(BEFORE, row);
    let both = |name, does, outcome| delivering(BEFORE, row(Both, name, does, outcome));
    vec![
        both("a record's flags are not known", |s| Box::pin(then(s, vec![0x80])), Closed(Malformed)),
        both(
            "a record ends within its header",
            |s| Box::pin(then(s, vec![ACK | CREDIT | DATA, 1, 2, 3])),
            Closed(Malformed),
        ),
        both(
            "a record ends within a frame's head",
            |s| Box::pin(then(s, vec![0, kind::PING])),
            Closed(Malformed),
        ),
        both(
            "a frame is longer than its record",
            |s| Box::pin(then(s, vec![0, kind::PING, 0xff, 0xff, 1])),
            Closed(Malformed),
        ),
        both(
            "a link's frame is of a kind that is not known",
            |s| Box::pin(then(s, frame(15, b"?"))),
            Closed(Unexpected),
        ),
        both("a frame is of kind 0", |s| Box::pin(then(s, frame(0, b""))), Closed(Unexpected)),
        both(
            "a reliable frame is of a kind that is not known",
            |s| Box::pin(then(s, reliable(&[(99, b"?")]))),
            Closed(Unexpected),
        ),
        both("a PING is too short", |s| Box::pin(then(s, frame(kind::PING, &[1; 7]))), Closed(Malformed)),
        both(
            "bytes follow the number of a PING",
            |s| Box::pin(then(s, frame(kind::PING, &[1; 9]))),
            Closed(Malformed),
        ),
        both("10,000 PINGs come at once", |s| Box::pin(pings_on(s)), Served),
        both("a PONG comes that nobody asked for", |s| Box::pin(then(s, frame(kind::PONG, &[1; 8]))), Served),
        both("a CLOSE has no code", |s| Box::pin(then(s, frame(kind::CLOSE, b""))), Closed(Malformed)),
        both(
            "a CLOSE has a code that is not known",
            |s| Box::pin(then(s, frame(kind::CLOSE, &[0xe7, 3]))),
            Dropped,
        ),
        both("a message follows a CLOSE", |s| Box::pin(talks_on(s, kind::CLOSE)), Dropped),
        both("a message follows an END", |s| Box::pin(talks_on(s, kind::END)), Dropped),
        both("a REKEY has a payload", |s| Box::pin(then(s, frame(kind::REKEY, b"!"))), Closed(Malformed)),
        both(
            "a reliable frame has no number",
            |s| Box::pin(then(s, frame(kind::SEND, &message(None, &text("x"))))),
            Closed(Unexpected),
        ),
        both(
            "a number is left out",
            |s| Box::pin(then(s, record(numbered(2), &[(kind::SEND, &message(None, &text("x")))]))),
            Closed(Unexpected),
        ),
        both(
            "a number is the last there is",
            |s| Box::pin(then(s, record(numbered(u64::MAX), &[(kind::SEND, &message(None, &text("x")))]))),
            Closed(Unexpected),
        ),
        both(
            "a number comes again, with another message",
            |s| Box::pin(then(s, record(numbered(0), &[(kind::SEND, &message(None, &text("x")))]))),
            Served,
        ),
        delivering(
            &["before", "after"],
            row(
                Both,
                "a number comes again, and a new one behind it",
                |s| {
                    Box::pin(then(
                        s,
                        record(
                            numbered(0),
                            &[
                                (kind::SEND, &message(None, &text("x"))),
                                (kind::SEND, &message(None, &text("after"))),
                            ],
                        ),
                    ))
                },
                Served,
            ),
        ),
        both(
            "what was never sent is acknowledged",
            |s| Box::pin(then(s, acknowledging(1))),
            Closed(Unexpected),
        ),
        both(
            "everything that there will ever be is acknowledged",
            |s| Box::pin(then(s, acknowledging(u64::MAX))),
            Closed(Unexpected),
        ),
        both("an acknowledgement goes backwards", |s| Box::pin(acknowledges_backwards(s)), Served),
        both("credit without end is given", |s| Box::pin(then(s, crediting(u64::MAX))), Served),
        both("credit is taken back", |s| Box::pin(takes_credit_back(s)), Served),
        delivering(
            &["?"],
            row(
                Both,
                "more is sent than there is credit for",
                |s| Box::pin(overruns(s)),
                Closed(LimitExceeded),
            ),
        ),
        both(
            "a piece comes of what was not begun",
            |s| Box::pin(then(s, reliable(&[(kind::PIECE, &piece(5, b"x"))]))),
            Closed(Unexpected),
        ),
        both(
            "what was not begun is given up",
            |s| Box::pin(then(s, reliable(&[(kind::ABORT, &[5, 0, 0, 0])]))),
            Closed(Unexpected),
        ),
        both(
            "a body in pieces has no bytes",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, 0))]))),
            Closed(Unexpected),
        ),
        both(
            "a body in pieces is a byte larger than is taken",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, MAX_BODY as u32 + 1))]))),
            Closed(LimitExceeded),
        ),
        both(
            "a body in pieces is 4 GiB long",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, u32::MAX))]))),
            Closed(LimitExceeded),
        ),
        both(
            "two bodies in pieces have one number",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, 9)), (kind::BEGIN, &begin(5, 9))]))),
            Closed(Unexpected),
        ),
        both("17 bodies in pieces are under way at once", |s| Box::pin(begins_on(s)), Closed(LimitExceeded)),
        both(
            "a piece is more than was announced",
            |s| {
                Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, 3)), (kind::PIECE, &piece(5, b"four"))])))
            },
            Closed(Unexpected),
        ),
        both(
            "a piece has no bytes",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, 3)), (kind::PIECE, &piece(5, b""))]))),
            Closed(Unexpected),
        ),
        both(
            "a piece is longer than pieces are",
            |s| {
                Box::pin(then(
                    s,
                    reliable(&[
                        (kind::BEGIN, &begin(5, 200_000)),
                        (kind::PIECE, &piece(5, &vec![7; 32_705])),
                    ]),
                ))
            },
            Closed(Unexpected),
        ),
        delivering(
            &["before", "?"],
            row(
                Both,
                "a piece comes after the last",
                |s| {
                    Box::pin(then(
                        s,
                        reliable(&[
                            (kind::BEGIN, &begin(5, 1)),
                            (kind::PIECE, &piece(5, b"\xc0")),
                            (kind::PIECE, &piece(5, b"\xc0")),
                        ]),
                    ))
                },
                Closed(Unexpected),
            ),
        ),
        both(
            "a body begins that is of no kind",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &[5, 0, 0, 0, 9, 0, 0, 0, kind::CANCEL, 0])]))),
            Closed(Unexpected),
        ),
        both(
            "bytes follow the fields of a BEGIN",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &[begin(5, 9), vec![1]].concat())]))),
            Closed(Malformed),
        ),
        both(
            "a body is begun and never comes",
            |s| Box::pin(then(s, reliable(&[(kind::BEGIN, &begin(5, 200_000))]))),
            Served,
        ),
        both(
            "an event's name is longer than 64 bytes",
            |s| {
                Box::pin(then(
                    s,
                    reliable(&[(kind::SEND, &[[65].as_slice(), &[b'x'; 65], b"\xc0"].concat())]),
                ))
            },
            Closed(Malformed),
        ),
        both(
            "an event's name is longer than its frame",
            |s| Box::pin(then(s, reliable(&[(kind::SEND, &[9, b'x'])]))),
            Closed(Malformed),
        ),
        before(row(
            Both,
            "an event's name is no UTF-8",
            |s| Box::pin(then(s, reliable(&[(kind::SEND, &[2, 0xff, 0xfe, 0xc0])]))),
            Served,
        )),
        before(row(
            Both,
            "an event's name is an escape sequence",
            |s| Box::pin(then(s, reliable(&[(kind::SEND, b"\x04\x1b[2J\xc0")]))),
            Served,
        )),
    ]
}

async fn pings_on(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let ping: (u8, &[u8]) = (kind::PING, &[3; 8]);
    for _ in 0..10 {
        link.frames(&vec![ping; 1000]).await?;
    }
    // Of many at once some go unanswered.
    loop {
        if let Ok(verdict) = timeout(UNANSWERED, link.verdict()).await {
            return verdict;
        }
    }
}

/// Ends the link or the channel with code 0 and says one more thing.
async fn talks_on(scene: &mut Scene, end: u8) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.frames(&[(end, &[0, 0])]).await?;
    says(&mut link, "after").await?;
    link.end().await
}

async fn acknowledges_backwards(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let peer = scene.victim.peer(&scene.name)?;
    let receipt = peer.try_send("taken over")?;
    let frame = link.frame(kind::SEND).await?;
    ensure!(frame.is_ok(), "nothing came");
    link.say(&acknowledging(1)).await?;
    receipt.delivered().await?;
    link.say(&acknowledging(0)).await?;
    link.verdict().await
}

async fn takes_credit_back(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.say(&crediting(0)).await?;
    scene.victim.peer(&scene.name)?.try_send("within what was given")?;
    ensure!(link.frame(kind::SEND).await?.is_ok(), "nothing came");
    link.verdict().await
}

/// Bodies of nil and filling, until there is more than a window of them.
async fn overruns(scene: &mut Scene) -> Result<Outcome> {
    let mut link = scene.linked().await?;
    // MessagePack: binary of 32,000 bytes.
    let body = [[0xc5, 0x7d, 0x00].as_slice(), &vec![0xff; 32_000]].concat();
    for _ in 0..40 {
        link.reliable(&[(kind::SEND, &message(None, &body))]).await?;
    }
    link.verdict().await
}

async fn begins_on(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    for stream in 0..=STREAMS as u32 {
        link.reliable(&[(kind::BEGIN, &begin(stream, 1000))]).await?;
    }
    link.verdict().await
}
