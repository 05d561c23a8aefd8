//! The thread that writes to the data directory: one change after the other, in the order they were made.
//!
//! First logins wait until the identity of their account is on disk, and a whole room of them may come at once; so
//! neighbouring changes of that kind share one write.

use tokio::sync::{mpsc, oneshot};

use crate::admin::{AdminError, AdminErrorKind, AdminResponse};
use crate::store::{Store, StoreChange, StoreError};

/// Changes that may wait for the disk.
pub(crate) const CHANGES: usize = 1024;

/// A change, and who wants to know when it is on disk.
pub(crate) struct Job {
    pub(crate) change: StoreChange,
    pub(crate) reply: Option<oneshot::Sender<AdminResponse>>,
}

/// Makes changes until nobody can send more. Blocks: it has a thread of its own.
pub(crate) fn run(mut store: Store, mut jobs: mpsc::Receiver<Job>) {
    while let Some(job) = jobs.blocking_recv() {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            let Job { change, reply } = job;
            let StoreChange::Binding { name, identity } = change else {
                answer(&store.apply(change), [reply]);
                break;
            };
            let (mut bindings, mut replies) = (vec![(name, identity)], vec![reply]);
            while let Ok(job) = jobs.try_recv() {
                match job {
                    Job { change: StoreChange::Binding { name, identity }, reply } => {
                        bindings.push((name, identity));
                        replies.push(reply);
                    }
                    other => {
                        next = Some(other);
                        break;
                    }
                }
            }
            answer(&store.bind(bindings), replies);
        }
    }
}

fn answer(
    result: &Result<(), StoreError>,
    replies: impl IntoIterator<Item = Option<oneshot::Sender<AdminResponse>>>,
) {
    if let Err(error) = result {
        tracing::error!(%error, "a change is not on disk");
    }
    for reply in replies.into_iter().flatten() {
        let response = match result {
            Ok(()) => AdminResponse::Done,
            Err(error) => not_kept(&error.to_string()),
        };
        // Who asked may have gone meanwhile.
        let _ = reply.send(response);
    }
}

/// What the operator is told of a change that is not on disk.
pub(crate) fn not_kept(why: &str) -> AdminResponse {
    let sentence = format!("the change is in force until the Room stops, but was not written: {why}");
    AdminResponse::Failed(AdminError { kind: AdminErrorKind::Io, sentence })
}

#[cfg(test)]
mod tests {
    use parlor_protocol::identity::PublicIdentity;

    use super::*;

    #[test]
    fn changes_that_share_a_write_are_all_answered_and_their_order_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("room");
        let (store, _) = Store::open(Some(&path), [1; 32]).unwrap();
        let (jobs, queue) = mpsc::channel(64);
        let mut answers = Vec::new();
        let mut push = |change| {
            let (reply, answer) = oneshot::channel();
            jobs.try_send(Job { change, reply: Some(reply) }).unwrap();
            answers.push(answer);
        };
        let binding = |n: u8, identity: Option<u8>| StoreChange::Binding {
            name: format!("user{n}").parse().unwrap(),
            identity: identity.map(|n| PublicIdentity([n; 32])),
        };
        (0..10).for_each(|n| push(binding(n, Some(n))));
        push(StoreChange::Tickets { all: Vec::new() });
        push(binding(1, None));
        push(binding(2, Some(20)));
        drop(jobs);
        run(store, queue);
        assert!(answers.iter_mut().all(|answer| matches!(answer.try_recv(), Ok(AdminResponse::Done))));
        let (_, loaded) = Store::open(Some(&path), [1; 32]).unwrap();
        assert_eq!(loaded.bindings.len(), 9);
        assert_eq!(loaded.bindings.get(&"user2".parse().unwrap()), Some(&PublicIdentity([20; 32])));
    }
}
