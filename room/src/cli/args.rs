//! What can be said on the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use parlor_protocol::limits::{BCRYPT_COST, BCRYPT_COSTS};
use parlor_protocol::name::UserName;

use crate::config::{parse_listen, parse_net};

/// The Room of Parlor: it admits users, says who is online, introduces them to each other and relays when it must.
#[derive(Debug, Parser)]
#[command(name = "parlor-room", version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a Room (the default)
    Run(RunArgs),
    /// Make a bcrypt hash of a password, for the configuration file
    Hash {
        /// Base-2 logarithm of the rounds
        #[arg(long, value_name = "N", default_value_t = BCRYPT_COST, value_parser = cost())]
        cost: u32,
    },
    /// Make, change, remove and list accounts
    #[command(subcommand, arg_required_else_help = false)]
    User(UserCommand),
    /// Ban addresses and ranges, of a running Room at once
    #[command(subcommand, arg_required_else_help = false)]
    Ban(BanCommand),
    /// Say how the running Room does
    Status(ListArgs),
}

/// Flags of `run`.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RunArgs {
    /// Read the configuration from this file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Listen here; can be given more than once; port 0 picks a free port [default: 127.0.0.1:2428]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    pub(super) listen: Vec<SocketAddr>,
    /// Keep identity, accounts and bans in this directory [default: $XDG_STATE_HOME/parlor-room]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Let everybody in who can reach the Room, also from other machines
    #[arg(long)]
    pub(super) open: bool,
    /// Let users that both ask for it talk without encryption on one host or LAN
    #[arg(long)]
    pub(super) allow_unencrypted: bool,
    /// What to log: off, error, warn, info, debug, trace, or a filter such as info,parlor_room=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// Print the ready lines and the log as JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make an account; the password comes from a prompt or the first line of stdin
    Add(PasswordArgs),
    /// Give an account another password
    Passwd(PasswordArgs),
    /// Remove an account and end its session
    Remove(NameArgs),
    /// List the accounts
    List(ListArgs),
    /// Let the next login of an account bring another identity
    ResetIdentity(NameArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum BanCommand {
    /// Ban an address or a range and cut its sessions
    Add {
        /// An address or a range such as 198.51.100.0/24
        #[arg(value_name = "ADDR_OR_CIDR", value_parser = parse_net)]
        net: IpNet,
        /// For how long, such as 10m or 1h; without it until it is removed
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        time: Option<Duration>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Remove a ban
    Remove {
        /// The address or range as it was banned
        #[arg(value_name = "ADDR_OR_CIDR", value_parser = parse_net)]
        net: IpNet,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List the bans in force
    List(ListArgs),
}

/// An account whose password is asked for.
#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    #[command(flatten)]
    pub(super) account: NameArgs,
    /// Base-2 logarithm of bcrypt's rounds
    #[arg(long, value_name = "N", default_value_t = BCRYPT_COST, value_parser = cost())]
    pub(super) cost: u32,
}

/// An account.
#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// The account's name
    pub(super) name: UserName,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// Something to be listed.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Which Room is meant.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// The Room's data directory [default: $XDG_STATE_HOME/parlor-room]
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// The Room's configuration file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

fn cost() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(*BCRYPT_COSTS.start())..=i64::from(*BCRYPT_COSTS.end()))
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time.as_secs() > 0 => Ok(time),
        Ok(_) => Err("give a second or more, such as 10m or 1h".to_owned()),
        Err(error) => Err(format!("{error}: write it as 10m, 1h or 7d")),
    }
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
    fn run_is_what_happens_without_a_command() {
        let flags =
            "--listen 127.0.0.1:0 --listen [::1]:0 --data /d --open --allow-unencrypted --log debug --json";
        let implied = parse(&format!("parlor-room {flags}")).unwrap();
        let Some(Command::Run(said)) = parse(&format!("parlor-room run {flags}")).unwrap().command else {
            panic!("run is no command")
        };
        assert!(implied.command.is_none());
        assert_eq!(format!("{:?}", implied.run), format!("{said:?}"));
        assert_eq!(said.listen.len(), 2);
    }

    #[test]
    fn a_ban_without_a_time_lasts_and_one_of_no_time_is_refused() {
        let Some(Command::Ban(BanCommand::Add { time, .. })) =
            parse("parlor-room ban add 192.0.2.7 --for 10m").unwrap().command
        else {
            panic!("no ban")
        };
        assert_eq!(time, Some(Duration::from_secs(600)));
        assert!(parse("parlor-room ban add 192.0.2.7").is_ok());
        assert!(parse("parlor-room ban add 192.0.2.7 --for 0s").unwrap_err().contains("a second or more"));
        assert!(parse("parlor-room ban add 192.0.2.7 --for soon").unwrap_err().contains("write it as 10m"));
        assert!(parse("parlor-room ban add 192.0.2.7/24").unwrap_err().contains("write 192.0.2.0/24"));
    }

    #[test]
    fn no_command_takes_a_password_as_an_argument() {
        for line in
            ["user add Foo secret", "user passwd Foo secret", "hash secret", "user add Foo --password x"]
        {
            assert!(parse(&format!("parlor-room {line}")).is_err(), "{line}");
        }
    }
}
