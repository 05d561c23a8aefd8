//! Rows: median, least and most of the runs, the same of what was measured beside them, and the ratios of the medians.

use serde_json::{Value, json};

use super::args::{Args, word};

/// A count as a number to divide. Exact up to 2^53, which nothing counted here reaches.
#[expect(clippy::cast_precision_loss, reason = "counts of one benchmark run are far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Median, least and most of some runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    median: f64,
    least: f64,
    most: f64,
}

impl Summary {
    /// Of one run or more.
    pub(super) fn of(mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        let at = |index: usize| runs.get(index).copied().unwrap_or(f64::NAN);
        let (half, last) = (runs.len() / 2, runs.len().saturating_sub(1));
        let median =
            if runs.len() % 2 == 1 { at(half) } else { f64::midpoint(at(half.max(1) - 1), at(half)) };
        Self { median, least: at(0), most: at(last) }
    }

    fn text(&self) -> String {
        if self.least.total_cmp(&self.most).is_eq() {
            return short(self.median);
        }
        format!("{} ({} to {})", short(self.median), short(self.least), short(self.most))
    }

    fn json(&self) -> Value {
        json!({ "median": self.median, "min": self.least, "max": self.most })
    }
}

/// Three or more digits that count, in thousands or millions where that is shorter.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{:.2} M", value / 1e6),
        large if large >= 1e5 => format!("{:.0} k", value / 1e3),
        large if large >= 1e3 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Prints rows as they come, or all of them as JSON at the end.
pub(super) struct Report {
    json: bool,
    conditions: [(&'static str, String); 4],
    rows: Vec<Value>,
}

impl Report {
    /// Prints the heading of a table.
    pub(super) fn new(args: &Args) -> Self {
        let path = if args.relay { "relayed" } else { "direct" };
        let conditions = [
            ("place", word(&args.place)),
            ("path", path.to_owned()),
            ("cipher", word(&args.cipher)),
            ("runtime", word(&args.runtime)),
        ];
        if !args.json {
            let conditions: Vec<&str> = conditions.iter().map(|(_, value)| value.as_str()).collect();
            println!("# {}", conditions.join(", "));
            println!("{:<28} {:<30} {:<6} ratio, beside", "row", "parlor", "unit");
        }
        Self { json: args.json, conditions, rows: Vec::new() }
    }

    /// One row: Parlor's figure and those of what did the same work in turn with it.
    pub(super) fn row(&mut self, name: &str, unit: &str, parlor: Summary, beside: &[(&str, Summary)]) {
        if !self.json {
            let beside: Vec<_> = beside
                .iter()
                .map(|(what, figure)| {
                    format!("{:.3} of {what} {}", parlor.median / figure.median, figure.text())
                })
                .collect();
            let line = format!("{name:<28} {:<30} {unit:<6} {}", parlor.text(), beside.join(", "));
            println!("{}", line.trim_end());
        }
        let beside: Vec<_> = beside
            .iter()
            .map(|(what, figure)| {
                json!({ "what": what, "figure": figure.json(), "ratio": parlor.median / figure.median })
            })
            .collect();
        self.rows.push(json!({ "row": name, "unit": unit, "parlor": parlor.json(), "beside": beside }));
    }

    /// A row of one figure.
    pub(super) fn figure(&mut self, name: &str, unit: &str, figure: f64) {
        self.row(name, unit, Summary::of(vec![figure]), &[]);
    }

    /// A remark between the rows.
    pub(super) fn remark(&self, text: &str) {
        if !self.json {
            println!("# {text}");
        }
    }

    /// Ends the report with the CPU others used, in percent of one CPU.
    pub(super) fn finish(self, others: f64) {
        if self.json {
            let mut all = json!({ "rows": self.rows, "others_cpu_percent": others });
            for (name, value) in self.conditions {
                all[name] = value.into();
            }
            println!("{all}");
        } else {
            println!("# others used {others:.1} % of one CPU meanwhile");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_runs_lies_between_the_middle_two() {
        let summary = Summary::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!(summary.json(), json!({ "median": 2.5, "min": 1.0, "max": 4.0 }));
        assert_eq!(Summary::of(vec![3.0, 1.0, 2.0]).text(), "2.00 (1.00 to 3.00)");
    }

    #[test]
    fn figures_are_as_short_as_they_can_be_read() {
        assert_eq!(
            [1.234, 12.34, 1234.5, 123_456.0, 1_234_567.0].map(short),
            ["1.23", "12.3", "1234", "123 k", "1.23 M"]
        );
    }
}
