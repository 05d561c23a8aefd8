//! A small siege, for its outcomes; `parlor-siege` makes large ones and looks at the times as well.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use parlor_lab::binaries::binaries;
use parlor_lab::process;
use serde_json::Value;

/// One siege of each kind, on a machine with better things to do.
const PATIENCE: Duration = Duration::from_secs(240);

/// What has to be seen happens within the 2 s of a siege, of which a busy machine may leave too little.
const TIMES: usize = 3;

#[test]
fn who_besieges_a_room_is_sent_away_and_who_means_well_loses_nothing() {
    let mut short = Vec::new();
    for _ in 0..TIMES {
        let report = besiege();
        match too_little(&report) {
            None => return,
            Some(what) => short.push(format!("{what}: {report}")),
        }
    }
    panic!("{short:#?}");
}

/// A siege in which nobody who means well loses anything, whatever else is seen.
fn besiege() -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parlor-siege"));
    command.args([
        "--json",
        "--seconds",
        "2",
        "--slow",
        "20",
        "--silent",
        "60",
        "--guesses",
        "20",
        "--addresses",
        "2",
    ]);
    command.arg("--room-binary").arg(binaries().unwrap().room);
    let finished = process::run(command, b"", PATIENCE).unwrap();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
    let sieges = report["sieges"].as_array().unwrap();
    assert_eq!(sieges.len(), 8);
    // A busy machine may be too slow; the program says so by its exit code.
    let held = sieges.iter().all(|siege| siege["missed"] == Value::Array(Vec::new()));
    assert_eq!(finished.code, Some(i32::from(!held)), "{report}");
    for siege in sieges {
        let name = siege["siege"].as_str().unwrap();
        for pair in ["direct", "relayed"] {
            assert_eq!(siege["seen"][pair]["lost"], 0, "{siege}");
        }
        assert_eq!(siege["seen"]["failed"], Value::Array(Vec::new()), "{siege}");
        assert!(siege["after"]["descriptors"].as_u64() <= siege["before"]["descriptors"].as_u64(), "{siege}");
        let attackers = siege["attackers"].as_object().unwrap();
        assert!(name != "calm" || attackers.is_empty(), "{siege}");
        assert!(
            !attackers.keys().any(|how| how.contains("another refusal") || how.contains("no answer")),
            "{siege}"
        );
    }
    report
}

/// What was not seen often enough.
fn too_little(report: &Value) -> Option<&'static str> {
    let sieges = report["sieges"].as_array().unwrap();
    let talks = |siege: &Value| {
        ["direct", "relayed"].iter().all(|pair| siege["seen"][pair]["sent"].as_u64() > Some(5))
    };
    let outcome = |name: &str, how: &str| {
        let siege = sieges.iter().find(|siege| siege["siege"] == name).unwrap();
        siege["attackers"][how].as_u64().unwrap_or(0)
    };
    // They get as far as a login. Whether the Room has answered by the end is up to the machine.
    let tried = ["wrong credentials", "come back later", "too many attempts", "waiting at the end"];
    let tried = tried.map(|how| outcome("wrong logins, an address each", &format!("wrong login: {how}")));
    // Loopback has no limit by address, so there is nothing to see where no other addresses can be had.
    let strangers = report["strangers"] == true;
    let hung_up = || outcome("silent, few addresses", "silent: hung up on at once");
    let put_off = || outcome("wrong logins, few addresses", "wrong login: come back later");
    [
        (sieges.iter().all(talks), "messages"),
        (tried.iter().sum::<u64>() > 0, "logins tried"),
        (!strangers || hung_up() >= 60 - 2 * 8, "connections hung up on"),
        (!strangers || put_off() > 0, "logins put off"),
    ]
    .into_iter()
    .find_map(|(seen, what)| (!seen).then_some(what))
}
