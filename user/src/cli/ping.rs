//! `parlor ping`: each round trip with the rung it took.

use std::time::Duration;

use parlor_user::{Peer, Rung, SendError};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::args::{self, Settings};
use super::error::Error;
use super::output::{self, microseconds, milliseconds};
use super::session::{self, Stop, join_anyhow};

/// A pong that takes longer is none: links are given up sooner.
pub(super) const PONG: Duration = Duration::from_secs(5);

pub(super) async fn ping(settings: &Settings, what: args::Ping) -> Result<(), Error> {
    let mut stop = Stop::new()?;
    let user = tokio::select! {
        user = join_anyhow(settings) => user?,
        () = stop.next() => return Ok(()),
    };
    let peer = user.peer(what.peer.as_str()).map_err(SendError::Name)?;
    let mut events = user.events();
    let ended = tokio::select! {
        () = stop.next() => Ok(()),
        ended = session::ended(&mut events) => ended,
        ended = pings(&peer, &what, settings.json) => ended,
    };
    stop.leave(user).await;
    ended
}

/// A round trip for a program to read.
#[derive(Serialize)]
struct JsonLine<'a> {
    peer: &'a str,
    seq: u64,
    rtt_us: u64,
    rung: &'a str,
}

async fn pings(peer: &Peer, what: &args::Ping, json: bool) -> Result<(), Error> {
    peer.connect().await?;
    let mut ticks = interval(what.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for seq in 1..=what.count.unwrap_or(u64::MAX) {
        ticks.tick().await;
        let (rung, rtt) = pong(peer, PONG).await?;
        output::print(&if json {
            let (peer, rung) = (peer.name().as_str(), rung.as_str());
            let line = JsonLine { peer, seq, rtt_us: microseconds(rtt), rung };
            output::json(&line)
        } else {
            format!("{}: seq={seq} rung={rung} time={}", peer.name(), milliseconds(rtt))
        })?;
    }
    Ok(())
}

/// One round trip. A ping whose path changed under way is repeated.
pub(super) async fn pong(peer: &Peer, within: Duration) -> Result<(Rung, Duration), Error> {
    let answered = async {
        loop {
            if let Some(pong) = peer.ping().await? {
                return Ok(pong);
            }
        }
    };
    match timeout(within, answered).await {
        Ok(answered) => answered,
        Err(_) => Err(Error::NoPong { peer: peer.name().clone(), after: within }),
    }
}
