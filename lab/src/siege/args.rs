//! How large a siege is, and how long it lasts.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Besieges a Room and says what its users notice.
#[derive(Debug, Clone, Parser)]
#[command(name = "parlor-siege", version)]
pub(super) struct Args {
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Connections that begin TLS and go on a byte at a time.
    #[arg(long, default_value_t = 500)]
    pub(super) slow: usize,
    /// Connections that never say anything.
    #[arg(long, default_value_t = 10_000)]
    pub(super) silent: usize,
    /// Clients that try wrong passwords and unknown names.
    #[arg(long, default_value_t = 500)]
    pub(super) guesses: usize,
    /// Addresses from which few come.
    #[arg(long, default_value_t = 8)]
    pub(super) addresses: usize,
    /// How long each siege lasts, in seconds.
    #[arg(long, default_value_t = 12)]
    pub(super) seconds: u64,
    /// How often everything is done: memory that grows from round to round would be lost.
    #[arg(long, default_value_t = 1)]
    pub(super) rounds: usize,
    /// The program `parlor-room`; beside this program unless given.
    #[arg(long)]
    pub(super) room_binary: Option<PathBuf>,

    /// This process is the witness.
    #[arg(long, hide = true)]
    pub(super) witness: bool,
    /// The Room's address, for the witness.
    #[arg(long, hide = true, default_value = "")]
    pub(super) room: String,
}

impl Args {
    /// How long each siege lasts.
    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
