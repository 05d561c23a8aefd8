//! What must not be left behind: descriptors, tasks, and panics that a task would swallow.

use std::fs;
use std::panic;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::clock;

/// What was said may still be under way, and sockets linger.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static WATCHED: Once = Once::new();

/// What there is now, in this process and runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors.
    pub descriptors: usize,
    /// Tasks of the runtime that have not ended.
    pub tasks: usize,
}

impl Held {
    /// Counts. From the first time on, panics are written down as well, whoever catches them.
    pub fn now() -> Result<Self> {
        WATCHED.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
                before(info);
            }));
        });
        let tasks = Handle::current().metrics().num_alive_tasks();
        Ok(Self { descriptors: fs::read_dir("/proc/self/fd")?.count(), tasks })
    }

    /// Waits until no more is held than there was.
    pub async fn is_all_there_is(self) -> Result<()> {
        let deadline = clock::now() + PATIENCE;
        loop {
            let now = Self::now()?;
            if now.descriptors <= self.descriptors && now.tasks <= self.tasks {
                break;
            }
            if clock::now() > deadline {
                bail!("left behind: {now:?}, where there was {self:?}");
            }
            sleep(LOOK).await;
        }
        let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(panics.is_empty(), "something panicked: {panics:?}");
        Ok(())
    }
}
