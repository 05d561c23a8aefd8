//! What decides: time, chance and the results of slow work come in as arguments. Nothing here imports tokio.

pub(crate) mod channel;
pub(crate) mod keeper;
pub(crate) mod ladder;
pub mod reconnect;
pub mod roster;
