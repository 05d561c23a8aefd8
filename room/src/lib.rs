//! The Room of Parlor: it admits users under their names, says who is online, introduces users to each other
//! and relays between two of them when no direct path exists.
//!
//! The Room reads nothing of what users say to each other: what it relays is encrypted between them, and
//! what it states about them is signed, so that they can hold it to its key.
//!
//! - [`core`] decides: who is let in, who meets whom and how. It takes time, chance and the results of slow
//!   work as arguments and answers with commands. It opens no socket and starts no task.
//! - [`server`] acts: sockets, TLS, timers, threads for bcrypt and disk.
//! - [`config`], [`password`], [`store`], [`admin`], [`cli`]: what an operator sets, keeps and does.
//!
//! A program that wants a Room of its own, a test for example, calls [`Room::bind`]:
//!
//! ```no_run
//! # async fn example() -> Result<(), parlor_room::RoomError> {
//! let config = parlor_room::RoomConfig { listen: vec![([127, 0, 0, 1], 0).into()], ..Default::default() };
//! let room = parlor_room::Room::bind(config).await?;
//! println!("{}", room.addresses()[0]);
//! room.shutdown().await;
//! # Ok(()) }
//! ```

pub mod admin;
mod chance;
pub mod cli;
mod clock;
pub mod config;
pub mod core;
mod handle;
pub mod password;
pub mod server;
pub mod store;

pub use config::RoomConfig;
pub use handle::{Room, RoomError, RoomHandle};
