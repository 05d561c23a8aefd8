//! Control frames on a stream.

use std::io;
use std::time::Duration;

use parlor_protocol::wire::control::{LENGTH_BYTES, ToRoom, ToUser, frame_length};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::error::{LostReason, RoomFault};

/// A Room that takes no frame for this long is stuck: a frame is at most 64 KiB.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// The next frame, of at most `limit` bytes. Not to be cancelled if the stream is used afterwards.
pub(super) async fn read<R: AsyncRead + Unpin>(stream: &mut R, limit: usize) -> Result<ToUser, LostReason> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await?;
    let len = frame_length(prefix, limit).map_err(RoomFault::from)?;
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await?;
    Ok(ToUser::decode(&bytes).map_err(RoomFault::from)?)
}

/// Sends a frame. Its bytes are cleared afterwards, as a login's hold a password.
pub(super) async fn write<W: AsyncWrite + Unpin>(stream: &mut W, message: &ToRoom) -> Result<(), LostReason> {
    let bytes = Zeroizing::new(message.encode());
    let sent = timeout(WRITE_DEADLINE, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    match sent.await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(LostReason::Stuck),
    }
}

/// What a message is called in errors.
pub(super) fn kind(message: &ToUser) -> &'static str {
    match message {
        ToUser::HelloReply(_) => "a hello reply",
        ToUser::LoginRefused(_) => "a refused login",
        ToUser::Welcome(_) => "a welcome",
        ToUser::Roster(_) => "a roster",
        ToUser::Introduced(_) => "an introduction",
        ToUser::IntroductionRefused(..) => "a refused introduction",
        ToUser::Blacklist(_) => "a blacklist",
        ToUser::Ping(_) => "a ping",
        ToUser::Pong(_) => "a pong",
        ToUser::Closing(_) => "a closing",
        ToUser::Reachable(_) => "a list of addresses",
    }
}

/// True if the stream ended in the middle of nothing: the other side is simply gone.
pub(super) fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
