//! Every limit of the protocol, with its unit and its reason. What an operator can set has its default
//! here; what protects memory before anybody is known cannot be set.

use std::time::Duration;

/// Longest user name, in characters (all of them ASCII). Fits a terminal column.
pub const USER_NAME_CHARS: usize = 32;
/// Longest callback or event name, in bytes of UTF-8.
pub const EVENT_NAME_BYTES: usize = 64;
/// Longest LAN id, in bytes of UTF-8.
pub const LAN_ID_BYTES: usize = 64;

/// The port a Room listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 2428;

/// A TLS handshake must be done by then: a healthy one takes three packets.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(5);
/// From accept to `Welcome`: TLS, hello, login and one bcrypt, with room for a queue.
pub const WHOLE_LOGIN: Duration = Duration::from_secs(10);
/// Largest control frame before login, in bytes: a login is under 1 KiB.
pub const FRAME_BEFORE_LOGIN: usize = 4 * 1024;
/// Largest control frame, in bytes. A longer roster is split.
pub const CONTROL_FRAME: usize = 64 * 1024;
/// Connections that have not logged in, in all. From [`PRE_AUTH_SOFT`] on new ones are refused at random.
pub const PRE_AUTH_CONNECTIONS: usize = 512;
/// Where early random refusal of connections begins.
pub const PRE_AUTH_SOFT: usize = 64;
/// Connections that have not logged in, from one address (v6: one /64).
pub const PRE_AUTH_PER_ADDRESS: usize = 8;
/// Login attempts on one connection.
pub const LOGINS_PER_CONNECTION: u32 = 3;
/// Failed logins a minute from one address to one account.
pub const LOGINS_PER_MINUTE: u32 = 3;
/// Longest password, in bytes: bcrypt reads 72 with the terminator.
pub const PASSWORD_BYTES: usize = 71;
/// bcrypt costs that are accepted.
pub const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 10..=14;
/// The bcrypt cost of new hashes: about a quarter of a second of one core.
pub const BCRYPT_COST: u32 = 12;
/// Logins that may wait for a bcrypt thread.
pub const BCRYPT_QUEUE: usize = 32;
/// How long a login waits for a bcrypt thread before it is told `Busy`.
pub const BCRYPT_WAIT: Duration = Duration::from_secs(3);

/// Penalty for a wrong password or an unknown name.
pub const PENALTY_WRONG_PASSWORD: Duration = Duration::from_secs(5);
/// Penalty for bytes that no user of this protocol sends.
pub const PENALTY_MALFORMED: Duration = Duration::from_secs(90);
/// Penalty for a connection that let a deadline pass before it logged in.
pub const PENALTY_TIMED_OUT: Duration = Duration::from_secs(10);
/// Penalties act from this score on, so that one slip costs nothing.
pub const PENALTY_ACTS_FROM: Duration = Duration::from_secs(15);
/// The highest score, and so the longest ban that passes by itself.
pub const PENALTY_CAP: Duration = Duration::from_mins(10);
/// Addresses with a score that are remembered.
pub const PENALTY_TABLE: usize = 65_536;

/// A resume ticket is good for this long.
pub const TICKET_LIFETIME: Duration = Duration::from_hours(24);
/// An introduction is good for this long after it was received.
pub const INTRODUCTION_LIFETIME: Duration = Duration::from_hours(24);
/// A relay token not used by then is void.
pub const RELAY_TOKEN_LIFETIME: Duration = Duration::from_secs(30);
/// Introductions a user may ask for at once, then [`INTRODUCTIONS_PER_SECOND`].
pub const INTRODUCTION_BURST: u32 = 256;
/// Introductions a second that a user may ask for after a burst.
pub const INTRODUCTIONS_PER_SECOND: u32 = 64;

/// Candidate addresses a user may announce.
pub const CANDIDATES: usize = 16;
/// Relayed pairs a user may have at once.
pub const RELAYED_PAIRS: usize = 64;
/// Bytes a second a user may have relayed, over all its pairs. 0 means no limit.
pub const RELAY_RATE: u64 = 8 * 1024 * 1024;
/// Bytes a user may have relayed in a burst above [`RELAY_RATE`].
pub const RELAY_BURST: u64 = 32 * 1024 * 1024;
/// Size of each of the two buffers of a relayed pair, in bytes.
pub const RELAY_BUFFER: usize = 64 * 1024;

/// Largest message body, in bytes, unless a user sets it.
pub const BODY: usize = 1024 * 1024;
/// The most a user may set [`BODY`] to, in bytes.
pub const BODY_MOST: usize = 64 * 1024 * 1024;
/// Nesting of a body.
pub const BODY_DEPTH: usize = 64;
/// Elements of a body that is decoded to a dynamic value.
pub const BODY_ELEMENTS: usize = 65_536;
/// Plaintext a channel keeps until its peer has taken it over, in bytes.
pub const UNACKED_CHANNEL: usize = 8 * 1024 * 1024;
/// Plaintext all channels of a user keep, in bytes.
pub const UNACKED_USER: usize = 64 * 1024 * 1024;
/// Messages that a peer may have sent and this user has not consumed, in bytes a channel.
pub const RECEIVE_WINDOW: u64 = 1024 * 1024;
/// Calls under way to one peer.
pub const CALLS_OUT: usize = 1024;
/// Callbacks running for one peer unless set otherwise.
pub const CALLS_RUNNING: usize = 64;

/// A body longer than this travels in pieces of this many bytes, so that others pass between. Two pieces fill
/// a record.
pub const PIECE: usize = 32_704;
/// Messages in pieces that may be under way at once, a channel and direction.
pub const STREAMS: usize = 16;
/// An acknowledgement waits at most this long for data to ride on.
pub const ACK_DELAY: Duration = Duration::from_millis(25);
/// An acknowledgement is sent at the latest after this many bytes: four full records.
pub const ACK_BYTES: u64 = 256 * 1024;

/// Keeps NAT bindings and notices a dead Room connection.
pub const ROOM_PING: Duration = Duration::from_secs(15);
/// A Room connection on which nothing came for this long is dead.
pub const ROOM_DEAD: Duration = Duration::from_secs(45);
/// Keeps an idle link's NAT binding alive: many expire after 30 s (RFC 4787 REQ-5 asks for 2 min).
pub const LINK_KEEPALIVE: Duration = Duration::from_secs(25);
/// A link on which nothing came for this long is dead.
pub const LINK_DEAD: Duration = Duration::from_secs(45);
/// A channel on which no message went either way for this long is closed.
pub const CHANNEL_IDLE: Duration = Duration::from_mins(10);
/// An attempt to connect and shake hands on one rung may take this long.
pub const LINK_ATTEMPT: Duration = Duration::from_secs(5);
/// Links that shake hands at once on a user's listener.
pub const LINK_HANDSHAKES: usize = 64;
/// First delay before a user tries its Room again; full jitter is applied.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(250);
/// Longest delay before a user tries its Room again.
pub const RECONNECT_MOST: Duration = Duration::from_secs(30);
/// A Room that is told to stop lets its users go within this.
pub const DRAIN: Duration = Duration::from_secs(10);
