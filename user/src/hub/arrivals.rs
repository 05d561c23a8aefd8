//! Peers that come to the listener.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use parlor_protocol::introduction::IntroductionId;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Hub, Known};
use crate::clock;
use crate::conversation::{Incoming, turn_away};
use crate::net::listener::Arrival;

/// A peer that dials before the Room's word of it has arrived is waited for this long.
const EARLY: Duration = Duration::from_secs(2);
/// A handshake that a peer opened on the listener must be done by then.
const ANSWER: Duration = parlor_protocol::limits::LINK_ATTEMPT;
/// The rungs on which a peer comes to the listener.
const DIRECT: &[Rung] = &[Rung::SameHost, Rung::Lan, Rung::Public];

/// What the Room has said of a peer that comes.
enum Expected {
    /// It may come.
    Known(Arc<Known>),
    /// Its key is not the one that was seen before under its name.
    OtherKey,
}

impl Hub {
    /// Answers peers that come to the listener, until the user leaves.
    pub(crate) async fn answer_arrivals(self: Arc<Self>, mut arrivals: mpsc::Receiver<Arrival>) {
        loop {
            let arrival = tokio::select! {
                () = self.stop.cancelled() => return,
                arrival = arrivals.recv() => arrival,
            };
            let Some(arrival) = arrival else { return };
            let hub = Arc::clone(&self);
            self.tasks.spawn(async move {
                let from = arrival.from;
                let answered = tokio::select! {
                    () = hub.stop.cancelled() => return,
                    answered = timeout(ANSWER, hub.answer_arrival(arrival)) => answered,
                };
                match answered {
                    Ok(Ok(())) => {}
                    Ok(Err(why)) => tracing::debug!(%from, %why, "a peer's link was not taken"),
                    Err(_) => tracing::debug!(%from, "a peer's handshake took too long"),
                }
            });
        }
    }

    async fn answer_arrival(self: &Arc<Self>, arrival: Arrival) -> Result<(), String> {
        if self.has_left() {
            return Err("this user has left".to_owned());
        }
        let expected = self.expected(arrival.introduction).await.ok_or("nobody was introduced so")?;
        let from = arrival.from.ip();
        // It may have come before the list: the listener runs first.
        if self.blacklist.blocks(from) {
            return Err("the address is banned".to_owned());
        }
        let known = match expected {
            Expected::Known(known) => known,
            Expected::OtherKey => {
                let told = turn_away(arrival.stream, CloseCode::IdentityChanged).await;
                return Err(format!("its key is not the one seen before; it is told so: {}", told.is_ok()));
            }
        };
        let conversation = self.conversation(&known.peer);
        let fits = |rung: &Rung| self.settings.rungs.contains(rung) && known.allows(*rung, from);
        let rungs: Vec<Rung> = DIRECT.iter().copied().filter(fits).collect();
        if rungs.is_empty() {
            return Err(format!("no rung that this user takes fits {from}"));
        }
        let incoming = Incoming { stream: arrival.stream, known, rungs };
        conversation.answer_link(self, incoming).await.map_err(|error| error.to_string())?;
        drop(arrival.place);
        Ok(())
    }

    /// The introduction a peer comes with. It may be here before the Room's word of it.
    async fn expected(&self, id: IntroductionId) -> Option<Expected> {
        let find = || {
            if self.lock().refused.contains(&id) {
                return Some(Expected::OtherKey);
            }
            let introductions = self.introductions.lock().unwrap_or_else(PoisonError::into_inner);
            let known = introductions.get(&id).filter(|known| known.until > clock::now());
            known.map(|known| Expected::Known(Arc::clone(known)))
        };
        let early = timeout(EARLY, async {
            loop {
                let news = self.introduced.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if let Some(known) = find() {
                    return known;
                }
                news.await;
            }
        });
        early.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use parlor_protocol::introduction::Cipher;
    use parlor_protocol::presence::Encryption;

    use super::super::harness;
    use super::*;
    use crate::net::blacklist::Blacklist;
    use crate::net::dial::dial;
    use crate::net::listener::{CheckKey, Listener};

    #[tokio::test]
    async fn who_came_before_the_list_of_banned_addresses_is_held_against_it() {
        let (hub, _told) = harness::foo(Encryption::On);
        let introduced = hub.know(harness::bar_asks(Cipher::ChaChaPoly, &[Rung::SameHost])).await.unwrap();
        let (sender, mut arrivals) = mpsc::channel(1);
        let (listener, nobody) = (Listener::bind(0).unwrap(), Blacklist::default());
        let foo = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.port()));
        let (tasks, stop) = (hub.tasks.clone(), hub.stop.clone());
        hub.tasks.spawn(listener.run(sender, nobody.clone(), CheckKey::default(), tasks, stop));
        let dialed = dial(foo, introduced.known.introduction.id, ANSWER, &nobody).await.unwrap();
        let arrival = arrivals.recv().await.unwrap();
        hub.blacklist.set(vec!["127.0.0.0/8".parse().unwrap()]);
        // Else its handshake would be waited for, which never comes.
        drop(dialed);
        assert_eq!(hub.answer_arrival(arrival).await, Err("the address is banned".to_owned()));
        hub.stop.cancel();
    }
}
