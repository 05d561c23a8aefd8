//! What acts: the sockets between a user, its Room and its peers.
