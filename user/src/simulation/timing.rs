//! How long things take under the virtual clock, in worlds where one thing goes wrong.

use std::rc::Rc;
use std::time::{Duration, Instant};

use parlor_protocol::limits::{LINK_DEAD, UNACKED_USER};
use parlor_protocol::rung::Rung;

use super::chance::Chance;
use super::faults::Plan;
use super::network::{ConnKey, Way, WayState};
use super::user::Seat;
use super::workload::Task;
use super::world::{Log, World};

/// What is told of a story that takes too long.
const LINES: usize = 60;

/// Users that are told apart by their numbers; the lower one's name sorts first, so that it is the steward.
fn world(seed: u64, users: usize, lasts: Duration) -> World {
    let plan = Plan::quiet(users, lasts);
    let log = Log(Some((LINES, Rc::default())));
    let mut world = World::with(plan, Chance::new(seed), Chance::new(!seed), log);
    world.ledger.times = Some(Vec::new());
    for user in 0..users {
        world.users.push(Seat::new(user, &format!("user{user:03}")));
        let latency = world.chance.ms(5, 60);
        put(&mut world, Way::Room(user), true, latency);
        for other in 0..user {
            let latency = world.chance.ms(0, 5);
            put(&mut world, Way::Direct(other, user, Rung::SameHost), false, latency);
            put(&mut world, Way::Direct(other, user, Rung::Lan), true, latency);
            put(&mut world, Way::Direct(other, user, Rung::Public), false, latency);
        }
    }
    world.start_room();
    for user in 0..users {
        world.start_user(user);
    }
    pass(&mut world, Duration::from_secs(5));
    world
}

fn put(world: &mut World, way: Way, works: bool, latency: Duration) {
    let state = WayState { works, refuses: true, down: false, latency, rate: 50_000 };
    world.network.ways.insert(way, state);
}

fn pass(world: &mut World, time: Duration) {
    world.run_until(world.now + time);
}

fn run_of(world: &World, user: usize) -> u32 {
    world.users[user].process.as_ref().unwrap().run
}

fn say(world: &mut World, from: usize, to: usize, len: usize) {
    let run = run_of(world, from);
    world.begin(from, run, to, 0, Task::Send { len, late_receipt: false, last_word: false });
}

/// Both say something every 20 ms.
fn talk(world: &mut World, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        say(world, 0, 1, 100);
        say(world, 1, 0, 100);
        pass(world, Duration::from_millis(20));
    }
}

fn rung(world: &mut World, user: usize, peer: usize) -> Option<Rung> {
    let run = run_of(world, user);
    world.conversation(user, run, peer).and_then(|c| c.best())
}

fn active(world: &mut World) -> ConnKey {
    let run = run_of(world, 0);
    world.conversation(0, run, 1).and_then(|c| c.active()).expect("the two talk")
}

/// What happened last.
fn story(world: &World) -> String {
    let lines = world.log.0.as_ref().map(|(_, lines)| lines.take());
    Vec::from(lines.unwrap_or_default()).join("\n")
}

fn lan(world: &mut World) -> &mut WayState {
    world.network.ways.get_mut(&Way::Direct(0, 1, Rung::Lan)).unwrap()
}

/// From then until the next message arrives from one user at the other.
fn until_next(world: &World, from: usize, since: Instant) -> Duration {
    let times = world.ledger.times.iter().flatten();
    let next = times.filter(|d| d.from == from && d.at >= since).map(|d| d.at).min();
    next.expect("something arrives") - since
}

/// Median, 99th percentile and most, in words.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    format!("{} times: median {:?}, p99 {:?}, most {:?}", times.len(), at(50), at(99), at(100))
}

/// What swallows everything from now on, and what is left.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// The connection. New ones work, as after a NAT has forgotten a binding.
    Connection,
    /// The connection, in one direction.
    OneWay(usize),
    /// The path: only the relay is left.
    Path,
    /// A relayed connection; its path works.
    Relayed,
}

impl Death {
    fn strike(self, world: &mut World) {
        let conn = active(world);
        match self {
            Death::Connection | Death::Relayed => world.cut(conn, [None, None]),
            Death::OneWay(from) => {
                let far = world.now + Duration::from_secs(3600);
                world.silence(conn, &[from], far);
            }
            Death::Path => {
                let state = lan(world);
                (state.down, state.refuses) = (true, false);
                world.cut(conn, [None, None]);
            }
        }
    }
}

/// Every connection of the two swallows everything from now on.
fn swallow_all(world: &mut World) {
    let run = run_of(world, 0);
    let links = world.conversation(0, run, 1).map(|c| c.links.values().copied().collect::<Vec<_>>());
    for conn in links.expect("the two talk") {
        world.cut(conn, [None, None]);
    }
}

/// A suspicion takes a second, and what follows it an introduction and the ladder's first attempts.
const REPLACED: Duration = Duration::from_secs(2);

fn deaths() -> impl Iterator<Item = (u64, Death)> {
    let kinds =
        [Death::Connection, Death::OneWay(0), Death::OneWay(1), Death::Path, Death::Relayed, Death::Path];
    (0..90).map(move |seed| (seed, kinds[seed as usize % kinds.len()]))
}

#[test]
fn a_link_that_swallows_everything_is_replaced_within_2_s_while_both_talk() {
    let mut took = Vec::new();
    for (seed, death) in deaths() {
        let mut world = world(seed, 2, Duration::from_secs(3600));
        lan(&mut world).works = !matches!(death, Death::Relayed);
        let before = world.chance.ms(500, 4000);
        talk(&mut world, before);
        death.strike(&mut world);
        let since = world.now;
        talk(&mut world, Duration::from_secs(8));
        for from in [0, 1] {
            let gap = until_next(&world, from, since);
            assert!(
                gap <= REPLACED,
                "{}\nseed {seed}, {death:?} at {:?}: nothing from {from} for {gap:?}",
                story(&world),
                since - world.start
            );
            took.push(gap);
        }
        world.ledger.check_nothing_lost_so_far();
    }
    println!("from the death of a link to the next message, {}", spread(took));
}

#[test]
fn a_relayed_link_that_falls_silent_while_a_search_waits_for_a_silent_path_is_replaced_within_2_s() {
    let mut took = Vec::new();
    for seed in 0..60 {
        let mut world = world(seed, 2, Duration::from_secs(3600));
        let climbing = seed % 2 == 0;
        let state = lan(&mut world);
        (state.down, state.refuses) = (climbing, false);
        talk(&mut world, Duration::from_secs(1));
        if climbing {
            // The relay took over when the first message was sent; the steward climbs 5 s later.
            talk(&mut world, Duration::from_millis(4300));
        } else {
            // The search that finds the relay goes on for the path that fell silent.
            let state = lan(&mut world);
            (state.down, state.refuses) = (true, false);
            swallow_all(&mut world);
            while [rung(&mut world, 0, 1), rung(&mut world, 1, 0)] != [Some(Rung::Relay); 2] {
                talk(&mut world, Duration::from_millis(20));
            }
        }
        let before = world.chance.ms(0, 2500);
        talk(&mut world, before);
        assert_eq!(rung(&mut world, 0, 1), Some(Rung::Relay), "seed {seed}");
        swallow_all(&mut world);
        let since = world.now;
        talk(&mut world, Duration::from_secs(8));
        for from in [0, 1] {
            let gap = until_next(&world, from, since);
            assert!(gap <= REPLACED, "{}\nseed {seed}: nothing from {from} for {gap:?}", story(&world));
            took.push(gap);
        }
        world.ledger.check_nothing_lost_so_far();
    }
    println!("from the death of a link during a search to the next message, {}", spread(took));
}

#[test]
fn a_single_message_on_a_link_that_died_while_nobody_talked_takes_2_s() {
    let mut took = Vec::new();
    for (seed, death) in deaths() {
        let mut world = world(seed, 2, Duration::from_secs(3600));
        lan(&mut world).works = !matches!(death, Death::Relayed);
        talk(&mut world, Duration::from_millis(500));
        pass(&mut world, Duration::from_secs(4));
        death.strike(&mut world);
        let silence = world.chance.ms(0, 15_000);
        pass(&mut world, silence);
        let (since, from) = (world.now, seed as usize % 2);
        say(&mut world, from, 1 - from, 100);
        pass(&mut world, Duration::from_secs(10));
        let gap = until_next(&world, from, since);
        assert!(
            gap <= REPLACED,
            "{}\nseed {seed}, {death:?}: a message from {from} took {gap:?}",
            story(&world)
        );
        took.push(gap);
    }
    println!("a single message on a dead link, {}", spread(took));
}

#[test]
fn a_dead_link_is_gone_after_45_s_at_both_ends_though_nobody_talks() {
    for (seed, death) in deaths().filter(|(_, death)| !matches!(death, Death::OneWay(_))) {
        let mut world = world(seed, 2, Duration::from_secs(3600));
        lan(&mut world).works = !matches!(death, Death::Relayed);
        talk(&mut world, Duration::from_millis(500));
        let idle = world.chance.ms(3000, 100_000);
        pass(&mut world, idle);
        let dead = active(&mut world);
        death.strike(&mut world);
        pass(&mut world, LINK_DEAD + Duration::from_millis(50));
        for (user, peer) in [(0, 1), (1, 0)] {
            let run = run_of(&world, user);
            let left = world
                .conversation(user, run, peer)
                .is_some_and(|c| c.links.values().any(|conn| *conn == dead));
            assert!(!left, "seed {seed}, {death:?}: {user} has it yet");
        }
    }
}

/// Seconds after the relay took over at which the steward tries upward.
const CLIMBS: [f64; 4] = [5.0, 20.0, 80.0, 380.0];
/// From one climb to the next there are at most 300 s.
const LAST_CLIMB: Duration = Duration::from_secs(301);
/// A link that a better one has replaced is closed after 2 s; the other end hears it and its socket ends.
const REPLACED_CLOSES: Duration = Duration::from_secs(4);

#[test]
fn a_relayed_channel_climbs_on_time_and_within_a_second_of_an_attempt_that_works() {
    let mut took = Vec::new();
    for seed in 0..30 {
        let mut world = world(seed, 2, Duration::from_secs(3600));
        let refuses = world.chance.one_in(2);
        let state = lan(&mut world);
        (state.down, state.refuses) = (true, refuses);
        say(&mut world, 0, 1, 100);
        pass(&mut world, Duration::from_secs(2));
        assert_eq!(rung(&mut world, 0, 1), Some(Rung::Relay));
        let first = world.ledger.times.iter().flatten().map(|d| d.at).min().unwrap();
        world.searches.clear();
        let works_after = world.chance.ms(2500, 300_000);
        let mut up = None;
        while up.is_none() {
            pass(&mut world, Duration::from_millis(20));
            if world.now.duration_since(first) >= works_after {
                lan(&mut world).down = false;
                up = Some(world.now);
            }
            say_now_and_then(&mut world);
        }
        let tried = world.searches.len();
        let open = world.now;
        while world.searches.len() == tried {
            pass(&mut world, Duration::from_millis(20));
            say_now_and_then(&mut world);
            assert!(world.now - open < LAST_CLIMB, "seed {seed}: nobody climbs");
        }
        let (attempt, who, _) = world.searches[tried];
        assert_eq!(who, 0, "seed {seed}: not the steward climbs");
        while rung(&mut world, 0, 1) != Some(Rung::Lan) || rung(&mut world, 1, 0) != Some(Rung::Lan) {
            pass(&mut world, Duration::from_millis(5));
            let waited = world.now - attempt;
            assert!(waited <= Duration::from_secs(1), "seed {seed}: still on the relay {waited:?} later");
        }
        took.push(world.now - attempt);
        pass(&mut world, REPLACED_CLOSES);
        for (user, peer) in [(0, 1), (1, 0)] {
            let run = run_of(&world, user);
            let links = world.conversation(user, run, peer).map(|c| c.links.len());
            assert_eq!(links, Some(1), "seed {seed}: {user} keeps the link that was replaced");
        }
        for ((at, ..), due) in world.searches.iter().zip(CLIMBS) {
            let late = (*at - first).as_secs_f64() - due;
            assert!(late.abs() < 1.0, "seed {seed}: an attempt {late} s away from the {due}th second");
        }
    }
    println!("from an attempt upward to both ends on the better rung, {}", spread(took));
}

/// A word every half minute keeps the channel open.
fn say_now_and_then(world: &mut World) {
    let silent = world.ledger.times.iter().flatten().map(|d| d.at).max().map(|at| world.now - at);
    if silent.is_none_or(|silent| silent > Duration::from_secs(30)) {
        say(world, 0, 1, 100);
        pass(world, Duration::from_secs(1));
    }
}

#[test]
fn a_new_address_that_opens_a_better_rung_is_used_within_6_s() {
    for seed in 0..30 {
        let mut world = world(seed, 2, Duration::from_secs(3600));
        lan(&mut world).down = true;
        talk(&mut world, Duration::from_secs(1));
        let wait = world.chance.ms(30_000, 40_000);
        pass(&mut world, wait);
        assert_eq!(rung(&mut world, 0, 1), Some(Rung::Relay));
        let mover = seed as usize % 2;
        world.users[mover].lan_address = [10, 0, 0, 99];
        lan(&mut world).down = false;
        pass(&mut world, Duration::from_secs(6));
        let rungs = [rung(&mut world, 0, 1), rung(&mut world, 1, 0)];
        assert_eq!(rungs, [Some(Rung::Lan); 2], "seed {seed}: {mover} moved");
    }
}

#[test]
fn receivers_that_stop_make_only_their_own_senders_wait_and_all_of_it_stays_within_the_budget() {
    let stopped = 1..9;
    let mut world = world(1, 10, Duration::from_secs(60));
    world.plan.stopped = stopped.clone().collect();
    for peer in stopped.clone() {
        for _ in 0..80 {
            say(&mut world, 0, peer, 200_000);
        }
    }
    let mut most = 0;
    for _ in 0..1000 {
        say(&mut world, 0, 9, 100);
        say(&mut world, 9, 0, 100);
        pass(&mut world, Duration::from_millis(20));
        let kept = |process: &super::user::Process| {
            process.peers.values().map(|c| c.channel.buffered()).sum::<usize>()
        };
        most = most.max(world.users[0].process.as_ref().map_or(0, kept));
    }
    let waited = |d: &&super::ledger::Delivery| (d.from, d.to) == (0, 9) || (d.from, d.to) == (9, 0);
    let times = world.ledger.times.as_ref().unwrap();
    let late: Vec<_> = times.iter().filter(waited).map(|d| d.at - d.sent).collect();
    assert!(late.len() > 1980, "{} of 2000 have arrived", late.len());
    let latest = late.iter().max().unwrap();
    assert!(*latest <= Duration::from_millis(500), "a message to who takes messages waited {latest:?}");
    assert!(most >= UNACKED_USER, "the budget is not reached: {most}");
    assert!(most <= UNACKED_USER + 9 * 300_000, "the budget is exceeded: {most}");
    pass(&mut world, Duration::from_secs(40));
    world.heal();
    pass(&mut world, Duration::from_secs(60));
    world.ledger.check_nothing_lost();
}

#[test]
fn fifty_users_come_back_after_a_restart_without_a_password_checked() {
    let mut back = Vec::new();
    for seed in 0..4 {
        let mut world = world(seed, 50, Duration::from_secs(3600));
        pass(&mut world, Duration::from_secs(30));
        assert_eq!(world.room.bcrypts, 50);
        let restarts = if seed % 2 == 0 { 1 } else { 6 };
        for _ in 0..restarts {
            world.kill_room();
            let after = world.chance.ms(100, 2000);
            pass(&mut world, after);
            world.start_room();
            let after = world.chance.ms(100, 2000);
            pass(&mut world, after);
        }
        let since = world.now;
        let everybody =
            |world: &World| world.users.iter().all(|seat| seat.process.as_ref().is_some_and(|p| p.room_up));
        while !everybody(&world) {
            pass(&mut world, Duration::from_millis(50));
            let waited = world.now - since;
            assert!(waited < Duration::from_secs(60), "seed {seed}: not everybody is back after {waited:?}");
        }
        back.push(world.now - since);
        assert_eq!(world.room.bcrypts, 50, "seed {seed}: a ticket was not enough");
    }
    println!("50 users back after the Room: {back:?}");
}
