//! A call's timeout holds from the await on, whatever there is to wait for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[allow(dead_code, reason = "each test file uses its part")]
mod support_room;

use std::future::IntoFuture as _;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parlor_user::GetError;
use support_room::{Lobby, within};

/// Calls that may be under way to one peer.
const CALLS_OUT: usize = 1024;
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_call_that_waits_to_be_sent_gives_up_in_time() {
    let lobby = Lobby::open().await;
    let foo = lobby.user("Foo").join().await.unwrap();
    let bar = lobby.user("Bar").calls_running(2 * CALLS_OUT).join().await.unwrap();
    bar.on_get("hang", |_, (): ()| std::future::pending::<Result<(), String>>()).unwrap().forever();
    let peer = foo.peer("Bar").unwrap();
    within(peer.connect()).await.unwrap();
    let hang = || peer.get::<_, ()>("hang", &()).no_timeout().into_future();
    let mut calls: FuturesUnordered<_> = (0..CALLS_OUT).map(|_| hang()).collect();
    // Polled once, they are all under way, and none ends.
    assert!(calls.next().now_or_never().is_none());
    let late = within(peer.get::<_, ()>("hang", &()).timeout(SHORT).into_future()).await;
    assert_eq!(late.unwrap_err(), GetError::Timeout { maybe_executed: false });
    // One that is dropped makes room, and the timeout holds for what is left.
    let waits = peer.get::<_, ()>("hang", &()).timeout(10 * SHORT).into_future();
    tokio::pin!(waits);
    assert!(waits.as_mut().now_or_never().is_none());
    drop(calls);
    let answered = within(waits).await;
    assert!(matches!(answered, Err(GetError::Timeout { .. })), "{answered:?}");
    lobby.close([foo, bar]).await;
}
