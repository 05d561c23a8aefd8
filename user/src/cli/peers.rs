//! `parlor peers`: who is online, who is known, and the way to them.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use parlor_user::protocol::identity::Fingerprint;
use parlor_user::protocol::introduction::Cipher;
use parlor_user::{Rung, SendError, User, UserName};
use serde::Serialize;

use super::args::Settings;
use super::error::Error;
use super::output::{self, microseconds, milliseconds};
use super::ping::pong;
use super::session::{data, join_anyhow};

/// Peers that are probed at once.
const PROBES: usize = 16;
/// A probe takes at most this long, channel and all.
const PROBE: Duration = Duration::from_secs(3);

/// A line of the list.
struct Row {
    name: UserName,
    online: bool,
    fingerprint: Option<Fingerprint>,
    probed: Option<(Rung, Duration, Option<Cipher>)>,
}

/// A line for a program to read.
#[derive(Serialize)]
struct JsonLine<'a> {
    name: &'a str,
    online: bool,
    rung: Option<&'a str>,
    rtt_us: Option<u64>,
    cipher: Option<&'a str>,
    fingerprint: Option<String>,
}

pub(super) async fn peers(settings: &Settings, probe: bool) -> Result<(), Error> {
    let user = join_anyhow(settings).await?;
    let listed = list(settings, &user, probe).await;
    user.leave().await;
    let rows = listed?;
    if settings.json {
        rows.iter().try_for_each(|row| output::print(&row.json()))
    } else {
        print_table(&rows)
    }
}

async fn list(settings: &Settings, user: &User, probe: bool) -> Result<Vec<Row>, Error> {
    let online = user.peers().into_iter().filter(|peer| peer.online);
    let rows =
        online.map(|peer| Row { name: peer.name, online: true, fingerprint: peer.fingerprint, probed: None });
    let mut rows: Vec<Row> = if probe {
        stream::iter(rows).map(|row| row.probe(user)).buffer_unordered(PROBES).collect().await
    } else {
        rows.collect()
    };
    for (name, identity) in data(settings)?.pinned_peers(user.room_fingerprint())? {
        if name != *user.name() && rows.iter().all(|row| row.name != name) {
            rows.push(Row { name, online: false, fingerprint: Some(identity.fingerprint()), probed: None });
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}

impl Row {
    async fn probe(mut self, user: &User) -> Self {
        let probed = async {
            let peer = user.peer(self.name.as_str()).map_err(SendError::Name)?;
            let (rung, rtt) = pong(&peer, PROBE).await?;
            Ok::<_, Error>((rung, rtt, peer.path().map(|path| path.cipher)))
        };
        match probed.await {
            Ok(probed) => self.probed = Some(probed),
            Err(error) => tracing::info!(peer = %self.name, %error, "not reached"),
        }
        self
    }

    fn json(&self) -> String {
        let (rung, rtt, cipher) = match self.probed {
            Some((rung, rtt, cipher)) => (Some(rung.as_str()), Some(microseconds(rtt)), cipher),
            None => (None, None, None),
        };
        output::json(&JsonLine {
            name: self.name.as_str(),
            online: self.online,
            rung,
            rtt_us: rtt,
            cipher: cipher.map(Cipher::as_str),
            fingerprint: self.fingerprint.map(|fingerprint| fingerprint.to_string()),
        })
    }

    fn cells(&self) -> [String; 5] {
        let (rung, rtt) = match self.probed {
            Some((rung, rtt, Some(Cipher::Cleartext))) => {
                (format!("{rung}, not encrypted"), milliseconds(rtt))
            }
            Some((rung, rtt, _)) => (rung.to_string(), milliseconds(rtt)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let online = if self.online { "yes" } else { "no" };
        let fingerprint = self.fingerprint.map_or_else(|| "-".to_owned(), |key| key.to_string());
        [self.name.to_string(), online.to_owned(), rung, rtt, fingerprint]
    }
}

fn print_table(rows: &[Row]) -> Result<(), Error> {
    let head = ["NAME", "ONLINE", "RUNG", "ROUND TRIP", "FINGERPRINT"].map(str::to_owned);
    let table: Vec<_> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| table.iter().map(|cells| cells[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    for cells in &table {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        output::print(padded.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
