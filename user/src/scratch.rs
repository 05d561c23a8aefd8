//! Buffers that bodies are encoded into before they are copied to where they wait: one a thread, used again.

use std::cell::RefCell;

use parlor_protocol::limits::BODY;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that grew beyond this is given back to the system, in bytes: the largest body, unless a user sets it, stays.
const KEEP: usize = BODY + 1024;

/// An empty buffer.
pub(crate) fn take() -> Vec<u8> {
    let mut buffer = SCRATCH.with(RefCell::take);
    buffer.clear();
    buffer
}

/// The buffer is not needed any more.
pub(crate) fn give_back(buffer: Vec<u8>) {
    if buffer.capacity() <= KEEP {
        SCRATCH.with(|scratch| scratch.replace(buffer));
    }
}
