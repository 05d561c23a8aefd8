//! A row for each siege.

use serde_json::{Value, json};

use super::forces::Outcomes;
use super::room::{Held, Totals};
use super::witness::LOGINS;
use crate::bench::float;

/// What is promised of a healthy pair's 99th percentile, in ms.
const PAIR_MS: f64 = 200.0;
/// What is promised of each right login, in ms.
const LOGIN_MS: f64 = 1000.0;

/// What came of one siege.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) seen: Value,
    pub(super) before: Held,
    pub(super) peak: Held,
    pub(super) after: Held,
    pub(super) refused: Totals,
    pub(super) outcomes: anyhow::Result<Outcomes>,
}

impl Row {
    /// What was promised and did not hold.
    fn missed(&self) -> Vec<&'static str> {
        let above = |value: &Value, most: f64| value.as_f64().is_none_or(|value| value > most);
        let mut missed = Vec::new();
        for (name, promise) in [("relayed", "relayed pair"), ("direct", "direct pair")] {
            if above(&self.seen[name]["ms"]["p99"], PAIR_MS) || self.seen[name]["lost"] != 0 {
                missed.push(promise);
            }
        }
        if self.seen["failed"].as_array().is_none_or(|failed| !failed.is_empty()) {
            missed.push("somebody failed");
        }
        for kind in LOGINS {
            // A short siege may have seen none. One that has not ended long after the siege was too slow.
            let slow = self.seen[kind]["done"] != 0 && above(&self.seen[kind]["ms"]["max"], LOGIN_MS);
            if slow || self.seen[kind]["unfinished"] != 0 {
                missed.push(kind);
            }
        }
        if self.outcomes.is_err() {
            missed.push("the attack");
        }
        if self.after.descriptors > self.before.descriptors {
            missed.push("descriptors");
        }
        missed
    }

    fn json(&self) -> Value {
        let held = |held: Held| json!({ "kib": held.kib, "descriptors": held.descriptors });
        json!({
            "siege": self.name,
            "seen": self.seen,
            "before": held(self.before),
            "peak": held(self.peak),
            "after": held(self.after),
            "connections": self.refused.connections,
            "turned_away": self.refused.turned_away,
            "refused_logins": self.refused.refused_logins,
            "attackers": self.outcomes.as_ref().map_or_else(|error| json!(error.to_string()), |all| json!(all)),
            "missed": self.missed(),
        })
    }

    fn print(&self) {
        let ms = |value: &Value| value.as_f64().map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        let three = |of: &Value| format!("{} / {} / {}", ms(&of["p50"]), ms(&of["p99"]), ms(&of["max"]));
        let mib = |held: Held| format!("{:.1}", float(held.kib) / 1024.0);
        println!("## {}", self.name);
        for name in ["relayed", "direct"] {
            let pair = &self.seen[name];
            let (sent, lost) = (&pair["sent"], &pair["lost"]);
            println!("   {name:<9} {} ms (p50 / p99 / max), {sent} sent, {lost} lost", three(&pair["ms"]));
        }
        for kind in LOGINS {
            let login = &self.seen[kind];
            let (done, unfinished) = (&login["done"], &login["unfinished"]);
            println!("   {kind:<9} {} ms, {done} logins, {unfinished} unfinished", three(&login["ms"]));
        }
        for why in self.seen["failed"].as_array().into_iter().flatten() {
            println!("   FAILED    {}", why.as_str().unwrap_or_default());
        }
        let (before, peak, after) = (self.before, self.peak, self.after);
        println!("   memory    {} / {} / {} MiB (before / peak / after)", mib(before), mib(peak), mib(after));
        let descriptors = [before, peak, after].map(|held| held.descriptors);
        println!("   files     {} / {} / {}", descriptors[0], descriptors[1], descriptors[2]);
        let Totals { connections, turned_away, refused_logins } = self.refused;
        println!(
            "   the Room  {connections} connections, {turned_away} turned away, {refused_logins} logins refused"
        );
        match &self.outcomes {
            Ok(outcomes) => outcomes.iter().for_each(|(how, count)| println!("   {count:>8}  {how}")),
            Err(error) => println!("   the attack failed: {error}"),
        }
        let missed = self.missed();
        println!(
            "   {}",
            if missed.is_empty() { "held".to_owned() } else { format!("MISSED: {}", missed.join(", ")) }
        );
    }
}

/// Prints rows as they come, or all of them as JSON at the end.
pub(super) struct Report {
    json: bool,
    strangers: bool,
    rows: Vec<Value>,
    held: bool,
}

impl Report {
    /// Nothing yet.
    pub(super) fn new(json: bool, strangers: bool) -> Self {
        if !json && !strangers {
            println!(
                "# not root: attackers come from loopback, which has no limits by address and no penalties"
            );
        }
        Self { json, strangers, rows: Vec::new(), held: true }
    }

    /// One siege.
    pub(super) fn row(&mut self, row: &Row) {
        self.held &= row.missed().is_empty();
        if self.json {
            self.rows.push(row.json());
        } else {
            row.print();
        }
    }

    /// The end. False if a promise was broken.
    pub(super) fn finish(self) -> bool {
        if self.json {
            println!("{}", json!({ "strangers": self.strangers, "sieges": self.rows }));
        }
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seen: Value) -> Row {
        let held = Held { kib: 1, descriptors: 1 };
        let refused = Totals { connections: 0, turned_away: 0, refused_logins: 0 };
        let outcomes = Ok(Outcomes::default());
        Row { name: "calm", seen, before: held, peak: held, after: held, refused, outcomes }
    }

    fn seen(login: &Value) -> Value {
        let pair = json!({ "sent": 9, "lost": 0, "ms": { "p99": 150.0 } });
        let mut seen = json!({ "direct": pair, "relayed": pair, "failed": [] });
        for kind in LOGINS {
            seen[kind] = login.clone();
        }
        seen
    }

    #[test]
    fn a_report_holds_only_if_every_promise_was_kept_in_every_row() {
        let fast = json!({ "done": 2, "unfinished": 0, "ms": { "max": 999.0 } });
        let none = json!({ "done": 0, "unfinished": 0, "ms": { "max": null } });
        let mut slow_pair = seen(&fast);
        slow_pair["relayed"]["ms"]["p99"] = json!(201.0);
        let mut lossy_pair = seen(&fast);
        lossy_pair["direct"]["lost"] = json!(1);
        let mut somebody_failed = seen(&fast);
        somebody_failed["failed"] = json!(["first: no"]);
        for (seen, holds) in [
            (seen(&fast), true),
            (seen(&none), true),
            (seen(&json!({ "done": 2, "unfinished": 0, "ms": { "max": 1001.0 } })), false),
            (seen(&json!({ "done": 0, "unfinished": 1, "ms": { "max": null } })), false),
            (slow_pair, false),
            (lossy_pair, false),
            (somebody_failed, false),
        ] {
            let mut report = Report::new(true, true);
            let row = row(seen);
            report.row(&row);
            // Nor does a later row make up for it.
            report.row(&self::row(self::seen(&fast)));
            assert_eq!(report.finish(), holds, "{}", row.seen);
        }
        let mut leaks = row(seen(&fast));
        leaks.after.descriptors = 2;
        assert_eq!(leaks.missed(), ["descriptors"]);
    }
}
