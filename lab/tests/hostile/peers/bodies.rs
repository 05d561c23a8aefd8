//! Bodies that are bombs. They are arguments of a call that takes any value, and messages that nobody handles.

use anyhow::Result;
use parlor_lab::hostile::link::{begin, call, message, piece};
use parlor_lab::hostile::outcome::Outcome::{self, Answered, Served};
use parlor_protocol::limits::{BODY_DEPTH, BODY_ELEMENTS, PIECE};
use parlor_protocol::wire::peer::{Status, kind};

use super::Way::Dials;
use super::calls::calls;
use super::records::begun;
use super::{PeerRow, Scene, delivering, row};

pub(super) fn rows() -> Vec<PeerRow> {
    let refused = |name, does| delivering(&["before"], row(Dials, name, does, Answered(Status::Argument)));
    vec![
        refused("an argument has no bytes", |s| Box::pin(argument(s, b""))),
        refused("an argument is the one byte that means nothing", |s| Box::pin(argument(s, b"\xc1"))),
        refused("an argument claims a list of 2^32 - 1 values", |s| {
            Box::pin(argument(s, b"\xdd\xff\xff\xff\xff"))
        }),
        refused("an argument claims a map of 2^32 - 1 entries", |s| {
            Box::pin(argument(s, b"\xdf\xff\xff\xff\xff"))
        }),
        refused("an argument claims a text of 2^32 - 1 bytes", |s| {
            Box::pin(argument(s, b"\xdb\xff\xff\xff\xff"))
        }),
        refused("an argument claims binary of 2^32 - 1 bytes", |s| {
            Box::pin(argument(s, b"\xc6\xff\xff\xff\xff"))
        }),
        refused("an argument claims an extension of 2^32 - 1 bytes", |s| {
            Box::pin(argument(s, b"\xc9\xff\xff\xff\xff\x01"))
        }),
        refused("an argument ends within a number", |s| Box::pin(argument(s, b"\xcf\x01\x02"))),
        refused("bytes follow an argument", |s| Box::pin(argument(s, b"\xc0\xc0"))),
        refused("an argument nests one level too deep", |s| Box::pin(argument(s, nested(BODY_DEPTH + 1)))),
        refused("an argument nests 30,000 deep", |s| Box::pin(argument(s, nested(30_000)))),
        refused("an argument nests 30,000 maps deep", |s| {
            Box::pin(argument(s, [b"\x81\xc0".repeat(15_000), vec![0xc0]].concat()))
        }),
        refused("an argument has a value too many", |s| Box::pin(in_pieces(s, values(BODY_ELEMENTS as u32)))),
        refused("an argument has a quarter of a million values", |s| Box::pin(in_pieces(s, values(262_000)))),
        delivering(
            &["before"],
            row(
                Dials,
                "an argument nests as deep as may be",
                |s| Box::pin(argument(s, nested(BODY_DEPTH))),
                Answered(Status::Ok),
            ),
        ),
        delivering(
            &["before", "?"],
            row(Dials, "a message nests 30,000 deep", |s| Box::pin(says(s, nested(30_000))), Served),
        ),
        delivering(
            &["before", "?"],
            row(
                Dials,
                "a message claims a list of 2^32 - 1 values",
                |s| Box::pin(says(s, b"\xdd\xff\xff\xff\xff".to_vec())),
                Served,
            ),
        ),
        delivering(
            &["before", "?"],
            row(Dials, "a message has no bytes", |s| Box::pin(says(s, Vec::new())), Served),
        ),
    ]
}

/// So many lists, one in another, and nil.
fn nested(levels: usize) -> Vec<u8> {
    [vec![0x91; levels], vec![0xc0]].concat()
}

/// A list of so many nils.
fn values(count: u32) -> Vec<u8> {
    [[0xdd].as_slice(), &count.to_be_bytes(), &vec![0xc0; count as usize]].concat()
}

async fn argument(scene: &mut Scene, body: impl Into<Vec<u8>> + Send) -> Result<Outcome> {
    calls(scene, call(1, "value", &body.into())).await
}

/// The same where the body does not fit a frame.
async fn in_pieces(scene: &mut Scene, body: Vec<u8>) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let head = call(1, "value", b"");
    let mut begins = begin(7, body.len() as u32)[..8].to_vec();
    begins.push(kind::GET);
    begins.extend(head);
    link.reliable(&[(kind::BEGIN, &begins)]).await?;
    for part in body.chunks(PIECE) {
        link.reliable(&[(kind::PIECE, &piece(7, part))]).await?;
    }
    link.answer(1).await
}

async fn says(scene: &mut Scene, body: Vec<u8>) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.reliable(&[(kind::SEND, &message(None, &body))]).await?;
    link.verdict().await
}
