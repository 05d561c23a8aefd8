//! Relayed links: bytes from one socket to the other, both ways, until one end is done.
//!
//! A pair costs two fixed buffers. Nothing is queued: while one end does not read, the other is not
//! read from, so back-pressure is TCP's own. The Room looks at nothing that it copies.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use parlor_protocol::limits::{LINK_KEEPALIVE, RELAY_BUFFER};
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::preface::{RELAY_READY, RELAY_REFUSED};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::lock;
use crate::clock;
use crate::config::RelayLimits;
use crate::core::rate::TokenBucket;

/// How many bytes a user may still have relayed, over all its pairs.
pub(crate) type Quota = Arc<Mutex<TokenBucket>>;

/// The quotas of all users. One is remembered when its user's pairs have ended, so that a new pair is no new quota.
#[derive(Debug)]
pub(crate) struct Quotas {
    rate: u64,
    burst: u64,
    of_user: HashMap<UserName, Quota>,
}

/// Quotas that are remembered before those that nobody uses and that are whole again are forgotten.
const QUOTAS: usize = 4_096;
/// Quotas that are remembered at most, unless all are in use.
const QUOTAS_MOST: usize = 65_536;

impl Quotas {
    /// Every user has as much as `limits` say.
    pub(crate) fn new(limits: &RelayLimits) -> Self {
        Self { rate: limits.rate, burst: limits.burst, of_user: HashMap::new() }
    }

    /// The quota of a user: one for all its pairs, those to come among them.
    pub(crate) fn of(&mut self, user: UserName, now: Instant) -> Quota {
        if self.of_user.len() >= QUOTAS && !self.of_user.contains_key(&user) {
            self.of_user.retain(|_, quota| is_used(quota) || lock(quota).level(now) < self.burst);
        }
        if self.of_user.len() >= QUOTAS_MOST {
            self.of_user.retain(|_, quota| is_used(quota));
        }
        let whole = || Arc::new(Mutex::new(TokenBucket::new(self.rate, self.burst, now)));
        Arc::clone(self.of_user.entry(user).or_insert_with(whole))
    }
}

/// True if a pair holds it.
fn is_used(quota: &Quota) -> bool {
    Arc::strong_count(quota) > 1
}

/// When one direction has ended, the other may finish what it has under way for this long.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// For the one byte, or three, with which the Room answers a token.
const ANSWER: Duration = Duration::from_secs(2);

/// Counts the bytes of one pair, both ways.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copied(Arc<AtomicU64>);

impl Copied {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells both ends that they are together and copies until one is done. Each end's bytes count against its own
/// user's quota.
pub(crate) async fn splice(mut links: [TcpStream; 2], quotas: [Quota; 2], copied: Copied) {
    for link in &mut links {
        set_up(link);
        if !matches!(timeout(ANSWER, link.write_all(&[RELAY_READY])).await, Ok(Ok(()))) {
            return;
        }
    }
    let [first, second] = &mut links;
    let (from_first, to_first) = first.split();
    let (from_second, to_second) = second.split();
    let forth = copy(from_first, to_second, &quotas[0], &copied.0);
    let back = copy(from_second, to_first, &quotas[1], &copied.0);
    tokio::pin!(forth, back);
    // Either way the end of one direction is passed on as an end, and errors end both.
    tokio::select! {
        done = &mut forth => if done.is_ok() { let _ = timeout(LAST_BYTES, back).await; },
        done = &mut back => if done.is_ok() { let _ = timeout(LAST_BYTES, forth).await; },
    }
}

/// Refuses a link with the reason, and reads on until the other end has closed, so that a reset does not take the
/// reason along.
pub(crate) async fn refuse(mut link: TcpStream, code: CloseCode) {
    let [low, high] = u16::from(code).to_le_bytes();
    let _ = timeout(ANSWER, async {
        link.write_all(&[RELAY_REFUSED, low, high]).await?;
        link.shutdown().await?;
        let mut thrown_away = [0; 256];
        while link.read(&mut thrown_away).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    quota: &Mutex<TokenBucket>,
    copied: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; RELAY_BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        copied.fetch_add(read as u64, Ordering::Relaxed);
        let pause = lock(quota).take(read as u64, clock::now().instant);
        if let Some(pause) = pause {
            sleep(pause).await;
        }
    }
}

/// Small records must not wait for each other, and an end that vanished without a word must be noticed some day: a
/// pair that is merely silent lives as long as its TCP connections.
fn set_up(link: &TcpStream) {
    let _ = link.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(LINK_KEEPALIVE).with_interval(LINK_KEEPALIVE / 5);
    let _ = SockRef::from(link).set_tcp_keepalive(&keepalive);
    // To a user on this host no congestion control has to pace what is copied: BBR would set a timer for each segment.
    #[cfg(target_os = "linux")]
    if link.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback()) {
        let _ = SockRef::from(link).set_tcp_congestion(b"reno");
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    fn quota(rate: u64, burst: u64) -> Quota {
        Arc::new(Mutex::new(TokenBucket::new(rate, burst, clock::now().instant)))
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_in_order_and_the_end_of_one_is_the_end_of_both() {
        let ((mut foo, foo_at_room), (mut bar, bar_at_room)) = (connected().await, connected().await);
        let copied = Copied::default();
        let splice = splice([foo_at_room, bar_at_room], [quota(0, 0), quota(0, 0)], copied.clone());
        let talk = async {
            assert_eq!(
                (foo.read_u8().await.unwrap(), bar.read_u8().await.unwrap()),
                (RELAY_READY, RELAY_READY)
            );
            let sent: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
            let mut received = vec![0; sent.len()];
            let (written, read) = tokio::join!(foo.write_all(&sent), bar.read_exact(&mut received));
            written.unwrap();
            read.unwrap();
            assert_eq!(sent, received);
            bar.write_all(b"back").await.unwrap();
            let mut back = [0; 4];
            foo.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"back");
            drop(foo);
            assert_eq!(bar.read(&mut back).await.unwrap(), 0);
            drop(bar);
        };
        tokio::join!(splice, talk);
        assert_eq!(copied.bytes(), 1_000_004);
    }

    #[test]
    fn a_new_pair_is_no_new_quota() {
        let limits = RelayLimits { rate: 1_000, burst: 100_000, ..RelayLimits::default() };
        let (mut quotas, now) = (Quotas::new(&limits), clock::now().instant);
        let name = |n: usize| format!("user{n}").parse::<UserName>().unwrap();
        let left = |quotas: &mut Quotas, n, now| lock(&quotas.of(name(n), now)).level(now);
        lock(&quotas.of(name(0), now)).take(60_000, now);
        assert_eq!(left(&mut quotas, 0, now), 40_000);
        for n in 1..3 * QUOTAS {
            quotas.of(name(n), now);
        }
        assert!(quotas.of_user.len() <= QUOTAS, "what is whole need not be remembered");
        assert_eq!(left(&mut quotas, 0, now), 40_000);
        assert_eq!(left(&mut quotas, 0, now + Duration::from_secs(60)), 100_000);
    }

    #[tokio::test]
    async fn a_refused_link_is_told_why() {
        let (mut foo, at_room) = connected().await;
        let told = async {
            foo.write_all(b"bytes that nobody reads").await.unwrap();
            let mut answer = Vec::new();
            foo.read_to_end(&mut answer).await.unwrap();
            drop(foo);
            answer
        };
        let (answer, ()) = tokio::join!(told, refuse(at_room, CloseCode::Introduction));
        assert_eq!(answer, [RELAY_REFUSED, 32, 0]);
    }
}
