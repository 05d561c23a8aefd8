//! Hosts, switches and the cables between them.
//!
//! A cable runs from a host to a switch. Pulling it takes the carrier away and leaves the host's addresses, as
//! on a real machine. A host's own rules ([`Host::block`], [`Host::lose`]) act on what it sends, receives and
//! forwards.

use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{TOOL, ip};
use crate::process::{self, Finished};

/// The rules of every host: nothing is blocked and nothing lost.
const RULES: &str = "
table inet lab {
    set blocked { type ipv4_addr; }
    set refused { type ipv4_addr; }
    set muted { type inet_service; }
    chain loss { type filter hook prerouting priority -310; }
    chain received {
        type filter hook input priority -10
        ip saddr @blocked drop
        tcp dport @muted drop
        ip saddr @refused tcp flags & rst == 0 reject with tcp reset
    }
    chain sent {
        type filter hook output priority -10
        ip daddr @blocked drop
        tcp sport @muted drop
        ip daddr @refused tcp flags & rst == 0 reject with tcp reset
    }
    chain passing { type filter hook forward priority -10; ip saddr @blocked drop; ip daddr @blocked drop; }
}
";

/// A machine: a network namespace with loopback. Cheap to clone; the [`Lab`](super::Lab) owns the namespace.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    namespace: String,
    interfaces: AtomicU32,
}

impl Host {
    pub(super) fn set_up(name: &str, namespace: String) -> Result<Self> {
        let host = Self(Arc::new(Inner { name: name.into(), namespace, interfaces: AtomicU32::new(0) }));
        host.ip(&["link", "set", "lo", "up"])?;
        host.nft(RULES)?;
        Ok(host)
    }

    /// Its name in the laboratory.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its namespace, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// Plugs it into a switch with an address and its prefix length, such as `192.168.1.10/24`.
    pub fn plug(&self, switch: &Switch, address: &str) -> Result<Cable> {
        let interface = self.next_interface("eth");
        let socket = switch.host.next_interface("port");
        let other_end = ["netns", &switch.host.0.namespace];
        let cable = ["link", "add", &interface, "type", "veth", "peer", "name", &socket];
        self.ip(&[cable.as_slice(), &other_end].concat())?;
        switch.host.ip(&["link", "set", &socket, "master", BRIDGE, "up"])?;
        self.ip(&["address", "add", address, "dev", &interface])?;
        self.ip(&["link", "set", &interface, "up"])?;
        let ip = address.split('/').next().unwrap_or_default().parse().context("the cable's address")?;
        Ok(Cable { switch: switch.clone(), socket, interface, ip })
    }

    /// Sends what is for none of its own networks to `router`.
    pub fn default_route(&self, router: IpAddr) -> Result<()> {
        self.ip(&["route", "add", "default", "via", &router.to_string()]).map(drop)
    }

    /// Packets to and from `peer` vanish here, also those only passing through.
    pub fn block(&self, peer: IpAddr) -> Result<()> {
        self.nft(&format!("add element inet lab blocked {{ {peer} }}\n"))
    }

    /// Ends a [`block`](Self::block).
    pub fn unblock(&self, peer: IpAddr) -> Result<()> {
        self.nft(&format!("delete element inet lab blocked {{ {peer} }}\n"))
    }

    /// Of what arrives from now on, this share vanishes at random. 0 ends it.
    pub fn lose(&self, percent: u8) -> Result<()> {
        ensure!(percent <= 100, "{percent} is no percentage");
        let rule = match percent {
            0 => String::new(),
            100 => "add rule inet lab loss iifname != lo drop\n".to_owned(),
            _ => format!("add rule inet lab loss iifname != lo numgen random mod 100 < {percent} drop\n"),
        };
        self.nft(&format!("flush chain inet lab loss\n{rule}"))
    }

    /// A command that will run on this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0.namespace]).arg(program);
        command
    }

    /// Runs a program on this host to its end.
    pub fn run(&self, args: &[&str], within: Duration) -> Result<Finished> {
        let (program, args) = args.split_first().context("no program to run")?;
        let mut command = self.command(program);
        command.args(args);
        process::run(command, b"", within)
    }

    pub(super) fn ip(&self, args: &[&str]) -> Result<Finished> {
        ip(&[["-netns", self.0.namespace.as_str()].as_slice(), args].concat())
    }

    pub(super) fn nft(&self, script: &str) -> Result<()> {
        let mut command = self.command("nft");
        command.args(["--file", "-"]);
        let done = process::run(command, script.as_bytes(), TOOL)?.success();
        done.map(drop).with_context(|| format!("nft on {}: {script}", self.0.name))
    }

    fn next_interface(&self, kind: &str) -> String {
        format!("{kind}{}", self.0.interfaces.fetch_add(1, Ordering::Relaxed))
    }
}

/// The bridge inside a switch's namespace.
const BRIDGE: &str = "bridge";

/// A switch: one Ethernet network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Switch {
    host: Host,
}

impl Switch {
    pub(super) fn set_up(host: Host) -> Result<Self> {
        host.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        host.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self { host })
    }
}

/// A host's cable to a switch.
#[derive(Debug, Clone)]
pub struct Cable {
    switch: Switch,
    socket: String,
    interface: String,
    ip: IpAddr,
}

impl Cable {
    /// The host's address on this cable.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The host's interface, such as `eth0`.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// Pulls the cable.
    pub fn pull(&self) -> Result<()> {
        self.switch.host.ip(&["link", "set", &self.socket, "down"]).map(drop)
    }

    /// Plugs the cable in again.
    pub fn plug(&self) -> Result<()> {
        self.switch.host.ip(&["link", "set", &self.socket, "up"]).map(drop)
    }
}
