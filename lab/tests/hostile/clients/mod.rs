//! Clients that misbehave at a Room.

mod addresses;
mod door;
mod login;
mod online;
mod operator;
mod owners;
mod relay;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use parlor_lab::hostile::client::{Client, Who, secret, who};
use parlor_lab::hostile::ground::Ground;
use parlor_lab::hostile::outcome::{Cost, Outcome};
use parlor_protocol::address::RoomAddress;
use parlor_protocol::limits::PENALTY_WRONG_PASSWORD;
use parlor_protocol::refusal::LoginRefusal;
use parlor_protocol::wire::control::Credentials;
use parlor_room::config::RelayLimits;
use parlor_room::password::PasswordHash;
use parlor_room::{Room, RoomConfig, RoomHandle};
use parlor_user::{Rung, User};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::table::{self, Row, side_by_side};

/// `123456`, made elsewhere.
const HASH: &str = "$2b$10$6Y/A7JyMxNXKGGu.4AelJ.TjLHWqZ6YemIzBT9Gcjugy3gSHNy77e";
/// The password of every account.
const PASSWORD: &str = "123456";
/// The password of the Room that has one.
const SESAME: &str = "sesame";
/// Accounts of the Room that has some.
const ACCOUNTS: usize = 400;
/// The Rooms relay so much of one user in a second, and as much at once, in bytes.
const RELAY_RATE: u64 = 128 * 1024;
/// Pairs that the Rooms relay of one user.
const RELAY_PAIRS: usize = 2;
/// For a penalty to be in force.
const BARRED: Duration = Duration::from_secs(10);
/// Rows at once where logins wait for bcrypt: no login may take longer than 10 s.
const BCRYPTS: usize = 4;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Which Room a row is played at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Everybody gets in.
    Open,
    /// Names are accounts.
    Accounts,
    /// Everybody gets in who knows the Room's password.
    Password,
    /// Everybody gets in, and only crowds and floods come here: they make everybody wait.
    Crowded,
}

/// A Room with a pair in it that means well.
struct Venue {
    place: Place,
    room: RoomHandle,
    foo: User,
    bar: User,
    newcomers: AtomicUsize,
    /// Newcomers of before, with their tickets: not every row is to wait for bcrypt.
    known: Mutex<Vec<Who>>,
    turns: Semaphore,
}

/// Where a row is played.
pub(crate) struct Scene {
    ground: Arc<Ground>,
    venue: Arc<Venue>,
    /// Where the row's clients come from.
    from: IpAddr,
    /// Tells the row from every other.
    number: usize,
    data: PathBuf,
}

impl Scene {
    fn room(&self) -> RoomAddress {
        self.venue.room.addresses()[0].clone()
    }

    /// A user with a name that no other row has.
    fn who(&self, seed: u8) -> Who {
        who(format!("user{}.{seed}", self.number), seed)
    }

    /// The name of an account that no other row uses.
    fn account(&self) -> String {
        account(self.number)
    }

    async fn connected(&self) -> Result<Client> {
        Client::connect(self.from, &self.room()).await
    }

    async fn greeted(&self) -> Result<Client> {
        Client::greeted(self.from, &self.room()).await
    }

    /// A user who has come from here.
    async fn joined(&self, seed: u8) -> Result<(Client, Who)> {
        let who = self.who(seed);
        Ok((Client::joined(self.from, &self.room(), &who).await?.0, who))
    }

    /// The same as another client of the same row at the same time.
    fn again(&self, number: usize) -> Self {
        let (ground, venue) = (Arc::clone(&self.ground), Arc::clone(&self.venue));
        Self { ground, venue, from: self.from, number, data: self.data.clone() }
    }
}

fn account(number: usize) -> String {
    format!("account{number}")
}

impl Venue {
    async fn open(ground: &Ground, place: Place, data: PathBuf) -> Result<Self> {
        let mut config = RoomConfig {
            listen: vec![(ground.home(), 0).into()],
            open: true,
            data: Some(data),
            ..RoomConfig::default()
        };
        config.limits.bcrypt_threads = 2;
        config.limits.relay = RelayLimits {
            pairs_per_user: RELAY_PAIRS,
            rate: RELAY_RATE,
            burst: RELAY_RATE,
            ..RelayLimits::default()
        };
        if place == Place::Accounts {
            let names = (0..ACCOUNTS).map(account).chain(["Foo".to_owned(), "Bar".to_owned()]);
            let hash: PasswordHash = HASH.parse()?;
            let accounts = names.map(|name| Ok((name.parse()?, hash.clone())));
            config.accounts = accounts.collect::<Result<BTreeMap<_, _>>>()?;
        }
        if place == Place::Password {
            config.room_password = Some(PasswordHash::make(SESAME, 10, [3; 16])?);
        }
        let room = Room::bind(config).await?;
        let address = room.addresses()[0].to_string();
        let join = |name: &'static str| {
            // Offered direct rungs, of which none leads anywhere, so they talk over the relay.
            let user = User::builder(name).room(&address).ephemeral().rungs(&[Rung::Lan, Rung::Relay]);
            let user = user.lan_addresses(vec![[10, 0, 0, 8].into()]);
            let user = if place == Place::Accounts { user.password(PASSWORD) } else { user };
            if place == Place::Password { user.room_password(SESAME) } else { user }
        };
        let foo = join("Foo").on_get("echo", |_, text: String| async move { Ok::<_, String>(text) });
        let foo = foo.join().await?;
        let bar = join("Bar").join().await?;
        let turns = Semaphore::new(match place {
            Place::Open | Place::Crowded => usize::from(u8::MAX),
            Place::Accounts | Place::Password => BCRYPTS,
        });
        let newcomers = AtomicUsize::new(ACCOUNTS / 2);
        Ok(Self { place, room, foo, bar, newcomers, known: Mutex::default(), turns })
    }

    /// The pair still talks, and somebody who comes from elsewhere gets in and is introduced.
    async fn serves(&self, ground: &Ground) -> Result<()> {
        let answer: String = self.bar.peer("Foo")?.get("echo", "still there?").await.context("the pair")?;
        ensure!(answer == "still there?", "the pair hears {answer:?}");
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let newcomer = known.map_or_else(|| self.newcomer(), Ok)?;
        let address = &self.room.addresses()[0];
        let joined = Client::joined(ground.elsewhere(), address, &newcomer).await;
        let (mut client, welcome) = joined.context("a newcomer")?;
        client.asks_for(1, "Foo").await?;
        ensure!(client.answer(1).await?.is_ok(), "a newcomer is not introduced");
        if let Some(ticket) = welcome.ticket {
            let known =
                Who { credentials: Credentials::Ticket(ticket.secret), room_password: None, ..newcomer };
            self.known.lock().unwrap_or_else(PoisonError::into_inner).push(known);
        }
        Ok(())
    }

    fn newcomer(&self) -> Result<Who> {
        let mut newcomer = who(account(self.newcomers.fetch_add(1, Ordering::Relaxed)), 9);
        // A path besides the relay, of which one user has so much and no more.
        (newcomer.presence.private, newcomer.presence.port) = (vec![[10, 0, 0, 9].into()], 4000);
        match self.place {
            Place::Open | Place::Crowded => {}
            Place::Accounts => newcomer = newcomer.password(PASSWORD)?,
            Place::Password => newcomer.room_password = Some(secret(SESAME)?),
        }
        Ok(newcomer)
    }

    async fn close(self) {
        self.foo.leave().await;
        self.bar.leave().await;
        self.room.shutdown().await;
    }
}

/// The rows, with the Room that each is played at.
pub(crate) fn rows() -> Vec<(Place, Row<Scene>)> {
    [
        door::rows(),
        login::rows(),
        owners::rows(),
        online::rows(),
        addresses::rows(),
        relay::rows(),
        operator::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn play(row: Row<Scene>, mut scene: Scene) -> Result<()> {
    let venue = Arc::clone(&scene.venue);
    let _turn = venue.turns.acquire().await?;
    // One more than needed where two are enough: on a slow machine they do not end together, and scores decay.
    let times = if let Cost::AddsUp(times) = row.cost { times.max(3) } else { 1 };
    let mut playing = JoinSet::new();
    for time in 1..times {
        let (does, mut scene) = (row.does, scene.again(scene.number + time * 1000));
        playing.spawn(async move { does(&mut scene).await });
    }
    row.expects(&(row.does)(&mut scene).await?)?;
    let ended = Instant::now();
    while let Some(played) = playing.join_next().await {
        row.expects(&played??)?;
    }
    if scene.ground.has_strangers() {
        costs(&scene, row.cost, ended).await?;
    }
    scene.venue.serves(&scene.ground).await.context("afterwards")
}

/// Whether the address is kept out now, or will be soon.
async fn costs(scene: &Scene, cost: Cost, ended: Instant) -> Result<()> {
    if matches!(cost, Cost::Nothing | Cost::Counts) {
        ensure!(!is_barred(scene).await?, "the address is barred");
        return if cost == Cost::Counts { counts(scene, ended).await } else { Ok(()) };
    }
    comes_to_be_barred(scene).await
}

async fn comes_to_be_barred(scene: &Scene) -> Result<()> {
    let waits = async {
        while !is_barred(scene).await? {
            sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(BARRED, waits).await.context("the address is not barred")?
}

/// Three lies are not enough to bar an address, because they decay while they are told. With what the row has done
/// before, they are, unless that is used up: on a slow machine nobody can tell.
async fn counts(scene: &Scene, ended: Instant) -> Result<()> {
    // Of different names, or they would have to wait.
    for seed in 101..=103 {
        let refused = login::lies(scene, &scene.who(seed)).await?;
        ensure!(refused == Outcome::LoginRefused(LoginRefusal::Proof), "{refused}");
    }
    if ended.elapsed() + LOOK < PENALTY_WRONG_PASSWORD {
        comes_to_be_barred(scene).await.context("it does not count")?;
    }
    Ok(())
}

async fn is_barred(scene: &Scene) -> Result<bool> {
    const ACCESS_DENIED: Outcome = Outcome::Alert(49);
    Ok(door::shakes_hands(scene, &[parlor_protocol::wire::control::ALPN]).await? == ACCESS_DENIED)
}

#[test]
fn clients_end_as_the_table_says() -> Result<()> {
    table::run(|ground| async move {
        let data = tempfile::tempdir()?;
        let mut venues = BTreeMap::new();
        for place in [Place::Open, Place::Accounts, Place::Password, Place::Crowded] {
            let venue = Venue::open(&ground, place, data.path().join(format!("{place:?}"))).await?;
            venues.insert(place, Arc::new(venue));
        }
        let played = side_by_side(
            rows(),
            |(_, row)| row.name,
            |number, (place, row)| {
                let (venue, from) = (Arc::clone(&venues[&place]), ground.elsewhere());
                let data = data.path().join(format!("{place:?}"));
                let scene = Scene { ground: Arc::clone(&ground), venue, from, number, data };
                play(row, scene)
            },
        )
        .await;
        for venue in venues.into_values() {
            if let Some(venue) = Arc::into_inner(venue) {
                venue.close().await;
            }
        }
        played
    })
}
