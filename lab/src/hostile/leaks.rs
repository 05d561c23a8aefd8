//! What must not be left behind: descriptors, tasks, and panics that a task would swallow.

use std::fs;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::runtime::Handle;

use crate::clock;

/// What was said may still be under way, and sockets linger.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static WATCHED: Once = Once::new();

/// The open descriptors of this process. From the first time on, panics are written down as well, whoever catches them.
pub fn descriptors() -> Result<usize> {
    WATCHED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
            before(info);
        }));
        // What the first runtime of a process opens for all of them stays open.
        drop(tokio::runtime::Builder::new_current_thread().enable_all().build());
    });
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Waits until there are no more descriptors than there were, and nothing has panicked.
pub fn nothing_is_left(before: usize) -> Result<()> {
    let deadline = clock::now() + PATIENCE;
    loop {
        let now = descriptors()?;
        if now <= before {
            break;
        }
        ensure!(clock::now() < deadline, "{now} descriptors are open, where there were {before}");
        thread::sleep(LOOK);
    }
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(panics.is_empty(), "something panicked: {panics:?}");
    Ok(())
}

/// The tasks of this runtime that have not ended.
pub fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until no more tasks are there than there were.
pub async fn no_task_is_left(before: usize) -> Result<()> {
    let deadline = clock::now() + PATIENCE;
    while tasks() > before {
        if clock::now() > deadline {
            bail!("{} tasks have not ended, where there were {before}", tasks());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
