//! The Room as a program.

fn main() -> std::process::ExitCode {
    parlor_room::cli::main()
}
