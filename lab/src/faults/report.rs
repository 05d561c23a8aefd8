//! Rows as they come, and whether a promise was broken.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::words::PairStatus;

/// Prints rows as they come, or all of them as JSON at the end.
pub(super) struct Report {
    json: bool,
    rows: Vec<Value>,
    broken: Vec<String>,
}

impl Report {
    /// Prints nothing yet.
    pub(super) fn new(json: bool) -> Self {
        Self { json, rows: Vec::new(), broken: Vec::new() }
    }

    /// One row: what it is about, and its figures with their names.
    pub(super) fn row(&mut self, name: &str, figures: &[(&str, Value)]) {
        if !self.json {
            let figures: Vec<String> =
                figures.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
            println!("{name:<34} {}", figures.join(", "));
        }
        let figures: Map<String, Value> =
            figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.rows.push(json!({ "row": name, "figures": figures }));
    }

    /// A remark between the rows.
    pub(super) fn remark(&self, text: &str) {
        if !self.json {
            println!("# {text}");
        }
    }

    /// A promise: what is wrong if it does not hold.
    pub(super) fn promise(&mut self, holds: bool, broken: impl FnOnce() -> String) {
        if !holds {
            let broken = broken();
            if !self.json {
                println!("BROKEN: {broken}");
            }
            self.broken.push(broken);
        }
    }

    /// Ends the report. False if a promise was broken.
    pub(super) fn finish(self) -> bool {
        if self.json {
            println!("{}", json!({ "rows": self.rows, "broken": self.broken }));
        }
        self.broken.is_empty()
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Milliseconds of nanoseconds, to a tenth.
#[expect(clippy::cast_precision_loss, reason = "tenths of milliseconds of hours at most")]
pub(super) fn millis(nanos: u64) -> f64 {
    ((nanos / 100_000) as f64) / 10.0
}

/// Median, 99th percentile and most of some times in nanoseconds, as figures in milliseconds.
pub(super) fn times(mut nanos: Vec<u64>) -> [(&'static str, Value); 4] {
    nanos.sort_unstable();
    // The nearest rank: the smallest of them that so many in a hundred do not exceed.
    let rank = |percent: usize| (nanos.len() * percent).div_ceil(100).max(1) - 1;
    let at = |percent| nanos.get(rank(percent)).map_or(Value::Null, |&time| json!(millis(time)));
    [("samples", json!(nanos.len())), ("median ms", at(50)), ("p99 ms", at(99)), ("most ms", at(100))]
}

/// What arrived of what all users sent, and how: the promise itself.
pub(super) fn kept(report: &mut Report, name: &str, all: &[PairStatus]) {
    let sum = |figure: fn(&PairStatus) -> u64| all.iter().map(figure).sum::<u64>();
    let sent = sum(|pair| pair.sent.messages);
    let delivered = sum(|pair| pair.taken.delivered);
    let figures = BTreeMap::from([
        ("lost", sent.saturating_sub(delivered)),
        ("repeated", sum(|pair| pair.taken.repeated)),
        ("reordered", sum(|pair| pair.taken.reordered)),
        ("damaged", sum(|pair| pair.taken.damaged)),
        ("interrupted", sum(|pair| pair.sent.interrupted)),
        ("calls failed", sum(|pair| pair.sent.failed)),
        ("calls run again", sum(|pair| pair.ran_again)),
    ]);
    let mut row = vec![("messages", json!(sent)), ("calls", json!(sum(|pair| pair.sent.calls)))];
    row.extend(figures.iter().map(|(name, count)| (*name, json!(count))));
    row.push(("not taken at first", json!(sum(|pair| pair.sent.refused))));
    report.row(name, &row);
    let errors: Vec<&String> = all.iter().filter_map(|pair| pair.sent.error.as_ref()).collect();
    if let Some(error) = errors.first() {
        report.remark(&format!("the first error of {} users: {error}", errors.len()));
    }
    for (figure, count) in figures {
        report.promise(count == 0, || format!("{name}: {figure} {count}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let figures = |times: [(&'static str, Value); 4]| times.map(|(_, value)| value);
        let hundred = (1..=100).map(|ms| ms * 1_000_000).rev().collect();
        assert_eq!(figures(times(hundred)), [json!(100), json!(50.0), json!(99.0), json!(100.0)]);
        assert_eq!(figures(times(vec![1_550_000])), [json!(1), json!(1.5), json!(1.5), json!(1.5)]);
        assert_eq!(figures(times(Vec::new()))[1], Value::Null);
    }

    #[test]
    fn a_message_that_did_not_come_breaks_the_promise() {
        let mut pair = PairStatus::default();
        pair.sent.messages = 2;
        pair.taken.delivered = 2;
        let mut report = Report::new(true);
        kept(&mut report, "kept", std::slice::from_ref(&pair));
        pair.taken.delivered = 1;
        assert!(report.broken.is_empty());
        kept(&mut report, "lost", &[pair]);
        assert!(!report.finish());
    }
}
