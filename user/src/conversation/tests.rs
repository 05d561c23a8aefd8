//! What one conversation does when its tasks run in an order that no test of two programs can bring about.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use futures_util::FutureExt;
use parlor_protocol::identity::InstanceId;
use parlor_protocol::noise::payload::{Epoch, LinkHello};
use parlor_protocol::presence::Encryption;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::rung::Rung;
use parlor_protocol::session::Given;
use parlor_protocol::wire::peer::Status;
use tokio_util::sync::CancellationToken;

use super::Conversation;
use super::answering::Intake;
use super::turn::TurnOf;
use crate::clock;
use crate::core::channel::{Channel, Event, LinkId};
use crate::error::{OpenError, SendError};
use crate::hub::{Hub, harness};
use crate::inbox::Inbox;

/// Foo's conversation with Bar, and its callback "wait" that never answers.
fn foo_and_bar() -> (Arc<Hub>, Arc<Conversation>) {
    let (hub, _) = harness::foo(Encryption::On);
    let waits = |_, (): ()| std::future::pending::<Result<(), ()>>();
    hub.callbacks.on_get("wait".parse().unwrap(), waits).forever();
    let conversation = hub.conversation(&"Bar".parse().unwrap());
    (hub, conversation)
}

fn call<C, R>(call: u32) -> Event<C, R> {
    Event::Call { call, timeout_ms: 0, name: Bytes::from_static(b"wait"), body: Bytes::from_static(&[0xc0]) }
}

/// A channel with one link, which is to say its last word and has not.
fn has_a_closing_link(conversation: &Conversation) {
    let epoch = Epoch { instance: InstanceId([2; 16]), generation: 0 };
    let hello = LinkHello { epoch, peer_epoch: None, recv_next: 0, max_body: 1024, features: 0 };
    let (link, now, mut events) = (LinkId(1), clock::now(), Vec::new());
    let mut state = conversation.lock();
    let (_, terms) = state.channel.judge(&hello).unwrap();
    state.channel.bind(link, Rung::Lan, &terms, now, &mut events).unwrap();
    state.channel.close_link(link, CloseCode::Idle, now, &mut events);
}

fn running(conversation: &Conversation) -> HashMap<u32, CancellationToken> {
    conversation.lock().running.clone()
}

#[tokio::test]
async fn a_call_of_a_new_session_is_not_touched_by_what_is_told_of_the_one_before() {
    let (hub, conversation) = foo_and_bar();
    conversation.dispatch_of(0, &mut vec![call(7)]);
    let before = running(&conversation);
    conversation.lock().note_session_end();
    assert!(before[&7].is_cancelled());

    // Another task reads the new session's link before this one has told of the old session's end.
    conversation.dispatch_of(1, &mut vec![call(7)]);
    let told_late = [
        Event::Cancelled { call: 7 },
        call(8),
        Event::Ended { code: CloseCode::Done },
        Event::SessionReset { lost: false },
    ];
    conversation.dispatch_of(0, &mut Vec::from(told_late));
    conversation.answer_later(&hub, (0, 9), Status::Ok, Vec::new());
    let now = running(&conversation);
    assert_eq!(now.keys().collect::<Vec<_>>(), [&7]);
    assert!(!now[&7].is_cancelled());
    assert_eq!(conversation.lock().session, 1);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_any_more_is_no_reason_to_look_for_the_peer() {
    let (_hub, conversation) = foo_and_bar();
    conversation.lock().note_session_end();
    let token = CancellationToken::new();
    conversation.answer_when_there_is_room(0, 7, Status::Ok, Vec::new(), &token).await;
    assert!(conversation.is_at_rest());
}

#[tokio::test]
async fn a_link_that_only_waits_to_say_its_last_word_is_no_way_to_the_peer() {
    let (_hub, conversation) = foo_and_bar();
    has_a_closing_link(&conversation);
    // Who asks for a path would ask again at once, for ever.
    assert_eq!(conversation.linked().now_or_never(), None);
}

#[tokio::test]
async fn a_callback_that_goes_is_not_found_for_a_call_that_came_with_an_earlier_one() {
    let (hub, _conversation) = foo_and_bar();
    let (mut intake, wait) = (Intake::new(0), Bytes::from_static(b"wait"));
    let first = Arc::clone(intake.look_up(&hub, &wait).unwrap());
    assert!(Arc::ptr_eq(intake.look_up(&hub, &wait).unwrap(), &first));
    assert!(intake.look_up(&hub, &Bytes::from_static(b"other")).is_none());
    let another = |_, (): ()| async { Ok::<_, ()>(()) };
    let registered = hub.callbacks.on_get("wait".parse().unwrap(), another);
    assert!(!Arc::ptr_eq(intake.look_up(&hub, &wait).unwrap(), &first));
    drop(registered);
    assert!(intake.look_up(&hub, &wait).is_none());
}

#[tokio::test]
async fn who_waits_for_a_turn_hears_of_its_end_also_if_the_other_link_had_another_since() {
    let (_hub, conversation) = foo_and_bar();
    let take = |link| conversation.lock().turn.take(LinkId(link));
    let give_up = |link| drop(TurnOf { conversation: &conversation, link: LinkId(link) });
    assert!(take(1) && !take(2));
    give_up(1);
    assert!(take(1));
    let mut waits = Box::pin(conversation.turn_is_over());
    assert!(waits.as_mut().now_or_never().is_none());
    give_up(1);
    assert_eq!(waits.now_or_never(), Some(()));
}

#[tokio::test]
async fn what_comes_on_another_link_waits_until_what_came_before_has_been_acted_on() {
    let (hub, conversation) = foo_and_bar();
    let (now, mut events) = (clock::now(), Vec::new());
    let mut bar = Channel::<(), ()>::new(Epoch { instance: InstanceId([2; 16]), generation: 0 }, 1024, now);
    // Two messages, each on a link of its own.
    let records = [LinkId(1), LinkId(2)].map(|link| {
        let hello = bar.hello();
        let (accept, terms) = conversation.lock().channel.judge(&hello).unwrap();
        conversation.lock().channel.bind(link, Rung::Lan, &terms, now, &mut events).unwrap();
        let terms = Channel::<(), ()>::terms_of(&hello, &accept);
        bar.bind(link, Rung::Lan, &terms, now, &mut Vec::new()).unwrap();
        bar.send(None, Given::Borrowed(&[link.0 as u8])).unwrap();
        let mut record = Vec::new();
        bar.fill(link, &mut record, false, now).unwrap();
        bar.unlink(link, now, &mut Vec::new());
        Bytes::from(record)
    });
    conversation.dispatch(&mut events);
    let (first, session) = conversation.take_record(LinkId(1), &records[0], now, &mut events).unwrap();
    assert!(first.is_ok());
    let mut early = Vec::new();
    assert!(conversation.take_record(LinkId(2), &records[1], now, &mut early).is_none());
    let mut waits = Box::pin(conversation.turn_is_over());
    assert!(waits.as_mut().now_or_never().is_none());
    conversation.dispatch_of(session, &mut events);
    drop(TurnOf { conversation: &conversation, link: LinkId(2) });
    assert!(waits.as_mut().now_or_never().is_none(), "the turn is another's");
    drop(TurnOf { conversation: &conversation, link: LinkId(1) });
    waits.await;
    let (second, session) = conversation.take_record(LinkId(2), &records[1], now, &mut events).unwrap();
    assert!(second.is_ok());
    conversation.dispatch_of(session, &mut events);
    let mut inbox = Inbox { queue: Arc::clone(&hub.inbox) };
    let bodies: Vec<_> =
        std::iter::from_fn(|| inbox.try_next()).map(|message| message.body().to_vec()).collect();
    assert_eq!(bodies, [[1], [2]]);
}

#[tokio::test]
async fn who_sends_or_calls_while_this_user_leaves_hears_of_it() {
    let (hub, conversation) = foo_and_bar();
    let mut state = conversation.lock_keeper();
    state.keeper.linked();
    drop(state);
    // It has seen that there is a way, and now the user leaves.
    assert!(conversation.is_open().is_ok());
    hub.end_all();
    assert!(matches!(conversation.try_send(None, &mut vec![1]), Err(SendError::Open(OpenError::Left))));
    let name = crate::call::Name::new("wait").unwrap();
    let called = conversation.try_call(&name, 0, &mut vec![1], Waker::noop(), |_| true);
    assert!(matches!(called, Err(SendError::Open(OpenError::Left))));
}
