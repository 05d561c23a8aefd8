//! Join a Parlor room under a name; `send` values to other users and `get` answers from their named callbacks,
//! directly when any network path allows it and through the Room when none does, always encrypted end to end,
//! once each, in order.
//!
//! ```
//! # use parlor_room::{Room, config::RoomConfig};
//! use parlor_user::User;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = RoomConfig { listen: vec!["127.0.0.1:0".parse()?], ..RoomConfig::default() };
//! # let room = Room::bind(config).await?;
//! # let address = room.addresses()[0].to_string();
//! let bar = User::builder("Bar").room(&address).ephemeral().join().await?;
//! bar.on_get("add_one", |_, n: u32| async move { Ok::<_, String>(n + 1) })?.forever();
//! let mut inbox = bar.inbox();
//!
//! let foo = User::builder("Foo").room(&address).ephemeral().join().await?;
//! let peer = foo.peer("Bar")?;
//! peer.send("Hello!").await?;
//! let answer: u32 = peer.get("add_one", &41).await?;
//! assert_eq!(answer, 42);
//!
//! let message = inbox.next().await.ok_or("left")?;
//! assert_eq!(message.decode::<String>()?, "Hello!");
//! # foo.leave().await;
//! # bar.leave().await;
//! # room.shutdown().await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

pub mod clock;
pub mod core;
pub mod data;
pub mod net;
pub mod trust;

mod builder;
mod call;
mod callbacks;
mod conversation;
pub mod error;
mod events;
mod hub;
#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod in_memory;
mod inbox;
mod peer;
mod scratch;
#[cfg(test)]
mod simulation;
mod start;
mod user;

pub use parlor_protocol as protocol;
pub use parlor_protocol::body::Value;
pub use parlor_protocol::name::UserName;
pub use parlor_protocol::presence::Encryption;
pub use parlor_protocol::rung::Rung;

pub use crate::builder::UserBuilder;
pub use crate::call::{Get, Getting};
pub use crate::callbacks::{Context, Registration};
pub use crate::error::{BuildError, GetError, Interrupted, OpenError, RemoteError, SendError};
pub use crate::events::{Event, Events};
pub use crate::inbox::{Inbox, Message};
pub use crate::peer::{Path, Peer, Receipt, Step};
pub use crate::user::{ForgetError, PeerInfo, User};
