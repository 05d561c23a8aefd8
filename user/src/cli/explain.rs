//! `parlor explain`: every rung, whether and when it was tried, what came of it, and why the path is what it is.

use std::time::Duration;

use parlor_user::{Path, Peer, Rung, SendError, Step};
use serde::Serialize;
use tokio::time::timeout;

use super::args::Settings;
use super::error::Error;
use super::output::{self, microseconds, milliseconds};
use super::ping::pong;
use super::session::join_anyhow;

/// After the first link better rungs get this long to prove themselves.
const SETTLE: Duration = Duration::from_secs(1);
/// The path is looked at this often meanwhile.
const LOOK: Duration = Duration::from_millis(50);

pub(super) async fn explain(settings: &Settings, peer: &parlor_user::UserName) -> Result<(), Error> {
    let user = join_anyhow(settings).await?;
    let peer = user.peer(peer.as_str()).map_err(SendError::Name)?;
    let connected = peer.connect().await;
    if connected.is_ok() {
        settle(&peer).await;
    }
    let steps = peer.explain();
    let path = peer.path();
    user.leave().await;
    // Of a peer that is not there is nothing to tell but that.
    if connected.is_ok() || steps.iter().any(|step| step.rung.is_some()) {
        let lines = if settings.json { as_json(&steps, path) } else { as_text(&steps, path) };
        lines.iter().try_for_each(|line| output::print(line))?;
    }
    connected.map(drop).map_err(Error::from)
}

/// Waits while a better rung may still come, then measures.
async fn settle(peer: &Peer) {
    let best = async {
        while offered(&peer.explain()).next().zip(peer.path()).is_some_and(|(best, path)| best < path.rung) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = timeout(SETTLE, best).await;
    // Without a pong the path has no round trip, which is told as it is.
    let _ = pong(peer, SETTLE).await;
}

/// The rungs that the story mentions, best first.
fn offered(steps: &[Step]) -> impl Iterator<Item = Rung> {
    Rung::ALL.into_iter().filter(|rung| steps.iter().any(|step| step.rung == Some(*rung)))
}

/// Milliseconds from the first step to each.
fn times(steps: &[Step]) -> impl Iterator<Item = (u64, &Step)> {
    let first = steps.iter().map(|step| step.ago).max().unwrap_or_default();
    steps.iter().map(move |step| (microseconds(first.saturating_sub(step.ago)) / 1000, step))
}

fn as_text(steps: &[Step], path: Option<Path>) -> Vec<String> {
    let step = |(at, step): (u64, &Step)| {
        let rung = step.rung.map_or("-", Rung::as_str);
        format!("{at:>6} ms  {rung:<9}  {}", parlor_protocol::name::printable(&step.what))
    };
    let mut lines: Vec<String> = times(steps).map(step).collect();
    lines.extend(Rung::ALL.map(|rung| format!("{rung:<9}  {}", verdict(rung, steps, path))));
    if let Some(path) = path {
        let rtt = path.rtt.map_or_else(|| "not measured".to_owned(), milliseconds);
        lines.push(format!("path       {}, round trip {rtt}, cipher {}", path.rung, path.cipher));
    }
    lines
}

fn as_json(steps: &[Step], path: Option<Path>) -> Vec<String> {
    let step = |(at_ms, step): (u64, &Step)| {
        output::json(&JsonStep { rung: step.rung.map(Rung::as_str), at_ms, what: &step.what })
    };
    let mut lines: Vec<String> = times(steps).map(step).collect();
    let [same_host, lan, public, relay] = Rung::ALL.map(|rung| verdict(rung, steps, path));
    lines.push(output::json(&JsonVerdict {
        chosen: path.map(|path| path.rung.as_str()),
        rtt_us: path.and_then(|path| path.rtt).map(microseconds),
        cipher: path.map(|path| path.cipher.as_str()),
        rungs: JsonRungs { same_host, lan, public, relay },
    }));
    lines
}

/// A step for a program to read.
#[derive(Serialize)]
struct JsonStep<'a> {
    rung: Option<&'a str>,
    at_ms: u64,
    what: &'a str,
}

/// The last line for a program to read.
#[derive(Serialize)]
struct JsonVerdict {
    chosen: Option<&'static str>,
    rtt_us: Option<u64>,
    cipher: Option<&'static str>,
    rungs: JsonRungs,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct JsonRungs {
    same_host: String,
    lan: String,
    public: String,
    relay: String,
}

/// Why a rung carries the conversation, or does not.
fn verdict(rung: Rung, steps: &[Step], path: Option<Path>) -> String {
    let last = steps.iter().rfind(|step| step.rung == Some(rung));
    match (path.map(|path| path.rung), last) {
        (Some(chosen), _) if chosen == rung => "chosen: the best rung that works".to_owned(),
        (Some(chosen), Some(_)) if chosen < rung => {
            format!("offered, not needed: {chosen} is better and works")
        }
        (Some(chosen), None) if chosen < rung => format!("not tried: {chosen} is better and works"),
        (_, Some(last)) => format!("not in use: {}", last.what),
        (_, None) => format!("not offered: {}", missing(rung)),
    }
}

/// What the Room did not see that would have let it offer a rung.
fn missing(rung: Rung) -> &'static str {
    match rung {
        Rung::SameHost => "the two do not run on one host",
        Rung::Lan => "the two share no --lan-id, or one of them has no private address",
        Rung::Public => "neither has a public address that the Room could check (see --public-ip)",
        Rung::Relay => "the Room's relay is off or has no room for another pair",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(ago_ms: u64, rung: Option<Rung>, what: &str) -> Step {
        Step { ago: Duration::from_millis(ago_ms), rung, what: what.to_owned() }
    }

    fn path(rung: Rung) -> Path {
        Path { rung, rtt: None, cipher: parlor_user::protocol::introduction::Cipher::ChaChaPoly }
    }

    #[test]
    fn each_rung_has_a_verdict() {
        let steps =
            [step(30, Some(Rung::Lan), "tried 10.0.0.1:1: refused"), step(10, Some(Rung::Relay), "works")];
        let verdicts = Rung::ALL.map(|rung| verdict(rung, &steps, Some(path(Rung::Relay))));
        assert!(verdicts[0].starts_with("not offered"), "{verdicts:?}");
        assert_eq!(verdicts[1], "not in use: tried 10.0.0.1:1: refused");
        assert!(verdicts[2].starts_with("not offered"), "{verdicts:?}");
        assert!(verdicts[3].starts_with("chosen"), "{verdicts:?}");
        let better = verdict(Rung::Relay, &steps, Some(path(Rung::Lan)));
        assert!(better.contains("lan is better"), "{better}");
    }

    #[test]
    fn times_count_from_the_first_step() {
        let steps = [step(30, None, "a"), step(10, None, "b")];
        let at: Vec<u64> = times(&steps).map(|(at, _)| at).collect();
        assert_eq!(at, [0, 20]);
    }

    #[test]
    fn the_last_line_of_json_says_what_was_chosen() {
        let lines = as_json(&[step(3, Some(Rung::SameHost), "works")], Some(path(Rung::SameHost)));
        let last: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        assert_eq!(last["chosen"], "same-host");
        assert_eq!(last["cipher"], "chacha20-poly1305");
    }
}
