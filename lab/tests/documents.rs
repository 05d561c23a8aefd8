//! Documents that can be held against the tree are.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_direct_dependency_has_its_reason_and_every_reason_its_dependency() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut declared = BTreeSet::new();
    for package in ["protocol", "room", "user", "lab", "fuzz", "fuzz/targets"] {
        let manifest = fs::read_to_string(root.join(package).join("Cargo.toml")).unwrap();
        declared.extend(dependencies(&manifest));
    }
    let document = fs::read_to_string(root.join("docs/DEPENDENCIES.md")).unwrap();
    assert_eq!(reasoned(&document), declared);
}

/// The names in a manifest's tables of dependencies, but for those of this workspace.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]");
        } else if inside && line.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            names.insert(name.to_owned());
        }
    }
    names.retain(|name| !name.starts_with("parlor-"));
    names
}

/// The names in the first columns of a document's tables of reasons. Its review lists what comes with them, too.
fn reasoned(document: &str) -> BTreeSet<String> {
    let reasons = document.lines().take_while(|line| !line.starts_with("## Review"));
    let rows = reasons.filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names = rows.filter(|cell| *cell != "crate").flat_map(|cell| cell.split(", "));
    names.map(str::to_owned).collect()
}
