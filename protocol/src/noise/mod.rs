//! The handshake between two users and the records they exchange after it.
