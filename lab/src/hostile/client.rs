//! A client of the Room that says what its row tells it to, at the level that its row wants: bytes before TLS, bytes
//! within TLS, frames, a login with one thing wrong.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use parlor_protocol::address::{Host, RoomAddress};
use parlor_protocol::identity::{Identity, InstanceId, NoiseCertificate, PublicIdentity, Purpose, Signature};
use parlor_protocol::introduction::Introduction;
use parlor_protocol::name::LanId;
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::LoginRefusal;
use parlor_protocol::wire::control::{
    Credentials, Hello, HelloReply, Introduce, Introduced, LENGTH_BYTES, Login, Secret, ToRoom, ToUser,
    Welcome, login_proof_message,
};
use parlor_user::net::tls;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ground::Ground;
use super::outcome::{self, Outcome};

/// The longest that a Room may take for one answer, its own deadlines included.
const PATIENCE: Duration = Duration::from_secs(40);
/// How often a login is tried that the Room has no time for.
const BUSY: usize = 100;

/// Where a Room listens.
pub fn socket(address: &RoomAddress) -> Result<SocketAddr> {
    match address.host() {
        Host::Ip(ip) => Ok((*ip, address.port()).into()),
        Host::Name(name) => bail!("{name} is no address"),
    }
}

/// Reads to the end of a connection. A reset is an end, too.
pub async fn read_all(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.context("the connection does not end")?;
    Ok(bytes)
}

/// A connection to a Room, within TLS.
pub struct Client {
    stream: TlsStream<TcpStream>,
    /// What proofs are over.
    pub exporter: [u8; 32],
    room: Option<PublicIdentity>,
}

/// Who wants in, and how. Every part can be a lie.
#[derive(Clone)]
pub struct Who {
    /// The name, well-formed.
    pub name: String,
    /// The seed of its identity.
    pub seed: u8,
    /// What it shows.
    pub credentials: Credentials,
    /// The room password.
    pub room_password: Option<Secret>,
    /// The run of its program.
    pub instance: u8,
    /// Whether it takes the name over.
    pub take_over: bool,
    /// Where it says it can be reached.
    pub presence: Presence,
    /// Another proof than its own.
    pub proof: Option<Signature>,
    /// Another certificate than its own.
    pub noise: Option<NoiseCertificate>,
}

/// A user like any other, who can be reached nowhere: it has no listener. It names an address, as one that takes the
/// relay only does not, so that it is offered direct rungs.
pub fn who(name: impl Into<String>, seed: u8) -> Who {
    Who {
        name: name.into(),
        seed,
        credentials: Credentials::Open,
        room_password: None,
        instance: seed,
        take_over: false,
        presence: Presence {
            host_tag: HostTag([seed; 16]),
            lan_id: LanId::default(),
            port: 0,
            private: vec![Ipv4Addr::new(192, 168, 77, 77).into()],
            public: None,
            encryption: Encryption::On,
            aes: false,
        },
        proof: None,
        noise: None,
    }
}

/// A password, well-formed.
pub fn secret(text: &str) -> Result<Secret> {
    Ok(Secret::new(text.to_owned())?)
}

impl Who {
    /// With a password.
    pub fn password(self, text: &str) -> Result<Self> {
        Ok(Self { credentials: Credentials::Password(secret(text)?), ..self })
    }

    /// Its identity.
    pub fn identity(&self) -> Identity {
        Identity::from_seed(&[self.seed; 32])
    }

    /// Its login on a connection with this exporter.
    pub fn login(&self, exporter: &[u8; 32]) -> Result<Login> {
        let identity = self.identity();
        let name = self.name.parse()?;
        let proof = identity.sign(Purpose::LoginProof, &login_proof_message(exporter, &name));
        Ok(Login {
            proof: self.proof.unwrap_or(proof),
            name,
            credentials: self.credentials.clone(),
            room_password: self.room_password.clone(),
            identity: identity.public(),
            noise: self.noise.clone().unwrap_or_else(|| identity.noise_certificate()),
            instance: InstanceId([self.instance; 16]),
            take_over: self.take_over,
            presence: self.presence.clone(),
        })
    }
}

impl Client {
    /// Shakes hands.
    pub async fn connect(from: IpAddr, room: &RoomAddress) -> Result<Self> {
        let stream = Ground::connect(from, socket(room)?).await?;
        let connector = TlsConnector::from(tls::client_config()?);
        let shaken = connector.connect(ServerName::try_from("parlor-room")?, stream);
        let stream = timeout(PATIENCE, shaken).await.context("TLS")??;
        let exporter = tls::exporter_of(stream.get_ref().1)?;
        Ok(Self { stream, exporter, room: None })
    }

    /// Shakes hands and says hello.
    pub async fn greeted(from: IpAddr, room: &RoomAddress) -> Result<Self> {
        let mut client = Self::connect(from, room).await?;
        client.hello().await?;
        Ok(client)
    }

    /// Shakes hands, says hello and logs in.
    pub async fn joined(from: IpAddr, room: &RoomAddress, who: &Who) -> Result<(Self, Welcome)> {
        let mut client = Self::greeted(from, room).await?;
        let welcome = client.login(who).await?.map_err(|refusal| anyhow!("refused: {refusal}"))?;
        Ok((client, welcome))
    }

    /// Says hello.
    pub async fn hello(&mut self) -> Result<HelloReply> {
        self.send(&ToRoom::Hello(Hello::new("hostile/1"))).await?;
        match self.next().await? {
            Some(ToUser::HelloReply(reply)) => {
                reply.room.verify(Purpose::RoomProof, &self.exporter, &reply.proof)?;
                self.room = Some(reply.room);
                Ok(reply)
            }
            other => bail!("no hello: {other:?}"),
        }
    }

    /// Logs in, again while the Room is busy.
    pub async fn login(&mut self, who: &Who) -> Result<Result<Welcome, LoginRefusal>> {
        for _ in 0..BUSY {
            self.send(&ToRoom::Login(Box::new(who.login(&self.exporter)?))).await?;
            match self.next().await? {
                Some(ToUser::LoginRefused(LoginRefusal::Busy { retry_after_ms })) => {
                    sleep(Duration::from_millis(retry_after_ms.into())).await;
                }
                Some(ToUser::LoginRefused(refusal)) => return Ok(Err(refusal)),
                Some(ToUser::Welcome(welcome)) => return Ok(Ok(*welcome)),
                other => bail!("neither welcome nor refusal: {other:?}"),
            }
        }
        bail!("the Room is always busy")
    }

    /// What becomes of a login.
    pub async fn tries(&mut self, who: &Who) -> Result<Outcome> {
        Ok(match self.login(who).await? {
            Ok(_) => Outcome::Served,
            Err(refusal) => Outcome::LoginRefused(outcome::without_numbers(refusal)),
        })
    }

    /// Says something.
    pub async fn send(&mut self, message: &ToRoom) -> Result<()> {
        self.send_bytes(&message.encode()).await
    }

    /// Says these bytes. The Room may have hung up: what it said before that is what counts.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let said = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let _ = timeout(PATIENCE, said).await.context("the Room does not read")?;
        Ok(())
    }

    /// Says no more.
    pub async fn ends(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ToUser>> {
        let read = async {
            let mut prefix = [0; LENGTH_BYTES];
            if self.stream.read_exact(&mut prefix).await.is_err() {
                return Ok(None);
            }
            let mut bytes = vec![0; u32::from_le_bytes(prefix) as usize];
            if self.stream.read_exact(&mut bytes).await.is_err() {
                return Ok(None);
            }
            Ok(Some(ToUser::decode(&bytes)?))
        };
        timeout(PATIENCE, read).await.context("the Room says nothing")?
    }

    /// How the connection ends.
    pub async fn end(&mut self) -> Result<Outcome> {
        let mut told = Outcome::Dropped;
        while let Some(message) = self.next().await? {
            match message {
                ToUser::Closing(closing) => told = Outcome::Closed(closing.code),
                ToUser::LoginRefused(refusal) => {
                    return Ok(Outcome::LoginRefused(outcome::without_numbers(refusal)));
                }
                _ => {}
            }
        }
        Ok(told)
    }

    /// Whether the Room still answers on this connection, or how it ended.
    pub async fn verdict(&mut self) -> Result<Outcome> {
        const NONCE: u64 = 0x7665_7264_6963_7400;
        self.send(&ToRoom::Ping(NONCE)).await?;
        while let Some(message) = self.next().await? {
            match message {
                ToUser::Pong(NONCE) => return Ok(Outcome::Served),
                ToUser::Closing(closing) => return Ok(Outcome::Closed(closing.code)),
                _ => {}
            }
        }
        Ok(Outcome::Dropped)
    }

    /// Asks for an introduction.
    pub async fn asks_for(&mut self, request: u32, peer: &str) -> Result<()> {
        self.send(&ToRoom::Introduce(Introduce { request, peer: peer.parse()? })).await
    }

    /// The answer to a request, passing over everything else.
    pub async fn answer(&mut self, wanted: u32) -> Result<Result<Introduced, Outcome>> {
        while let Some(message) = self.next().await? {
            match message {
                ToUser::Introduced(introduced) if introduced.request == Some(wanted) => {
                    return Ok(Ok(*introduced));
                }
                ToUser::IntroductionRefused(request, why) if request == wanted => {
                    return Ok(Err(Outcome::NotIntroduced(outcome::without_wait(why))));
                }
                ToUser::Closing(closing) => return Ok(Err(Outcome::Closed(closing.code))),
                _ => {}
            }
        }
        Ok(Err(Outcome::Dropped))
    }

    /// The introduction that somebody else asked for, passing over everything else.
    pub async fn introduced(&mut self) -> Result<Introduced> {
        while let Some(message) = self.next().await? {
            match message {
                ToUser::Introduced(introduced) if introduced.request.is_none() => return Ok(*introduced),
                _ => {}
            }
        }
        bail!("the Room closed the connection")
    }

    /// What an introduction states.
    pub fn statement(&self, introduced: &Introduced) -> Result<Introduction> {
        let room = self.room.context("no hello was said")?;
        Ok(introduced.introduction.verify(&room)?)
    }
}
