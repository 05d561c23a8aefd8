//! The User as a command.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
