//! What can be said on the command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use parlor_protocol::name::{EventName, LanId};
use parlor_user::protocol::address::RoomAddress;
use parlor_user::{Encryption, UserName, Value};

/// Join a Parlor room under a name: send values to other users, call their callbacks, answer their calls.
#[derive(Debug, Parser)]
#[command(name = "parlor", version, arg_required_else_help = false)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) settings: Settings,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Who joins which room, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct Settings {
    /// The Room, as it printed its address: room://HOST:PORT/#FINGERPRINT
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        env = "PARLOR_ROOM",
        default_value = "room://127.0.0.1:2428"
    )]
    pub(super) room: RoomAddress,
    /// The name to join under
    #[arg(long, global = true, env = "PARLOR_NAME")]
    pub(super) name: Option<UserName>,
    /// Read the account's password from the first line of this file
    #[arg(long, global = true, value_name = "FILE", env = "PARLOR_PASSWORD_FILE")]
    pub(super) password_file: Option<PathBuf>,
    /// Read the Room's own password from the first line of this file
    #[arg(long, global = true, value_name = "FILE", env = "PARLOR_ROOM_PASSWORD_FILE")]
    pub(super) room_password_file: Option<PathBuf>,
    /// What this machine's local network is called; users with the same id try each other's private addresses
    /// [default: Default]
    #[arg(long, global = true, value_name = "ID", env = "PARLOR_LAN_ID")]
    pub(super) lan_id: Option<LanId>,
    /// The address under which this machine can be reached from outside
    #[arg(long, global = true, value_name = "IP", env = "PARLOR_PUBLIC_IP")]
    pub(super) public_ip: Option<IpAddr>,
    /// The TCP port on which peers reach this user; 0 picks one
    #[arg(long, global = true, env = "PARLOR_PORT", default_value_t = 0)]
    pub(super) port: u16,
    /// Whether records are encrypted; off only where both users and the Room agree, on one host or LAN
    #[arg(long, global = true, value_name = "on|off", default_value = "on", value_parser = encryption)]
    pub(super) encryption: Encryption,
    /// Keep identities, pinned keys and tickets here [default: $XDG_STATE_HOME/parlor]
    #[arg(long, global = true, value_name = "DIR", env = "PARLOR_DATA")]
    pub(super) data: Option<PathBuf>,
    /// Trust the key that an unknown Room shows, and remember it: compare the fingerprint
    #[arg(long, global = true)]
    pub(super) tofu: bool,
    /// Replace another program that is online under this name with the same identity
    #[arg(long, global = true)]
    pub(super) take_over: bool,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// What to log to stderr: off, error, warn, info, debug, trace, or a filter such as info,parlor_user=debug
    #[arg(long, global = true, value_name = "LEVEL", default_value = "off")]
    pub(super) log: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print a line for each message, until interrupted
    Listen,
    /// Send a message and wait until it is delivered
    Send(Send),
    /// Call a callback and print its answer as JSON
    Get(Get),
    /// Answer calls by running commands, until interrupted
    Serve {
        /// NAME=COMMAND: `sh -c COMMAND` gets the argument as JSON on stdin; its stdout is the answer
        #[arg(required = true, value_name = "CALLBACK=COMMAND", value_parser = callback)]
        callbacks: Vec<(EventName, String)>,
    },
    /// List the users that are online and those whose keys are known
    Peers {
        /// List them only: open no channel to measure round trips
        #[arg(long)]
        no_probe: bool,
    },
    /// Measure round trips to a peer
    Ping(Ping),
    /// Connect to a peer and tell what was tried and why the path is what it is
    Explain {
        /// The peer
        peer: UserName,
    },
    /// Drop the key that is pinned for a peer, so that the next one is believed
    Forget {
        /// The peer
        peer: UserName,
    },
}

/// A message.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// Who gets it
    pub(super) peer: UserName,
    /// A text; - sends each line of stdin
    #[arg(required_unless_present = "body", conflicts_with = "body", allow_negative_numbers = true)]
    pub(super) text: Option<String>,
    /// Any value, as JSON
    #[arg(long, value_name = "JSON", value_parser = json, allow_hyphen_values = true)]
    pub(super) body: Option<Value>,
    /// The event it is sent to
    #[arg(long, value_name = "NAME")]
    pub(super) event: Option<EventName>,
}

/// A call.
#[derive(Debug, Args)]
pub(super) struct Get {
    /// Who is called
    pub(super) peer: UserName,
    /// What is called
    pub(super) callback: EventName,
    /// The argument [default: null]
    #[arg(value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
    pub(super) argument: Option<Value>,
    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(super) timeout: Duration,
}

/// Round trips.
#[derive(Debug, Args)]
pub(super) struct Ping {
    /// The peer
    pub(super) peer: UserName,
    /// Stop after so many [default: when interrupted]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), action = ArgAction::Set)]
    pub(super) count: Option<u64>,
    /// From one ping to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub(super) interval: Duration,
}

fn encryption(text: &str) -> Result<Encryption, &'static str> {
    match text {
        "on" => Ok(Encryption::On),
        "off" => Ok(Encryption::Off),
        _ => Err("say on or off"),
    }
}

fn json(text: &str) -> Result<Value, String> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => Ok(Value::from(json)),
        Err(error) => Err(format!("this is no JSON ({error}); a text stands in quotes: '\"abc\"'")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.as_millis() > 0 => Ok(time),
        Ok(_) => Err("give a millisecond or more, such as 500ms or 10s".to_owned()),
        Err(error) => Err(format!("{error}: write it as 500ms, 10s or 5m")),
    }
}

fn callback(text: &str) -> Result<(EventName, String), String> {
    let (name, command) =
        text.split_once('=').ok_or("there is no = in it: write NAME=COMMAND, such as up='tr a-z A-Z'")?;
    let name: EventName = name.parse().map_err(|error| format!("{error}"))?;
    if command.trim().is_empty() {
        return Err(format!("there is no command after {name}=", name = name.as_str()));
    }
    Ok((name, command.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_stand_before_the_command_or_after_it() {
        let before =
            parse("parlor --name Foo --json --room [::1]:7 --encryption off send Bar hello").unwrap();
        let after = parse("parlor send Bar hello --name Foo --json --room [::1]:7 --encryption off").unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(after.settings.encryption, Encryption::Off);
        assert_eq!(parse("parlor listen").unwrap().settings.room, RoomAddress::default());
    }

    #[test]
    fn a_message_is_a_text_or_a_body() {
        for line in
            ["send Bar", "send Bar text --body 1", "send Bar --body {", "send Bar --evnt x", "send Bar a b"]
        {
            assert!(parse(&format!("parlor {line}")).is_err(), "{line}");
        }
        for line in ["send Bar -", "send Bar -5", "send Bar --body -5", "send Bar -- --text"] {
            assert!(parse(&format!("parlor {line}")).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_callback_has_a_name_and_a_command() {
        assert_eq!(callback("up=tr a=b").unwrap().1, "tr a=b");
        for wrong in ["up", "=cat", "up=", "up= ", "a b=cat"] {
            assert!(callback(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_secret_is_taken_from_an_argument() {
        for flag in ["--password", "--room-password", "--passwd"] {
            assert!(parse(&format!("parlor {flag} secret peers")).is_err(), "{flag}");
        }
    }
}
