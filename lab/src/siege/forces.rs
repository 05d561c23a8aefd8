//! The attackers. Each is a task that does its worst until the siege ends; one that is sent away comes back after a
//! pause, as a program would that is told to.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use parlor_protocol::refusal::LoginRefusal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::ground::{Ground, connect};
use super::stranger::{Stranger, client_hello};
use crate::clock;

/// Before who was sent away comes back. 10,000 that come back so are 2,000 connections a second.
const PAUSE: Duration = Duration::from_secs(5);
/// Before who guessed comes back.
const NEXT_GUESS: Duration = Duration::from_millis(250);
/// Between two bytes of a slow handshake.
const BYTE: Duration = Duration::from_millis(200);
/// An end within this was the Room's answer to the connection, a later one its patience's, which is 5 s.
const AT_ONCE: Duration = Duration::from_secs(4);
/// No connection lives longer, whatever the Room does.
const FOREVER: Duration = Duration::from_secs(60);
/// Connections that are opened at once: more would wait in this machine's own queues.
const OPENING: usize = 200;
/// Guesses on one connection at most; the Room allows 3.
const GUESSES: usize = 5;

/// What became of attackers, and how often.
pub(super) type Outcomes = BTreeMap<String, u64>;

/// One kind of attack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Force {
    what: What,
    count: usize,
    addresses: usize,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Slow,
    Silent,
    Guess,
}

impl Force {
    /// Handshakes that go on a byte at a time.
    pub(super) fn slow(count: usize, addresses: usize) -> Self {
        Self { what: What::Slow, count, addresses }
    }

    /// Connections that say nothing.
    pub(super) fn silent(count: usize, addresses: usize) -> Self {
        Self { what: What::Silent, count, addresses }
    }

    /// Logins that are wrong.
    pub(super) fn guess(count: usize, addresses: usize) -> Self {
        Self { what: What::Guess, count, addresses }
    }
}

/// Attackers that share what they count.
#[derive(Clone)]
pub(super) struct Forces {
    room: SocketAddr,
    hello: Arc<Vec<u8>>,
    stranger: Stranger,
    opening: Arc<Semaphore>,
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Forces {
    /// Attacks from addresses that nobody has used, for as long as said, and says what became of it.
    pub(super) async fn attack(
        ground: &Ground,
        room: SocketAddr,
        forces: &[Force],
        time: Duration,
    ) -> anyhow::Result<Outcomes> {
        let all = Self {
            room,
            hello: Arc::new(client_hello(room.ip())?),
            stranger: Stranger::new()?,
            opening: Arc::new(Semaphore::new(OPENING)),
            outcomes: Arc::default(),
        };
        let mut attackers = JoinSet::new();
        for force in forces {
            let addresses = ground.fresh(force.addresses);
            for (number, from) in addresses.iter().cycle().take(force.count).enumerate() {
                let (all, from, what) = (all.clone(), *from, force.what);
                attackers.spawn(async move {
                    loop {
                        match what {
                            What::Slow => all.slow(from).await,
                            What::Silent => all.silent(from).await,
                            What::Guess => all.guess(from, number).await,
                        }
                    }
                });
            }
        }
        sleep(time).await;
        attackers.shutdown().await;
        Ok(std::mem::take(&mut *all.outcomes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn count(&self, outcome: &str) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
    }

    async fn open(&self, from: IpAddr) -> Option<tokio::net::TcpStream> {
        let _permit = self.opening.acquire().await.ok()?;
        match connect(from, self.room).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                self.count(&format!("no connection: {}", error.kind()));
                None
            }
        }
    }

    async fn silent(&self, from: IpAddr) {
        if let Some(mut stream) = self.open(from).await {
            self.await_end(&mut stream, "silent").await;
        }
        sleep(PAUSE).await;
    }

    async fn slow(&self, from: IpAddr) {
        if let Some(stream) = self.open(from).await {
            let (mut read, mut write) = stream.into_split();
            let dribble = async {
                for byte in self.hello.iter() {
                    if write.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    sleep(BYTE).await;
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = self.await_end(&mut read, "slow handshake") => {}
                () = dribble => {}
            }
        }
        sleep(PAUSE).await;
    }

    /// Waits until the Room ends a connection, and counts how.
    async fn await_end(&self, stream: &mut (impl tokio::io::AsyncRead + Unpin), who: &str) {
        let opened = clock::now();
        let mut said = Vec::new();
        let ended = timeout(FOREVER, stream.read_to_end(&mut said)).await;
        let how = match ended {
            Err(_) => "never sent away",
            Ok(_) if !said.is_empty() => "told that it is kept out",
            Ok(_) if opened.elapsed() < AT_ONCE => "hung up on at once",
            Ok(_) => "let go at its deadline",
        };
        self.count(&format!("{who}: {how}"));
    }

    async fn guess(&self, from: IpAddr, number: usize) {
        let greeted = {
            let Ok(_permit) = self.opening.acquire().await else { return };
            timeout(FOREVER, self.stranger.greet(from, self.room)).await
        };
        if let Ok(Ok(mut guessing)) = greeted {
            // Some guess at an account that there is, some at one that there is not.
            let name = if number.is_multiple_of(2) { "Right0".to_owned() } else { format!("nobody{number}") };
            for _ in 0..GUESSES {
                let mut waiting = Waiting { forces: self, answered: false };
                let answer = timeout(FOREVER, guessing.guess(&name)).await;
                waiting.answered = true;
                match answer {
                    Ok(Ok(refusal)) => self.count(&format!("wrong login: {}", word(&refusal))),
                    Ok(Err(_)) => {
                        self.count("wrong login: connection ended");
                        break;
                    }
                    Err(_) => self.count("wrong login: no answer"),
                }
            }
        } else {
            self.count("wrong login: not let as far as a login");
        }
        sleep(NEXT_GUESS).await;
    }
}

/// A guess that the Room has, which counts as waiting if the siege ends before it is answered.
struct Waiting<'a> {
    forces: &'a Forces,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.forces.count("wrong login: waiting at the end");
        }
    }
}

fn word(refusal: &LoginRefusal) -> &'static str {
    match refusal {
        LoginRefusal::Credentials => "wrong credentials",
        LoginRefusal::Busy { .. } => "come back later",
        LoginRefusal::TooManyAttempts { .. } => "too many attempts",
        LoginRefusal::Banned { .. } => "kept out",
        _ => "another refusal",
    }
}
