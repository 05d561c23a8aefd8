//! A user of the Room's that is nothing else: no listener, no peers, no list of who is online.
//!
//! It logs in as any user does (TLS, hello, login, the whole list of users), so the Room cannot tell it from one; what
//! it saves is its own work and memory, so that ten thousand fit beside the Room. It does not check who the Room is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use parlor_user::UserName;
use parlor_user::net::tls;
use parlor_user::protocol::address::RoomAddress;
use parlor_user::protocol::identity::{Identity, InstanceId, Purpose};
use parlor_user::protocol::limits::CONTROL_FRAME;
use parlor_user::protocol::name::LanId;
use parlor_user::protocol::presence::{Encryption, HostTag, Presence};
use parlor_user::protocol::wire::control::{
    Credentials, Hello, LENGTH_BYTES, Login, TicketSecret, ToRoom, ToUser, frame_length, login_proof_message,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// The Room is told that the user is there as often as a full user does.
const PING: Duration = Duration::from_secs(15);
/// The whole login must be done by then; the Room's own deadline is 10 s.
const LOGIN: Duration = Duration::from_secs(30);

/// Who logs in.
pub(super) struct Person {
    name: UserName,
    identity: Identity,
    number: u64,
    /// The ticket of the last login, if the Room gave one.
    pub(super) ticket: Option<TicketSecret>,
}

impl Person {
    /// A user of this name; `number` makes its key.
    pub(super) fn new(name: &str, number: usize) -> Result<Self> {
        let number = number as u64;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        Ok(Self { name: name.parse()?, identity: Identity::from_seed(&seed), number, ticket: None })
    }
}

/// The way to a Room.
#[derive(Clone)]
pub(super) struct Way {
    room: SocketAddr,
    tls: TlsConnector,
}

/// A connection that is logged in.
pub(super) struct Session(TlsStream<TcpStream>);

impl Way {
    /// To the Room that said this address.
    pub(super) fn new(address: &str) -> Result<Self> {
        let address: RoomAddress = address.parse()?;
        let config = tls::client_config()?;
        Ok(Self {
            room: (Ipv4Addr::LOCALHOST, address.port()).into(),
            tls: TlsConnector::from(Arc::clone(&config)),
        })
    }

    /// Logs in and takes the list of users.
    pub(super) async fn login(&self, person: &mut Person, credentials: Credentials) -> Result<Session> {
        tokio::time::timeout(LOGIN, self.log_in(person, credentials)).await.context("a login hangs")?
    }

    async fn log_in(&self, person: &mut Person, credentials: Credentials) -> Result<Session> {
        let tcp = TcpStream::connect(self.room).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.room.ip().into());
        let mut stream = self.tls.connect(name, tcp).await?;
        let exporter = tls::exporter_of(stream.get_ref().1)?;
        write(&mut stream, &ToRoom::Hello(Hello::new("parlor-bench"))).await?;
        let ToUser::HelloReply(hello) = read(&mut stream).await? else { bail!("no answer to hello") };
        let host_tag = HostTag::derive(b"parlor-bench", &hello.room);
        let login = person.login(credentials, &exporter, host_tag);
        write(&mut stream, &ToRoom::Login(Box::new(login))).await?;
        match read(&mut stream).await? {
            ToUser::Welcome(welcome) => person.ticket = welcome.ticket.map(|ticket| ticket.secret),
            other => bail!("{} was not let in: {other:?}", person.name),
        }
        loop {
            match read(&mut stream).await? {
                ToUser::Roster(part) if part.complete => return Ok(Session(stream)),
                ToUser::Closing(closing) => bail!("the Room closes: {closing:?}"),
                _ => {}
            }
        }
    }
}

impl Person {
    fn login(&self, credentials: Credentials, exporter: &[u8; 32], host_tag: HostTag) -> Login {
        let mut instance = [1; 16];
        instance[..8].copy_from_slice(&self.number.to_le_bytes());
        Login {
            name: self.name.clone(),
            credentials,
            room_password: None,
            identity: self.identity.public(),
            proof: self.identity.sign(Purpose::LoginProof, &login_proof_message(exporter, &self.name)),
            noise: self.identity.noise_certificate(),
            instance: InstanceId(instance),
            take_over: false,
            presence: Presence {
                host_tag,
                lan_id: LanId::default(),
                port: 0,
                private: Vec::new(),
                public: None,
                encryption: Encryption::On,
                aes: true,
            },
        }
    }
}

impl Session {
    /// Stays, without looking at what the Room says, until the Room ends it.
    pub(super) async fn stay(mut self) -> Result<()> {
        let (mut ping, mut buffer) = (tokio::time::interval(PING), vec![0; 512]);
        ping.tick().await;
        loop {
            tokio::select! {
                n = self.0.read(&mut buffer) => if n? == 0 { bail!("the Room hung up") },
                _ = ping.tick() => write(&mut self.0, &ToRoom::Ping(1)).await?,
            }
        }
    }
}

async fn write(stream: &mut TlsStream<TcpStream>, message: &ToRoom) -> Result<()> {
    stream.write_all(&message.encode()).await?;
    Ok(stream.flush().await?)
}

async fn read(stream: &mut TlsStream<TcpStream>) -> Result<ToUser> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await?;
    let mut bytes = vec![0; frame_length(prefix, CONTROL_FRAME)?];
    stream.read_exact(&mut bytes).await?;
    Ok(ToUser::decode(&bytes)?)
}
