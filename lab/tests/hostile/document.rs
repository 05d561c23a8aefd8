//! `docs/SECURITY.md` lists the rows as they are.

use std::fs;
use std::path::Path;

use crate::{clients, peers, ways};

/// The rows of the document's table under this heading.
fn listed(document: &str, heading: &str) -> Vec<String> {
    let section = document.split_once(heading).map_or("", |(_, rest)| rest);
    let section = section.split("\n#").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(str::to_owned).collect()
}

#[test]
fn the_document_lists_every_row_with_its_outcome() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let clients = clients::rows().iter().map(|(_, row)| row.listed()).collect::<Vec<_>>();
    let peers = peers::rows().iter().map(peers::PeerRow::listed).collect::<Vec<_>>();
    let ways = ways::rows().iter().map(ways::WayRow::listed).collect::<Vec<_>>();
    let tables = [
        ("\n### Clients at a Room\n", clients),
        ("\n### Peers at a user\n", peers),
        ("\n### Networks between two users\n", ways),
    ];
    let wrong = tables.into_iter().filter(|(heading, rows)| listed(&document, heading) != *rows);
    let wrong: Vec<String> = wrong.map(|(heading, rows)| format!("{heading}{}\n", rows.join("\n"))).collect();
    assert!(wrong.is_empty(), "there should be{}", wrong.concat());
}
