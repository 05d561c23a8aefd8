//! What a user is told before it joins.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::InstanceId;
use parlor_protocol::limits::{BODY, BODY_MOST, CALLS_RUNNING};
use parlor_protocol::name::{LanId, NameError, UserName};
use parlor_protocol::presence::Encryption;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::Secret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::callbacks::{Callbacks, Context};
use crate::data::DataDir;
use crate::error::{BuildError, NoPast};
use crate::hub::{Hub, Parts, Settings};
use crate::net::blacklist::Blacklist;
use crate::net::interfaces::{Reachability, has_aes};
use crate::net::listener::{CheckKey, Listener};
use crate::net::room::RoomOptions;
use crate::start::{Past, begin, look_back};
use crate::user::User;

/// How long a `get` waits unless it says otherwise.
const GET_TIMEOUT: Duration = Duration::from_secs(30);
/// Links that wait to be answered.
const ARRIVALS: usize = 64;

/// Where identities and keys are kept.
#[derive(Debug, Clone)]
enum Keep {
    Default,
    In(PathBuf),
    Nothing,
}

/// Builds a [`User`]. Everything but the name has a default. Passwords are hidden from `Debug`.
#[derive(Clone)]
#[must_use = "a builder does nothing until `join` is called"]
pub struct UserBuilder {
    name: String,
    room: Option<String>,
    password: Option<String>,
    room_password: Option<String>,
    public_ip: Option<IpAddr>,
    port: u16,
    lan_id: Option<String>,
    encryption: Encryption,
    data: Keep,
    remember: bool,
    tofu: bool,
    take_over: bool,
    agent: Option<String>,
    max_body: usize,
    calls_running: usize,
    get_timeout: Option<Duration>,
    addresses: Option<Vec<IpAddr>>,
    rungs: Vec<Rung>,
    callbacks: Arc<Callbacks>,
    /// The first name that was none, told by `join`.
    bad_name: Option<NameError>,
    hardware_aes: bool,
}

impl UserBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            room: None,
            password: None,
            room_password: None,
            public_ip: None,
            port: 0,
            lan_id: None,
            encryption: Encryption::On,
            data: Keep::Default,
            remember: true,
            tofu: false,
            take_over: false,
            agent: None,
            max_body: BODY,
            calls_running: CALLS_RUNNING,
            get_timeout: Some(GET_TIMEOUT),
            addresses: None,
            rungs: Rung::ALL.to_vec(),
            callbacks: Arc::default(),
            bad_name: None,
            hardware_aes: has_aes(),
        }
    }

    /// Where the Room is: `room://HOST:PORT/#FINGERPRINT`, as the Room prints it. `room://127.0.0.1:2428` unless
    /// set.
    pub fn room(mut self, address: impl AsRef<str>) -> Self {
        self.room = Some(address.as_ref().to_owned());
        self
    }

    /// The password of the account, 1-71 bytes, where the Room has accounts.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The Room's own password, where it has one.
    pub fn room_password(mut self, password: impl Into<String>) -> Self {
        self.room_password = Some(password.into());
        self
    }

    /// The address under which this machine can be reached from outside. The Room checks it.
    pub fn public_ip(mut self, address: IpAddr) -> Self {
        self.public_ip = Some(address);
        self
    }

    /// The TCP port on which peers reach this user. 0, the default, picks one; set it where a firewall has to be
    /// told.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// What this machine's local network is called; users with the same id try each other's private addresses.
    /// "Default" unless set.
    pub fn lan_id(mut self, lan_id: impl Into<String>) -> Self {
        self.lan_id = Some(lan_id.into());
        self
    }

    /// [`Encryption::Off`] leaves records in the clear between two users that both ask for it, on one host or LAN,
    /// where the Room allows it. On unless set.
    pub fn encryption(mut self, encryption: Encryption) -> Self {
        self.encryption = encryption;
        self
    }

    /// The directory for identities, keys seen before and tickets: `$XDG_STATE_HOME/parlor` unless set, shared
    /// with the command line.
    pub fn data(mut self, directory: impl Into<PathBuf>) -> Self {
        self.data = Keep::In(directory.into());
        self
    }

    /// Keeps nothing on disk: the identity is new each time, and what is learned of Rooms and peers is forgotten
    /// with the program. Peers that talked to an earlier run refuse this one, because its key is another;
    /// so this is for tests and for names that are used once.
    pub fn ephemeral(mut self) -> Self {
        self.data = Keep::Nothing;
        self
    }

    /// Forgets the identity and the ticket with the program, whatever [`data`](Self::data) says; what is learned of
    /// Rooms and peers is kept.
    pub fn guest(mut self) -> Self {
        self.remember = false;
        self
    }

    /// Trusts the key that an unknown Room shows, and remembers it. Compare the fingerprint.
    pub fn tofu(mut self, tofu: bool) -> Self {
        self.tofu = tofu;
        self
    }

    /// Replaces another program that is online under this name with the same identity.
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// Name and version of the program, for the Room's operator; at most 64 bytes.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.agent = Some(agent.into());
        self
    }

    /// The largest body that is sent or taken, in bytes: 1 MiB unless set, at most 64 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Callbacks that may run at once for one peer: 64 unless set.
    pub fn calls_running(mut self, calls: usize) -> Self {
        self.calls_running = calls;
        self
    }

    /// How long a `get` waits unless it says otherwise: 30 s unless set; `None`: as long as it takes.
    pub fn get_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.get_timeout = timeout;
        self
    }

    /// The addresses that peers in the same LAN are told, instead of those of this machine's interfaces.
    pub fn lan_addresses(mut self, addresses: Vec<IpAddr>) -> Self {
        self.addresses = Some(addresses);
        self
    }

    /// The kinds of path this user takes: all unless set. With [`Rung::Relay`] alone no peer learns its address.
    pub fn rungs(mut self, rungs: &[Rung]) -> Self {
        self.rungs = rungs.to_vec();
        self
    }

    /// Whether this processor has instructions for AES, which is found out unless set here. Channels between two
    /// users that both have them are protected by AES-256-GCM, all others by ChaCha20-Poly1305, which is as strong.
    pub fn hardware_aes(mut self, yes: bool) -> Self {
        self.hardware_aes = yes;
        self
    }

    /// Registers a callback before anybody can call, for as long as the user lives. See [`User::on_get`]. A
    /// clone of the builder shares it.
    pub fn on_get<F, Fut, A, T, E>(mut self, name: &str, callback: F) -> Self
    where
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
        T: Serialize,
        E: Serialize,
    {
        match name.parse() {
            Ok(name) => self.callbacks.on_get(name, callback).forever(),
            Err(error) => self.bad_name = self.bad_name.or(Some(error)),
        }
        self
    }

    /// Registers a message handler before anybody can send, for as long as the user lives. See [`User::on_send`].
    /// A clone of the builder shares it.
    pub fn on_send<F, Fut, A>(mut self, event: &str, handler: F) -> Self
    where
        F: Fn(Context, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
        A: DeserializeOwned + Send + 'static,
    {
        match event.parse() {
            Ok(event) => self.callbacks.on_send(event, handler).forever(),
            Err(error) => self.bad_name = self.bad_name.or(Some(error)),
        }
        self
    }

    /// Joins the room. From then on the user answers peers, and rejoins by itself when the Room was gone.
    ///
    /// If the Room cannot be reached, a user that kept introductions of the last 24 h in its data directory starts
    /// with them: it reaches those peers, and joins when the Room is back. [`User::room_outage`] tells that, and
    /// [`Event::RoomBack`](crate::Event::RoomBack) its end.
    ///
    /// # Errors
    ///
    /// See [`BuildError`]. Nothing secret is sent to a Room that is not believed.
    pub async fn join(self) -> Result<User, BuildError> {
        if let Some(error) = self.bad_name {
            return Err(error.into());
        }
        let callbacks = Arc::clone(&self.callbacks);
        let settings = self.settings()?;
        let data = match &self.data {
            Keep::In(path) => DataDir::open(path)?,
            Keep::Default => DataDir::open(&DataDir::default_path(|name| std::env::var_os(name))?)?,
            Keep::Nothing => DataDir::ephemeral(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        let (name, address) = (self.name.parse::<UserName>()?, self.address()?);
        let keeps = self.remember && data.is_lasting();
        let past = if keeps { look_back(&tasks, &data, address, &name).await } else { Err(NoPast::Guest) };
        let listener = self.listen(&past)?;
        let instance = InstanceId(random()?);
        let check_key = CheckKey::default();
        let port = listener.port();
        let options = self.room_options(&listener, instance, check_key.clone(), data.clone())?;
        let reachability = options.reachability.clone();
        // The Room may check this user's address while it answers the login, so the listener runs first.
        let blacklist = Blacklist::default();
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let listening = listener.run(sender, blacklist.clone(), check_key, tasks.clone(), stop.clone());
        tasks.spawn(listening);
        let begun = begin(options, past, &tasks, &stop).await?;
        let hub = Hub::new(Parts {
            name,
            instance,
            settings,
            blacklist,
            tasks: tasks.clone(),
            stop,
            commands: begun.client.commands().clone(),
            callbacks,
            data,
            identity: begun.identity,
            room: begun.room,
            kept: begun.kept,
            start: begun.start,
        });
        tasks.spawn(Arc::clone(&hub).listen_to_room(begun.events));
        tasks.spawn(Arc::clone(&hub).answer_arrivals(arrivals));
        if keeps {
            tasks.spawn(Arc::clone(&hub).keep_introductions(port));
        }
        if reachability.addresses.is_none() {
            tasks.spawn(Arc::clone(&hub).watch_network(reachability));
        }
        Ok(User::new(hub, begun.client, guard))
    }

    fn address(&self) -> Result<RoomAddress, BuildError> {
        Ok(match &self.room {
            Some(address) => address.parse()?,
            None => RoomAddress::default(),
        })
    }

    /// Without a port of the user's choice, the one it had last is taken if it is free: peers that know this user
    /// from then find it there without the Room's help.
    fn listen(&self, past: &Result<Past, NoPast>) -> Result<Listener, BuildError> {
        match past {
            Ok(past) if self.port == 0 && past.kept.port != 0 => match Listener::bind(past.kept.port) {
                Ok(listener) => Ok(listener),
                Err(_) => Ok(Listener::bind(0)?),
            },
            _ => Ok(Listener::bind(self.port)?),
        }
    }

    fn settings(&self) -> Result<Settings, BuildError> {
        let setting = |field, why: &str| Err(BuildError::Setting { field, why: why.to_owned() });
        if self.max_body == 0 || self.max_body > BODY_MOST {
            return setting("max_body", "must be from 1 byte to 64 MiB (67,108,864)");
        }
        if self.calls_running == 0 {
            return setting("calls_running", "must be at least 1");
        }
        if self.agent.as_ref().is_some_and(|agent| agent.len() > 64) {
            return setting("agent", "has at most 64 bytes");
        }
        if self.rungs.is_empty() {
            return setting("rungs", "must name at least one kind of path");
        }
        Ok(Settings {
            encryption: self.encryption,
            rungs: self.rungs.clone(),
            max_body: self.max_body as u32,
            calls_running: self.calls_running,
            get_timeout: self.get_timeout,
        })
    }

    fn room_options(
        self,
        listener: &Listener,
        instance: InstanceId,
        check_key: CheckKey,
        data: DataDir,
    ) -> Result<RoomOptions, BuildError> {
        let address = self.address()?;
        let lan_id = match self.lan_id {
            Some(lan_id) => LanId::try_from(lan_id)?,
            None => LanId::default(),
        };
        let agent =
            self.agent.unwrap_or_else(|| concat!("parlor-user/", env!("CARGO_PKG_VERSION")).to_owned());
        let direct = self.rungs.iter().any(|rung| rung.is_direct());
        Ok(RoomOptions {
            address,
            name: self.name.parse()?,
            password: self.password.map(Secret::new).transpose()?,
            room_password: self.room_password.map(Secret::new).transpose()?,
            tofu: self.tofu,
            take_over: self.take_over,
            instance,
            seed: Zeroizing::new(random()?),
            remember: self.remember,
            agent,
            reachability: Reachability {
                lan_id,
                port: if direct { listener.port() } else { 0 },
                public: self.public_ip,
                encryption: self.encryption,
                addresses: if direct { self.addresses } else { Some(Vec::new()) },
                aes: self.hardware_aes,
            },
            check_key,
            data,
        })
    }
}

impl fmt::Debug for UserBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "..");
        f.debug_struct("UserBuilder")
            .field("name", &self.name)
            .field("room", &self.room)
            .field("password", &hidden(&self.password))
            .field("room_password", &hidden(&self.room_password))
            .field("public_ip", &self.public_ip)
            .field("port", &self.port)
            .field("lan_id", &self.lan_id)
            .field("encryption", &self.encryption)
            .field("data", &self.data)
            .field("remember", &self.remember)
            .field("tofu", &self.tofu)
            .field("take_over", &self.take_over)
            .field("rungs", &self.rungs)
            .finish_non_exhaustive()
    }
}

fn random<const N: usize>() -> Result<[u8; N], BuildError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| BuildError::Random(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_that_is_printed_shows_no_password() {
        let builder = UserBuilder::new("Foo").password("hunter2").room_password("sesame");
        let shown = format!("{builder:?}");
        assert!(shown.contains("Foo") && !shown.contains("hunter2") && !shown.contains("sesame"), "{shown}");
    }
}
