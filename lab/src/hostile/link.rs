//! A hostile peer's end of a link: the handshake was honest, what follows is up to the row.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use parlor_protocol::introduction::Cipher;
use parlor_protocol::noise::payload::Epoch;
use parlor_protocol::noise::records::{LENGTH_BYTES, Opener, RecordKeys, Sealer, record_length};
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::peer::{Head, RecordHeader, kind, next_frame, write_frame_head};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::outcome::Outcome;

/// The longest that a user may take for one answer.
const PATIENCE: Duration = Duration::from_secs(40);

/// One end of a link.
pub struct Link {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
    cipher: Cipher,
    incoming: BytesMut,
    /// Frames that came and were not looked at.
    heard: VecDeque<(u8, Bytes)>,
    /// The number of the next reliable frame.
    pub seq: u64,
    /// The victim's epoch, as it said in the handshake.
    pub theirs: Epoch,
}

/// A record of the victim's.
#[derive(Debug)]
pub struct Record {
    /// Its header.
    pub header: RecordHeader,
    /// Kinds and payloads.
    pub frames: Vec<(u8, Bytes)>,
}

/// The plaintext of a record.
pub fn record(header: RecordHeader, frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut plain = Vec::new();
    header.write(&mut plain);
    for (kind, payload) in frames {
        write_frame_head(&mut plain, *kind, payload.len());
        plain.extend_from_slice(payload);
    }
    plain
}

/// A record's header with nothing but the number of its first reliable frame.
pub fn numbered(seq: u64) -> RecordHeader {
    RecordHeader { seq: Some(seq), ..RecordHeader::default() }
}

/// The payload of a SEND.
pub fn message(event: Option<&str>, body: &[u8]) -> Vec<u8> {
    headed(&Head::Send { event: event.map(str::as_bytes) }, body)
}

/// The payload of a GET that may take its time.
pub fn call(call: u32, name: &str, body: &[u8]) -> Vec<u8> {
    headed(&Head::Get { call, timeout_ms: 0, name: name.as_bytes() }, body)
}

/// The payload of a BEGIN of a message without an event.
pub fn begin(stream: u32, total: u32) -> Vec<u8> {
    [stream.to_le_bytes().as_slice(), &total.to_le_bytes(), &[kind::SEND, 0]].concat()
}

/// The payload of a PIECE.
pub fn piece(stream: u32, bytes: &[u8]) -> Vec<u8> {
    [&stream.to_le_bytes(), bytes].concat()
}

/// A short text as MessagePack.
pub fn text(text: &str) -> Vec<u8> {
    [&[0xa0 | (text.len() as u8 & 0x1f)], text.as_bytes()].concat()
}

fn headed(head: &Head<&[u8]>, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    head.write(&mut payload);
    payload.extend_from_slice(body);
    payload
}

/// What a frame that ends something means.
fn ended(kind: u8, payload: &[u8]) -> Result<Option<Outcome>> {
    let code = || {
        let code = payload.first_chunk().map(|code| u16::from_le_bytes(*code));
        code.map(CloseCode::from).context("a closing frame without a code")
    };
    Ok(match kind {
        kind::CLOSE => Some(Outcome::Closed(code()?)),
        kind::END => Some(Outcome::Ended(code()?)),
        _ => None,
    })
}

impl Link {
    pub(super) fn new(stream: TcpStream, keys: RecordKeys, theirs: Epoch) -> Result<Self> {
        let cipher = keys.cipher();
        let (sealer, opener) = keys.split()?;
        Ok(Self {
            stream,
            sealer,
            opener,
            cipher,
            incoming: BytesMut::new(),
            heard: VecDeque::new(),
            seq: 0,
            theirs,
        })
    }

    /// Seals a record, without sending it.
    pub fn seal(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = vec![0; LENGTH_BYTES];
        sealed.extend_from_slice(plain);
        self.sealer.seal(&mut sealed, 0)?;
        Ok(sealed)
    }

    /// Goes on under the next key.
    pub fn rekey(&mut self) -> Result<()> {
        Ok(self.sealer.rekey()?)
    }

    /// Sends bytes as they are. The victim may have gone; what it said before is what counts.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let _ = timeout(PATIENCE, self.stream.write_all(bytes)).await.context("the victim does not read")?;
        Ok(())
    }

    /// Seals and sends a record.
    pub async fn say(&mut self, plain: &[u8]) -> Result<()> {
        let sealed = self.seal(plain)?;
        self.write(&sealed).await
    }

    /// Says frames of the link's own.
    pub async fn frames(&mut self, frames: &[(u8, &[u8])]) -> Result<()> {
        self.say(&record(RecordHeader::default(), frames)).await
    }

    /// Says reliable frames under their right numbers.
    pub async fn reliable(&mut self, frames: &[(u8, &[u8])]) -> Result<()> {
        let header = numbered(self.seq);
        self.seq += frames.len() as u64;
        self.say(&record(header, frames)).await
    }

    /// Says no more.
    pub async fn ends(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The victim's next record as it is on the wire; `None` at the end.
    pub async fn next_sealed(&mut self) -> Result<Option<Vec<u8>>> {
        let read = async {
            loop {
                if let Some(record) = self.whole()? {
                    return Ok(Some(record));
                }
                if self.stream.read_buf(&mut self.incoming).await.unwrap_or(0) == 0 {
                    return Ok(None);
                }
            }
        };
        timeout(PATIENCE, read).await.context("the victim says nothing")?
    }

    /// The next record that has come whole.
    fn whole(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(prefix) = self.incoming.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = LENGTH_BYTES + record_length(*prefix, self.cipher)?;
        Ok((self.incoming.len() >= len).then(|| self.incoming.split_to(len).to_vec()))
    }

    /// The victim's next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        let Some(sealed) = self.next_sealed().await? else { return Ok(None) };
        self.opened(&sealed).map(Some)
    }

    fn opened(&mut self, sealed: &[u8]) -> Result<Record> {
        let mut plain = sealed[LENGTH_BYTES..].to_vec();
        let len = self.opener.open(&mut plain)?;
        plain.truncate(len);
        let plain = Bytes::from(plain);
        let (header, mut at) = RecordHeader::read(&plain)?;
        let mut frames = Vec::new();
        while let Some(frame) = next_frame(&plain, at)? {
            at = frame.payload.end;
            if frame.kind == kind::REKEY {
                self.opener.rekey()?;
            }
            frames.push((frame.kind, plain.slice(frame.payload)));
        }
        Ok(Record { header, frames })
    }

    /// How the victim answers a call.
    pub async fn answer(&mut self, call: u32) -> Result<Outcome> {
        loop {
            let mut payload = match self.frame(kind::ANSWER).await? {
                Ok(payload) => payload,
                Err(ended) => return Ok(ended),
            };
            if let Head::Answer { call: answered, status } = Head::read(kind::ANSWER, &mut payload)?
                && answered == call
            {
                return Ok(Outcome::Answered(status));
            }
        }
    }

    /// The victim's next frame of this kind, or how the link ended.
    pub async fn frame(&mut self, wanted: u8) -> Result<Result<Bytes, Outcome>> {
        loop {
            if self.heard.is_empty() {
                let Some(record) = self.next().await? else { return Ok(Err(Outcome::Dropped)) };
                self.heard.extend(record.frames);
            }
            while let Some((kind, payload)) = self.heard.pop_front() {
                if kind == wanted {
                    return Ok(Ok(payload));
                }
                if let Some(ended) = ended(kind, &payload)? {
                    return Ok(Err(ended));
                }
            }
        }
    }

    /// Whether the victim still answers on this link, or how it ended.
    pub async fn verdict(&mut self) -> Result<Outcome> {
        self.frames(&[(kind::PING, b"verdict?")]).await?;
        self.end().await
    }

    /// Waits for the answer to the verdict's ping, or the link's end.
    pub async fn end(&mut self) -> Result<Outcome> {
        loop {
            match self.frame(kind::PONG).await? {
                Ok(pong) if pong[..] == *b"verdict?" => return Ok(Outcome::Served),
                Ok(_) => {}
                Err(ended) => return Ok(ended),
            }
        }
    }
}
