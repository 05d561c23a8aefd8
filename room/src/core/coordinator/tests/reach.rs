use super::*;

#[test]
fn an_address_that_others_are_told_to_dial_was_checked() {
    let mut world = World::new(&[]);
    let told = world.join(1, "Foo");
    let checked = told.iter().find_map(|command| match command {
        Command::CheckAddress { conn: ConnId(1), generation, address, .. } => Some((*generation, *address)),
        _ => None,
    });
    let (generation, address) = checked.unwrap();
    assert_eq!(address, "198.51.100.1:7000".parse().unwrap());
    world.join(2, "Bar");
    let has_public =
        |told: &[Command]| introduced(told, 2).unwrap().rungs.iter().any(|r| r.rung == Rung::Public);
    assert!(!has_public(&world.introduce(2, "Foo")));
    let answer = |generation, reached| Input::AddressChecked {
        conn: ConnId(1),
        generation,
        address: address.ip(),
        reached,
    };
    assert!(world.handle(answer(generation + 1, true)).is_empty(), "an answer about another presence");
    assert!(!has_public(&world.introduce(2, "Foo")));
    let told = world.handle(answer(generation, true));
    assert!(matches!(&sent(&told, 1)[..], [ToUser::Reachable(list)] if *list == [address.ip()]));
    assert!(has_public(&world.introduce(2, "Foo")));
}

fn address_check(commands: &[Command]) -> Option<u32> {
    commands.iter().find_map(|command| match command {
        Command::CheckAddress { conn: ConnId(1), generation, .. } => Some(*generation),
        _ => None,
    })
}

#[test]
fn a_check_that_failed_is_made_again_twice_and_what_it_finds_is_told() {
    let mut world = World::new(&[]);
    let mut generation = address_check(&world.join(1, "Foo")).unwrap();
    let address = [198, 51, 100, 1].into();
    let answer =
        |generation, reached| Input::AddressChecked { conn: ConnId(1), generation, address, reached };
    assert!(matches!(&sent(&world.handle(answer(generation, false)), 1)[..], [ToUser::Reachable(_)]));
    for wait in CHECK_WAITS {
        let too_early = world.pass(Duration::from_secs(wait - 1));
        assert_eq!(address_check(&too_early), None);
        generation = address_check(&world.pass(Duration::from_secs(1))).unwrap();
        if wait == CHECK_WAITS[0] {
            assert!(world.handle(answer(generation, false)).is_empty(), "it knows already");
        }
    }
    let told = world.handle(answer(generation, true));
    assert!(matches!(&sent(&told, 1)[..], [ToUser::Reachable(list)] if *list == [address]));
    assert_eq!(address_check(&world.pass(Duration::from_secs(60))), None);
}

const CHECK_WAITS: [u64; 2] = [2, 10];

#[test]
fn where_a_user_is_that_changes_too_often_is_checked_a_little_later() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    let mut move_to = |port| world.frame(1, ToRoom::Presence(Presence { port, ..presence(1) }));
    let asked = (1..10).filter(|port| address_check(&move_to(*port)).is_some()).count();
    assert_eq!(asked, 3, "and one at the login");
    let later = world.pass(Duration::from_secs(1));
    let port = later.iter().find_map(|command| match command {
        Command::CheckAddress { address, .. } => Some(address.port()),
        _ => None,
    });
    assert_eq!(port, Some(9), "the last one");
    assert_eq!(address_check(&world.pass(Duration::from_secs(1))), None);
}

#[test]
fn a_declared_address_is_believed_if_the_room_sees_it_and_never_leads_the_room_inside() {
    let mut world = World::new(&[]);
    world.join(1, "Foo");
    let declare = |world: &mut World, ip: &str| {
        let presence = Presence { public: Some(ip.parse().unwrap()), ..presence(1) };
        world.frame(1, ToRoom::Presence(presence))
    };
    let told = declare(&mut world, "198.51.100.1");
    assert!(matches!(&sent(&told, 1)[..], [ToUser::Reachable(list)] if list.len() == 1));
    for inside in ["10.0.0.1", "127.0.0.1", "169.254.1.1", "fd00::1", "0.0.0.0", "224.0.0.1"] {
        let told = declare(&mut world, inside);
        assert!(matches!(&sent(&told, 1)[..], [ToUser::Reachable(list)] if list.is_empty()), "{inside}");
        assert!(!told.iter().any(|command| matches!(command, Command::CheckAddress { .. })), "{inside}");
    }
    let told = declare(&mut world, "203.0.113.5");
    assert!(told.iter().any(|command| matches!(command, Command::CheckAddress { .. })));
}
