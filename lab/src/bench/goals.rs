//! What the figures are to be, and whether they are.

use serde_json::Value;

use super::client::{COPIED, RAW, SEALED};
use super::report::short;

/// One goal: a row of the report with these conditions, and how it is judged.
struct Goal {
    what: &'static str,
    place: &'static str,
    path: &'static str,
    cipher: &'static str,
    row: &'static str,
    of: Of,
    to_be: Bound,
}

/// What is judged: the figure, or its ratio to something beside it.
#[derive(Clone, Copy)]
enum Of {
    Figure(&'static str),
    Ratio(&'static str),
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

use Bound::{AtLeast, AtMost};
use Of::{Figure, Ratio};

const GET: &str = "get 64 B";
const CALLS: &str = "get 64 B, 64 in flight";
const SEND: &str = "send 64 B";

#[rustfmt::skip]
const GOALS: [Goal; 23] = [
    goal("`get` 64 B", "one", "direct", "aes", GET, Ratio(RAW), AtMost(1.25)),
    goal("the same, `free`", "free", "direct", "aes", GET, Ratio(RAW), AtMost(1.2)),
    goal("calls a second, 64 in flight", "one", "direct", "aes", CALLS, Figure("/s"), AtLeast(1e6)),
    goal("the same, `free`", "free", "direct", "aes", CALLS, Figure("/s"), AtLeast(5e5)),
    goal("messages of 64 B a second", "one", "direct", "aes", SEND, Figure("/s"), AtLeast(4.3e6)),
    goal("the same, `free`", "free", "direct", "aes", SEND, Figure("/s"), AtLeast(6e6)),
    goal("bodies of 64 KiB, AES", "one", "direct", "aes", "send 64 KiB", Ratio(SEALED), AtLeast(0.8)),
    goal("bodies of 1 MiB, AES", "one", "direct", "aes", "send 1 MiB", Ratio(SEALED), AtLeast(0.8)),
    goal("bodies of 64 KiB, ChaCha", "one", "direct", "chacha", "send 64 KiB", Ratio(SEALED), AtLeast(0.8)),
    goal("bodies of 1 MiB, ChaCha", "one", "direct", "chacha", "send 1 MiB", Ratio(SEALED), AtLeast(0.8)),
    goal("relayed `get` 64 B", "one", "relayed", "aes", GET, Ratio(COPIED), AtMost(1.0 / 0.9)),
    goal("relayed messages of 64 B", "one", "relayed", "aes", SEND, Ratio(COPIED), AtLeast(0.9)),
    goal("relayed bodies of 64 KiB, AES", "one", "relayed", "aes", "send 64 KiB", Ratio(COPIED), AtLeast(0.9)),
    goal("relayed bodies of 1 MiB, AES", "one", "relayed", "aes", "send 1 MiB", Ratio(COPIED), AtLeast(0.9)),
    goal("relayed bodies of 1 MiB, ChaCha", "one", "relayed", "chacha", "send 1 MiB", Ratio(COPIED), AtLeast(0.9)),
    goal("first `get` to a peer", "one", "direct", "aes", "first get to a peer", Figure("us"), AtMost(3000.0)),
    goal("the same, by the relay alone", "one", "relayed", "aes", "first get to a peer", Figure("us"), AtMost(3000.0)),
    goal("Room memory, each of 1,000 idle users", "one", "direct", "aes", "Room: for each of 1000 users", Figure("KiB"), AtMost(16.0)),
    goal("Room memory, each of 10,000 idle users", "free", "direct", "aes", "Room: for each of 10000 users", Figure("KiB"), AtMost(16.0)),
    goal("logins a second by ticket, `free`", "free", "direct", "aes", "logins by ticket", Figure("/s"), AtLeast(4000.0)),
    goal("the Room's CPU for one of 4,000 a second", "one", "direct", "aes", "Room's CPU for one by ticket", Figure("us"), AtMost(250.0)),
    goal("wake-ups of an idle user in 20 s", "one", "direct", "aes", "idle user: wake-ups in 20 s", Figure(""), AtMost(20.0)),
    goal("memory of an idle user's process", "one", "direct", "aes", "idle user: resident", Figure("KiB"), AtMost(10_240.0)),
];

const fn goal(
    what: &'static str,
    place: &'static str,
    path: &'static str,
    cipher: &'static str,
    row: &'static str,
    of: Of,
    to_be: Bound,
) -> Goal {
    Goal { what, place, path, cipher, row, of, to_be }
}

/// A table of those goals whose row is in the reports.
pub(super) fn table(reports: &[Value]) -> String {
    let mut table = String::from("| what | goal | figure | |\n|---|---|---|---|\n");
    for goal in &GOALS {
        if let Some(line) = goal.line(reports) {
            table += &line;
        }
    }
    table
}

impl Goal {
    fn line(&self, reports: &[Value]) -> Option<String> {
        let conditions =
            [("place", self.place), ("path", self.path), ("cipher", self.cipher), ("runtime", "multi")];
        // What was measured again stands behind what it replaces.
        let mut fitting =
            reports.iter().rev().filter(|r| conditions.iter().all(|&(name, value)| r[name] == value));
        let row = fitting.find_map(|r| r["rows"].as_array()?.iter().find(|row| row["row"] == self.row))?;
        let figure = row["parlor"]["median"].as_f64()?;
        let (judged, shown, unit) = match self.of {
            Figure(unit) => (figure, short(figure) + " " + unit, unit.to_owned()),
            Ratio(what) => {
                let beside = row["beside"].as_array()?.iter().find(|beside| beside["what"] == what)?;
                let ratio = beside["ratio"].as_f64()?;
                let unit = row["unit"].as_str().unwrap_or_default();
                (ratio, format!("{} {unit}, {ratio:.2}", short(figure)), format!("of {what}"))
            }
        };
        let (bound, met) = match self.to_be {
            AtMost(most) => (format!("at most {}", short(most)), judged <= most),
            AtLeast(least) => (format!("at least {}", short(least)), judged >= least),
        };
        let verdict = if met { "met" } else { "**not met**" };
        Some(format!("| {} | {} | {} | {verdict} |\n", self.what, (bound + " " + &unit).trim(), shown.trim()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_latest_report_with_its_conditions() {
        let report = |place: &str, ratio: f64| {
            let beside = json!([{ "what": RAW, "ratio": ratio }]);
            let row = json!({ "row": GET, "unit": "us", "parlor": { "median": 15.0 }, "beside": beside });
            json!({ "place": place, "path": "direct", "cipher": "aes", "runtime": "multi", "rows": [row] })
        };
        let again = [report("one", 1.2), report("one", 1.3), report("free", 1.1)];
        let table = table(&again);
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| `get` 64 B | at most 1.25 of raw TCP | 15.0 us, 1.30 | **not met** |",
                "| the same, `free` | at most 1.20 of raw TCP | 15.0 us, 1.10 | met |",
            ]
        );
    }
}
