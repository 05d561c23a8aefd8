//! The socket's end in the Room.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{AdminCall, AdminError, AdminErrorKind, AdminRequest, AdminResponse};

/// The socket's name in the data directory.
pub(super) const SOCKET: &str = "admin.sock";
/// Longest request, in bytes: the longest real one is under 200.
pub(super) const REQUEST_BYTES: usize = 64 * 1024;
/// For a request to arrive, to be answered, and for the answer to be taken: each.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Connections at once: an operator has one or two.
pub(super) const CONNECTIONS: usize = 8;
/// Longest path of a Unix socket, in bytes: 108 with the terminator (`sun_path` in unix(7)).
const PATH_BYTES: usize = 107;

/// The bound socket. Dropping it removes its file.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit the system's address of a Unix socket.
    #[error(
        "the admin socket {} has a path of {len} bytes and the system allows {PATH_BYTES}: choose a shorter data directory",
        path.display()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// Another process answers on it.
    #[error("another program answers on the admin socket {}: stop it or choose another data directory", .0.display())]
    InUse(PathBuf),
    /// The system refused.
    #[error("cannot make the admin socket {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl AdminSocket {
    /// Binds `admin.sock` in the data directory, readable and writable by the Room's own account only. The caller holds
    /// the directory's [`Store`](crate::store::Store), so a socket file that nobody answers on is a dead Room's
    /// and is replaced. Must be called within a tokio runtime.
    pub fn bind(data: &Path) -> Result<Self, SocketError> {
        let path = data.join(SOCKET);
        // The socket gets its mode before it gets its name, so nobody can open it in between.
        let fresh = data.join("admin.sock.new");
        let len = fresh.as_os_str().len();
        if len > PATH_BYTES {
            return Err(SocketError::TooLong { path, len });
        }
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(SocketError::InUse(path));
        }
        let bind = || {
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&fresh)?;
            std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
            std::fs::rename(&fresh, &path)?;
            Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(SocketError::Io { path, source }),
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the admin socket was gone already");
        }
    }
}

/// Serves the socket until `stop`; then connections end and the file goes. Requests go to `calls`; a Room that does not
/// answer within 5 s makes the operator's command fail, nothing else.
pub async fn serve(socket: AdminSocket, calls: mpsc::Sender<AdminCall>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = socket.listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    connections.spawn(async move {
                        if let Err(error) = connection(stream, calls).await {
                            tracing::debug!(%error, "an admin connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the admin socket");
                    // Out of file descriptors, most likely: without a pause this loop would spin.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers the requests of one connection, one after the other.
async fn connection(stream: UnixStream, calls: mpsc::Sender<AdminCall>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut read).take(REQUEST_BYTES as u64);
        let count = timeout(DEADLINE, limited.read_until(b'\n', &mut line)).await??;
        if count == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let response = if whole { answer(&line, &calls).await } else { too_long(count) };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        timeout(DEADLINE, write.write_all(&text)).await??;
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], calls: &mpsc::Sender<AdminCall>) -> AdminResponse {
    let request: AdminRequest = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            return failed(AdminErrorKind::Invalid, format!("the request is not understood: {error}"));
        }
    };
    let (reply, answer) = oneshot::channel();
    let asked = async {
        calls.send(AdminCall { request, reply }).await.ok()?;
        answer.await.ok()
    };
    match timeout(DEADLINE, asked).await {
        Ok(Some(response)) => response,
        Ok(None) => failed(AdminErrorKind::Io, "the Room is stopping: try again when it is back".to_owned()),
        Err(_) => {
            failed(AdminErrorKind::Io, format!("the Room did not answer within {DEADLINE:?}: try again"))
        }
    }
}

fn too_long(count: usize) -> AdminResponse {
    let sentence = if count < REQUEST_BYTES {
        "the request ends before its line does: send it whole".to_owned()
    } else {
        format!("the request is longer than {REQUEST_BYTES} bytes: send a shorter one")
    };
    failed(AdminErrorKind::Invalid, sentence)
}

fn failed(kind: AdminErrorKind, sentence: String) -> AdminResponse {
    AdminResponse::Failed(AdminError { kind, sentence })
}
