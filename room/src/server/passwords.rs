//! bcrypt on a few threads of its own, with a short queue: under a flood of logins the Room says `Busy` and stays
//! itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parlor_protocol::limits::BCRYPT_WAIT;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::core::admission::PasswordCheck;
use crate::core::coordinator::PasswordVerdict;

/// When to come back after `Busy`: by then the queue has moved on.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So many at once and so many that wait.
#[derive(Debug, Clone)]
pub(crate) struct PasswordThreads {
    running: Arc<Semaphore>,
    inside: Arc<Semaphore>,
    checked: Arc<AtomicU64>,
}

impl PasswordThreads {
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        let threads = threads.max(1);
        Self {
            running: Arc::new(Semaphore::new(threads)),
            inside: Arc::new(Semaphore::new(threads.saturating_add(queue).min(Semaphore::MAX_PERMITS))),
            checked: Arc::default(),
        }
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
        skip: impl FnOnce() -> bool,
    ) -> PasswordVerdict {
        let busy = PasswordVerdict::Busy { retry_after: RETRY_AFTER };
        let Ok(_inside) = self.inside.try_acquire() else { return busy };
        let Ok(Ok(running)) = timeout(BCRYPT_WAIT, Arc::clone(&self.running).acquire_owned()).await else {
            return busy;
        };
        if skip() {
            return PasswordVerdict::Skipped;
        }
        self.checked.fetch_add(checks.len() as u64, Ordering::Relaxed);
        // The permit goes along, so that a login that is given up still counts until its thread is free.
        let verified = tokio::task::spawn_blocking(move || {
            let _running = running;
            // All are verified, so that the time does not tell which was wrong.
            checks.iter().fold(true, |right, check| check.hash.verify(check.password.expose()) & right)
        });
        match verified.await {
            Ok(true) => PasswordVerdict::Right,
            Ok(false) => PasswordVerdict::Wrong,
            Err(_) => busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::wire::control::Secret;

    use super::*;
    use crate::password::PasswordHash;

    fn check(password: &str) -> PasswordCheck {
        let hash = PasswordHash::make("123456", 10, [1; 16]).unwrap();
        PasswordCheck { hash, password: Secret::new(password.into()).unwrap() }
    }

    #[tokio::test]
    async fn all_passwords_must_be_right() {
        let threads = PasswordThreads::new(1, 1);
        assert_eq!(
            threads.verify(vec![check("123456"), check("123456")], || false).await,
            PasswordVerdict::Right
        );
        assert_eq!(threads.verify(vec![check("123456"), check("x")], || false).await, PasswordVerdict::Wrong);
        assert_eq!(threads.verify(vec![check("x"), check("123456")], || false).await, PasswordVerdict::Wrong);
        assert_eq!(threads.checked(), 6);
    }

    #[tokio::test]
    async fn with_a_full_queue_the_answer_is_busy_at_once() {
        let threads = PasswordThreads::new(1, 0);
        let _somebody = threads.inside.try_acquire().unwrap();
        let verdict = threads.verify(vec![check("123456")], || false).await;
        assert_eq!(verdict, PasswordVerdict::Busy { retry_after: RETRY_AFTER });
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_verified() {
        let threads = PasswordThreads::new(1, 1);
        assert_eq!(threads.verify(vec![check("x")], || true).await, PasswordVerdict::Skipped);
        assert_eq!(threads.checked(), 0);
    }
}
