//! The frames inside the records of a channel.
