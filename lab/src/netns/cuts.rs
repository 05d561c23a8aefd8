//! Ways to end a host's connections and to keep new ones from coming up.
//!
//! A connection that is reset is known to be gone at both ends at once. One that is muted or blocked falls
//! silent: both ends have to find out.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::host::Host;

/// `ss` answers in milliseconds; on a loaded machine in seconds.
const TOOL: Duration = Duration::from_secs(20);

impl Host {
    /// TCP to and from `peer` is answered with a reset, at both ends, until [`admit`](Self::admit).
    pub fn refuse(&self, peer: IpAddr) -> Result<()> {
        self.nft(&format!("add element inet lab refused {{ {peer} }}\n"))
    }

    /// Ends a [`refuse`](Self::refuse).
    pub fn admit(&self, peer: IpAddr) -> Result<()> {
        self.nft(&format!("delete element inet lab refused {{ {peer} }}\n"))
    }

    /// Drops everything that connections from and to these ports of this host send and receive, until
    /// [`unmute`](Self::unmute).
    pub fn mute(&self, ports: &[u16]) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        self.nft(&format!("add element inet lab muted {{ {} }}\n", ports.join(", ")))
    }

    /// Ends every [`mute`](Self::mute).
    pub fn unmute(&self) -> Result<()> {
        self.nft("flush set inet lab muted\n")
    }

    /// The ports of this host from which it has connections to `port` of `peer`.
    pub fn connections(&self, peer: IpAddr, port: u16) -> Result<Vec<u16>> {
        let (peer, port) = (peer.to_string(), format!("= :{port}"));
        let listed = self.run(&["ss", "-Htn", "dst", &peer, "and", "dport", &port], TOOL)?.success()?;
        let local = |line: &str| line.split_ascii_whitespace().nth(3)?.rsplit(':').next()?.parse().ok();
        Ok(listed.stdout.lines().filter_map(local).collect())
    }

    /// Resets every TCP connection of this host with `peer`. Returns how many sockets that were.
    pub fn reset_peer(&self, peer: IpAddr) -> Result<usize> {
        self.reset(&["dst", &peer.to_string()])
    }

    /// Resets the TCP connections of this host from and to these ports of its own. Returns how many sockets that were.
    pub fn reset_ports(&self, ports: &[u16]) -> Result<usize> {
        if ports.is_empty() {
            return Ok(0);
        }
        let ports: Vec<String> = ports.iter().map(|port| format!("sport = :{port}")).collect();
        self.reset(&[&ports.join(" or ")])
    }

    /// `ss` lists the sockets that it has closed, one a line.
    fn reset(&self, those: &[&str]) -> Result<usize> {
        let closed = self.run(&[&["ss", "-HKtn"], those].concat(), TOOL)?.success()?;
        Ok(closed.stdout.lines().filter(|line| !line.trim().is_empty()).count())
    }
}
