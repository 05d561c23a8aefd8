//! Calls that are too many, answers that nobody asked for.

use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use parlor_lab::hostile::link::{call, message};
use parlor_lab::hostile::outcome::Outcome::{self, Answered, Closed, Ended, NotUsed, Served};
use parlor_protocol::limits::CALLS_RUNNING;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::peer::{Status, kind};
use parlor_user::GetError;

use super::Way::Both;
use super::records::begun;
use super::{PeerRow, Scene, delivering, row};

/// What a user keeps for a peer that takes no answers over, in bytes: 8 MiB, 1 MiB for calls and answers, and one more.
const KEPT: usize = 10 * 1024 * 1024;
/// MessagePack's nil.
const NIL: &[u8] = b"\xc0";

pub(super) fn rows() -> Vec<PeerRow> {
    use CloseCode::{LimitExceeded, Malformed, Unexpected};
    let both = |name, does, outcome| delivering(&["before"], row(Both, name, does, outcome));
    vec![
        both(
            "a callback is called that is not there",
            |s| Box::pin(calls(s, call(1, "no-such", NIL))),
            Answered(Status::NoSuchCallback),
        ),
        both(
            "a callback is called by what is no UTF-8",
            |s| Box::pin(calls(s, [&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xfe], NIL].concat())),
            Answered(Status::NoSuchCallback),
        ),
        both(
            "a callback is called by an empty name",
            |s| Box::pin(says(s, kind::GET, call(1, "", NIL))),
            Closed(Malformed),
        ),
        both(
            "a GET ends within its fields",
            |s| Box::pin(says(s, kind::GET, vec![1, 0, 0])),
            Closed(Malformed),
        ),
        both("the number of a call that runs is used again", |s| Box::pin(calls_twice(s)), Ended(Unexpected)),
        both("one call more runs than may", |s| Box::pin(calls_on(s)), Answered(Status::Overloaded)),
        both("20,000 calls that never end come at once", |s| Box::pin(calls_without_end(s)), Served),
        both(
            "calls go on, and no answer is ever taken over",
            |s| Box::pin(takes_no_answers(s, "echo")),
            Ended(LimitExceeded),
        ),
        both(
            "calls that take their time go on, and no answer is ever taken over",
            |s| Box::pin(takes_no_answers(s, "later")),
            Ended(LimitExceeded),
        ),
        both(
            "a call is cancelled that was never made",
            |s| Box::pin(says(s, kind::CANCEL, vec![9, 0, 0, 0])),
            Served,
        ),
        both(
            "bytes follow the number of a CANCEL",
            |s| Box::pin(says(s, kind::CANCEL, vec![9, 0, 0, 0, 0])),
            Closed(Malformed),
        ),
        both(
            "an answer comes to a call that was never made",
            |s| Box::pin(says(s, kind::ANSWER, answer(9, 0, NIL))),
            Served,
        ),
        both(
            "an answer has a status that is not known",
            |s| Box::pin(says(s, kind::ANSWER, answer(9, 9, NIL))),
            Closed(Malformed),
        ),
        both(
            "an answer ends within its fields",
            |s| Box::pin(says(s, kind::ANSWER, vec![9, 0, 0, 0])),
            Closed(Malformed),
        ),
        both("a call is answered twice", |s| Box::pin(answers(s, &[b"\x01", b"\x02"])), Served),
        both("a call is answered with what is no MessagePack", |s| Box::pin(answers(s, &[b"\xc1"])), NotUsed),
        both("a call is answered with another type", |s| Box::pin(answers(s, &[b"\xa1x"])), NotUsed),
        both(
            "a call is answered with bytes behind the value",
            |s| Box::pin(answers(s, &[b"\x01\x02"])),
            NotUsed,
        ),
        delivering(
            &["before", "?"],
            row(
                Both,
                "an event comes that nobody handles, with what is no MessagePack",
                |s| Box::pin(says(s, kind::SEND, message(Some("no-such"), b"\xc1"))),
                Served,
            ),
        ),
    ]
}

fn answer(call: u32, status: u8, body: &[u8]) -> Vec<u8> {
    [&call.to_le_bytes(), [status].as_slice(), body].concat()
}

async fn says(scene: &mut Scene, kind: u8, payload: Vec<u8>) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.reliable(&[(kind, &payload)]).await?;
    link.verdict().await
}

/// The answer to a call with the number 1.
pub(super) async fn calls(scene: &mut Scene, payload: Vec<u8>) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    link.reliable(&[(kind::GET, &payload)]).await?;
    let answer = link.answer(1).await?;
    let verdict = link.verdict().await?;
    ensure!(verdict == Served, "answered: {answer}, and then: {verdict}");
    Ok(answer)
}

async fn calls_twice(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let wait = call(1, "wait", NIL);
    link.reliable(&[(kind::GET, &wait), (kind::GET, &wait)]).await?;
    link.verdict().await
}

async fn calls_on(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    for number in 0..=CALLS_RUNNING as u32 {
        link.reliable(&[(kind::GET, &call(number, "wait", NIL))]).await?;
    }
    link.answer(CALLS_RUNNING as u32).await
}

async fn calls_without_end(scene: &mut Scene) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    for number in 0..20_000 {
        link.reliable(&[(kind::GET, &call(number, "wait", NIL))]).await?;
    }
    link.verdict().await
}

/// Calls whose answers are large, none of which is acknowledged; never more at once than may run.
async fn takes_no_answers(scene: &mut Scene, name: &str) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    // MessagePack: text of 32,000 bytes.
    let body = [[0xda, 0x7d, 0x00].as_slice(), &vec![b'x'; 32_000]].concat();
    for number in 0..3_000 {
        link.reliable(&[(kind::GET, &call(number, name, &body))]).await?;
        if number % 32 == 0 {
            let verdict = link.verdict().await?;
            if verdict != Served {
                let executed = scene.executed.load(Ordering::Relaxed);
                ensure!(executed <= KEPT / body.len() + CALLS_RUNNING, "{executed} callbacks were called");
                return Ok(verdict);
            }
        }
    }
    link.verdict().await
}

/// The victim calls, and these bodies are the answers.
async fn answers(scene: &mut Scene, bodies: &[&[u8]]) -> Result<Outcome> {
    let mut link = begun(scene).await?;
    let get = scene.victim.peer(&scene.name)?.get::<_, u8>("number", &());
    let answering = async {
        let Ok(asked) = link.frame(kind::GET).await? else { return Ok(link) };
        for body in bodies {
            let payload = [&asked[..4], &[0], *body].concat();
            link.reliable(&[(kind::ANSWER, &payload)]).await?;
        }
        anyhow::Ok(link)
    };
    let (answered, link) = tokio::join!(get, answering);
    let verdict = link?.verdict().await?;
    match answered {
        Ok(1) => Ok(verdict),
        Err(GetError::Decode(_)) => {
            ensure!(verdict == Served, "{verdict}");
            Ok(NotUsed)
        }
        other => anyhow::bail!("the program hears {other:?}"),
    }
}
