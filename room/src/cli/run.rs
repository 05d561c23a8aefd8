//! `parlor-room run`: a Room until SIGTERM or SIGINT, then its drain, then exit 0.

use std::io::{self, Write};
use std::pin::Pin;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parlor_protocol::address::RoomAddress;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::args::RunArgs;
use super::log::{self, Sparing};
use super::{Failure, environment};
use crate::config::{DaemonConfig, RunFlags};
use crate::handle::{Room, RoomError, RoomHandle};

pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let flags = RunFlags {
        listen: args.listen.clone(),
        data: args.data.clone(),
        open: args.open,
        allow_unencrypted: args.allow_unencrypted,
        log: args.log.clone(),
        json: args.json,
    };
    let config = DaemonConfig::load(args.config.as_deref(), environment, &flags)?;
    let log = log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start threads: {error}")))?;
    let ended = runtime.block_on(serve(config, &log));
    // Everything that was to be written is. What is left is a disk that does not answer, or a second signal.
    runtime.shutdown_background();
    log.tell();
    ended
}

/// Descriptors that a Room asks for: 10,000 users, and 4,096 relayed pairs of two each, with room to spare.
const DESCRIPTORS: u64 = 65_536;

/// Takes as many descriptors as the system gives without being asked by root. With fewer the Room runs, too.
fn raise_descriptors() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = DESCRIPTORS.min(hard);
        if soft >= wanted {
            Ok(soft)
        } else {
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map(|()| wanted)
        }
    });
    match raised {
        Ok(descriptors) => tracing::debug!(descriptors, "open files at most"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

async fn serve(config: DaemonConfig, log: &Sparing) -> Result<(), Failure> {
    raise_descriptors();
    // Before the Room listens: a signal that comes while it starts must not be lost.
    let mut signals =
        Signals::new().map_err(|error| Failure::other(format!("cannot take signals: {error}")))?;
    let has_certificate = config.room.tls.is_some();
    let data = config.room.data.clone().unwrap_or_default();
    let room: RoomHandle = Room::bind(config.room).await?;
    let addresses = room.addresses();
    for address in &addresses {
        tracing::info!(%address, data = %data.display(), "listening");
    }
    if let Err(error) = announce(&addresses, config.json) {
        tracing::warn!(%error, "nobody reads the ready line");
    }
    let mut left_out = tokio::time::interval(log::LEFT_OUT_EVERY);
    // Beside everything else: the files may lie on a disk that does not answer.
    let mut renewal = Renewal::default();
    let name = loop {
        tokio::select! {
            name = signals.stop.next() => break name,
            _ = left_out.tick() => log.tell(),
            _ = signals.hangup.recv(), if renewal.is_none() => {
                if has_certificate {
                    renewal = Some(Box::pin(room.renew_certificate()));
                } else {
                    tracing::info!("SIGHUP: there is no certificate to read again; SIGTERM stops this Room");
                }
            }
            renewed = done(&mut renewal) => {
                renewal = None;
                match renewed {
                    Ok(()) => tracing::info!("SIGHUP: the certificate was read again"),
                    Err(error) => tracing::error!(%error, "SIGHUP: the certificate stays as it is"),
                }
            }
            () = room.ended() => {
                let sentence =
                    "the Room ended by itself, through a fault of its own that the log tells: start it again";
                return Err(Failure::other(sentence));
            }
        }
    };
    drop(renewal);
    tracing::info!(signal = name, "draining");
    tokio::select! {
        () = room.shutdown() => Ok(()),
        name = signals.stop.next() => Err(Failure::other(format!("stopped by a second {name} before all users were told"))),
    }
}

/// A certificate that is being read again.
type Renewal<'a> = Option<Pin<Box<dyn Future<Output = Result<(), RoomError>> + Send + 'a>>>;

/// Waits for the end of a renewal; without one for ever.
async fn done(renewal: &mut Renewal<'_>) -> Result<(), RoomError> {
    match renewal {
        Some(renewal) => renewal.await,
        None => std::future::pending().await,
    }
}

/// One line for each address, for whoever waits until the Room is ready.
fn announce(addresses: &[RoomAddress], json: bool) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for address in addresses {
        if json {
            // In the order of the contract, for readers that do not parse.
            writeln!(stdout, r#"{{"event":"ready","address":{}}}"#, serde_json::json!(address))?;
        } else {
            writeln!(stdout, "{address}")?;
        }
    }
    stdout.flush()
}

/// The signals that a Room listens to.
struct Signals {
    stop: Stop,
    /// The certificate is to be read again. A Room without one takes it, too: what is sent to all daemons of a machine
    /// when files have changed must not end it.
    hangup: Signal,
}

/// Those that stop it.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let stop =
            Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { stop, hangup: signal(SignalKind::hangup())? })
    }
}

impl Stop {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
