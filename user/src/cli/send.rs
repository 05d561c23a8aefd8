//! `parlor send`: messages, and the wait until the peer has them.

use std::collections::VecDeque;
use std::time::Duration;

use parlor_protocol::limits::RECONNECT_MOST;
use parlor_protocol::name::EventName;
use parlor_user::{OpenError, Peer, Receipt, SendError};
use serde::Serialize;

use super::args::{self, Settings};
use super::error::Error;
use super::input;
use super::output;
use super::session::join_anyhow;

/// Receipts that may be outstanding. Small messages fill the channel's 8 MiB with more of them than this, but
/// acknowledgements come far sooner.
const RECEIPTS: usize = 65_536;
/// How long the Room gets to say whether a peer that ended the conversation is still there.
const ASK: Duration = Duration::from_secs(5);
/// How long a peer that took lines before may be away: what a relayed conversation outlives without its Room, and
/// the longest wait of a user that comes back to one.
const AWAY: Duration = Duration::from_secs(120 + RECONNECT_MOST.as_secs());
/// How often it is looked for meanwhile.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn send(settings: &Settings, what: args::Send) -> Result<(), Error> {
    let user = join_anyhow(settings).await?;
    let peer = user.peer(what.peer.as_str()).map_err(SendError::Name)?;
    let event = what.event.as_ref().map(EventName::as_str);
    let sent = match (&what.text, &what.body) {
        (Some(text), _) if text == "-" => lines(&peer, event).await,
        (Some(text), _) => one(&peer, event, text.as_str()).await,
        (None, Some(body)) => one(&peer, event, body).await,
        (None, None) => Err(Error::Usage("give a text, --body JSON, or - for the lines of stdin".to_owned())),
    };
    user.leave().await;
    sent
}

async fn one<T: Serialize + ?Sized>(peer: &Peer, event: Option<&str>, value: &T) -> Result<(), Error> {
    let mut delivery = Delivery::default();
    delivery.add(push(peer, event, value).await?).await;
    delivery.finish(peer).await
}

/// Sends each line of stdin as it comes, without waiting for the one before to be delivered.
async fn lines(peer: &Peer, event: Option<&str>) -> Result<(), Error> {
    let mut input = input::lines();
    let mut delivery = Delivery::default();
    let mut unsent = None;
    let mut unread = Ok(());
    'input: while let Some(batch) = input.recv().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                unread = Err(error);
                break;
            }
        };
        for line in batch {
            let pushed = match push(peer, event, line.as_str()).await {
                Err(SendError::Open(error)) if delivery.sent > 0 && passes(&error) => {
                    output::note(&format!("waits with line {}: {error}", delivery.sent + 1));
                    // After a line that was lost no other is worth waiting for.
                    delivery.settle(0).await;
                    if delivery.lost > 0 {
                        Err(error.into())
                    } else {
                        again(async || push(peer, event, line.as_str()).await, error).await
                    }
                }
                pushed => pushed,
            };
            match pushed {
                Ok(receipt) => delivery.add(receipt).await,
                Err(source) => {
                    unsent = Some((delivery.sent + 1, source));
                    break 'input;
                }
            }
        }
    }
    // What was sent before an error is waited for all the same.
    match (delivery.finish(peer).await, unsent) {
        (Err(Error::NotDelivered { lost, .. }), Some((line, source))) => {
            Err(Error::Line { line, lost, source })
        }
        (_, Some((line, source))) => Err(Error::Line { line, lost: 0, source }),
        (delivered, None) => delivered.and(unread),
    }
}

/// True of what is over when the peer, or the Room, is back.
fn passes(error: &OpenError) -> bool {
    matches!(error, OpenError::Offline(_) | OpenError::RoomLost(_) | OpenError::NoPath { .. })
}

/// Tries until the peer is back, or has been away for too long.
async fn again<T>(push: impl AsyncFn() -> Result<T, SendError>, error: OpenError) -> Result<T, SendError> {
    let mut last = error;
    let looking = async {
        loop {
            tokio::time::sleep(LOOK).await;
            match push().await {
                Err(SendError::Open(error)) if passes(&error) => last = error,
                pushed => return pushed,
            }
        }
    };
    let pushed = tokio::time::timeout(AWAY, looking).await;
    pushed.unwrap_or_else(|_| Err(last.into()))
}

/// True if the peer is offline, also when the Room has not said so yet.
async fn is_gone(peer: &Peer) -> bool {
    if !peer.is_online() {
        return true;
    }
    let asked = tokio::time::timeout(ASK, peer.connect()).await;
    matches!(asked, Ok(Err(OpenError::Offline(_) | OpenError::NoSuchPeer(_))))
}

async fn push<T: Serialize + ?Sized>(
    peer: &Peer,
    event: Option<&str>,
    value: &T,
) -> Result<Receipt, SendError> {
    match event {
        Some(event) => peer.send_to(event, value).await,
        None => peer.send(value).await,
    }
}

/// What was sent, and what became of it.
#[derive(Default)]
struct Delivery {
    waiting: VecDeque<Receipt>,
    sent: u64,
    lost: u64,
    why: Option<String>,
}

impl Delivery {
    async fn add(&mut self, receipt: Receipt) {
        self.sent += 1;
        self.waiting.push_back(receipt);
        if self.waiting.len() >= RECEIPTS {
            self.settle(RECEIPTS / 2).await;
        }
    }

    /// Waits for the oldest receipts until so many are left.
    async fn settle(&mut self, left: usize) {
        while self.waiting.len() > left {
            let Some(receipt) = self.waiting.pop_front() else { return };
            if let Err(interrupted) = receipt.delivered().await {
                self.lost += 1;
                self.why.get_or_insert(interrupted.why);
            }
        }
    }

    async fn finish(mut self, peer: &Peer) -> Result<(), Error> {
        self.settle(0).await;
        match self.why {
            None => Ok(()),
            Some(why) => {
                let offline = is_gone(peer).await;
                Err(Error::NotDelivered { lost: self.lost, sent: self.sent, why, offline })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    fn offline() -> OpenError {
        OpenError::Offline("Bar".parse().unwrap())
    }

    /// What becomes of a line whose peer comes back after so many seconds, and when.
    async fn a_line_for_who_is_back_after(seconds: u64) -> (Result<(), SendError>, Duration) {
        let began = Instant::now();
        let back = Duration::from_secs(seconds);
        let push = async || if began.elapsed() < back { Err(offline().into()) } else { Ok(()) };
        (again(push, offline()).await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_waits_for_a_peer_whose_room_is_back_after_two_minutes_and_who_comes_back_last() {
        let (sent, waited) = a_line_for_who_is_back_after(149).await;
        assert!(sent.is_ok(), "{sent:?}");
        assert!(waited < Duration::from_secs(150), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_for_who_does_not_come_back_fails_in_the_end() {
        let (sent, waited) = a_line_for_who_is_back_after(3600).await;
        assert!(matches!(sent, Err(SendError::Open(OpenError::Offline(_)))), "{sent:?}");
        assert_eq!(waited, AWAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reason_that_does_not_pass_is_not_waited_out() {
        let tries = Cell::new(0);
        let push = async || {
            tries.set(tries.get() + 1);
            Err::<(), _>(OpenError::Left.into())
        };
        let sent = again(push, offline()).await;
        assert!(matches!(sent, Err(SendError::Open(OpenError::Left))), "{sent:?}");
        assert_eq!(tries.get(), 1);
    }
}
