//! The thread that writes to the data directory: one change after the other, in the order they were made.

use tokio::sync::{mpsc, oneshot};

use crate::admin::{AdminError, AdminErrorKind, AdminResponse};
use crate::store::{Store, StoreChange};

/// Changes that may wait for the disk.
pub(crate) const CHANGES: usize = 1024;

/// A change, and who wants to know when it is on disk.
pub(crate) struct Job {
    pub(crate) change: StoreChange,
    pub(crate) reply: Option<oneshot::Sender<AdminResponse>>,
}

/// Makes changes until nobody can send more. Blocks: it has a thread of its own.
pub(crate) fn run(mut store: Store, mut jobs: mpsc::Receiver<Job>) {
    while let Some(Job { change, reply }) = jobs.blocking_recv() {
        let response = match store.apply(change) {
            Ok(()) => AdminResponse::Done,
            Err(error) => {
                tracing::error!(%error, "a change is in force but not on disk");
                not_kept(&error.to_string())
            }
        };
        if let Some(reply) = reply {
            // The operator may have gone meanwhile.
            let _ = reply.send(response);
        }
    }
}

/// What the operator is told of a change that is not on disk.
pub(crate) fn not_kept(why: &str) -> AdminResponse {
    let sentence = format!("the change is in force until the Room stops, but was not written: {why}");
    AdminResponse::Failed(AdminError { kind: AdminErrorKind::Io, sentence })
}
