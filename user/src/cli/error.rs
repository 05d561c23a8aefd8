//! Why a command failed: one sentence that says what to do, and an exit code.
//!
//! 2 the command line is wrong, 3 refused (password, ban, identity), 4 no such peer or callback or the peer is
//! offline, 5 timed out, 6 the callback failed, 7 the Room is unreachable, 1 anything else.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use parlor_protocol::refusal::{CloseCode, LoginRefusal, PairRefusal};
use parlor_user::error::{DataError, JoinError};
use parlor_user::{BuildError, ForgetError, GetError, OpenError, RemoteError, SendError, UserName};

use super::output;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The room was not joined.
    #[error(transparent)]
    Join(#[from] BuildError),
    /// A guest was not let in.
    #[error("this Room has accounts: give --name and --password-file")]
    NoGuests,
    /// The Room does not let this user in again.
    #[error("{0}")]
    Ended(String),
    /// There is no channel to a peer.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A message was not taken.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Lines of stdin were not sent.
    #[error("line {line} was not sent{}: {source}", not_delivered(*lost))]
    Line {
        /// Its number, from 1.
        line: u64,
        /// How many of those before it were sent and not delivered.
        lost: u64,
        /// Why.
        source: SendError,
    },
    /// Messages were sent and not delivered.
    #[error("{lost} of {sent} messages were not delivered: {why}")]
    NotDelivered {
        /// How many.
        lost: u64,
        /// Of how many.
        sent: u64,
        /// What interrupted the first of them.
        why: String,
        /// True if the peer is offline now.
        offline: bool,
    },
    /// A call has no answer.
    #[error(transparent)]
    Get(#[from] GetError<RemoteError>),
    /// No pong.
    #[error("{peer} did not answer a ping within {after:?}; `parlor explain {peer}` tells about the path")]
    NoPong {
        /// Who was pinged.
        peer: UserName,
        /// After how long.
        after: Duration,
    },
    /// There is nothing to forget.
    #[error("{0}")]
    NothingPinned(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A key was not forgotten.
    #[error(transparent)]
    Forget(#[from] ForgetError),
    /// Whoever read stdout reads no more: there is nobody to serve, and nothing is wrong.
    #[error("stdout is closed")]
    StdoutClosed,
    /// The system refused.
    #[error("cannot {op}: {source}")]
    System {
        /// What was tried.
        op: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

const OTHER: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;
const NOT_THERE: u8 = 4;
const TIMED_OUT: u8 = 5;
const CALLBACK: u8 = 6;
const UNREACHABLE: u8 = 7;

impl Error {
    /// clap's message without the usage below it, on one line.
    pub(super) fn of_clap(error: &clap::Error) -> Self {
        let text = error.to_string();
        let said = text.split("\n\nUsage:").next().unwrap_or_default();
        let said = said.split("\n\nFor more information").next().unwrap_or_default();
        let words: Vec<&str> = said.trim_start_matches("error: ").split_whitespace().collect();
        Error::Usage(format!("{} (see parlor --help)", words.join(" ")))
    }

    /// Writing to stdout failed.
    pub(super) fn of_stdout(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => Error::StdoutClosed,
            _ => Error::System { op: "write to stdout", source },
        }
    }

    /// Says it on stderr, and with which code the program ends.
    pub(super) fn report(&self) -> ExitCode {
        if !matches!(self, Error::StdoutClosed) {
            output::complain(&format!("{self}{}", self.advice()));
        }
        ExitCode::from(self.exit_code())
    }

    fn exit_code(&self) -> u8 {
        match self {
            Error::StdoutClosed => 0,
            Error::Usage(_) => USAGE,
            Error::NoGuests | Error::Ended(_) => REFUSED,
            Error::Join(error) => of_build(error),
            Error::Open(error) => of_open(error),
            Error::Send(error) | Error::Line { source: error, .. } => of_send(error),
            Error::Get(error) => of_get(error),
            Error::NotDelivered { offline: true, .. } | Error::NothingPinned(_) => NOT_THERE,
            Error::NoPong { .. } => TIMED_OUT,
            Error::NotDelivered { offline: false, .. }
            | Error::Data(_)
            | Error::Forget(_)
            | Error::System { .. } => OTHER,
        }
    }

    /// What to do about it, where the sentence of the library does not say.
    fn advice(&self) -> &'static str {
        const WHO: &str = "; `parlor peers` lists who is online";
        match self {
            Error::Open(OpenError::Offline(_) | OpenError::NoSuchPeer(_))
            | Error::Send(SendError::Open(OpenError::Offline(_) | OpenError::NoSuchPeer(_)))
            | Error::Line {
                source: SendError::Open(OpenError::Offline(_) | OpenError::NoSuchPeer(_)), ..
            }
            | Error::Get(GetError::Offline(_) | GetError::NoSuchPeer(_)) => WHO,
            Error::Get(GetError::NoSuchCallback { .. }) => "; check the name, case counts",
            Error::Get(GetError::Timeout { .. }) => "; --timeout gives it longer",
            Error::Join(BuildError::Join(JoinError::Refused(LoginRefusal::Credentials))) => {
                "; check --name and the file of --password-file"
            }
            _ => "",
        }
    }
}

fn not_delivered(lost: u64) -> String {
    match lost {
        0 => String::new(),
        lost => format!(", and {lost} before it were not delivered"),
    }
}

fn of_build(error: &BuildError) -> u8 {
    match error {
        BuildError::Name(_)
        | BuildError::Password(_)
        | BuildError::Address(_)
        | BuildError::Setting { .. } => USAGE,
        BuildError::Join(error) => of_join(error),
        BuildError::RoomDown { room, .. } => of_join(room),
        BuildError::Listen(_) | BuildError::Data(_) | BuildError::Random(_) => OTHER,
    }
}

fn of_join(error: &JoinError) -> u8 {
    match error {
        // The Room cannot be had now, whoever asks.
        JoinError::Refused(LoginRefusal::Busy { .. } | LoginRefusal::ShuttingDown)
        | JoinError::Unreachable { .. }
        | JoinError::HungUp { .. }
        | JoinError::Timeout { .. } => UNREACHABLE,
        JoinError::Ended(closing) if closing.code == CloseCode::ShuttingDown => UNREACHABLE,
        JoinError::Refused(_)
        | JoinError::Ended(_)
        | JoinError::Distrusted(_)
        | JoinError::Certificate { .. }
        | JoinError::TurnedAway { .. } => REFUSED,
        JoinError::Misbehaved { .. } | JoinError::Data(_) | JoinError::Tls(_) => OTHER,
    }
}

fn of_open(error: &OpenError) -> u8 {
    match error {
        OpenError::Offline(_) | OpenError::NoSuchPeer(_) => NOT_THERE,
        OpenError::IdentityChanged { .. } => REFUSED,
        OpenError::RoomLost(_) => UNREACHABLE,
        OpenError::Refused { why, .. } => match why {
            PairRefusal::Offline | PairRefusal::NoSuchPeer => NOT_THERE,
            PairRefusal::Yourself => USAGE,
            PairRefusal::EncryptionMismatch { .. }
            | PairRefusal::EncryptionRequired
            | PairRefusal::NoCleartextPath
            | PairRefusal::Blocked => REFUSED,
            PairRefusal::NoPath | PairRefusal::Busy { .. } => OTHER,
        },
        OpenError::NoPath { .. } | OpenError::BadIntroduction { .. } | OpenError::Left => OTHER,
    }
}

fn of_send(error: &SendError) -> u8 {
    match error {
        SendError::Open(error) => of_open(error),
        SendError::Encode(_) | SendError::TooLarge { .. } | SendError::Name(_) => USAGE,
        SendError::Full => OTHER,
    }
}

fn of_get(error: &GetError<RemoteError>) -> u8 {
    match error {
        GetError::NoSuchPeer(_)
        | GetError::Offline(_)
        | GetError::NoSuchCallback { .. }
        // The peer restarted or left.
        | GetError::Interrupted { .. } => NOT_THERE,
        GetError::Denied(_) => REFUSED,
        GetError::Timeout { .. } => TIMED_OUT,
        GetError::Decode(_) | GetError::Panicked | GetError::Remote(_) => CALLBACK,
        GetError::Open(error) => of_open(error),
        GetError::Send(error) => of_send(error),
        GetError::Overloaded { .. } | GetError::TooLarge => OTHER,
    }
}
