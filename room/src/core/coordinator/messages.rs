//! What the core is told and what it says is to be done.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{Closing, RelayToken, ToRoom, ToUser};

use crate::admin::{AdminRequest, AdminResponse};
use crate::core::admission::PasswordCheck;
use crate::core::blacklist::Blacklist;
use crate::core::line::Precedence;
use crate::core::penalty::Offence;
use crate::core::relay::PairId;
use crate::core::{ConnId, LinkId, Source};
use crate::store::StoreChange;

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// A control connection has shaken hands.
    Opened {
        /// Its id from now on.
        conn: ConnId,
        /// Where it comes from.
        from: SocketAddr,
        /// Its TLS exporter.
        exporter: [u8; 32],
    },
    /// A message came.
    Frame {
        /// On this connection.
        conn: ConnId,
        /// The message.
        frame: ToRoom,
    },
    /// A connection broke the rules of the wire.
    Broken {
        /// The connection.
        conn: ConnId,
        /// How.
        code: CloseCode,
    },
    /// A connection is gone.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// Somebody misbehaved before there was a connection to speak of.
    Misbehaved {
        /// Where it came from.
        from: IpAddr,
        /// What it did.
        offence: Offence,
    },
    /// bcrypt is done with a [`Command::CheckPasswords`].
    PasswordsChecked {
        /// Whose login it is.
        conn: ConnId,
        /// Which one.
        attempt: u64,
        /// What bcrypt says.
        verdict: PasswordVerdict,
    },
    /// A [`Command::Bind`] has been carried out, or not.
    Bound {
        /// Whose login waits for it.
        conn: ConnId,
        /// The account.
        name: UserName,
        /// True if the identity is on disk.
        kept: bool,
    },
    /// A [`Command::CheckAddress`] has an answer.
    AddressChecked {
        /// Whose address it is.
        conn: ConnId,
        /// Of which presence.
        generation: u32,
        /// The address.
        address: IpAddr,
        /// True if the user's listener answered there.
        reached: bool,
    },
    /// A link shows a relay token.
    RelayHello {
        /// Its id from now on.
        link: LinkId,
        /// Where it comes from.
        from: IpAddr,
        /// The token.
        token: RelayToken,
    },
    /// A relayed pair has ended.
    RelayEnded {
        /// The pair.
        pair: PairId,
        /// Bytes it carried, both ways.
        bytes: u64,
    },
    /// The operator asks.
    Admin {
        /// Comes back in the answer.
        call: CallId,
        /// What is asked.
        request: AdminRequest,
    },
    /// Time has passed: see [`Coordinator::wake_at`](super::Coordinator::wake_at).
    Tick,
    /// The Room is to stop.
    Drain,
}

/// What bcrypt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// Every password was right.
    Right,
    /// At least one was wrong.
    Wrong,
    /// Its connection was gone before a thread had time: nothing was verified.
    Skipped,
    /// There was no time: try again after this.
    Busy {
        /// How long to wait.
        retry_after: Duration,
    },
}

/// Tells one question of the operator from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// Something is to be done.
#[derive(Debug)]
pub enum Command {
    /// Send a message.
    Send {
        /// On this connection.
        conn: ConnId,
        /// The message.
        frame: ToUser,
    },
    /// Send a message that is encoded already.
    SendEncoded {
        /// On this connection.
        conn: ConnId,
        /// The message.
        frame: Bytes,
    },
    /// Send a message to every connection that was [`Admitted`](Command::Admitted).
    Broadcast(ToUser),
    /// A connection has logged in: its deadline is over, its frames may be longer.
    Admitted {
        /// The connection.
        conn: ConnId,
    },
    /// Say why and close. The connection is forgotten here.
    Close {
        /// The connection.
        conn: ConnId,
        /// What to say.
        closing: Closing,
    },
    /// Verify passwords.
    CheckPasswords {
        /// Whose login it is.
        conn: ConnId,
        /// Which one.
        attempt: u64,
        /// All of them must be right.
        checks: Vec<PasswordCheck>,
        /// Who goes first where threads are few.
        precedence: Precedence,
    },
    /// Keep on disk which identity an account belongs to.
    Bind {
        /// Whose login waits for it.
        conn: ConnId,
        /// The account.
        name: UserName,
        /// The identity.
        identity: PublicIdentity,
    },
    /// See whether a user's listener answers there.
    CheckAddress {
        /// Whose address it is.
        conn: ConnId,
        /// Of which presence.
        generation: u32,
        /// The address.
        address: SocketAddr,
        /// The key with which the listener answers.
        key: [u8; 32],
        /// What to ask: random bytes.
        nonce: [u8; 32],
    },
    /// Splice two links.
    RelayReady {
        /// The pair.
        pair: PairId,
        /// The links.
        links: [LinkId; 2],
        /// Whose they are.
        users: [UserName; 2],
    },
    /// Refuse a link.
    RelayRefuse {
        /// The link.
        link: LinkId,
        /// Why.
        code: CloseCode,
    },
    /// End a pair.
    RelayEnd {
        /// The pair.
        pair: PairId,
    },
    /// Keep an address out until then.
    Bar {
        /// The address.
        source: Source,
        /// Until then.
        until: Instant,
    },
    /// Keep nobody of a network out for what it did.
    Pardon(IpNet),
    /// The blacklist is now this.
    Blacklist(Arc<Blacklist>),
    /// Keep this on disk, and answer the call, if any, when that is done.
    Store {
        /// What to keep.
        change: StoreChange,
        /// Whom to tell.
        call: Option<CallId>,
    },
    /// Answer the operator.
    Answer {
        /// The question.
        call: CallId,
        /// The answer.
        response: AdminResponse,
    },
}
