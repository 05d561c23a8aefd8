//! The processes besides the client. Each says `READY` when it is, and ends when the client does.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use parlor_room::Room;
use parlor_room::config::{MAX_USERS, RelayLimits, RoomConfig, RoomLimits};
use parlor_room::password::PasswordHash;
use parlor_user::{Inbox, User, UserBuilder, UserName};
use serde_bytes::ByteBuf;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::args::{Args, CipherChoice, Role};
use super::raw;

/// The other user of the rows.
pub(super) const SERVER: &str = "Bar";
/// The callback that answers with its argument.
pub(super) const ECHO: &str = "echo";
/// The callback that answers when as many messages have come as its argument says.
pub(super) const DRAINED: &str = "drained";
/// What the names of accounts begin with.
pub(super) const ACCOUNT: &str = "Account";
/// Users that a Room has room for besides those that do nothing.
const SOME: usize = 100;
/// The largest body of a row with its MessagePack head, and some.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// bcrypt's cost in the Room's accounts: the least it takes.
const COST: u32 = 10;
/// The password of every account.
pub(super) const PASSWORD: &str = "a password of this benchmark";
/// Buffer of the relay that only copies, in bytes: as the Room's.
const COPY: usize = 64 * 1024;

/// Plays a role until the client ends.
pub(super) fn run(role: Role, args: &Args) -> Result<()> {
    match role {
        Role::Raw => {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            ready(listener.local_addr()?.port())?;
            raw::serve(&listener)
        }
        Role::Copy => args.runtime()?.block_on(copy(args.to)),
        Role::Room => args.runtime()?.block_on(room(args)),
        Role::Server => args.runtime()?.block_on(server(args)),
        Role::Answerers => args.runtime()?.block_on(answerers(args)),
        Role::Idle => args.runtime()?.block_on(idle(args)),
    }
}

/// Says that this process is ready, and ends it when the client closes its end of the pipe.
fn ready(what: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "READY {what}")?;
    out.flush()?;
    thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    Ok(())
}

/// A user as every row has it.
pub(super) fn user(args: &Args, name: &str, room: &str) -> UserBuilder {
    let aes = args.cipher == CipherChoice::Aes;
    User::builder(name).ephemeral().room(room).max_body(MAX_BODY).hardware_aes(aes)
}

async fn copy(to: u16) -> Result<()> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    ready(listener.local_addr()?.port())?;
    let mut pairs = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await?;
        pairs.spawn(async move {
            raw::set_up(&near)?;
            let mut far = tokio::net::TcpStream::connect(raw::address(to)).await?;
            raw::set_up(&far)?;
            anyhow::Ok(copy_bidirectional_with_sizes(&mut near, &mut far, COPY, COPY).await?)
        });
    }
}

async fn room(args: &Args) -> Result<()> {
    let config = RoomConfig {
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        accounts: accounts(args.accounts)?,
        limits: RoomLimits {
            max_users: MAX_USERS.max(args.users + SOME),
            // What the relay can do, not what it allows.
            relay: RelayLimits { rate: 0, ..RelayLimits::default() },
            ..RoomLimits::default()
        },
        ..RoomConfig::default()
    };
    let room = Room::bind(config).await?;
    ready(room.addresses().first().context("the Room listens nowhere")?)?;
    room.ended().await;
    Ok(())
}

/// Accounts that share a hash, which takes as long to verify as if they did not.
fn accounts(number: usize) -> Result<BTreeMap<UserName, PasswordHash>> {
    if number == 0 {
        return Ok(BTreeMap::new());
    }
    let hash = PasswordHash::make(PASSWORD, COST, [7; 16])?;
    (0..number).map(|i| Ok((numbered(ACCOUNT, i).parse()?, hash.clone()))).collect()
}

fn answer_echo(user: &User) -> Result<()> {
    user.on_get(ECHO, |_, argument: ByteBuf| async move { Ok::<_, String>(argument) })?.forever();
    Ok(())
}

async fn server(args: &Args) -> Result<()> {
    let user = user(args, SERVER, &args.room).join().await?;
    answer_echo(&user)?;
    let arrivals = Arc::new(Arrivals::default());
    let asked = Arc::clone(&arrivals);
    let drained = move |_, messages: u64| {
        let asked = Arc::clone(&asked);
        async move {
            asked.reached(messages).await;
            Ok::<_, String>(())
        }
    };
    user.on_get(DRAINED, drained)?.forever();
    ready("")?;
    let mut counting = JoinSet::new();
    counting.spawn(count(user.inbox(), arrivals));
    counting.join_next().await;
    Ok(())
}

/// Messages that came and were not asked for yet.
struct Arrivals {
    count: AtomicU64,
    wanted: AtomicU64,
    reached: Notify,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self { count: AtomicU64::new(0), wanted: AtomicU64::new(u64::MAX), reached: Notify::new() }
    }
}

impl Arrivals {
    fn one_more(&self) {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        if count >= self.wanted.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    /// Waits for this many messages and begins to count anew.
    async fn reached(&self, messages: u64) {
        self.wanted.store(messages, Ordering::SeqCst);
        while self.count.load(Ordering::SeqCst) < messages {
            self.reached.notified().await;
        }
        self.wanted.store(u64::MAX, Ordering::SeqCst);
        self.count.fetch_sub(messages, Ordering::SeqCst);
    }
}

async fn count(mut inbox: Inbox, arrivals: Arc<Arrivals>) {
    while let Some(message) = inbox.next().await {
        black_box(message.body());
        arrivals.one_more();
    }
}

/// The name of one of many users.
pub(super) fn numbered(prefix: &str, number: usize) -> String {
    format!("{prefix}{number}")
}

async fn answerers(args: &Args) -> Result<()> {
    let mut users = Vec::new();
    for number in 0..args.users {
        let user = user(args, &numbered(SERVER, number), &args.room).join().await?;
        answer_echo(&user)?;
        users.push(user);
    }
    ready("")?;
    std::future::pending().await
}

async fn idle(args: &Args) -> Result<()> {
    let _user = user(args, "Idle", &args.room).join().await?;
    ready("")?;
    std::future::pending().await
}
