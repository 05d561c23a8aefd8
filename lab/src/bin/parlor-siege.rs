//! Besieges a Room while users talk through it and others log in. `parlor-siege --help` says how;
//! `docs/SECURITY.md` what came of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match parlor_lab::siege::main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("parlor-siege: {error:#}");
            ExitCode::FAILURE
        }
    }
}
