//! The log on stderr. Whatever names, addresses and errors of others contain, a line stays one line of plain text: what
//! would move a cursor, change a colour or turn the direction of text is written as its escape. And nobody fills the
//! disk with it: each place of the program that logs has so many lines at once and then so many a second; how many were left out
//! is said a little later.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use parlor_protocol::name::{is_unprintable, printable};
use tracing::callsite::Identifier;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::fmt::{MakeWriter, layer};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::Failure;
use crate::clock;
use crate::config::{ConfigError, DaemonConfig, Place};
use crate::core::rate::TokenBucket;

/// Lines of one place at once: a room full of users that come back is told in full up to here.
const LINES: u64 = 1_000;
/// Lines of one place a second after that.
const LINES_PER_SECOND: u64 = 100;
/// How often it is said what was left out.
pub(super) const LEFT_OUT_EVERY: Duration = Duration::from_secs(10);

/// Starts the log as the configuration says.
pub(super) fn start(config: &DaemonConfig) -> Result<Sparing, Failure> {
    let filter = EnvFilter::builder().parse(&config.log).map_err(|error| ConfigError::Field {
        place: Place::Whole,
        field: "log".to_owned(),
        why: error.to_string(),
    })?;
    let sparing = Sparing::default();
    subscriber(config.json, io::stderr().is_terminal(), io::stderr, sparing.clone(), filter)
        .try_init()
        .map_err(|error| Failure::other(format!("cannot start the log: {error}")))?;
    Ok(sparing)
}

fn subscriber<W>(
    json: bool,
    colours: bool,
    writer: W,
    sparing: Sparing,
    filter: EnvFilter,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::registry().with(filter).with(sparing);
    if json {
        return Box::new(lines.with(layer().json().with_writer(Escaped(writer))));
    }
    let field = |writer: &mut tracing_subscriber::fmt::format::Writer<'_>,
                 field: &tracing::field::Field,
                 value: &dyn std::fmt::Debug| {
        let text = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", printable(&text)),
            name => write!(writer, "{name}={}", printable(&text)),
        }
    };
    let fields = debug_fn(field).delimited(" ");
    Box::new(lines.with(layer().with_ansi(colours).fmt_fields(fields).with_writer(writer)))
}

/// Lets a place of the program log so much and no more. Its clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Sparing {
    places: Arc<Mutex<HashMap<Identifier, LogPlace>>>,
}

/// One place of the program that logs.
#[derive(Debug)]
struct LogPlace {
    metadata: &'static Metadata<'static>,
    lines: TokenBucket,
    left_out: u64,
}

impl Sparing {
    fn allows(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let place = places.entry(metadata.callsite()).or_insert_with(|| LogPlace {
            metadata,
            lines: TokenBucket::new(LINES_PER_SECOND, LINES, now),
            left_out: 0,
        });
        let allowed = place.lines.try_take(1, now).is_ok();
        place.left_out += u64::from(!allowed);
        allowed
    }

    /// Logs how many lines of which place were left out since this was last asked.
    pub(super) fn tell(&self) {
        for (place, lines) in self.take_left_out() {
            tracing::warn!(lines, place, "there was too much to log and some was left out");
        }
    }

    fn take_left_out(&self) -> Vec<(String, u64)> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let some = places.values_mut().filter(|place| place.left_out > 0);
        some.map(|place| {
            let (file, line) = (place.metadata.file().unwrap_or("?"), place.metadata.line().unwrap_or(0));
            (format!("{file}:{line}"), std::mem::take(&mut place.left_out))
        })
        .collect()
    }
}

impl<S: Subscriber> Layer<S> for Sparing {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.allows(event.metadata(), clock::now().instant)
    }
}

/// Writes JSON lines, in which characters that must not reach a terminal stand as JSON's own escapes.
struct Escaped<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Escaped<W> {
    type Writer = Escaped<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Escaped(self.0.make_writer())
    }
}

impl<W: Write> Write for Escaped<W> {
    /// Takes whole lines, as the log writes them.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut clean = String::with_capacity(text.len());
        for c in text.chars() {
            if c != '\n' && is_unprintable(c) {
                // All of them are of Unicode's first plane: one escape each.
                let _ = write!(clean, "\\u{:04x}", u32::from(c));
            } else {
                clean.push(c);
            }
        }
        self.0.write_all(clean.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a log has written.
    #[derive(Debug, Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn text(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    /// Runs `logs` under a log of its own and gives what was written.
    fn written(json: bool, logs: impl Fn()) -> String {
        let written = Written::default();
        let into = written.clone();
        let log = subscriber(json, false, move || into.clone(), Sparing::default(), EnvFilter::new("trace"));
        tracing::subscriber::with_default(log, logs);
        written.text()
    }

    const NASTY: &str =
        "a\n2026 FORGED\r\u{1b}[2J\u{9b}31m\u{7}\u{202e}evil\u{2066}\u{200b}\u{feff}\0\u{7f}\u{2028}";

    fn log_nasty() {
        let error = io::Error::other(NASTY);
        let path = std::path::PathBuf::from(NASTY);
        // In every way in which a value gets into a line.
        tracing::info!(text = NASTY, name = %NASTY, debug = ?NASTY, "{NASTY}");
        tracing::warn!(%error, "an error");
        tracing::warn!(error = &error as &dyn std::error::Error, "an error");
        tracing::error!(path = %path.display(), code = ?Some(NASTY), "a path");
    }

    #[test]
    fn whatever_a_value_contains_a_line_stays_one_line_of_plain_text() {
        for json in [false, true] {
            let text = written(json, log_nasty);
            assert_eq!(text.lines().count(), 4, "{text:?}");
            assert!(text.chars().all(|c| c == '\n' || !is_unprintable(c)), "{text:?}");
            assert!(
                text.lines().all(|line| line.contains("evil") && !line.starts_with("2026 F")),
                "{text:?}"
            );
        }
    }

    #[test]
    fn json_stays_json_and_means_the_same() {
        let text = written(true, log_nasty);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["fields"]["text"], NASTY);
        assert_eq!(first["fields"]["message"], NASTY);
    }

    #[test]
    fn a_place_that_logs_without_end_is_cut_short_and_others_are_not() {
        let sparing = Sparing::default();
        let written = Written::default();
        let into = written.clone();
        let log = subscriber(false, false, move || into.clone(), sparing.clone(), EnvFilter::new("info"));
        tracing::subscriber::with_default(log, || {
            for _ in 0..3 * LINES {
                tracing::info!("again");
            }
            tracing::info!("calm");
        });
        let text = written.text();
        let again = text.matches("again").count() as u64;
        assert!((LINES..2 * LINES).contains(&again), "{again}");
        assert!(text.contains("calm"));
        let left_out = sparing.take_left_out();
        assert_eq!((left_out.len(), left_out[0].1), (1, 3 * LINES - again));
        assert!(left_out[0].0.contains("log.rs:"), "{left_out:?}");
        assert!(sparing.take_left_out().is_empty());
    }
}
