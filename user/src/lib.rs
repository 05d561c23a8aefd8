//! Placeholder.

pub mod clock;
pub mod core;
pub mod data;
pub mod net;
pub mod trust;
