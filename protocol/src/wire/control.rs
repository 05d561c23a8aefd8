//! Control messages between a user and the Room, inside TLS 1.3.
//!
//! A frame is `length: u32` (little endian; of what follows), `kind: u8`, and the message's fields as
//! [`codec`] writes them. [`Hello`] and its two answers never change their layout, so that
//! versions that share nothing else can still refuse each other in words.
//!
//! ```text
//! user                             Room
//!   Hello          ->
//!                  <-  HelloReply              proves the Room's identity on this TLS connection
//!   Login          ->                          nothing secret before the proof was checked
//!                  <-  Welcome | LoginRefused  after LoginRefused another Login may follow
//!                  <-  Roster, Roster, ..
//!   Introduce      ->
//!                  <-  Introduced | IntroductionRefused      the peer gets Introduced, too
//!   Ping           <-> Pong
//!   Bye            ->
//!                  <-  Closing
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::codec::{self, DecodeError};
use crate::identity::{InstanceId, NoiseCertificate, PublicIdentity, Signature};
use crate::introduction::SignedIntroduction;
use crate::limits::{CANDIDATES, CONTROL_FRAME, FRAME_BEFORE_LOGIN, PASSWORD_BYTES};
use crate::name::UserName;
use crate::presence::Presence;
use crate::refusal::{CloseCode, LoginRefusal, PairRefusal};
use crate::rung::Rung;

/// The protocol version this crate speaks.
pub const VERSION: u16 = 1;
/// Opens every `Hello`, so that a stray connection is told from an old peer.
pub const MAGIC: [u8; 6] = *b"PARLOR";
/// The exporter label (RFC 5705) of the bytes that proofs sign.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-parlor-proof-v1";
/// ALPN protocol id (RFC 7301) of control connections.
pub const ALPN: &[u8] = b"parlor/1";

/// What a program can do beyond its version, as bits. Unknown bits are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features(pub u64);

/// First message of a user. Its layout never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: [u8; 6],
    /// The lowest version the user speaks.
    pub min_version: u16,
    /// The highest version the user speaks.
    pub max_version: u16,
    /// What it can do beyond.
    pub features: Features,
    /// Name and version of the program, at most 64 bytes, for the operator's eyes.
    pub agent: String,
}

impl Hello {
    /// The hello of this crate's version.
    pub fn new(agent: impl Into<String>) -> Self {
        Self {
            magic: MAGIC,
            min_version: VERSION,
            max_version: VERSION,
            features: Features::default(),
            agent: agent.into(),
        }
    }

    /// The version both speak, if there is one.
    pub fn common_version(&self) -> Option<u16> {
        (self.min_version..=self.max_version).contains(&VERSION).then_some(VERSION)
    }
}

/// The Room's answer to a `Hello` with a version in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The version both will speak.
    pub version: u16,
    /// What the Room can do beyond it.
    pub features: Features,
    /// The Room's identity.
    pub room: PublicIdentity,
    /// [`Purpose::RoomProof`](crate::identity::Purpose::RoomProof) over the TLS exporter.
    pub proof: Signature,
    /// True if names are accounts with passwords.
    pub accounts: bool,
    /// True if the Room wants a room password.
    pub room_password: bool,
    /// True if users may agree on channels without encryption.
    pub allow_unencrypted: bool,
}

/// A password on its way. Cleared when dropped, hidden from `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// A password of 1 to [`PASSWORD_BYTES`] bytes.
    pub fn new(text: String) -> Result<Self, SecretError> {
        let secret = Self(text);
        match secret.0.len() {
            0 => Err(SecretError::Empty),
            len if len > PASSWORD_BYTES => Err(SecretError::TooLong { len }),
            _ if secret.0.contains('\0') => Err(SecretError::Nul),
            _ => Ok(secret),
        }
    }

    /// The password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a text is no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It is empty.
    #[error("a password cannot be empty")]
    Empty,
    /// It is longer than bcrypt reads.
    #[error("a password has at most {PASSWORD_BYTES} bytes, this one has {len}")]
    TooLong {
        /// The length found, in bytes.
        len: usize,
    },
    /// It contains a NUL, at which bcrypt would stop.
    #[error("a password cannot contain a NUL character")]
    Nul,
}

/// How a user shows that the name is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// By nothing: an open Room.
    Open,
    /// By the account's password.
    Password(Secret),
    /// By the ticket of an earlier login.
    Ticket(TicketSecret),
}

/// 256 random bits that stand for an earlier login. The Room keeps their SHA-256.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct TicketSecret(pub [u8; 32]);

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

/// A user asks to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The name it wants.
    pub name: UserName,
    /// How it shows that the name is its own.
    pub credentials: Credentials,
    /// The room password, if the Room wants one. Not needed beside a ticket.
    pub room_password: Option<Secret>,
    /// Its identity.
    pub identity: PublicIdentity,
    /// [`Purpose::LoginProof`](crate::identity::Purpose::LoginProof) over [`login_proof_message`].
    pub proof: Signature,
    /// Its handshake key.
    pub noise: NoiseCertificate,
    /// Tells this run of the program from others.
    pub instance: InstanceId,
    /// True to replace another program that is online under this name with the same identity.
    pub take_over: bool,
    /// Where it can be reached.
    pub presence: Presence,
}

/// What a login's proof signs: the TLS exporter, so that it cannot be replayed on another connection, and the
/// name in lower case.
pub fn login_proof_message(exporter: &[u8; 32], name: &UserName) -> Vec<u8> {
    [exporter.as_slice(), name.folded().as_bytes()].concat()
}

/// A ticket for the next login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The ticket.
    pub secret: TicketSecret,
    /// Seconds it is good for.
    pub seconds: u32,
}

/// A user was let in. The check key is hidden from `Debug`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Where the Room sees the user come from.
    pub observed: SocketAddr,
    /// The ticket for the next login, if the Room has accounts or a room password.
    pub ticket: Option<Ticket>,
    /// The key with which the user's listener answers the Room's address checks.
    pub check_key: [u8; 32],
    /// Addresses that users are to refuse links from.
    pub blacklist: Vec<IpNet>,
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("observed", &self.observed)
            .field("ticket", &self.ticket)
            .field("blacklist", &self.blacklist)
            .finish_non_exhaustive()
    }
}

/// Users that came or went. The Rosters after a `Welcome` list everybody; the last of them is `complete`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roster {
    /// Users that are online now.
    pub joined: Vec<Member>,
    /// Users that are offline now.
    pub left: Vec<UserName>,
    /// False while more of the first list follows.
    pub complete: bool,
}

/// A user that is online.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: UserName,
    /// Its identity.
    pub identity: PublicIdentity,
}

/// A user asks to be introduced to a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduce {
    /// Chosen by the user, comes back in the answer.
    pub request: u32,
    /// The peer.
    pub peer: UserName,
}

/// The Room introduces two users; each gets one with its own side of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduced {
    /// The request this answers. `None`: the peer asked.
    pub request: Option<u32>,
    /// The statement.
    pub introduction: SignedIntroduction,
    /// The rungs to try, best first.
    pub rungs: Vec<RungOffer>,
}

/// One rung of a plan, from the side of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RungOffer {
    /// The rung.
    pub rung: Rung,
    /// The addresses this user is to dial. Empty where the other one dials.
    pub dial: Vec<SocketAddr>,
    /// On the relay rung, this user's token for the Room's relay.
    pub relay: Option<RelayToken>,
}

/// Lets one user of a pair onto one relayed link, once.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RelayToken(pub [u8; 32]);

impl fmt::Debug for RelayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayToken(..)")
    }
}

/// A message from a user to the Room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRoom {
    /// Kind 1.
    Hello(Hello),
    /// Kind 2.
    Login(Box<Login>),
    /// Kind 3: the user can now be reached elsewhere.
    Presence(Presence),
    /// Kind 4.
    Introduce(Introduce),
    /// Kind 5: is the Room there?
    Ping(u64),
    /// Kind 6: the answer to the Room's `Ping`.
    Pong(u64),
    /// Kind 7: the user leaves.
    Bye(CloseCode),
}

/// A message from the Room to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToUser {
    /// Kind 129.
    HelloReply(HelloReply),
    /// Kind 130: its layout never changes.
    LoginRefused(LoginRefusal),
    /// Kind 131.
    Welcome(Box<Welcome>),
    /// Kind 132.
    Roster(Roster),
    /// Kind 133.
    Introduced(Box<Introduced>),
    /// Kind 134: the Room does not introduce; the number is the request's.
    IntroductionRefused(u32, PairRefusal),
    /// Kind 135: the blacklist is now this.
    Blacklist(Vec<IpNet>),
    /// Kind 136: is the user there?
    Ping(u64),
    /// Kind 137: the answer to the user's `Ping`.
    Pong(u64),
    /// Kind 138: the Room closes this connection.
    Closing(Closing),
    /// Kind 139: the user's address, checked or not: what others are told to dial.
    Reachable(Vec<IpAddr>),
}

/// The Room closes a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Why.
    pub code: CloseCode,
    /// Milliseconds to wait before coming back, if coming back makes sense.
    pub reconnect_in_ms: Option<u32>,
}

/// Why a control frame is refused. The sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A kind that this version does not have.
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    /// The frame has no kind.
    #[error("an empty frame")]
    Empty,
    /// The length is beyond the limit.
    #[error("a frame of {len} bytes where at most {limit} are allowed")]
    TooLong {
        /// The length claimed, in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The message cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A list is longer than it may be.
    #[error("{0} has more entries than allowed")]
    TooMany(&'static str),
    /// A `Hello` without the magic, or with a long agent.
    #[error("this is no Parlor hello")]
    NoHello,
}

impl FrameError {
    /// The code with which the connection is closed.
    pub fn close_code(&self) -> CloseCode {
        match self {
            FrameError::UnknownKind(_) => CloseCode::Unexpected,
            FrameError::TooLong { .. } | FrameError::TooMany(_) => CloseCode::LimitExceeded,
            FrameError::Empty | FrameError::Decode(_) | FrameError::NoHello => CloseCode::Malformed,
        }
    }
}

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;

/// The length of a frame's kind and message, checked against `limit`, from its first four bytes.
pub fn frame_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    match u32::from_le_bytes(prefix) as usize {
        0 => Err(FrameError::Empty),
        len if len > limit => Err(FrameError::TooLong { len, limit }),
        len => Ok(len),
    }
}

fn frame<T: Serialize>(kind: u8, message: &T) -> Vec<u8> {
    let message = codec::encode(message);
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + 1 + message.len());
    bytes.extend((message.len() as u32 + 1).to_le_bytes());
    bytes.push(kind);
    bytes.extend(message);
    bytes
}

fn split(bytes: &[u8]) -> Result<(u8, &[u8]), FrameError> {
    bytes.split_first().map(|(kind, message)| (*kind, message)).ok_or(FrameError::Empty)
}

fn message<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    Ok(codec::decode::<T, CONTROL_FRAME>(bytes)?)
}

fn at_most<T>(list: &[T], limit: usize, what: &'static str) -> Result<(), FrameError> {
    if list.len() > limit { Err(FrameError::TooMany(what)) } else { Ok(()) }
}

impl ToRoom {
    /// The whole frame, length included.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToRoom::Hello(m) => frame(1, m),
            ToRoom::Login(m) => frame(2, m),
            ToRoom::Presence(m) => frame(3, m),
            ToRoom::Introduce(m) => frame(4, m),
            ToRoom::Ping(m) => frame(5, m),
            ToRoom::Pong(m) => frame(6, m),
            ToRoom::Bye(m) => frame(7, m),
        }
    }

    /// Reads what follows a frame's length.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (kind, bytes) = split(bytes)?;
        match kind {
            1 => {
                if bytes.len() > FRAME_BEFORE_LOGIN || !bytes.starts_with(&MAGIC) {
                    return Err(FrameError::NoHello);
                }
                let hello: Hello = message(bytes)?;
                if hello.agent.len() > 64 { Err(FrameError::NoHello) } else { Ok(ToRoom::Hello(hello)) }
            }
            2 => {
                let login: Login = message(bytes)?;
                at_most(&login.presence.private, CANDIDATES, "the list of private addresses")?;
                Ok(ToRoom::Login(Box::new(login)))
            }
            3 => {
                let presence: Presence = message(bytes)?;
                at_most(&presence.private, CANDIDATES, "the list of private addresses")?;
                Ok(ToRoom::Presence(presence))
            }
            4 => message(bytes).map(ToRoom::Introduce),
            5 => message(bytes).map(ToRoom::Ping),
            6 => message(bytes).map(ToRoom::Pong),
            7 => message(bytes).map(ToRoom::Bye),
            other => Err(FrameError::UnknownKind(other)),
        }
    }
}

impl ToUser {
    /// The whole frame, length included.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            ToUser::HelloReply(m) => frame(129, m),
            ToUser::LoginRefused(m) => frame(130, m),
            ToUser::Welcome(m) => frame(131, m),
            ToUser::Roster(m) => frame(132, m),
            ToUser::Introduced(m) => frame(133, m),
            ToUser::IntroductionRefused(request, why) => frame(134, &(request, why)),
            ToUser::Blacklist(m) => frame(135, m),
            ToUser::Ping(m) => frame(136, m),
            ToUser::Pong(m) => frame(137, m),
            ToUser::Closing(m) => frame(138, m),
            ToUser::Reachable(m) => frame(139, m),
        }
    }

    /// Reads what follows a frame's length.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let (kind, bytes) = split(bytes)?;
        match kind {
            129 => message(bytes).map(ToUser::HelloReply),
            130 => message(bytes).map(ToUser::LoginRefused),
            131 => message(bytes).map(ToUser::Welcome),
            132 => message(bytes).map(ToUser::Roster),
            133 => {
                let introduced: Introduced = message(bytes)?;
                at_most(&introduced.rungs, Rung::ALL.len(), "the list of rungs")?;
                for offer in &introduced.rungs {
                    at_most(&offer.dial, CANDIDATES + 1, "the list of addresses to dial")?;
                }
                Ok(ToUser::Introduced(Box::new(introduced)))
            }
            134 => message(bytes).map(|(request, why)| ToUser::IntroductionRefused(request, why)),
            135 => message(bytes).map(ToUser::Blacklist),
            136 => message(bytes).map(ToUser::Ping),
            137 => message(bytes).map(ToUser::Pong),
            138 => message(bytes).map(ToUser::Closing),
            139 => message(bytes).map(ToUser::Reachable),
            other => Err(FrameError::UnknownKind(other)),
        }
    }
}
