//! The laboratory: Rooms and Users together, as real programs on real (if virtual) networks.
//!
//! What is shown here is shown from outside: the two programs are started as anybody would start them and
//! judged by their output, their exit codes, the packets on the wire and the bytes in their memory. Nothing
//! here reaches into the libraries; the benchmark uses what they offer to any program, and those who misbehave speak the
//! protocol themselves.
//!
//! - [`netns`]: hosts, switches and routers with NAT, made of network namespaces.
//! - [`process`]: programs that never outlive their owner, and waits that always end.
//! - [`binaries`], [`programs`]: where `parlor-room` and `parlor` are, and how to run them.
//! - [`calendar`]: a calendar for one program alone, which can be set while it runs.
//! - [`memory`]: searching the memory of a running process.
//! - [`hostile`]: clients, peers and networks that misbehave.
//! - [`mod@bench`]: Parlor beside raw TCP; the program `parlor-bench`.
//! - [`siege`]: a Room under attack, and what its users notice; the program `parlor-siege`.
//! - [`faults`]: what users notice when links, paths, the Room or their peer fail; the program `parlor-faults`.
//!
//! Everything cleans up after itself when it is dropped, also when a test panics.

pub mod bench;
pub mod binaries;
pub mod calendar;
pub mod faults;
pub mod hostile;
pub mod memory;
pub mod netns;
pub mod process;
pub mod programs;
pub mod siege;

mod clock;
