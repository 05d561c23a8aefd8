//! The command line of `parlor-room`.
