//! bcrypt on a few threads of its own, with a short queue: under a flood of logins the Room says `Busy` and stays
//! itself.
//!
//! The queue is in order of [`Precedence`], and of arrival within it. When it is full, whoever comes takes the place
//! of the last of a lower rank; so guessers wait for each other and not those who are known.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_protocol::limits::BCRYPT_WAIT;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lock;
use crate::core::admission::PasswordCheck;
use crate::core::coordinator::{PasswordVerdict, Precedence};

/// When to come back after `Busy`: by then the queue has moved on.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So many at once and so many that wait.
#[derive(Debug, Clone)]
pub(crate) struct PasswordThreads {
    line: Arc<Mutex<Line>>,
    checked: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Line {
    free: usize,
    /// Highest rank first, and who came first first.
    waiting: VecDeque<(Precedence, oneshot::Sender<Thread>)>,
    most: usize,
}

/// The right to one thread. Whoever waits first has it next.
#[derive(Debug)]
struct Thread {
    line: Option<Arc<Mutex<Line>>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(line) = self.line.take() else { return };
        loop {
            let mut locked = lock(&line);
            let Some((_, next)) = locked.waiting.pop_front() else {
                locked.free += 1;
                return;
            };
            drop(locked);
            match next.send(Thread { line: Some(Arc::clone(&line)) }) {
                Ok(()) => return,
                // It has given up; the thread is for the one behind it.
                Err(mut thread) => thread.line = None,
            }
        }
    }
}

impl PasswordThreads {
    pub(crate) fn new(threads: usize, queue: usize) -> Self {
        let line = Line { free: threads.max(1), waiting: VecDeque::new(), most: queue };
        Self { line: Arc::new(Mutex::new(line)), checked: Arc::default() }
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
            let mut line = lock(&self.line);
            if line.free > 0 {
                line.free -= 1;
                return Some(Thread { line: Some(Arc::clone(&self.line)) });
            }
            line.join(precedence)?
        };
        timeout(BCRYPT_WAIT, turn).await.ok()?.ok()
    }
}

impl Line {
    /// A place in it, if there is one.
    fn join(&mut self, precedence: Precedence) -> Option<oneshot::Receiver<Thread>> {
        self.waiting.retain(|(_, turn)| !turn.is_closed());
        if self.waiting.len() >= self.most {
            let (last, _) = self.waiting.back()?;
            if *last >= precedence {
                return None;
            }
            // Its end of the channel goes with it, which is how it hears of it.
            self.waiting.pop_back();
        }
        let (turn, wait) = oneshot::channel();
        let at = self.waiting.partition_point(|(other, _)| *other >= precedence);
        self.waiting.insert(at, (precedence, turn));
        Some(wait)
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
            threads.verify(vec![check("123456"), check("123456")], Precedence::Stranger, || false).await,
            PasswordVerdict::Right
        );
        assert_eq!(
            threads.verify(vec![check("123456"), check("x")], Precedence::Stranger, || false).await,
            PasswordVerdict::Wrong
        );
        assert_eq!(
            threads.verify(vec![check("x"), check("123456")], Precedence::Stranger, || false).await,
            PasswordVerdict::Wrong
        );
        assert_eq!(threads.checked(), 6);
    }

    #[tokio::test]
    async fn with_a_full_queue_the_answer_is_busy_at_once() {
        let threads = PasswordThreads::new(1, 0);
        let _somebody = threads.thread(Precedence::Suspect).await.unwrap();
        let verdict = threads.verify(vec![check("123456")], Precedence::Known, || false).await;
        assert_eq!(verdict, PasswordVerdict::Busy { retry_after: RETRY_AFTER });
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_verified() {
        let threads = PasswordThreads::new(1, 1);
        assert_eq!(
            threads.verify(vec![check("x")], Precedence::Stranger, || true).await,
            PasswordVerdict::Skipped
        );
        assert_eq!(threads.checked(), 0);
    }

    /// Those who wait, in the order in which they get the one thread; and how many were sent away.
    fn served(queue: usize, who: &[(u8, Precedence)]) -> (Vec<u8>, usize) {
        let threads = PasswordThreads::new(1, queue);
        lock(&threads.line).free = 0;
        let mut thread = Some(Thread { line: Some(Arc::clone(&threads.line)) });
        let mut waits: Vec<_> = who
            .iter()
            .filter_map(|(number, rank)| Some((*number, lock(&threads.line).join(*rank)?)))
            .collect();
        let (mut order, all) = (Vec::new(), who.len());
        while let Some(free) = thread.take() {
            drop(free);
            for (number, wait) in &mut waits {
                if let Ok(next) = wait.try_recv() {
                    order.push(*number);
                    thread = Some(next);
                }
            }
        }
        let away = all - order.len();
        assert_eq!(lock(&threads.line).free, 1);
        (order, away)
    }

    #[test]
    fn who_is_known_goes_before_strangers_and_those_before_who_has_failed() {
        use Precedence::{Known, Stranger, Suspect};
        let who = [(1, Suspect), (2, Stranger), (3, Known), (4, Stranger), (5, Known), (6, Suspect)];
        assert_eq!(served(9, &who), (vec![3, 5, 2, 4, 1, 6], 0));
    }

    #[test]
    fn in_a_full_queue_a_higher_rank_takes_the_place_of_the_last_of_the_lowest() {
        use Precedence::{Known, Stranger, Suspect};
        let who =
            [(1, Suspect), (2, Suspect), (3, Stranger), (4, Known), (5, Stranger), (6, Suspect), (7, Known)];
        assert_eq!(served(2, &who), (vec![4, 7], 5));
    }

    #[test]
    fn who_has_given_up_is_passed_over() {
        let threads = PasswordThreads::new(1, 9);
        lock(&threads.line).free = 0;
        let gone = lock(&threads.line).join(Precedence::Known);
        let mut patient = lock(&threads.line).join(Precedence::Suspect).unwrap();
        drop(gone);
        drop(Thread { line: Some(Arc::clone(&threads.line)) });
        assert!(patient.try_recv().is_ok());
    }
}
