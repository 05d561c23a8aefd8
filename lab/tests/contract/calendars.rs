//! Programs whose calendars are set while they run, and that meet although their calendars are a day apart.

use parlor_lab::calendar::Calendar;
use parlor_lab::netns::say_skipped;
use parlor_lab::process::Program;
use parlor_lab::programs::{PATIENCE, RoomSetup, Stage, UserSetup, own_loopback};

use super::{TWO_ACCOUNTS, online, success};

/// The user by this calendar.
fn by(calendar: &Calendar, user: UserSetup) -> UserSetup {
    calendar.environment().into_iter().fold(user, |user, (name, value)| user.env(name, &value))
}

/// The Room by this calendar.
fn room_by(calendar: &Calendar, room: RoomSetup) -> RoomSetup {
    calendar.environment().into_iter().fold(room, |room, (name, value)| room.env(name, &value))
}

#[test]
fn a_conversation_does_not_notice_that_calendars_are_set_and_a_ticket_is_good_whatever_its_holders_says() {
    if let Err(why) = Calendar::available() {
        return say_skipped(&why);
    }
    let stage = Stage::new().unwrap();
    let calendars = [(); 3].map(|()| Calendar::new().unwrap());
    let [rooms, foos, bars] = &calendars;
    let config = stage.file("room.toml", TWO_ACCOUNTS).unwrap();
    let setup = stage.room("room").listen(format!("{}:2428", own_loopback())).arg("--config").arg(config);
    let room = room_by(rooms, setup).start().unwrap();
    let password = stage.file("password", "123456\n").unwrap();
    let user = |name: &str| stage.named(&room.address, name);
    let bar = by(bars, user("Bar").arg("--password-file").arg(&password));
    let mut listening = online(&room, &bar, "Bar", &["listen"]);
    let foo = by(foos, user("Foo"));
    let mut talking = foo.clone().arg("--password-file").arg(&password).start(&["send", "Bar", "-"]).unwrap();
    let mut line = 0;
    let mut talk = |listening: &mut Program| {
        for _ in 0..20 {
            talking.write(format!("line {line}\n").as_bytes()).unwrap();
            let heard = listening.line(PATIENCE).unwrap();
            assert!(heard.ends_with(&format!("] Foo: line {line}")), "{heard}");
            line += 1;
        }
    };
    talk(&mut listening);
    for (calendar, days) in [(rooms, 1), (foos, 1), (bars, -1), (rooms, -1), (foos, -1), (bars, 1)] {
        calendar.set_days(days).unwrap();
        talk(&mut listening);
    }
    talking.close_stdin();
    success(&talking.wait(PATIENCE).unwrap());

    // Foo's is two days ahead of what it was when the ticket was given out. The Room's says that it is good.
    foos.set_days(1).unwrap();
    let checked = || room.status().unwrap()["totals"]["passwords_checked"].as_u64();
    let before = checked();
    success(&foo.run(&["send", "Bar", "without a password"]).unwrap());
    assert!(listening.line(PATIENCE).unwrap().ends_with("without a password"));
    assert_eq!((before, checked()), (Some(2), Some(2)));
    rooms.set_days(2).unwrap();
    let done = foo.run(&["send", "Bar", "without a password"]).unwrap();
    assert!(done.code != Some(0) && done.stderr.contains("password"), "{done:?}");

    // A Room that comes back by another calendar has its users back, and two that are a day apart meet.
    let setup = room.setup.clone();
    room.program.kill().unwrap();
    let room = setup.start().unwrap();
    room.await_online(&["Bar"], PATIENCE * 2).unwrap();
    let foo = foo.arg("--password-file").arg(&password);
    success(&foo.run(&["send", "Bar", "with a password"]).unwrap());
    assert!(listening.line(PATIENCE).unwrap().ends_with("with a password"));
    for program in [listening, room.program] {
        success(&program.terminate(PATIENCE).unwrap());
    }
}
