//! Networks of network namespaces: hosts, switches and routers with NAT, joined by virtual cables.
//!
//! A [`Lab`] owns every namespace it made and deletes them when it is dropped, with all that still runs
//! inside. Names carry the process id, so that tests in parallel never meet, and what a killed test left
//! behind is swept by the next one. No address and no rule exists outside these namespaces.
//!
//! [`Lab::available`] says why there can be no laboratory here (not root, a tool or a kernel feature is
//! missing); tests print that and return, through [`or_skip`].

mod capture;
mod cuts;
mod delay;
mod host;
mod router;
mod topology;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub use self::capture::Capture;
pub use self::delay::Forwarder;
pub use self::host::{Cable, Host, Switch};
pub use self::router::{Nat, Ports, Router, Unsolicited};
pub use self::topology::{Internet, Lan, Site};

use crate::process::{self, Finished};

/// `ip` and `nft` answer in milliseconds; on a loaded machine in seconds.
const TOOL: Duration = Duration::from_secs(20);
/// Every namespace of every laboratory begins with it.
const PREFIX: &str = "parlor-lab";

/// A set of namespaces. Dropping it deletes them and kills what runs inside.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    namespaces: Vec<String>,
}

/// A new laboratory, or `None` after saying on stderr why this test is skipped.
///
/// With `PARLOR_LAB=required` in the environment a missing laboratory is an error, so that a machine that is
/// meant to run these tests cannot skip them unseen.
pub fn or_skip() -> Result<Option<Lab>> {
    match Lab::available() {
        Ok(()) => Lab::new().map(Some),
        Err(why) => {
            let why = why.lines().collect::<Vec<_>>().join(" ");
            let required = std::env::var_os("PARLOR_LAB").is_some_and(|value| value == "required");
            ensure!(!required, "PARLOR_LAB=required, but {why}");
            say_skipped(&why);
            Ok(None)
        }
    }
}

/// Says on stderr why a test is skipped, where the test harness does not hide it.
pub fn say_skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

impl Lab {
    /// Whether this machine can run laboratories. The error says what is missing.
    pub fn available() -> Result<(), String> {
        static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
        ONCE.get_or_init(probe).clone()
    }

    /// A laboratory without hosts.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: OnceLock<()> = OnceLock::new();
        SWEPT.get_or_init(sweep);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { prefix: format!("{PREFIX}-{}-{count}", std::process::id()), namespaces: Vec::new() })
    }

    /// A host without a cable. `name` is unique in this laboratory.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        let namespace = format!("{}-{name}", self.prefix);
        ip(&["netns", "add", &namespace])?;
        self.namespaces.push(namespace.clone());
        Host::set_up(name, namespace)
    }

    /// A switch without a cable, in a namespace of its own.
    pub fn switch(&mut self, name: &str) -> Result<Switch> {
        Switch::set_up(self.host(name)?)
    }

    /// Captures all packets that a host sends and receives, from now on.
    pub fn capture(&self, host: &Host) -> Result<Capture> {
        Capture::start(host)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            demolish(namespace);
        }
    }
}

/// Kills what runs in a namespace and deletes it. Best effort: this runs after failures, too.
fn demolish(namespace: &str) {
    let pids = ip(&["netns", "pids", namespace]).map(|done| done.stdout).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let _ = ip(&["netns", "delete", namespace]);
}

/// Deletes laboratories whose process is gone: it was killed before it could.
fn sweep() {
    let Ok(listed) = ip(&["netns", "list"]) else { return };
    for namespace in listed.stdout.lines().filter_map(|line| line.split_ascii_whitespace().next()) {
        let owner = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            demolish(namespace);
        }
    }
}

/// Tries everything a laboratory needs, in a namespace that is deleted again.
fn probe() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("network namespaces need root".into());
    }
    for tool in ["ip", "nft"] {
        let found = Command::new(tool).arg("-V").output();
        found.map_err(|error| format!("`{tool}` cannot be run ({error}): install iproute2 and nftables"))?;
    }
    let mut lab = Lab::new().map_err(|error| format!("{error:#}"))?;
    let host = lab.host("probe").map_err(|error| format!("no network namespace can be made: {error:#}"))?;
    let bridge = host.ip(&["link", "add", "probe", "type", "bridge"]);
    bridge.map_err(|error| format!("this kernel has no bridge: {error:#}"))?;
    let cable = host.ip(&["link", "add", "probe0", "type", "veth", "peer", "name", "probe1"]);
    cable.map_err(|error| format!("this kernel has no veth: {error:#}"))?;
    let features = [
        ("masquerade", "chain c { type nat hook postrouting priority 100; masquerade fully-random; }"),
        ("dnat", "chain c { type nat hook prerouting priority -100; tcp dport 1 dnat to 192.168.0.1; }"),
        ("conntrack", "chain c { type filter hook forward priority 0; ct state established accept; }"),
        ("numgen", "chain c { type filter hook input priority 0; numgen random mod 100 < 1 drop; }"),
        ("reject", "chain c { type filter hook input priority 0; meta l4proto tcp reject with tcp reset; }"),
    ];
    for (feature, chain) in features {
        let table = format!("table ip probe_{feature} {{ {chain}; }}\n");
        host.nft(&table).map_err(|error| format!("this kernel's nftables lack {feature}: {error:#}"))?;
    }
    Ok(())
}

/// Runs `ip` with these arguments.
fn ip(args: &[&str]) -> Result<Finished> {
    let mut command = Command::new("ip");
    command.args(args);
    process::run(command, b"", TOOL)?.success().with_context(|| format!("ip {}", args.join(" ")))
}

/// True if forwarding can be set inside a namespace's own `/proc/sys/net`.
fn write_sysctl(host: &Host, path: &str, value: &str) -> Result<()> {
    let script = format!("echo {value} > /proc/sys/net/{path}");
    host.run(&["sh", "-c", &script], TOOL)?.success().with_context(|| format!("setting {path}"))?;
    Ok(())
}

/// The namespaces of laboratories that exist now, of any process.
pub fn namespaces() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

#[cfg(test)]
mod tests;
