use std::collections::BTreeSet;

use parlor_protocol::wire::control::RelayToken;
use proptest::prelude::*;

use super::*;

/// Something that a few users on a few addresses may do, in any order.
#[derive(Debug, Clone, Copy)]
enum Step {
    Open(u64),
    Login { conn: u64, name: usize, seed: u8 },
    Introduce { conn: u64, name: usize },
    Presence { conn: u64 },
    Relay { token: usize },
    Bye(u64),
    Broken(u64),
    Closed(u64),
    Ban { host: u8 },
    Unban { host: u8 },
    Pass(u64),
}

const NAMES: [&str; 4] = ["Foo", "foo", "Bar", "Baz"];

fn any_step() -> impl Strategy<Value = Step> {
    let conn = 1..6u64;
    prop_oneof![
        conn.clone().prop_map(Step::Open),
        (conn.clone(), 0..NAMES.len(), 1..4u8).prop_map(|(conn, name, seed)| Step::Login {
            conn,
            name,
            seed
        }),
        (conn.clone(), 0..NAMES.len()).prop_map(|(conn, name)| Step::Introduce { conn, name }),
        conn.clone().prop_map(|conn| Step::Presence { conn }),
        (0..8usize).prop_map(|token| Step::Relay { token }),
        conn.clone().prop_map(Step::Bye),
        conn.clone().prop_map(Step::Broken),
        conn.prop_map(Step::Closed),
        (1..6u8).prop_map(|host| Step::Ban { host }),
        (1..6u8).prop_map(|host| Step::Unban { host }),
        (0..40u64).prop_map(Step::Pass),
    ]
}

impl World {
    /// Connection ids are never used twice, so that each opening of a slot is a new one.
    fn take(
        &mut self,
        step: Step,
        slots: &mut BTreeMap<u64, u64>,
        tokens: &[RelayToken],
        n: u64,
    ) -> Vec<Command> {
        let at = |slots: &BTreeMap<u64, u64>, slot: u64| slots.get(&slot).copied().unwrap_or(0);
        let net = |host: u8| format!("198.51.100.{host}/32").parse().unwrap();
        match step {
            Step::Open(slot) => {
                slots.insert(slot, n + 100);
                let from = format!("198.51.100.{slot}:1").parse().unwrap();
                let mut told = self.handle(Input::Opened { conn: ConnId(n + 100), from, exporter: EXPORTER });
                told.extend(self.frame(n + 100, ToRoom::Hello(Hello::new("test"))));
                told
            }
            Step::Login { conn, name, seed } => {
                self.frame(at(slots, conn), login(NAMES[name], seed, Credentials::Open))
            }
            Step::Introduce { conn, name } => self.introduce(at(slots, conn), NAMES[name]),
            Step::Presence { conn } => self.frame(at(slots, conn), ToRoom::Presence(presence(9))),
            Step::Relay { token } => match tokens.get(token) {
                Some(&token) => {
                    self.handle(Input::RelayHello { link: LinkId(n), from: [192, 0, 2, 1].into(), token })
                }
                None => Vec::new(),
            },
            Step::Bye(conn) => self.frame(at(slots, conn), ToRoom::Bye(CloseCode::Done)),
            Step::Broken(conn) => {
                self.handle(Input::Broken { conn: ConnId(at(slots, conn)), code: CloseCode::Malformed })
            }
            Step::Closed(conn) => self.handle(Input::Closed { conn: ConnId(at(slots, conn)) }),
            Step::Ban { host } => self.admin(AdminRequest::BanAdd { net: net(host), seconds: Some(30) }),
            Step::Unban { host } => self.admin(AdminRequest::BanRemove { net: net(host) }),
            Step::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
        }
    }
}

proptest! {
    #[test]
    fn whatever_comes_nobody_who_is_gone_is_spoken_to_and_every_name_has_one_holder(
        steps in proptest::collection::vec(any_step(), 0..60),
    ) {
        let mut world = World::new(&[]);
        let (mut slots, mut tokens, mut closed) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        for (n, step) in steps.into_iter().enumerate() {
            let gone = if let Step::Closed(slot) = &step { slots.get(slot).copied() } else { None };
            closed.extend(gone);
            for command in world.take(step, &mut slots, &tokens, n as u64) {
                match command {
                    Command::Send { conn, frame } => {
                        prop_assert!(!closed.contains(&conn.0), "a message to who is gone: {frame:?}");
                        if let ToUser::Introduced(introduced) = frame {
                            tokens.extend(introduced.rungs.iter().filter_map(|offer| offer.relay));
                        }
                    }
                    Command::SendEncoded { conn, .. } => prop_assert!(!closed.contains(&conn.0)),
                    Command::Close { conn, .. } => prop_assert!(closed.insert(conn.0), "closed twice"),
                    _ => {}
                }
            }
            let ready = world.room.connections.values().filter(|c| matches!(c.stage, Stage::Ready)).count();
            prop_assert_eq!(ready, world.room.directory.len());
        }
    }
}
