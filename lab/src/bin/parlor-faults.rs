//! Breaks links, paths, the Room and peers under real programs, and prints what their users noticed.
//! `parlor-faults --help` says how; `docs/RELIABILITY.md` what came of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match parlor_lab::faults::main() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("parlor-faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}
