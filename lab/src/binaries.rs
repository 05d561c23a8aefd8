//! Where the programs under test are.
//!
//! They are built once a process, with the profile and into the target directory of the test or program that
//! wants them, so that what is tested is what stands in the tree. `PARLOR_BINARIES` names a directory with programs to test
//! instead.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

/// The two programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The Room's daemon, `parlor-room`.
    pub room: PathBuf,
    /// The user's command, `parlor`.
    pub user: PathBuf,
}

/// Builds the two programs if need be and says where they are.
pub fn binaries() -> Result<Binaries> {
    static ONCE: OnceLock<Result<Binaries, String>> = OnceLock::new();
    ONCE.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn find() -> Result<Binaries> {
    let directory = match env::var_os("PARLOR_BINARIES") {
        Some(directory) => PathBuf::from(directory),
        None => build()?,
    };
    let binaries = Binaries { room: directory.join("parlor-room"), user: directory.join("parlor") };
    for path in [&binaries.room, &binaries.user] {
        ensure!(path.is_file(), "{} does not exist", path.display());
    }
    Ok(binaries)
}

/// Builds both with the profile of the running program and returns their directory.
fn build() -> Result<PathBuf> {
    let program = env::current_exe()?;
    // target/PROFILE/deps/test-0123456789abcdef, or target/PROFILE/program
    let directory = program.parent().context("a program lies in a directory")?;
    let directory = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    let directory = directory.context("a test runs from its target directory")?;
    let target = directory.parent().context("a profile's directory lies in the target directory")?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "parlor-room", "--package", "parlor-user", "--bins"]);
    cargo.args(["--profile", profile]).arg("--manifest-path").arg(manifest).arg("--target-dir").arg(target);
    let output = cargo.output().context("running cargo")?;
    ensure!(output.status.success(), "{cargo:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(directory.to_owned())
}
