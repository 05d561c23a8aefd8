use std::cmp::Reverse;

use super::*;

const STRANGER: Precedence = Precedence::Stranger(Reverse(0));

#[test]
fn a_late_answer_of_bcrypt_for_a_departed_connection_is_dropped() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    let attempt = check(&world.frame(1, login("Foo", 1, password()))).unwrap();
    world.handle(Input::Closed { conn: ConnId(1) });
    let late = Input::PasswordsChecked { conn: ConnId(1), attempt, verdict: PasswordVerdict::Right };
    assert!(world.handle(late).is_empty());
    assert!(world.room.directory.is_empty());
}

#[test]
fn a_wrong_login_that_does_not_wait_for_its_answer_costs_as_much() {
    let mut world = World::new(&["Foo"]);
    let mut barred = false;
    for conn in 1..=3 {
        world.open(conn, "192.0.2.1:1");
        let attempt = check(&world.frame(conn, login("Foo", 1, password()))).unwrap();
        world.handle(Input::Closed { conn: ConnId(conn) });
        let wrong = PasswordVerdict::Wrong;
        let told = world.handle(Input::PasswordsChecked { conn: ConnId(conn), attempt, verdict: wrong });
        barred = told.iter().any(|command| matches!(command, Command::Bar { .. }));
    }
    assert!(barred);
    assert!(world.room.attempts.is_empty());
    let source = Source::of([192, 0, 2, 1].into());
    assert!(world.room.throttle.check(source, &"Foo".parse().unwrap(), world.now.instant).is_err());
}

#[test]
fn one_address_has_two_passwords_verified_at_once_also_when_its_connections_are_gone() {
    let mut world = World::new(&["Foo"]);
    let mut attempts = Vec::new();
    for conn in 1..=2 {
        world.open(conn, "192.0.2.1:1");
        attempts.push(check(&world.frame(conn, login("Foo", 1, password()))).unwrap());
        world.handle(Input::Closed { conn: ConnId(conn) });
    }
    world.open(3, "192.0.2.1:1");
    let told = world.frame(3, login("Foo", 1, password()));
    assert!(check(&told).is_none() && matches!(refusal(&told), Some(LoginRefusal::Busy { .. })));
    world.open(4, "192.0.2.4:1");
    assert!(check(&world.frame(4, login("Foo", 1, password()))).is_some(), "another address");
    let skipped = PasswordVerdict::Skipped;
    let input = Input::PasswordsChecked { conn: ConnId(1), attempt: attempts[0], verdict: skipped };
    assert!(world.handle(input).is_empty(), "nothing was verified, nothing is charged");
    assert!(check(&world.frame(3, login("Foo", 1, password()))).is_some());
}

#[test]
fn an_answer_of_bcrypt_for_an_earlier_attempt_is_dropped() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    let first = check(&world.frame(1, login("Foo", 1, password()))).unwrap();
    let wrong = Input::PasswordsChecked { conn: ConnId(1), attempt: first, verdict: PasswordVerdict::Wrong };
    assert_eq!(refusal(&world.handle(wrong)), Some(&LoginRefusal::Credentials));
    world.frame(1, login("Foo", 1, password()));
    let stale = Input::PasswordsChecked { conn: ConnId(1), attempt: first, verdict: PasswordVerdict::Right };
    assert!(world.handle(stale).is_empty());
}

#[test]
fn a_busy_room_says_so_and_that_is_no_failure() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    for _ in 0..10 {
        let attempt = check(&world.frame(1, login("Foo", 1, password()))).unwrap();
        let verdict = PasswordVerdict::Busy { retry_after: Duration::from_secs(1) };
        let told = world.handle(Input::PasswordsChecked { conn: ConnId(1), attempt, verdict });
        assert_eq!(refusal(&told), Some(&LoginRefusal::Busy { retry_after_ms: 1000 }));
        assert!(closed(&told).is_empty());
    }
}

#[test]
fn the_first_login_of_an_account_binds_it_and_brings_a_ticket_that_needs_no_bcrypt() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    let attempt = check(&world.frame(1, login("Foo", 1, password()))).unwrap();
    let told = world.right(1, attempt);
    let ticket = welcome(&told).unwrap().ticket.clone().unwrap();
    assert_eq!(bind(&told), Some("Foo".parse().unwrap()));

    world.handle(Input::Closed { conn: ConnId(1) });
    world.open(2, "192.0.2.2:1");
    let told = world.frame(2, login("foo", 1, Credentials::Ticket(ticket.secret.clone())));
    assert!(check(&told).is_none());
    let again = welcome(&told).unwrap().ticket.clone().unwrap();
    assert_eq!(again.secret, ticket.secret, "a young ticket is as good as a new one, and on disk already");
    let kept = world.pass(TICKETS_BATCH);
    let kept = kept.iter().find_map(|command| match command {
        Command::Store { change: StoreChange::Tickets { all }, .. } => Some(all.len()),
        _ => None,
    });
    assert_eq!(kept, Some(1));
}

fn passwords_right(conn: u64, attempt: u64) -> Input {
    Input::PasswordsChecked { conn: ConnId(conn), attempt, verdict: PasswordVerdict::Right }
}

fn bound(conn: u64, kept: bool) -> Input {
    Input::Bound { conn: ConnId(conn), name: "Foo".parse().unwrap(), kept }
}

/// A first login of Foo that has proved its password and waits for the disk.
fn waiting_for_the_disk(world: &mut World, conn: u64, seed: u8) -> Vec<Command> {
    world.open(conn, &format!("198.51.100.{conn}:1"));
    let attempt = check(&world.frame(conn, login("Foo", seed, password()))).unwrap();
    world.handle(passwords_right(conn, attempt))
}

#[test]
fn nobody_gets_in_before_the_identity_of_the_account_is_on_disk() {
    let mut world = World::new(&["Foo"]);
    let told = waiting_for_the_disk(&mut world, 1, 1);
    assert!(bind(&told).is_some() && welcome(&told).is_none());
    let told = waiting_for_the_disk(&mut world, 2, 2);
    assert!(bind(&told).is_none(), "one first login at a time");
    assert!(matches!(refusal(&told), Some(LoginRefusal::Busy { .. })));
    assert!(welcome(&world.handle(bound(1, true))).is_some());
    let told = waiting_for_the_disk(&mut world, 3, 2);
    assert_eq!(refusal(&told), Some(&LoginRefusal::IdentityMismatch));
}

#[test]
fn where_the_disk_does_not_take_the_identity_the_account_stays_free() {
    let mut world = World::new(&["Foo"]);
    waiting_for_the_disk(&mut world, 1, 1);
    let told = world.handle(bound(1, false));
    assert_eq!(refusal(&told), Some(&LoginRefusal::Busy { retry_after_ms: 5_000 }));
    assert!(world.room.directory.is_empty());
    assert!(bind(&waiting_for_the_disk(&mut world, 2, 2)).is_some());
    assert!(welcome(&world.handle(bound(2, true))).is_some());
}

#[test]
fn an_identity_that_is_on_disk_holds_also_if_its_login_did_not_wait() {
    let mut world = World::new(&["Foo"]);
    waiting_for_the_disk(&mut world, 1, 1);
    world.handle(Input::Closed { conn: ConnId(1) });
    assert!(world.handle(bound(1, true)).is_empty());
    let told = waiting_for_the_disk(&mut world, 2, 2);
    assert_eq!(refusal(&told), Some(&LoginRefusal::IdentityMismatch));
}

#[test]
fn an_account_that_changes_while_the_disk_writes_lets_nobody_in() {
    let name: UserName = "Foo".parse().unwrap();
    for change in [
        AdminRequest::UserRemove { name: name.clone() },
        AdminRequest::ResetIdentity { name: name.clone() },
        AdminRequest::UserPassword { name: name.clone(), hash: PasswordHash::dummy(10) },
    ] {
        let mut world = World::new(&["Foo", "Bar"]);
        waiting_for_the_disk(&mut world, 1, 1);
        world.admin(change.clone());
        let told = world.handle(bound(1, true));
        assert_eq!(refusal(&told), Some(&LoginRefusal::Credentials), "{change:?}");
        let is_bound = world.room.accounts.binding(&name).is_some();
        assert_eq!(is_bound, matches!(change, AdminRequest::UserPassword { .. }), "as it is on disk");
    }
}

#[test]
fn an_account_that_is_made_again_belongs_to_nobody() {
    let mut world = World::new(&["Bar"]);
    let name: UserName = "Foo".parse().unwrap();
    // A write that failed has left it.
    world.room.accounts.bind(&name, Some(Identity::from_seed(&[9; 32]).public()));
    let told = world.admin(AdminRequest::UserAdd { name, hash: PasswordHash::dummy(10) });
    let freed =
        |c: &Command| matches!(c, Command::Store { change: StoreChange::Binding { identity: None, .. }, .. });
    assert!(told.iter().any(freed));
    assert!(bind(&waiting_for_the_disk(&mut world, 1, 1)).is_some());
}

#[test]
fn a_full_room_does_not_tell_who_is_in_it() {
    let mut world = World::with(&["Foo", "Bar"], RoomLimits { max_users: 1, ..RoomLimits::default() });
    waiting_for_the_disk(&mut world, 1, 1);
    world.handle(bound(1, true));
    for name in ["Foo", "Bar", "Nobody"] {
        world.open(2, "192.0.2.2:1");
        let attempt = check(&world.frame(2, login(name, 3, password()))).unwrap();
        let wrong = PasswordVerdict::Wrong;
        let told = world.handle(Input::PasswordsChecked { conn: ConnId(2), attempt, verdict: wrong });
        assert_eq!(refusal(&told), Some(&LoginRefusal::Credentials), "{name}");
        world.pass(Duration::from_secs(60));
    }
    world.open(4, "192.0.2.4:1");
    let attempt = check(&world.frame(4, login("Bar", 4, password()))).unwrap();
    assert_eq!(refusal(&world.handle(passwords_right(4, attempt))), Some(&LoginRefusal::Full));
}

#[test]
fn a_login_that_the_room_kept_waiting_too_long_costs_its_address_nothing() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    check(&world.frame(1, login("Foo", 1, password()))).unwrap();
    for _ in 0..2 {
        let told = world.handle(Input::Broken { conn: ConnId(1), code: CloseCode::TimedOut });
        assert!(!told.iter().any(|command| matches!(command, Command::Bar { .. })));
    }
    let source = Source::of([192, 0, 2, 1].into());
    world.room.penalties.charge(source, Offence::TimedOut, world.now.instant);
    assert_eq!(world.room.penalties.barred_until(source, world.now.instant), None);
}

#[test]
fn a_name_without_an_account_costs_the_same_after_a_restart() {
    let costs = |chance: u8| {
        let mut world = World::of(&["Foo"], RoomLimits::default(), Box::new(move || [chance; 32]));
        world.admin(AdminRequest::UserAdd { name: "Bar".parse().unwrap(), hash: PasswordHash::dummy(10) });
        let cost = |n: u64| world.room.accounts.hash_for(&format!("nobody{n}").parse().unwrap()).cost();
        (0..64).map(cost).collect::<Vec<_>>()
    };
    assert_eq!(costs(1), costs(2));
}

/// Whether the address of this connection is charged if its time is up now.
fn is_charged_when_its_time_is_up(world: &mut World, conn: u64) -> bool {
    let source = Source::of(world.room.connections[&ConnId(conn)].from.ip());
    world.handle(Input::Broken { conn: ConnId(conn), code: CloseCode::TimedOut });
    world.room.penalties.has_score(source, world.now.instant)
}

#[test]
fn who_is_told_to_wait_until_its_time_is_up_is_charged_with_nothing() {
    let mut world = World::new(&["Foo"]);
    waiting_for_the_disk(&mut world, 1, 1);
    world.handle(bound(1, false));
    assert!(!is_charged_when_its_time_is_up(&mut world, 1), "the disk did not take its identity");

    for conn in 2..=4 {
        world.open(conn, "192.0.2.1:1");
        world.frame(conn, login("Foo", 1, password()));
    }
    assert!(!is_charged_when_its_time_is_up(&mut world, 4), "two of its address are being verified");

    world.open(5, "192.0.2.2:1");
    let attempt = check(&world.frame(5, login("Foo", 1, password()))).unwrap();
    let verdict = PasswordVerdict::Busy { retry_after: Duration::from_secs(1) };
    world.handle(Input::PasswordsChecked { conn: ConnId(5), attempt, verdict });
    assert!(!is_charged_when_its_time_is_up(&mut world, 5), "no thread had time for it");

    world.open(6, "192.0.2.3:1");
    assert!(is_charged_when_its_time_is_up(&mut world, 6), "it has said nothing");
    world.open(7, "192.0.2.4:1");
    world.frame(7, login("Foo", 1, Credentials::Open));
    assert!(is_charged_when_its_time_is_up(&mut world, 7), "it was told something else");
}

#[test]
fn a_connection_that_asks_without_end_while_the_room_is_busy_is_let_go() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    let verdict = PasswordVerdict::Busy { retry_after: Duration::ZERO };
    let ends = (1..100).find_map(|asked| {
        let told = world.frame(1, login("Foo", 1, password()));
        let Some(attempt) = check(&told) else { return Some((asked, closed(&told))) };
        world.handle(Input::PasswordsChecked { conn: ConnId(1), attempt, verdict });
        None
    });
    assert_eq!(ends, Some((25, vec![(1, CloseCode::LimitExceeded)])));
    let source = Source::of([192, 0, 2, 1].into());
    assert!(!world.room.penalties.has_score(source, world.now.instant), "that was no offence");
}

#[test]
fn a_new_password_voids_tickets_and_a_login_under_way() {
    let mut world = World::new(&["Foo"]);
    world.open(1, "192.0.2.1:1");
    let attempt = check(&world.frame(1, login("Foo", 1, password()))).unwrap();
    let change = AdminRequest::UserPassword { name: "Foo".parse().unwrap(), hash: PasswordHash::dummy(10) };
    let told = world.admin(change);
    assert!(matches!(
        &told[..],
        [Command::Store { change: StoreChange::Account { .. }, call: Some(CallId(0)) }]
    ));
    let right = Input::PasswordsChecked { conn: ConnId(1), attempt, verdict: PasswordVerdict::Right };
    assert_eq!(refusal(&world.handle(right)), Some(&LoginRefusal::Credentials));
}

#[test]
fn guessing_ends_in_a_bar_of_the_address_and_not_of_the_account() {
    let mut world = World::new(&["Foo", "Bar", "Baz"]);
    let mut barred = None;
    for (conn, name) in ["Foo", "Bar", "Baz"].into_iter().enumerate() {
        world.open(conn as u64, "192.0.2.1:1");
        let attempt = check(&world.frame(conn as u64, login(name, 1, password()))).unwrap();
        let wrong = PasswordVerdict::Wrong;
        let told =
            world.handle(Input::PasswordsChecked { conn: ConnId(conn as u64), attempt, verdict: wrong });
        barred = told.iter().find_map(|command| match command {
            Command::Bar { until, .. } => Some((conn, *until, closed(&told))),
            _ => None,
        });
    }
    assert_eq!(barred, Some((2, world.now.instant + Duration::from_secs(15), vec![(2, CloseCode::Banned)])));
    world.open(9, "192.0.2.9:1");
    assert!(check(&world.frame(9, login("Foo", 1, password()))).is_some());
}

#[test]
fn an_address_that_is_kept_out_guesses_no_further_on_connections_that_it_had_before() {
    let mut world = World::new(&["Foo"]);
    (1..=8).for_each(|conn| world.open(conn, "192.0.2.1:1"));
    let guess = |conn: u64| login(&format!("guess{conn}"), 1, password());
    for conn in 1..=3 {
        let attempt = check(&world.frame(conn, guess(conn))).unwrap();
        let verdict = PasswordVerdict::Wrong;
        world.handle(Input::PasswordsChecked { conn: ConnId(conn), attempt, verdict });
    }
    for conn in 4..=8 {
        let told = world.frame(conn, guess(conn));
        assert!(check(&told).is_none());
        assert!(matches!(refusal(&told), Some(LoginRefusal::Banned { seconds: Some(16) })));
        assert_eq!(closed(&told), [(conn, CloseCode::Banned)]);
    }
}

#[test]
fn who_proves_the_accounts_identity_is_verified_first_and_then_whose_address_has_asked_least() {
    let mut world = World::new(&["Foo", "Bar"]);
    let rank = |told: &[Command]| {
        told.iter().find_map(|command| match command {
            Command::CheckPasswords { precedence, .. } => Some(*precedence),
            _ => None,
        })
    };
    world.open(1, "192.0.2.1:1");
    let first = world.frame(1, login("Foo", 1, password()));
    assert_eq!(rank(&first), Some(STRANGER));
    world.right(1, check(&first).unwrap());
    let mut try_from = |conn: u64, from: &str, name: &str, seed: u8| {
        world.open(conn, from);
        let told = world.frame(conn, login(name, seed, password()));
        (rank(&told), check(&told))
    };
    let (known, attempt) = try_from(2, "192.0.2.2:1", "Foo", 1);
    assert_eq!(known, Some(Precedence::Known));
    // One at a time; another identity than the account's ranks as a name that nobody has.
    assert_eq!(try_from(3, "192.0.2.3:1", "Foo", 1).0, Some(STRANGER));
    assert_eq!(try_from(4, "192.0.2.4:1", "Foo", 4).0, Some(STRANGER));
    assert_eq!(try_from(5, "192.0.2.5:1", "nobody", 4).0, Some(STRANGER));
    // An address asks less often than another, whatever the names; where an account began is as one that never asked.
    assert_eq!(try_from(6, "192.0.2.5:1", "Bar", 1).0, Some(Precedence::Stranger(Reverse(1))));
    assert_eq!(try_from(7, "192.0.2.5:1", "Bar", 1), (None, None), "two at once, and that it asked counts");
    assert_eq!(try_from(8, "192.0.2.2:1", "Bar", 1).0, Some(STRANGER));
    assert_eq!(try_from(9, "192.0.2.1:1", "Bar", 1).0, Some(Precedence::Neighbour(Reverse(0))));
    let attempt = attempt.unwrap();
    world.handle(Input::PasswordsChecked { conn: ConnId(2), attempt, verdict: PasswordVerdict::Wrong });
    let again = world.frame(2, login("Foo", 1, password()));
    assert_eq!(rank(&again), Some(Precedence::Suspect(Reverse(1))), "it has just failed");
    world.handle(Input::Closed { conn: ConnId(5) });
    for attempt in world.room.attempts.keys().copied().collect::<Vec<_>>() {
        let input = Input::PasswordsChecked { conn: ConnId(99), attempt, verdict: PasswordVerdict::Skipped };
        world.handle(input);
    }
    world.open(10, "192.0.2.5:1");
    let third = world.frame(10, login("Bar", 1, password()));
    assert_eq!(rank(&third), Some(Precedence::Stranger(Reverse(3))));
}
