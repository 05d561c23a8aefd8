//! Rows, and how they are run: side by side, each with a deadline.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parlor_lab::hostile::ground::{Ground, on_ground};
use parlor_lab::hostile::leaks;
use parlor_lab::hostile::outcome::{Cost, Outcome};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The longest that a row may take, on any machine: a relay token lives 30 s, and some rows shake hands 300 times.
const ROW: Duration = Duration::from_secs(240);
/// Rows under way at once: fewer than the connections from which a Room refuses some by chance.
const AT_ONCE: usize = 40;

/// The tables that run now, and the descriptors that were open before the first of them.
#[derive(Debug)]
struct Running {
    tables: usize,
    descriptors: usize,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { tables: 0, descriptors: 0 });

/// What a row does to its scene.
pub(crate) type Does<S> = for<'a> fn(&'a mut S) -> Pin<Box<dyn Future<Output = Result<Outcome>> + Send + 'a>>;

/// One behaviour.
pub(crate) struct Row<S> {
    /// What is done, as a sentence.
    pub(crate) name: &'static str,
    /// Doing it.
    pub(crate) does: Does<S>,
    /// What must become of it.
    pub(crate) outcome: Outcome,
    /// What it must cost its address.
    pub(crate) cost: Cost,
}

impl<S> Row<S> {
    /// A row of a behaviour that costs nothing.
    pub(crate) fn new(name: &'static str, does: Does<S>, outcome: Outcome) -> Self {
        Self { name, does, outcome, cost: Cost::Nothing }
    }

    /// Costs this.
    pub(crate) fn costs(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    /// As `docs/SECURITY.md` lists it.
    pub(crate) fn listed(&self) -> String {
        format!("| {} | {} | {} |", self.name, self.outcome, self.cost)
    }

    /// An error unless this is the outcome.
    pub(crate) fn expects(&self, found: &Outcome) -> Result<()> {
        if *found != self.outcome {
            bail!("expected: {}; found: {found}", self.outcome);
        }
        Ok(())
    }
}

/// Runs rows side by side and fails with all that failed. `PARLOR_ROW` in the environment picks those whose
/// sentence contains it.
pub(crate) async fn side_by_side<R, F>(
    rows: Vec<R>,
    name: impl Fn(&R) -> &'static str,
    play: impl Fn(usize, R) -> F,
) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let only = std::env::var("PARLOR_ROW").unwrap_or_default();
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut playing = JoinSet::new();
    for (number, row) in rows.into_iter().enumerate() {
        let name = name(&row);
        if !name.contains(&only) {
            continue;
        }
        let (played, turns) = (play(number, row), Arc::clone(&turns));
        playing.spawn(async move {
            let _turn = turns.acquire_owned().await?;
            timeout(ROW, played).await.unwrap_or_else(|_| bail!("hangs")).context(name)
        });
    }
    let mut failures = Vec::new();
    while let Some(played) = playing.join_next().await {
        match played {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failures.push(format!("{error:#}")),
            Err(error) => failures.push(format!("{error}")),
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("{} rows failed:\n  {}", failures.len(), failures.join("\n  "))
}

/// Runs a table on ground of its own, and holds it to leaving nothing behind. Descriptors are the process's: of tables that
/// run side by side the last looks for what is left.
///
/// A table that fails gives an error and does not panic, or the others would take that for a row's doing.
pub(crate) fn run<F>(table: impl FnOnce(Arc<Ground>) -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let lock = || RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    {
        let mut running = lock();
        if running.tables == 0 {
            running.descriptors = leaks::descriptors()?;
        }
        running.tables += 1;
    }
    let done = on_ground(move |ground| async move {
        let before = leaks::tasks();
        let played = table(ground).await;
        let left = leaks::no_task_is_left(before).await;
        played.and(left)
    });
    let mut running = lock();
    running.tables -= 1;
    let left = if running.tables == 0 { leaks::nothing_is_left(running.descriptors) } else { Ok(()) };
    drop(running);
    done.and(left)
}
