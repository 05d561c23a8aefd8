//! A Room at a made-up time, told what it likes and asked what it does.
#![expect(clippy::disallowed_methods, reason = "a starting point for made-up times")]

mod any_order;
mod logins;
mod reach;
mod stories;

use parlor_protocol::identity::{Identity, InstanceId, Purpose};
use parlor_protocol::name::LanId;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::{LoginRefusal, PairRefusal};
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::{
    Credentials, Hello, Introduce, Introduced, Login, Secret, Welcome, login_proof_message,
};

use super::*;
use crate::admin::{AdminRequest, AdminResponse};
use crate::core::penalty::Offence;
use crate::core::tests::counting_chance;
use crate::core::{LinkId, Source};
use crate::store::StoreChange;

/// A Room at a made-up time, and what it says is to be done.
struct World {
    room: Coordinator,
    now: Now,
    out: Vec<Command>,
}

const EXPORTER: [u8; 32] = [5; 32];

impl World {
    fn new(accounts: &[&str]) -> Self {
        Self::with(accounts, RoomLimits::default())
    }

    fn with(accounts: &[&str], limits: RoomLimits) -> Self {
        Self::of(accounts, limits, Box::new(counting_chance()))
    }

    fn of(accounts: &[&str], limits: RoomLimits, chance: Box<dyn Chance>) -> Self {
        let now = Now { instant: Instant::now(), unix: 1_000_000 };
        let loaded = Loaded {
            identity: Identity::from_seed(&[0; 32]),
            accounts: accounts.iter().map(|n| (n.parse().unwrap(), PasswordHash::dummy(12))).collect(),
            bindings: BTreeMap::new(),
            bans: Vec::new(),
            tickets: Vec::new(),
        };
        let setup = Setup {
            loaded,
            accounts: BTreeMap::new(),
            room_password: None,
            blacklist: Vec::new(),
            allow_unencrypted: false,
            limits,
            addresses: Vec::new(),
            chance,
        };
        Self { room: Coordinator::new(setup, now), now, out: Vec::new() }
    }

    fn handle(&mut self, input: Input) -> Vec<Command> {
        self.room.handle(input, self.now, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn pass(&mut self, time: Duration) -> Vec<Command> {
        self.now.instant += time;
        self.now.unix += time.as_secs();
        self.handle(Input::Tick)
    }

    fn open(&mut self, conn: u64, from: &str) {
        let from = from.parse().unwrap();
        self.handle(Input::Opened { conn: ConnId(conn), from, exporter: EXPORTER });
        self.frame(conn, ToRoom::Hello(Hello::new("test/1")));
    }

    fn frame(&mut self, conn: u64, frame: ToRoom) -> Vec<Command> {
        self.handle(Input::Frame { conn: ConnId(conn), frame })
    }

    /// Opens a connection from its own address and logs in without a password.
    fn join(&mut self, conn: u64, name: &str) -> Vec<Command> {
        self.open(conn, &format!("198.51.100.{conn}:1000"));
        self.frame(conn, login(name, conn as u8, Credentials::Open))
    }

    fn introduce(&mut self, conn: u64, peer: &str) -> Vec<Command> {
        self.frame(conn, ToRoom::Introduce(Introduce { request: 1, peer: peer.parse().unwrap() }))
    }

    /// bcrypt says that the passwords are right, and the disk takes the identity if it is to be kept.
    fn right(&mut self, conn: u64, attempt: u64) -> Vec<Command> {
        let verdict = PasswordVerdict::Right;
        let mut told = self.handle(Input::PasswordsChecked { conn: ConnId(conn), attempt, verdict });
        if let Some(name) = bind(&told) {
            told.extend(self.handle(Input::Bound { conn: ConnId(conn), name, kept: true }));
        }
        told
    }

    fn admin(&mut self, request: AdminRequest) -> Vec<Command> {
        self.handle(Input::Admin { call: CallId(0), request })
    }
}

fn login(name: &str, seed: u8, credentials: Credentials) -> ToRoom {
    let identity = Identity::from_seed(&[seed; 32]);
    let name: UserName = name.parse().unwrap();
    ToRoom::Login(Box::new(Login {
        proof: identity.sign(Purpose::LoginProof, &login_proof_message(&EXPORTER, &name)),
        name,
        credentials,
        room_password: None,
        identity: identity.public(),
        noise: identity.noise_certificate(),
        instance: InstanceId([seed; 16]),
        take_over: false,
        presence: presence(seed),
    }))
}

fn presence(seed: u8) -> Presence {
    Presence {
        host_tag: HostTag([seed; 16]),
        lan_id: LanId::default(),
        port: 7000,
        private: vec![[10, 0, 0, seed].into()],
        public: None,
        encryption: Encryption::On,
        aes: false,
    }
}

fn password() -> Credentials {
    Credentials::Password(Secret::new("x".into()).unwrap())
}

fn sent(commands: &[Command], to: u64) -> Vec<&ToUser> {
    let mut frames = Vec::new();
    for command in commands {
        if let Command::Send { conn, frame } = command
            && *conn == ConnId(to)
        {
            frames.push(frame);
        }
    }
    frames
}

fn refusal(commands: &[Command]) -> Option<&LoginRefusal> {
    commands.iter().find_map(|command| match command {
        Command::Send { frame: ToUser::LoginRefused(refusal), .. } => Some(refusal),
        _ => None,
    })
}

fn welcome(commands: &[Command]) -> Option<&Welcome> {
    commands.iter().find_map(|command| match command {
        Command::Send { frame: ToUser::Welcome(welcome), .. } => Some(&**welcome),
        _ => None,
    })
}

fn closed(commands: &[Command]) -> Vec<(u64, CloseCode)> {
    let close = |command: &Command| match command {
        Command::Close { conn, closing } => Some((conn.0, closing.code)),
        _ => None,
    };
    commands.iter().filter_map(close).collect()
}

fn check(commands: &[Command]) -> Option<u64> {
    commands.iter().find_map(|command| match command {
        Command::CheckPasswords { attempt, .. } => Some(*attempt),
        _ => None,
    })
}

fn bind(commands: &[Command]) -> Option<UserName> {
    commands.iter().find_map(|command| match command {
        Command::Bind { name, .. } => Some(name.clone()),
        _ => None,
    })
}

fn introduced(commands: &[Command], to: u64) -> Option<&Introduced> {
    sent(commands, to).into_iter().find_map(|frame| match frame {
        ToUser::Introduced(introduced) => Some(&**introduced),
        _ => None,
    })
}
