//! The socket's end in an operator's command.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::server::{DEADLINE, SOCKET};
use super::{AdminRequest, AdminResponse};

/// Longest answer, in bytes: the status of 10,000 users is about 2 MiB.
const ANSWER_BYTES: u64 = 16 * 1024 * 1024;
/// For a running Room to answer: its own deadline and a second for the socket.
const PATIENCE: Duration = Duration::from_secs(DEADLINE.as_secs() + 1);

/// Why a call to a running Room failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The socket is there but this account may not open it.
    #[error("not allowed to open {0}: run this as the account that the Room runs as")]
    NotAllowed(String),
    /// The Room did not answer.
    #[error("the Room did not answer on {socket}: {source}; look at its log and try again")]
    Io {
        /// The socket's path.
        socket: String,
        /// What the system said.
        source: io::Error,
    },
    /// The Room answered what this version does not know.
    #[error("the Room's answer is not understood ({0}): use the parlor-room of the same version")]
    Answer(serde_json::Error),
}

/// Asks the Room that runs on the data directory. `None`: no Room runs there. Blocks, for 6 s at most.
pub fn call(data: &Path, request: &AdminRequest) -> Result<Option<AdminResponse>, CallError> {
    let socket = data.join(SOCKET);
    let failed = |source| CallError::Io { socket: socket.display().to_string(), source };
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                // No file; a dead Room's file; a path that no socket can have.
                io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::InvalidInput => Ok(None),
                io::ErrorKind::PermissionDenied => Err(CallError::NotAllowed(socket.display().to_string())),
                _ => Err(failed(error)),
            };
        }
    };
    let mut line = serde_json::to_vec(request).map_err(CallError::Answer)?;
    line.push(b'\n');
    let mut answer = Vec::new();
    let exchange = || {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&line)?;
        BufReader::new(stream).take(ANSWER_BYTES).read_until(b'\n', &mut answer)?;
        if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    };
    exchange().map_err(failed)?;
    serde_json::from_slice(&answer).map(Some).map_err(CallError::Answer)
}
