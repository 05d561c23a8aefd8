//! `parlor send`: messages, and the wait until the peer has them.

use std::collections::VecDeque;

use parlor_protocol::name::EventName;
use parlor_user::{Peer, Receipt, SendError};
use serde::Serialize;

use super::args::{self, Settings};
use super::error::Error;
use super::input;
use super::session::join_anyhow;

/// Receipts that may be outstanding. Small messages fill the channel's 8 MiB with more of them than this, but
/// acknowledgements come far sooner.
const RECEIPTS: usize = 65_536;

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
    let pushed = async {
        while let Some(batch) = input.recv().await {
            for line in batch? {
                let number = delivery.sent + 1;
                match push(peer, event, line.as_str()).await {
                    Ok(receipt) => delivery.add(receipt).await,
                    Err(source) => return Err(Error::Line { line: number, source }),
                }
            }
        }
        Ok(())
    };
    let pushed: Result<(), Error> = pushed.await;
    // What was sent before an error is waited for all the same.
    let delivered = delivery.finish(peer).await;
    pushed.and(delivered)
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
                let offline = !peer.is_online();
                Err(Error::NotDelivered { lost: self.lost, sent: self.sent, why, offline })
            }
        }
    }
}
