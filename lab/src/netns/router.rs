//! A router between a local network and the rest: translates addresses as a home router does, and lets in
//! what was asked for only.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use super::host::{Cable, Host, Switch};
use super::{Lab, write_sysctl};

/// How a router translates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// Which outside port an inside connection gets.
    pub ports: Ports,
    /// What becomes of connections from outside that nobody inside asked for.
    pub unsolicited: Unsolicited,
}

/// Which outside port an inside connection gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Its own where that is free, as most home routers do.
    Preserved,
    /// A random one for each connection, as many carriers do.
    Random,
}

/// What becomes of unsolicited connections from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsolicited {
    /// They are ignored: the caller waits in vain.
    Dropped,
    /// They are refused at once.
    Rejected,
}

impl Nat {
    /// The usual home router: ports preserved, unsolicited connections ignored.
    pub const HOME: Nat = Nat { ports: Ports::Preserved, unsolicited: Unsolicited::Dropped };
    /// A strict one: ports random, unsolicited connections refused.
    pub const STRICT: Nat = Nat { ports: Ports::Random, unsolicited: Unsolicited::Rejected };
}

/// A router with NAT.
#[derive(Debug, Clone)]
pub struct Router {
    /// The machine itself.
    pub host: Host,
    /// Its cable to the local network.
    pub inside: Cable,
    /// Its cable to the rest.
    pub outside: Cable,
}

impl Router {
    /// A router between `inside` and `outside`, each a switch and the router's own address on it.
    pub fn new(
        lab: &mut Lab,
        name: &str,
        inside: (&Switch, &str),
        outside: (&Switch, &str),
        nat: Nat,
    ) -> Result<Self> {
        let host = lab.host(name)?;
        let inside = host.plug(inside.0, inside.1)?;
        let outside = host.plug(outside.0, outside.1)?;
        write_sysctl(&host, "ipv4/ip_forward", "1")?;
        let masquerade = match nat.ports {
            Ports::Preserved => "masquerade persistent",
            Ports::Random => "masquerade fully-random",
        };
        let verdict = match nat.unsolicited {
            Unsolicited::Dropped => "drop",
            Unsolicited::Rejected => "meta l4proto tcp reject with tcp reset",
        };
        let out = outside.interface();
        host.nft(&format!(
            "table ip router {{
                chain inward {{ type nat hook prerouting priority -100; }}
                chain outward {{ type nat hook postrouting priority 100; oifname {out} {masquerade}; }}
                chain through {{
                    type filter hook forward priority 0;
                    ct state established,related accept
                    ct status dnat accept
                    iifname {out} {verdict}
                }}
                chain own {{
                    type filter hook input priority 0;
                    ct state established,related accept
                    iifname {out} meta l4proto tcp {verdict}
                }}
            }}\n"
        ))?;
        Ok(Self { host, inside, outside })
    }

    /// Its address on the outside.
    pub fn public_ip(&self) -> IpAddr {
        self.outside.ip()
    }

    /// Forgets every connection, as a router does that restarts: what hosts inside go on sending comes out of other
    /// ports, if those are random, and nothing finds its way back to the old ones.
    pub fn forget_connections(&self) -> Result<()> {
        let out = self.outside.interface();
        let default = self.host.ip(&["route", "show", "default"])?.stdout;
        // A translated connection is forgotten when its interface goes down, and with it goes the default route.
        self.host.ip(&["link", "set", out, "down"])?;
        self.host.ip(&["link", "set", out, "up"])?;
        match default.split_ascii_whitespace().nth(2) {
            Some(gateway) => self.host.default_route(gateway.parse().context("the default route")?),
            None => Ok(()),
        }
    }

    /// Hands TCP connections to `port` of its outside address to a host inside.
    pub fn forward_port(&self, port: u16, to: SocketAddr) -> Result<()> {
        let out = self.outside.interface();
        self.host.nft(&format!("add rule ip router inward iifname {out} tcp dport {port} dnat to {to}\n"))
    }
}
