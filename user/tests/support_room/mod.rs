//! A Room in this process and users in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parlor_room::config::RoomConfig;
use parlor_room::{Room, RoomHandle};
use parlor_user::{User, UserBuilder};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Awaits what must come.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LONG, future).await.expect("it comes within a minute")
}

/// A Room whose data directory outlives it.
pub(crate) struct Lobby {
    room: Option<RoomHandle>,
    address: String,
    listen: SocketAddr,
    data: tempfile::TempDir,
}

impl Lobby {
    pub(crate) async fn open() -> Self {
        Self::open_with(|config| config).await
    }

    /// A Room whose configuration is changed first.
    pub(crate) async fn open_with(change: impl FnOnce(RoomConfig) -> RoomConfig) -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = change(configuration((own_loopback(), 0).into(), data.path().into()));
        let (room, listen) = start(config).await;
        let address = room.addresses()[0].to_string();
        Self { room: Some(room), address, listen, data }
    }

    pub(crate) fn user(&self, name: &str) -> UserBuilder {
        User::builder(name).room(&self.address).ephemeral()
    }

    pub(crate) async fn foo_and_bar(&self) -> (User, User) {
        (self.user("Foo").join().await.unwrap(), self.user("Bar").join().await.unwrap())
    }

    pub(crate) async fn stop_room(mut self) -> Self {
        if let Some(room) = self.room.take() {
            within(room.shutdown()).await;
        }
        self
    }

    /// The same Room on the same port.
    pub(crate) async fn start_room(mut self) -> Self {
        let (room, _) = start(configuration(self.listen, self.data.path().into())).await;
        self.room = Some(room);
        self
    }

    pub(crate) async fn close(self, users: impl IntoIterator<Item = User>) {
        for user in users {
            within(user.leave()).await;
        }
        self.stop_room().await;
    }
}

/// Where the system has many loopback addresses, one that nothing else uses: the Room's port is free when it comes
/// back, and nobody answers there meanwhile.
fn own_loopback() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    if cfg!(target_os = "linux") {
        Ipv4Addr::new(127, 100 + COUNT.fetch_add(1, Ordering::Relaxed) % 100, high, low.max(1))
    } else {
        Ipv4Addr::LOCALHOST
    }
}

fn configuration(listen: SocketAddr, data: PathBuf) -> RoomConfig {
    RoomConfig { listen: vec![listen], data: Some(data), ..RoomConfig::default() }
}

async fn start(config: RoomConfig) -> (RoomHandle, SocketAddr) {
    let room = Room::bind(config).await.unwrap();
    let address = room.addresses()[0].clone();
    let parlor_user::protocol::address::Host::Ip(ip) = address.host() else {
        panic!("a Room listens on an address")
    };
    let listen = SocketAddr::new(*ip, address.port());
    (room, listen)
}
