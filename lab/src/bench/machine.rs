//! The machine: CPUs, memory, wake-ups, and how busy others were meanwhile.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::Pid;

use super::report::float;
use crate::clock;

/// Unit of the times in `/proc/stat`, a second's share: `USER_HZ`, 100 on every Linux of today.
const TICKS: f64 = 100.0;

/// Keeps this thread, and those it starts, on one CPU.
pub(super) fn pin(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut set = CpuSet::new();
    set.set(cpu)?;
    let placed = sched_setaffinity(Pid::from_raw(0), &set);
    placed.with_context(|| format!("staying on CPU {cpu}; --place=free needs no second CPU"))
}

/// Files that ten thousand users need, and some.
const FILES: u64 = 65_536;

/// Lets this process have as many files as many users need, or as many as the system lets it.
pub(crate) fn allow_many_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE)
        && setrlimit(Resource::RLIMIT_NOFILE, FILES.max(most), FILES.max(most)).is_err()
    {
        // With fewer, what needs more says so itself.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// How often threads of a process have gone to sleep so far, and so were woken.
pub(super) fn sleeps(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        sum += field(&format!("{}/status", task?.path().display()), "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

/// Seconds of CPU time that the threads of a process have used. Those of threads that have ended are not in it.
pub(super) fn cpu(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        nanoseconds += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).context("no CPU time")?;
    }
    Ok(float(nanoseconds) / 1e9)
}

fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let word = value.and_then(|value| value.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).with_context(|| format!("{file} has no {name}"))
}

/// Notes what CPU time this program and its processes use, and what all use, so that a disturbed run shows.
pub(super) struct Others {
    since: Instant,
    all: f64,
    own: f64,
}

impl Others {
    /// Begins.
    pub(super) fn watch() -> Self {
        Self { since: clock::now(), all: all_busy(), own: own_busy() }
    }

    /// What others used since, in percent of one CPU. To be called after every process of ours has ended.
    pub(super) fn share(&self) -> f64 {
        let others = (all_busy() - self.all) - (own_busy() - self.own);
        100.0 * others.max(0.0) / self.since.elapsed().as_secs_f64()
    }
}

/// Seconds of user, nice and system time of the machine.
fn all_busy() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(3);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Seconds of CPU time of this process and of those of its children that have ended.
fn own_busy() -> f64 {
    let of = |who| {
        let Ok(usage) = getrusage(who) else { return 0.0 };
        let seconds = |time: nix::sys::time::TimeVal| {
            float(time.tv_sec().unsigned_abs()) + float(time.tv_usec().unsigned_abs()) / 1e6
        };
        seconds(usage.user_time()) + seconds(usage.system_time())
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}
