//! Tables of behaviours and what must become of them: clients at a Room, peers at a user, and whoever is on the way
//! between two users.
//!
//! A row is a sentence, what is done, and the one outcome that passes. After each row its victim serves somebody who
//! means well, and after each table no descriptor, no task and no panic is left. `docs/SECURITY.md` lists the rows
//! as they are here.

mod clients;
mod document;
mod peers;
mod table;
mod ways;
