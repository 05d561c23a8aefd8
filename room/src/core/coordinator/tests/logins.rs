use super::*;

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
    let right = Input::PasswordsChecked { conn: ConnId(1), attempt, verdict: PasswordVerdict::Right };
    let told = world.handle(right);
    let ticket = welcome(&told).unwrap().ticket.clone().unwrap();
    let bound = |c: &Command| matches!(c, Command::Store { change: StoreChange::Binding { .. }, .. });
    assert!(told.iter().any(bound));

    world.handle(Input::Closed { conn: ConnId(1) });
    world.open(2, "192.0.2.2:1");
    let told = world.frame(2, login("foo", 1, Credentials::Ticket(ticket.secret)));
    assert!(check(&told).is_none() && welcome(&told).is_some());
    let kept = world.pass(TICKETS_BATCH);
    let kept = kept.iter().find_map(|command| match command {
        Command::Store { change: StoreChange::Tickets { all }, .. } => Some(all.len()),
        _ => None,
    });
    assert_eq!(kept, Some(2));
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
