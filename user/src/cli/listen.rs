//! `parlor listen`: a line for each message.
//!
//! A message that was taken over is printed, also when the program is told to stop meanwhile.

use parlor_user::{Message, Value};
use serde::Serialize;

use super::args::Settings;
use super::error::Error;
use super::output::{self, Lines};
use super::session::{self, Stop, announce, join_named};

/// Lines are collected up to this many bytes before they are written, while more messages wait.
const BATCH: usize = 64 * 1024;

pub(super) async fn listen(settings: &Settings) -> Result<(), Error> {
    let mut stop = Stop::new()?;
    let user = tokio::select! {
        user = join_named(settings, "listen", |builder| builder) => user?,
        () = stop.next() => return Ok(()),
    };
    let (mut inbox, mut events) = (user.inbox(), user.events());
    announce(&user, "listens", settings);
    let lines = Lines::start();
    let ended = {
        let mut ended = std::pin::pin!(session::ended(&mut events));
        loop {
            tokio::select! {
                () = stop.next() => break Ok(()),
                ended = &mut ended => break ended,
                () = lines.closed() => break Ok(()),
                Some(message) = inbox.next() => {
                    let mut batch = line(&message, settings.json);
                    while batch.len() < BATCH && let Some(message) = inbox.try_next() {
                        batch.push_str(&line(&message, settings.json));
                    }
                    // A stop waits for a batch that is being handed over, or the batch would be lost.
                    if !write(&lines, batch, &mut stop).await {
                        break Ok(());
                    }
                }
            }
        }
    };
    stop.leave(user).await;
    let mut rest = String::new();
    while let Some(message) = inbox.try_next() {
        rest.push_str(&line(&message, settings.json));
    }
    lines.finish(rest.into_bytes()).await?;
    ended
}

/// Hands lines over. False: nobody takes them, or the program is to stop and stdout stalls.
async fn write(lines: &Lines, batch: String, stop: &mut Stop) -> bool {
    tokio::select! {
        biased;
        taken = lines.write(batch.into_bytes()) => taken,
        () = stop.next() => false,
    }
}

/// A message for a program to read.
#[derive(Serialize)]
struct JsonLine<'a> {
    from: &'a str,
    event: Option<&'a str>,
    body: serde_json::Value,
    /// Why `body` is null although something was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn line(message: &Message, json: bool) -> String {
    let value = message.value();
    if json {
        let line = JsonLine {
            from: message.from().as_str(),
            event: message.event(),
            body: value.as_ref().map_or(serde_json::Value::Null, Value::to_json),
            error: value.err().map(|error| error.to_string()),
        };
        return output::json(&line) + "\n";
    }
    let time = jiff::Zoned::now().strftime("%H:%M:%S");
    let from = message.from();
    let event = message.event().map(|event| format!(" ({event})")).unwrap_or_default();
    let body = match &value {
        Ok(value) => output::plain(value),
        Err(error) => format!("a body that cannot be shown: {error}"),
    };
    format!("[{time}] {from}{event}: {body}\n")
}
