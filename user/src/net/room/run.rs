//! The life of a membership: sessions, one after another, until the user leaves or the Room ends it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parlor_protocol::limits::{CONTROL_FRAME, ROOM_DEAD, ROOM_PING};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{Introduce, ToRoom, ToUser};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{JoinError, LostReason, RoomFault, ends_for_good};
use super::login::{Membership, Session};
use super::{RoomCommand, RoomEvent, frames, random};
use crate::clock;
use crate::core::reconnect::Backoff;

/// A goodbye may take this long.
const GOODBYE: Duration = Duration::from_secs(1);
/// Answers to the Room's pings that wait to be written. More is a Room that asks without listening.
const PONGS: usize = 16;

/// How a session ended.
enum Ended {
    /// The user left, or nobody takes events any more.
    Left,
    /// The Room is to be tried again.
    Lost(LostReason),
    /// The Room wants this user no more.
    ForGood(JoinError),
}

/// How a membership begins.
pub(super) enum Begin {
    /// With a session.
    Joined(Box<Session>),
    /// Without the Room, which asked to wait so long.
    Lost { retry_after: Option<Duration> },
}

pub(super) async fn run(
    mut membership: Membership,
    begin: Begin,
    mut commands: mpsc::Receiver<RoomCommand>,
    events: mpsc::Sender<RoomEvent>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::default();
    let mut session = match begin {
        Begin::Joined(session) => *session,
        Begin::Lost { retry_after } => {
            let retry_in = backoff.next(random(), retry_after);
            match return_to_room(&mut membership, &mut backoff, retry_in, &events, &stop).await {
                Some(session) => session,
                None => return,
            }
        }
    };
    loop {
        let began = clock::now();
        let ended = hold(&mut membership, session, &mut commands, &events, &stop).await;
        let why = match ended {
            Ended::Left => return,
            Ended::ForGood(error) => return refuse(&events, &stop, error).await,
            Ended::Lost(why) => why,
        };
        backoff.ended(clock::now().saturating_duration_since(began));
        let retry_in = backoff.next(random(), why.retry_after());
        tracing::info!(%why, ?retry_in, "the Room is lost");
        tokio::select! {
            () = stop.cancelled() => return,
            sent = events.send(RoomEvent::Lost { why, retry_in }) => if sent.is_err() {
                return;
            },
        }
        session = match return_to_room(&mut membership, &mut backoff, retry_in, &events, &stop).await {
            Some(session) => session,
            None => return,
        };
    }
}

/// Waits for the Room's return and reports it. `None`: the user left meanwhile, or the Room wants it no more.
async fn return_to_room(
    membership: &mut Membership,
    backoff: &mut Backoff,
    retry_in: Duration,
    events: &mpsc::Sender<RoomEvent>,
    stop: &CancellationToken,
) -> Option<Session> {
    // Has no end of its own: the user says when to stop.
    let came_back = tokio::select! {
        () = stop.cancelled() => return None,
        came_back = come_back(membership, backoff, retry_in) => came_back,
    };
    let session = match came_back {
        Ok(session) => session,
        Err(error) => {
            refuse(events, stop, error).await;
            return None;
        }
    };
    let back = RoomEvent::Back(Box::new(session.joined.clone()));
    let told = tokio::select! {
        () = stop.cancelled() => false,
        sent = events.send(back) => sent.is_ok(),
    };
    if told {
        return Some(session);
    }
    goodbye(session.stream).await;
    None
}

/// Tries until the Room lets the user in or says that it never will.
async fn come_back(
    membership: &mut Membership,
    backoff: &mut Backoff,
    mut wait: Duration,
) -> Result<Session, JoinError> {
    loop {
        sleep(wait).await;
        match membership.join().await {
            Ok(session) => return Ok(session),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                wait = backoff.next(random(), error.retry_after());
                tracing::info!(%error, retry_in = ?wait, "the Room is still lost");
            }
        }
    }
}

async fn refuse(events: &mpsc::Sender<RoomEvent>, stop: &CancellationToken, error: JoinError) {
    tracing::warn!(%error, "the Room does not let this user in again");
    tokio::select! {
        () = stop.cancelled() => {}
        // An error means that nobody listens.
        _ = events.send(RoomEvent::Refused(error)) => {}
    }
}

/// Reads and writes at once, in one task, until the session ends.
async fn hold(
    membership: &mut Membership,
    session: Session,
    commands: &mut mpsc::Receiver<RoomCommand>,
    events: &mpsc::Sender<RoomEvent>,
    stop: &CancellationToken,
) -> Ended {
    let (reader, mut writer) = tokio::io::split(session.stream);
    let (pong, mut pongs) = mpsc::channel(PONGS);
    let room = session.joined.room;
    // False while a frame is on its way: a goodbye must not stand in the middle of one.
    let whole = AtomicBool::new(true);
    let write = async {
        let mut ping = interval(ROOM_PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.tick().await;
        let mut pings = 0;
        loop {
            let message = tokio::select! {
                Some(number) = pongs.recv() => ToRoom::Pong(number),
                command = commands.recv() => match command {
                    None => return Ended::Left,
                    Some(RoomCommand::Introduce { request, peer }) => {
                        ToRoom::Introduce(Introduce { request, peer })
                    }
                    Some(RoomCommand::Presence(reachability)) => {
                        let presence = reachability.presence(&room);
                        membership.options.reachability = reachability;
                        ToRoom::Presence(presence)
                    }
                },
                _ = ping.tick() => {
                    pings += 1;
                    ToRoom::Ping(pings)
                }
            };
            whole.store(false, Ordering::Relaxed);
            if let Err(why) = frames::write(&mut writer, &message).await {
                return Ended::Lost(why);
            }
            whole.store(true, Ordering::Relaxed);
        }
    };
    let ended = tokio::select! {
        () = stop.cancelled() => Ended::Left,
        ended = read(reader, session.early, events, pong) => ended,
        ended = write => ended,
    };
    if matches!(ended, Ended::Left) && whole.load(Ordering::Relaxed) {
        goodbye(writer).await;
    }
    ended
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    mut early: VecDeque<ToUser>,
    events: &mpsc::Sender<RoomEvent>,
    pong: mpsc::Sender<u64>,
) -> Ended {
    loop {
        let message = match early.pop_front() {
            Some(message) => message,
            None => match timeout(ROOM_DEAD, frames::read(&mut reader, CONTROL_FRAME)).await {
                Ok(Ok(message)) => message,
                Ok(Err(why)) => return Ended::Lost(why),
                Err(_) => return Ended::Lost(LostReason::Silent),
            },
        };
        let event = match message {
            ToUser::Roster(roster) => RoomEvent::Roster(roster),
            ToUser::Introduced(introduced) => RoomEvent::Introduced(introduced),
            ToUser::IntroductionRefused(request, why) => RoomEvent::IntroductionRefused { request, why },
            ToUser::Blacklist(nets) => RoomEvent::Blacklist(nets),
            ToUser::Reachable(addresses) => RoomEvent::Reachable(addresses),
            ToUser::Ping(number) => {
                // A full queue already holds signs of life.
                let _ = pong.try_send(number);
                continue;
            }
            ToUser::Pong(_) => continue,
            ToUser::Closing(closing) if ends_for_good(&closing) => {
                return Ended::ForGood(JoinError::Ended(closing));
            }
            ToUser::Closing(closing) => return Ended::Lost(LostReason::Closed(closing)),
            ToUser::HelloReply(_) | ToUser::LoginRefused(_) | ToUser::Welcome(_) => {
                return Ended::Lost(RoomFault::Unexpected(frames::kind(&message)).into());
            }
        };
        if events.send(event).await.is_err() {
            return Ended::Left;
        }
    }
}

/// Tells the Room that the user leaves, if the Room still listens.
async fn goodbye(mut stream: impl AsyncWrite + Unpin) {
    let said = timeout(GOODBYE, async {
        frames::write(&mut stream, &ToRoom::Bye(CloseCode::Done)).await.ok()?;
        stream.shutdown().await.ok()
    });
    if said.await.is_err() {
        tracing::debug!("the Room did not hear the goodbye");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a session on which the Room sends this and then nothing more.
    async fn after(messages: &[ToUser]) -> (Ended, Vec<RoomEvent>, Duration) {
        let (user, mut room) = tokio::io::duplex(4096);
        let (events, mut received) = mpsc::channel(8);
        let (pong, _pongs) = mpsc::channel(1);
        for message in messages {
            room.write_all(&message.encode()).await.unwrap();
        }
        let began = tokio::time::Instant::now();
        let ended = read(user, VecDeque::new(), &events, pong).await;
        drop(events);
        let mut list = Vec::new();
        while let Some(event) = received.recv().await {
            list.push(event);
        }
        (ended, list, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_says_nothing_for_45_s_is_lost() {
        let (ended, events, waited) = after(&[ToUser::Pong(1)]).await;
        assert!(matches!(ended, Ended::Lost(LostReason::Silent)));
        assert!(events.is_empty());
        assert_eq!(waited, ROOM_DEAD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_room_that_pings_more_than_it_reads_is_no_reason_to_stop_or_to_hoard() {
        let pings: Vec<ToUser> = (0..100).map(ToUser::Ping).collect();
        let (ended, events, _) = after(&pings).await;
        assert!(matches!(ended, Ended::Lost(LostReason::Silent)));
        assert!(events.is_empty());
    }
}
