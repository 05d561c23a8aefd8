//! Whether the time that a refusal takes tells a name without an account from a wrong password.
//!
//! Run with `cargo test -p parlor-room --test enumeration -- --ignored --nocapture`, on a machine that does nothing else.
//! It takes about a minute and a half. Without optimisation what differs between the two differs more.

#![expect(clippy::disallowed_methods, reason = "it measures time")]

mod support;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parlor_protocol::refusal::LoginRefusal;
use parlor_room::RoomConfig;
use parlor_room::config::RoomLimits;
use parlor_room::password::PasswordHash;
use support::{Client, room, who};

/// Tries of each kind.
const TRIES: usize = 500;
/// Accounts of the Room.
const ACCOUNTS: usize = 100;
/// How often a guesser who compares one answer with another may be right by the time alone, at most. By chance it is
/// half; with 500 tries of each kind that estimate has a standard deviation of 0.018, and this is three of them.
const RIGHT_BY_TIME: f64 = 0.555;

#[tokio::test]
#[ignore = "measures time: to be run alone, as the head of this file says"]
async fn an_unknown_name_takes_as_long_as_a_wrong_password() {
    // Cost 10, the cheapest that is accepted, leaves the least time for a difference to hide in.
    let hash = PasswordHash::make("123456", 10, [7; 16]).unwrap();
    let accounts: BTreeMap<_, _> =
        (0..ACCOUNTS).map(|n| (format!("known{n:03}").parse().unwrap(), hash.clone())).collect();
    // Without penalties, which would end the measurement and which both kinds cost alike.
    let limits = RoomLimits { penalties: false, ..RoomLimits::default() };
    let room = room(RoomConfig { accounts, limits, ..RoomConfig::default() }).await;
    let mut times = [Vec::new(), Vec::new()];
    for try_ in 0..TRIES {
        // In turn, and each first in every other pair.
        let order = if try_ % 2 == 0 { [0, 1] } else { [1, 0] };
        for kind in order {
            let name = format!("{}{:03}", ["known", "other"][kind], try_ % ACCOUNTS);
            let who = who(Box::leak(name.into_boxed_str()), 1).password("654321");
            let mut client = Client::connect(&room).await;
            let asked = Instant::now();
            assert_eq!(client.login(&who).await.unwrap_err(), LoginRefusal::Credentials);
            times[kind].push(asked.elapsed());
        }
    }
    let [known, unknown] = times;
    let right = longer(&unknown, &known);
    for (kind, times) in [("wrong password", &known), ("unknown name", &unknown)] {
        let [low, median, high] = [1, 2, 3].map(|part| quarter(times, part).as_secs_f64() * 1e3);
        println!("{kind:14}: median {median:.3} ms, half of them from {low:.3} to {high:.3} ms");
    }
    println!("an unknown name takes longer than a wrong password in {:.1} % of all pairs", right * 100.0);
    println!("a guesser who goes by the time is right {:.1} % of the time", right.max(1.0 - right) * 100.0);
    assert!(right.max(1.0 - right) < RIGHT_BY_TIME, "the time tells them apart");
    room.shutdown().await;
}

fn quarter(times: &[Duration], part: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() * part / 4]
}

/// The part of all pairs in which the first takes longer: the statistic of Mann and Whitney, over the number of pairs.
fn longer(first: &[Duration], second: &[Duration]) -> f64 {
    let pairs = first.iter().flat_map(|time| second.iter().map(move |other| time.cmp(other)));
    let worth = |order| match order {
        Ordering::Less => 0.0,
        Ordering::Equal => 0.5,
        Ordering::Greater => 1.0,
    };
    let (sum, count) = pairs.fold((0.0, 0.0), |(sum, count), order| (sum + worth(order), count + 1.0));
    sum / count
}
