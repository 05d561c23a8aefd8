//! Measures Parlor beside raw TCP on this machine. `parlor-bench --help` says how; `docs/PERFORMANCE.md` what
//! came of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    match parlor_lab::bench::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parlor-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
