//! What passes a host's interfaces, byte for byte, by `tcpdump`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use super::host::Host;
use crate::process::Program;

/// `tcpdump` is there within this, and gone within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running capture. It has begun when this exists.
pub struct Capture {
    host: Host,
    program: Program,
}

/// Sent to the host's own loopback at the end: when it has come through, so has all before it.
const SENTINEL: &str = "the-capture-ends-here";

impl Capture {
    /// Whether `tcpdump` is installed.
    pub fn available() -> Result<(), String> {
        let found = Command::new("tcpdump").arg("--version").output();
        found.map(drop).map_err(|error| format!("`tcpdump` cannot be run ({error}): install it"))
    }

    pub(super) fn start(host: &Host) -> Result<Self> {
        let mut command = host.command("tcpdump");
        // All interfaces, whole packets, written as they are read, without changing to another user. They are read
        // after a second at the latest: in the mode that reads them at once each takes as much of the buffer as the
        // largest would, so that 64 fill it.
        command.args(["-i", "any", "-n", "-U", "-s", "0", "-B", "16384", "-Z", "root"]);
        command.args(["-w", "-"]);
        let program = Program::start_without_input(command)?;
        program.error_line_where(PATIENCE, |line| line.contains("listening on"))?;
        Ok(Self { host: host.clone(), program })
    }

    /// Ends the capture and returns all of it, in the pcap format: packets are whole and unaltered in it.
    pub fn stop(mut self) -> Result<Vec<u8>> {
        let sentinel = format!("printf '{SENTINEL}\\n' > /dev/udp/127.0.0.1/9");
        self.host.run(&["bash", "-c", &sentinel], PATIENCE)?.success()?;
        self.program.line_where(PATIENCE, |line| line.ends_with(SENTINEL))?;
        self.program.signal(Signal::SIGINT)?;
        let (code, packets, stderr) = self.program.wait_for_bytes(PATIENCE)?;
        let complete = stderr.lines().any(|line| line.starts_with("0 packets dropped by kernel"));
        ensure!(code == Some(0) && complete, "the capture has holes: {stderr}");
        Ok(packets)
    }
}
