//! Many reports, each printed by a run with `--json`, as tables for a document.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::goals;
use super::report::short;

/// A report's place, cipher and so on.
const CONDITIONS: [&str; 4] = ["place", "path", "cipher", "runtime"];

/// Prints the tables of a file of reports, one a line: the goals, direct channels, relayed ones, and the rest.
pub(super) fn print(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let reports: Vec<Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).context("a line is no report"))
        .collect::<Result<_>>()?;
    print!("{}", goals::table(&reports));
    for path in ["direct", "relayed"] {
        let of_path: Vec<&Value> =
            reports.iter().filter(|report| report["path"] == path && is_between_users(report)).collect();
        if !of_path.is_empty() {
            print!("\n{path}\n\n{}", side_by_side(&of_path));
        }
    }
    let rest: Vec<&Value> = reports.iter().filter(|report| !is_between_users(report)).collect();
    if !rest.is_empty() {
        print!("\n{}", one_below_another(&rest));
    }
    Ok(())
}

fn rows(report: &Value) -> impl Iterator<Item = &Value> {
    report["rows"].as_array().into_iter().flatten()
}

fn is_between_users(report: &Value) -> bool {
    rows(report).any(|row| row["row"].as_str().is_some_and(|name| name.starts_with("get 64 B")))
}

fn conditions(report: &Value) -> String {
    let words = CONDITIONS.iter().filter(|&&name| name != "path").filter_map(|name| report[name].as_str());
    words.collect::<Vec<_>>().join(" ")
}

/// A column for each report, a row for each kind of work: the median, and its ratios to what was beside it.
fn side_by_side(reports: &[&Value]) -> String {
    let mut names: Vec<(&str, &str)> = Vec::new();
    let mut seen = BTreeSet::new();
    for row in reports.iter().flat_map(|report| rows(report)) {
        let name = (row["row"].as_str().unwrap_or_default(), row["unit"].as_str().unwrap_or_default());
        if seen.insert(name) {
            names.push(name);
        }
    }
    let heads: Vec<String> = reports.iter().map(|report| conditions(report)).collect();
    let mut table = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for (name, unit) in names {
        let cells: Vec<String> = reports
            .iter()
            .map(|report| rows(report).find(|row| row["row"] == name).map_or_else(String::new, cell))
            .collect();
        table += &line(&[&format!("`{name}`, {unit}"), &cells.join(" | ")]);
    }
    table
}

fn one_below_another(reports: &[&Value]) -> String {
    let mut table = String::from("| | | place, cipher, runtime |\n|---|---|---|\n");
    for report in reports {
        for row in rows(report) {
            let (name, unit) =
                (row["row"].as_str().unwrap_or_default(), row["unit"].as_str().unwrap_or_default());
            table += &line(&[name, &format!("{} {unit}", cell(row)), &conditions(report)]);
        }
    }
    table
}

fn line(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// The median and, in brackets, its ratio to each figure beside it, in the order in which they were measured.
fn cell(row: &Value) -> String {
    let median = row["parlor"]["median"].as_f64().map_or_else(|| "-".to_owned(), short);
    let beside = row["beside"].as_array().into_iter().flatten();
    let ratios: Vec<String> =
        beside.filter_map(|other| other["ratio"].as_f64()).map(|ratio| format!("{ratio:.2}")).collect();
    if ratios.is_empty() { median } else { format!("{median} ({})", ratios.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_shows_the_median_and_every_ratio() {
        let beside = json!([{ "what": "raw TCP", "ratio": 0.5 }, { "what": "sealed TCP", "ratio": 0.8123 }]);
        let row = json!({ "row": "r", "unit": "MB/s", "parlor": { "median": 1234.0 }, "beside": beside });
        assert_eq!(cell(&row), "1234 (0.50; 0.81)");
        assert_eq!(cell(&json!({ "parlor": { "median": 3.0 } })), "3.00");
    }

    #[test]
    fn a_row_that_one_report_lacks_leaves_its_cell_empty() {
        let row = |name: &str| json!({ "row": name, "unit": "us", "parlor": { "median": 1.0 } });
        let with = |rows: Value| json!({ "place": "one", "cipher": "aes", "runtime": "multi", "rows": rows });
        let (one, other) = (with(json!([row("a"), row("b")])), with(json!([row("b")])));
        let table = side_by_side(&[&one, &other]);
        assert!(table.ends_with("| `a`, us | 1.00 |  |\n| `b`, us | 1.00 | 1.00 |\n"), "{table}");
    }
}
