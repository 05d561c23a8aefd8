//! bcrypt on a few threads of its own, with a short queue: under a flood of logins the Room says `Busy` and stays
//! itself.
//!
//! Who is next, and who has to go when the queue is full, is decided in [`line`](crate::core::line).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_protocol::limits::BCRYPT_WAIT;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lock;
use crate::clock;
use crate::core::admission::PasswordCheck;
use crate::core::coordinator::PasswordVerdict;
use crate::core::line::{Line, Precedence};

/// When to come back after `Busy`: by then the queue has moved on.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So many at once and so many that wait.
#[derive(Debug, Clone)]
pub(crate) struct PasswordThreads {
    threads: Arc<Mutex<Threads>>,
    checked: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Threads {
    free: usize,
    /// Dropped, the end of a channel says that it is nobody's turn any more.
    line: Line<oneshot::Sender<Thread>>,
}

/// The right to one thread. Whoever is next in line has it next.
#[derive(Debug)]
struct Thread {
    of: Option<Arc<Mutex<Threads>>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(threads) = self.of.take() else { return };
        loop {
            let mut locked = lock(&threads);
            locked.line.retain(|turn| !turn.is_closed());
            let Some(next) = locked.line.take(clock::now().instant) else {
                locked.free += 1;
                return;
            };
            drop(locked);
            match next.send(Thread { of: Some(Arc::clone(&threads)) }) {
                Ok(()) => return,
                // It has given up; the thread is for the one behind it.
                Err(mut thread) => thread.of = None,
            }
        }
    }
}

impl PasswordThreads {
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        let threads = Threads { free: threads.max(1), line: Line::new(queue) };
        Self { threads: Arc::new(Mutex::new(threads)), checked: Arc::default() }
    }

    /// Passwords verified so far.
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Verifies all of `checks`, or says that there is no time for it.
    /// Where `skip` says so when a thread is free, nobody waits for the answer and nothing is verified.
    pub(crate) async fn verify(
        &self,
        checks: Vec<PasswordCheck>,
        precedence: Precedence,
        skip: impl FnOnce() -> bool,
    ) -> PasswordVerdict {
        let busy = PasswordVerdict::Busy { retry_after: RETRY_AFTER };
        let Some(thread) = self.thread(precedence).await else { return busy };
        if skip() {
            return PasswordVerdict::Skipped;
        }
        self.checked.fetch_add(checks.len() as u64, Ordering::Relaxed);
        // The right goes along, so that a login that is given up still counts until its thread is free.
        let verified = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            // All are verified, so that the time does not tell which was wrong.
            checks.iter().fold(true, |right, check| check.hash.verify(check.password.expose()) & right)
        });
        match verified.await {
            Ok(true) => PasswordVerdict::Right,
            Ok(false) => PasswordVerdict::Wrong,
            Err(_) => busy,
        }
    }

    async fn thread(&self, precedence: Precedence) -> Option<Thread> {
        let turn = {
            let mut threads = lock(&self.threads);
            if threads.free > 0 {
                threads.free -= 1;
                return Some(Thread { of: Some(Arc::clone(&self.threads)) });
            }
            threads.join(precedence)
        };
        timeout(BCRYPT_WAIT, turn).await.ok()?.ok()
    }
}

impl Threads {
    /// A place in the line. Whoever has no place, or no longer one, hears of it by its channel.
    fn join(&mut self, precedence: Precedence) -> oneshot::Receiver<Thread> {
        self.line.retain(|turn| !turn.is_closed());
        let (turn, wait) = oneshot::channel();
        drop(self.line.join(precedence, turn, clock::now().instant));
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use parlor_protocol::wire::control::Secret;

    use super::*;
    use crate::password::PasswordHash;

    const STRANGER: Precedence = Precedence::Stranger(Reverse(0));

    fn check(password: &str) -> PasswordCheck {
        let hash = PasswordHash::make("123456", 10, [1; 16]).unwrap();
        PasswordCheck { hash, password: Secret::new(password.into()).unwrap() }
    }

    #[tokio::test]
    async fn all_passwords_must_be_right() {
        let threads = PasswordThreads::new(1, 1);
        assert_eq!(
            threads.verify(vec![check("123456"), check("123456")], STRANGER, || false).await,
            PasswordVerdict::Right
        );
        assert_eq!(
            threads.verify(vec![check("123456"), check("x")], STRANGER, || false).await,
            PasswordVerdict::Wrong
        );
        assert_eq!(
            threads.verify(vec![check("x"), check("123456")], STRANGER, || false).await,
            PasswordVerdict::Wrong
        );
        assert_eq!(threads.checked(), 6);
    }

    #[tokio::test]
    async fn with_a_full_queue_the_answer_is_busy_at_once() {
        let threads = PasswordThreads::new(1, 0);
        let _somebody = threads.thread(STRANGER).await.unwrap();
        let verdict = threads.verify(vec![check("123456")], Precedence::Known, || false).await;
        assert_eq!(verdict, PasswordVerdict::Busy { retry_after: RETRY_AFTER });
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_verified() {
        let threads = PasswordThreads::new(1, 1);
        assert_eq!(threads.verify(vec![check("x")], STRANGER, || true).await, PasswordVerdict::Skipped);
        assert_eq!(threads.checked(), 0);
    }

    #[test]
    fn the_next_in_line_has_the_thread_and_who_lost_its_place_or_has_given_up_is_passed_over() {
        let threads = PasswordThreads::new(1, 2);
        lock(&threads.threads).free = 0;
        let join = |precedence| lock(&threads.threads).join(precedence);
        let mut displaced = join(STRANGER);
        let (gone, mut patient) = (join(Precedence::Known), join(STRANGER));
        assert_eq!(displaced.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
        drop(gone);
        drop(Thread { of: Some(Arc::clone(&threads.threads)) });
        drop(patient.try_recv().unwrap());
        assert_eq!(lock(&threads.threads).free, 1);
    }
}
