//! A client that speaks the real protocol up to a password that is wrong.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use parlor_protocol::identity::{Identity, InstanceId, Purpose};
use parlor_protocol::limits::CONTROL_FRAME;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::LoginRefusal;
use parlor_protocol::wire::control::{
    Credentials, Hello, LENGTH_BYTES, Login, Secret, ToRoom, ToUser, frame_length, login_proof_message,
};
use parlor_user::net::tls::{client_config, exporter_of};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ground::connect;

/// Whoever guesses. One identity serves all: the Room does not look at it before the password is right.
#[derive(Clone)]
pub(super) struct Stranger {
    connector: TlsConnector,
    identity: Arc<Identity>,
}

impl Stranger {
    /// Somebody nobody knows.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { connector: client_config()?.into(), identity: Arc::new(Identity::from_seed(&[66; 32])) })
    }

    /// Comes as far as a login may be tried.
    pub(super) async fn greet(&self, from: IpAddr, room: SocketAddr) -> Result<Guessing> {
        let stream = connect(from, room).await?;
        let mut stream = self.connector.connect(ServerName::from(room.ip()), stream).await?;
        let exporter = exporter_of(stream.get_ref().1)?;
        stream.write_all(&ToRoom::Hello(Hello::new("siege")).encode()).await?;
        match read(&mut stream).await? {
            ToUser::HelloReply(_) => Ok(Guessing { stream, exporter, identity: Arc::clone(&self.identity) }),
            other => bail!("{other:?}"),
        }
    }
}

/// A connection on which passwords are guessed.
pub(super) struct Guessing {
    stream: TlsStream<TcpStream>,
    exporter: [u8; 32],
    identity: Arc<Identity>,
}

impl Guessing {
    /// Tries a wrong password for `name` and says what the Room said.
    pub(super) async fn guess(&mut self, name: &str) -> Result<LoginRefusal> {
        let name = name.parse()?;
        let login = Login {
            proof: self.identity.sign(Purpose::LoginProof, &login_proof_message(&self.exporter, &name)),
            name,
            credentials: Credentials::Password(Secret::new("not this one".to_owned())?),
            room_password: None,
            identity: self.identity.public(),
            noise: self.identity.noise_certificate(),
            instance: InstanceId([1; 16]),
            take_over: false,
            presence: Presence {
                host_tag: HostTag([1; 16]),
                lan_id: "siege".parse()?,
                port: 0,
                private: Vec::new(),
                public: None,
                encryption: Encryption::On,
                aes: false,
            },
        };
        self.stream.write_all(&ToRoom::Login(Box::new(login)).encode()).await?;
        match read(&mut self.stream).await? {
            ToUser::LoginRefused(refusal) => Ok(refusal),
            ToUser::Closing(closing) => bail!("{}", closing.code),
            other => bail!("{other:?}"),
        }
    }
}

async fn read(stream: &mut TlsStream<TcpStream>) -> Result<ToUser> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await.context("hung up on")?;
    let mut frame = vec![0; frame_length(prefix, CONTROL_FRAME)?];
    stream.read_exact(&mut frame).await.context("hung up on")?;
    Ok(ToUser::decode(&frame)?)
}

/// What a TLS client says first, to be said slowly.
pub(super) fn client_hello(room: IpAddr) -> Result<Vec<u8>> {
    let mut connection = rustls::ClientConnection::new(client_config()?, ServerName::from(room))?;
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes)?;
    Ok(bytes)
}
