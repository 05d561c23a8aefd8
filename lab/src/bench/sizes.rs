//! The programs' files: as they were built, and without symbols where `strip` is installed.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::args::Args;
use super::report::{Report, float};

/// Measures the programs that stand beside this one.
pub(super) fn measure(_: &Args, report: &mut Report) -> Result<()> {
    let own = std::env::current_exe().context("finding this program")?;
    for name in ["parlor", "parlor-room"] {
        let path = own.with_file_name(name);
        let Ok(built) = fs::metadata(&path) else {
            report.remark(&format!("{name} does not stand beside this program; build the workspace"));
            continue;
        };
        report.figure(&format!("{name}: as built"), "MB", float(built.len()) / 1e6);
        let stripped = tempfile::NamedTempFile::new()?;
        let done = Command::new("strip").arg("-o").arg(stripped.path()).arg(&path).status();
        if done.is_ok_and(|status| status.success()) {
            let size = fs::metadata(stripped.path())?.len();
            report.figure(&format!("{name}: stripped"), "MB", float(size) / 1e6);
        }
    }
    Ok(())
}
