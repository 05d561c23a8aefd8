use super::*;

/// By then a few users have been told of what changed.
const SOON: Duration = Duration::from_millis(21);

#[test]
fn arrivals_are_told_together_a_little_later() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.join(2, "Bar");
    assert!(world.room.wake_at() <= world.now.instant + SOON);
    let told = world.pass(SOON);
    let [Command::Broadcast(ToUser::Roster(roster))] = &told[..] else { panic!("{told:?}") };
    assert_eq!(roster.joined.len(), 2);
    assert!(world.pass(SOON).is_empty());
}

#[test]
fn a_room_can_be_full_but_not_for_who_replaces_itself() {
    let mut world = World::with(&[], RoomLimits { max_users: 1, ..RoomLimits::default() });
    world.join(1, "Foo");
    assert_eq!(refusal(&world.join(2, "Bar")), Some(&LoginRefusal::Full));
    world.open(3, "198.51.100.3:1");
    let told = world.frame(3, login("Foo", 1, Credentials::Open));
    assert!(welcome(&told).is_some());
    assert_eq!(closed(&told), [(1, CloseCode::Replaced)]);
    assert!(world.handle(Input::Closed { conn: ConnId(1) }).is_empty());
    assert_eq!(world.room.directory.len(), 1);
}

#[test]
fn a_login_that_arrives_after_one_over_a_later_connection_replaces_nobody() {
    let mut world = World::new(&[]);
    world.open(1, "192.0.2.1:1");
    world.open(2, "192.0.2.1:2");
    let taking_over = |run: u8| match login("Foo", 1, Credentials::Open) {
        ToRoom::Login(login) => {
            let instance = InstanceId([run; 16]);
            ToRoom::Login(Box::new(Login { take_over: true, instance, ..*login }))
        }
        other => other,
    };
    assert!(welcome(&world.frame(2, taking_over(2))).is_some());
    let told = world.frame(1, taking_over(1));
    assert_eq!(refusal(&told), Some(&LoginRefusal::NameInUse { same_identity: true }));
    assert!(!closed(&told).iter().any(|(conn, _)| *conn == 2), "{told:?}");
}

#[test]
fn the_asked_is_told_before_the_asker_and_each_gets_its_own_token() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.join(2, "Bar");
    let told = world.introduce(1, "Bar");
    let order: Vec<_> = told
        .iter()
        .filter_map(|c| if let Command::Send { conn, .. } = c { Some(conn.0) } else { None })
        .collect();
    assert_eq!(order, [2, 1]);
    let (foo, bar) = (introduced(&told, 1).unwrap(), introduced(&told, 2).unwrap());
    let token = |introduced: &Introduced| introduced.rungs.last().unwrap().relay.unwrap();
    let [link, other] = [LinkId(1), LinkId(2)];
    let from = [192, 0, 2, 1].into();
    assert!(world.handle(Input::RelayHello { link, from, token: token(bar) }).is_empty());
    let told = world.handle(Input::RelayHello { link: other, from, token: token(foo) });
    let [Command::RelayReady { links, users, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*links, [other, link]);
    assert_eq!(users.clone().map(|user| user.to_string()), ["Foo", "Bar"]);
}

#[test]
fn who_asks_for_too_many_introductions_waits() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.join(2, "Bar");
    let refused = |told: &[Command]| {
        matches!(
            sent(told, 1)[..],
            [ToUser::IntroductionRefused(_, PairRefusal::Busy { retry_after_ms: 1.. })]
        )
    };
    let granted = (0..1000).take_while(|_| !refused(&world.introduce(1, "Bar"))).count();
    assert_eq!(granted, parlor_protocol::limits::INTRODUCTION_BURST as usize);
    world.pass(Duration::from_secs(1));
    assert!(!refused(&world.introduce(1, "Bar")));
}

#[test]
fn many_users_together_cannot_ask_for_one_without_end() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    let busy = |told: &[Command], to| {
        matches!(sent(told, to)[..], [ToUser::IntroductionRefused(_, PairRefusal::Busy { .. })])
    };
    let mut granted = 0;
    for conn in 2..10 {
        world.join(conn, &format!("Asker{conn}"));
        granted += (0..200).filter(|_| !busy(&world.introduce(conn, "Foo"), conn)).count();
    }
    assert!((500..600).contains(&granted), "{granted}: half for whoever comes first, and a little for each");
    world.join(10, "Calm");
    assert!(!busy(&world.introduce(10, "Foo"), 10), "who has asked for nothing yet is served");
    world.pass(Duration::from_secs(1));
    assert!(!busy(&world.introduce(9, "Foo"), 9));
}

#[test]
fn where_no_password_is_asked_for_one_address_has_a_part_of_the_places() {
    let limits = RoomLimits { users_per_address: 2, ..RoomLimits::default() };
    let mut world = World::with(&[], limits.clone());
    let join = |world: &mut World, conn: u64, from: &str| {
        world.open(conn, from);
        let told = world.frame(conn, login(&format!("user{conn}"), conn as u8, Credentials::Open));
        (welcome(&told).is_some(), refusal(&told).cloned())
    };
    for (conn, from, refused) in [
        (1, "192.0.2.1:1", None),
        (2, "192.0.2.1:2", None),
        (3, "192.0.2.1:3", Some(LoginRefusal::Full)),
        (4, "192.0.2.2:1", None),
        (5, "127.0.0.1:1", None),
        (6, "127.0.0.1:2", None),
        (7, "127.0.0.1:3", None),
    ] {
        assert_eq!(join(&mut world, conn, from), (refused.is_none(), refused), "{conn}");
    }
    world.handle(Input::Closed { conn: ConnId(1) });
    assert!(join(&mut world, 8, "192.0.2.1:4").0);
}

#[test]
fn a_ban_cuts_sessions_and_relays_and_passes_when_its_time_is_over() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.join(2, "Bar");
    let told = world.introduce(1, "Bar");
    let tokens = [1, 2].map(|to| introduced(&told, to).unwrap().rungs.last().unwrap().relay.unwrap());
    for (link, token) in tokens.into_iter().enumerate() {
        let from = [198, 51, 100, 1 + link as u8].into();
        world.handle(Input::RelayHello { link: LinkId(link as u64), from, token });
    }
    let told =
        world.admin(AdminRequest::BanAdd { net: "198.51.100.2/32".parse().unwrap(), seconds: Some(60) });
    assert_eq!(closed(&told), [(2, CloseCode::Banned)]);
    assert!(told.iter().any(|command| matches!(command, Command::RelayEnd { .. })));
    let back = told.iter().find_map(|command| match command {
        Command::Close { closing, .. } => Some(closing.reconnect_in_ms),
        _ => None,
    });
    assert_eq!(back, Some(Some(60_000)), "it may come back when the ban has passed");
    let told = world.pass(SOON);
    assert!(
        told.iter()
            .any(|command| matches!(command, Command::Broadcast(ToUser::Blacklist(nets)) if nets.len() == 1))
    );
    let mut told = world.pass(Duration::from_secs(60));
    told.extend(world.pass(SOON));
    assert!(
        told.iter()
            .any(|command| matches!(command, Command::Broadcast(ToUser::Blacklist(nets)) if nets.is_empty()))
    );
    assert!(told.iter().any(|c| matches!(c, Command::Store { change: StoreChange::Unban(_), .. })));
}

#[test]
fn bans_in_quick_succession_are_told_once() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.pass(SOON);
    for host in 1..100 {
        let net = format!("192.0.2.{host}/32").parse().unwrap();
        let told = world.admin(AdminRequest::BanAdd { net, seconds: None });
        assert!(told.iter().any(|command| matches!(command, Command::Blacklist(_))), "the door at once");
        assert!(!told.iter().any(|command| matches!(command, Command::Broadcast(_))));
    }
    let told = world.pass(SOON);
    assert!(matches!(&told[..], [Command::Broadcast(ToUser::Blacklist(nets))] if nets.len() == 99));
}

#[test]
fn a_ban_of_a_v4_address_cuts_who_comes_from_it_by_a_translator() {
    let mut world = World::new(&[]);
    for (conn, from) in [(1, "[64:ff9b::198.51.100.1]:1"), (2, "[64:ff9b::203.0.113.1]:1")] {
        world.open(conn, from);
        world.frame(conn, login(&format!("user{conn}"), conn as u8, Credentials::Open));
    }
    let told = world.admin(AdminRequest::BanAdd { net: "198.51.100.0/24".parse().unwrap(), seconds: None });
    assert_eq!(closed(&told), [(1, CloseCode::Banned)]);
}

#[test]
fn a_ban_ends_links_that_wait_and_what_its_users_were_offered() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.join(2, "Bar");
    let mut links = Vec::new();
    for link in [10, 20] {
        let told = world.introduce(1, "Bar");
        let tokens = [1, 2].map(|to| introduced(&told, to).unwrap().rungs.last().unwrap().relay.unwrap());
        // One link from where its user is, one from elsewhere.
        let from = if link == 10 { [198, 51, 100, 2].into() } else { [192, 0, 2, 1].into() };
        world.handle(Input::RelayHello { link: LinkId(link), from, token: tokens[1] });
        links.push(tokens[0]);
    }
    let told = world.admin(AdminRequest::BanAdd { net: "198.51.100.2/32".parse().unwrap(), seconds: None });
    let refused = |told: &[Command]| told.iter().filter(|c| matches!(c, Command::RelayRefuse { .. })).count();
    assert_eq!(refused(&told), 2);
    for (n, token) in links.into_iter().enumerate() {
        let from = [198, 51, 100, 1].into();
        assert_eq!(refused(&world.handle(Input::RelayHello { link: LinkId(n as u64), from, token })), 1);
    }
}

#[test]
fn a_connection_that_was_banned_while_it_shook_hands_is_turned_away() {
    let mut world = World::new(&[]);
    world.admin(AdminRequest::BanAdd { net: "192.0.2.1/32".parse().unwrap(), seconds: Some(60) });
    let from = "192.0.2.1:1".parse().unwrap();
    let told = world.handle(Input::Opened { conn: ConnId(1), from, exporter: EXPORTER });
    assert_eq!(refusal(&told), Some(&LoginRefusal::Banned { seconds: Some(60) }));
    assert_eq!(closed(&told), [(1, CloseCode::Banned)]);
    let from = "192.0.2.2:1".parse().unwrap();
    world.handle(Input::Misbehaved { from: [192, 0, 2, 2].into(), offence: Offence::Malformed });
    let told = world.handle(Input::Opened { conn: ConnId(2), from, exporter: EXPORTER });
    assert_eq!(refusal(&told), Some(&LoginRefusal::Banned { seconds: Some(91) }));
    assert!(world.room.connections.is_empty());
}

#[test]
fn a_name_that_gets_an_account_or_a_free_identity_is_taken_from_who_has_it() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    let told =
        world.admin(AdminRequest::UserAdd { name: "foo".parse().unwrap(), hash: PasswordHash::dummy(10) });
    assert_eq!(closed(&told), [(1, CloseCode::Removed)]);
    world.open(2, "192.0.2.1:1");
    let attempt = check(&world.frame(2, login("Foo", 1, password()))).unwrap();
    assert!(welcome(&world.right(2, attempt)).is_some());
    let told = world.admin(AdminRequest::ResetIdentity { name: "Foo".parse().unwrap() });
    assert_eq!(closed(&told), [(2, CloseCode::Removed)]);
}

#[test]
fn what_cannot_be_done_is_answered_with_a_reason() {
    let mut world = World::new(&["Foo"]);
    let missing: UserName = "Nobody".parse().unwrap();
    for request in [
        AdminRequest::UserAdd { name: "foo".parse().unwrap(), hash: PasswordHash::dummy(10) },
        AdminRequest::UserPassword { name: missing.clone(), hash: PasswordHash::dummy(10) },
        AdminRequest::UserRemove { name: missing.clone() },
        AdminRequest::ResetIdentity { name: missing },
        AdminRequest::BanRemove { net: "192.0.2.1/32".parse().unwrap() },
    ] {
        let told = world.admin(request.clone());
        assert!(
            matches!(&told[..], [Command::Answer { response: AdminResponse::Failed(_), .. }]),
            "{request:?}: {told:?}"
        );
    }
}

#[test]
fn a_bar_for_misbehaving_is_listed_and_can_be_lifted() {
    let mut world = World::new(&[]);
    world.handle(Input::Misbehaved { from: [192, 0, 2, 1].into(), offence: Offence::Malformed });
    let told = world.admin(AdminRequest::BanList);
    let [Command::Answer { response: AdminResponse::Bans { bans }, .. }] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((bans.len(), bans[0].until), (1, Some(world.now.unix + 90)));
    let told = world.admin(AdminRequest::BanRemove { net: bans[0].net });
    assert!(matches!(&told[..], [Command::Pardon(_), Command::Answer { response: AdminResponse::Done, .. }]));
}

#[test]
fn when_the_room_stops_everybody_is_sent_away_and_nobody_is_let_in() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    world.open(2, "198.51.100.2:1");
    let told = world.handle(Input::Drain);
    let mut codes = closed(&told);
    codes.sort_by_key(|(conn, _)| *conn);
    assert_eq!(codes, [(1, CloseCode::ShuttingDown), (2, CloseCode::ShuttingDown)]);
    assert_eq!(refusal(&told), Some(&LoginRefusal::ShuttingDown));
    let late = Input::Opened { conn: ConnId(3), from: "198.51.100.3:1".parse().unwrap(), exporter: EXPORTER };
    assert_eq!(closed(&world.handle(late)), [(3, CloseCode::ShuttingDown)]);
}

#[test]
fn rules_broken_before_the_login_cost_the_address_and_after_it_the_connection() {
    let mut world = World::new(&[]);
    world.open(1, "192.0.2.1:1");
    let told = world.frame(1, ToRoom::Ping(1));
    assert_eq!(closed(&told), [(1, CloseCode::Unexpected)]);
    assert!(told.iter().any(|command| matches!(command, Command::Bar { .. })));
    world.join(2, "Foo");
    let told = world.handle(Input::Broken { conn: ConnId(2), code: CloseCode::Malformed });
    assert_eq!(closed(&told), [(2, CloseCode::Malformed)]);
    assert!(!told.iter().any(|command| matches!(command, Command::Bar { .. })));
}
