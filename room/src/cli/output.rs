//! What commands print for people.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use parlor_protocol::name::printable;

use super::Failure;
use crate::admin::{BanEntry, StatusReport, UserEntry};

/// Prints lines to stdout. A reader that has gone away is no failure of ours, but it is one.
pub(super) fn print(lines: &[String]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written: io::Result<()> = lines.iter().try_for_each(|line| writeln!(stdout, "{line}"));
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::other(format!("cannot write to stdout: {error}")))
}

/// Prints each value as a line of JSON.
pub(super) fn print_json<T: serde::Serialize>(values: &[T]) -> Result<(), Failure> {
    let lines: Result<Vec<String>, _> = values.iter().map(serde_json::to_string).collect();
    print(&lines.map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?)
}

/// Accounts as a table.
pub(super) fn users(users: &[UserEntry]) -> Vec<String> {
    let mut rows = vec![["NAME", "FROM", "ONLINE", "IDENTITY"].map(str::to_owned)];
    rows.extend(users.iter().map(|user| {
        let source = match user.source {
            crate::admin::AccountSource::File => "configuration",
            crate::admin::AccountSource::Store => "store",
        };
        let identity = user.identity.map_or("-".to_owned(), |identity| identity.to_string());
        let online = if user.online { "yes" } else { "no" };
        [user.name.to_string(), source.to_owned(), online.to_owned(), identity]
    }));
    table(&rows)
}

/// Bans as a table.
pub(super) fn bans(bans: &[BanEntry]) -> Vec<String> {
    let mut rows = vec![["RANGE", "PASSES", "REASON"].map(str::to_owned)];
    rows.extend(bans.iter().map(|ban| {
        let until = ban.until.map_or("never".to_owned(), time);
        [ban.net.to_string(), until, printable(&ban.reason).into_owned()]
    }));
    table(&rows)
}

/// How a Room does, for people.
pub(super) fn status(report: &StatusReport) -> Vec<String> {
    let mut lines: Vec<String> = report.addresses.iter().map(ToString::to_string).collect();
    let totals = &report.totals;
    lines.push(format!("version {}, since {}", printable(&report.version), time(report.started)));
    lines.push(format!(
        "logins {} ({} resumed), refused {}, passwords checked {}, connections {}, turned away {}",
        totals.logins,
        totals.resumed,
        totals.refused_logins,
        totals.passwords_checked,
        totals.connections,
        totals.turned_away
    ));
    lines.push(format!(
        "introductions {}, relayed pairs {}, relayed links {}, relayed {}",
        totals.introductions,
        report.relayed_pairs,
        totals.relayed_links,
        bytes(totals.relayed_bytes)
    ));
    lines.push(format!("online {}", report.users.len()));
    if !report.users.is_empty() {
        let mut rows = vec![["NAME", "ADDRESS", "VERSION", "SINCE", "IDENTITY"].map(str::to_owned)];
        rows.extend(report.users.iter().map(|user| {
            let agent = printable(&user.agent).into_owned();
            let (name, address) = (user.name.to_string(), user.address.to_string());
            [name, address, agent, time(user.since), user.identity.to_string()]
        }));
        lines.push(String::new());
        lines.extend(table(&rows));
    }
    lines
}

/// Columns as wide as their widest cell, two spaces between.
fn table<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Seconds since 1970 as `2026-01-31T12:00:00Z`.
fn time(unix: u64) -> String {
    /// The last second that the format can write: the end of the year 9999.
    const LAST: u64 = 253_402_300_799;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(unix.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string()
}

fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, shift)| count >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (u128::from(count) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use parlor_protocol::identity::PublicIdentity;

    use super::*;
    use crate::admin::{AccountSource, OnlineUser, Totals};

    #[test]
    fn a_status_shows_all_and_no_agent_can_write_to_the_terminal() {
        let identity = PublicIdentity([1; 32]).fingerprint();
        let report = StatusReport {
            addresses: vec!["room://127.0.0.1:2428/".parse().unwrap()],
            version: "0.1.0".to_owned(),
            started: 1_700_000_000,
            users: vec![OnlineUser {
                name: "Foo".parse().unwrap(),
                address: "192.0.2.7:5000".parse().unwrap(),
                agent: "evil\u{1b}[2J".to_owned(),
                since: 1_700_000_060,
                identity,
            }],
            relayed_pairs: 1,
            totals: Totals { logins: 3, resumed: 1, relayed_bytes: 3 * 1024 * 1024 / 2, ..Totals::default() },
        };
        insta::assert_snapshot!(status(&report).join("\n"), @r"
        room://127.0.0.1:2428/
        version 0.1.0, since 2023-11-14T22:13:20Z
        logins 3 (1 resumed), refused 0, passwords checked 0, connections 0, turned away 0
        introductions 0, relayed pairs 1, relayed links 0, relayed 1.5 MiB
        online 1

        NAME  ADDRESS         VERSION        SINCE                 IDENTITY
        Foo   192.0.2.7:5000  evil\u{1b}[2J  2023-11-14T22:14:20Z  5sylhbppqwpv6a22h3u5275i3sihgwhc
        ");
    }

    #[test]
    fn lists_line_up() {
        let user = |name: &str, source, identity| UserEntry {
            name: name.parse().unwrap(),
            source,
            identity,
            online: identity.is_some(),
        };
        let shown = users(&[
            user("Foo", AccountSource::File, Some(PublicIdentity([1; 32]).fingerprint())),
            user("Somebody", AccountSource::Store, None),
        ]);
        insta::assert_snapshot!(shown.join("\n"), @"
        NAME      FROM           ONLINE  IDENTITY
        Foo       configuration  yes     5sylhbppqwpv6a22h3u5275i3sihgwhc
        Somebody  store          no      -
        ");
        let ban = |net: &str, until| BanEntry { net: net.parse().unwrap(), until, reason: "x".to_owned() };
        let shown = bans(&[ban("192.0.2.7/32", None), ban("2001:db8::/32", Some(u64::MAX))]);
        insta::assert_snapshot!(shown.join("\n"), @"
        RANGE          PASSES                REASON
        192.0.2.7/32   never                 x
        2001:db8::/32  9999-12-31T23:59:59Z  x
        ");
    }

    #[test]
    fn bytes_are_written_as_people_read_them() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (u64::MAX, "16777215.9 TiB")] {
            assert_eq!(bytes(count), text);
        }
    }
}
