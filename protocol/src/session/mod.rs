//! Exactly once, in order, above links that come and go.
