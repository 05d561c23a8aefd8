//! A user of a Room that does no more than the wire asks for, so that tests can say anything at any time.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(missing_docs, reason = "names say it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parlor_protocol::address::{Host, RoomAddress};
use parlor_protocol::identity::{Identity, InstanceId, PublicIdentity, Purpose};
use parlor_protocol::presence::{Encryption, HostTag, Presence};
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{
    ALPN, Closing, Credentials, EXPORTER_LABEL, Hello, HelloReply, Introduce, Introduced, LENGTH_BYTES,
    Login, Member, RelayToken, Secret, ToRoom, ToUser, Welcome, login_proof_message,
};
use parlor_protocol::wire::preface;
use parlor_room::{Room, RoomConfig, RoomHandle};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// No step of a test takes longer, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Room on a free port of loopback.
pub async fn room(config: RoomConfig) -> RoomHandle {
    Room::bind(RoomConfig { listen: vec![([127, 0, 0, 1], 0).into()], ..config }).await.unwrap()
}

/// A Room where, if the system has many loopback addresses, nothing else is: when it is gone, nobody answers there.
pub async fn lone_room(config: RoomConfig) -> RoomHandle {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let own = [127, 100 + COUNT.fetch_add(1, Ordering::Relaxed) % 100, high, low.max(1)];
    let address = if cfg!(target_os = "linux") { own } else { [127, 0, 0, 1] };
    Room::bind(RoomConfig { listen: vec![(address, 0).into()], ..config }).await.unwrap()
}

/// Where it listens.
pub fn socket(address: &RoomAddress) -> SocketAddr {
    match address.host() {
        Host::Ip(ip) => (*ip, address.port()).into(),
        Host::Name(name) => panic!("{name} is no address"),
    }
}

/// A connection on which nothing was said yet.
pub struct Connected {
    stream: TlsStream<TcpStream>,
    pub exporter: [u8; 32],
}

/// A connection after the hellos.
pub struct Client {
    connection: Connected,
    pub hello: HelloReply,
}

/// What a user says of itself.
#[derive(Clone)]
pub struct Who {
    pub name: &'static str,
    pub seed: [u8; 32],
    pub credentials: Credentials,
    pub room_password: Option<Secret>,
    pub instance: u8,
    pub take_over: bool,
    pub presence: Presence,
}

/// A user of an open Room.
pub fn who(name: &'static str, seed: u8) -> Who {
    Who {
        name,
        seed: [seed; 32],
        credentials: Credentials::Open,
        room_password: None,
        instance: seed,
        take_over: false,
        presence: Presence {
            host_tag: HostTag([seed; 16]),
            lan_id: "office".parse().unwrap(),
            port: 4000 + u16::from(seed),
            private: vec![[10, 0, 0, seed].into()],
            public: None,
            encryption: Encryption::On,
            aes: true,
        },
    }
}

impl Who {
    pub fn password(self, text: &str) -> Self {
        Self { credentials: Credentials::Password(Secret::new(text.into()).unwrap()), ..self }
    }

    pub fn public(&self) -> PublicIdentity {
        Identity::from_seed(&self.seed).public()
    }
}

impl Connected {
    pub async fn to(address: &RoomAddress) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(socket(address)).await?).await
    }

    /// One whose system takes no more than a few KiB for it.
    pub async fn with_little_room(address: &RoomAddress) -> std::io::Result<Self> {
        let little = TcpSocket::new_v4()?;
        little.set_recv_buffer_size(4096)?;
        Self::over(little.connect(socket(address)).await?).await
    }

    async fn over(stream: TcpStream) -> std::io::Result<Self> {
        let connector = TlsConnector::from(Arc::new(client_config()));
        let stream = connector.connect(ServerName::try_from("parlor-room").unwrap(), stream).await?;
        let exporter = stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, None).unwrap();
        Ok(Self { stream, exporter })
    }

    pub async fn send(&mut self, message: ToRoom) {
        self.send_bytes(&message.encode()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<ToUser> {
        let read = async {
            let mut prefix = [0; LENGTH_BYTES];
            self.stream.read_exact(&mut prefix).await.ok()?;
            let mut bytes = vec![0; u32::from_le_bytes(prefix) as usize];
            self.stream.read_exact(&mut bytes).await.ok()?;
            Some(ToUser::decode(&bytes).unwrap())
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the Room says nothing")
    }

    pub fn certificate(&self) -> Vec<u8> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

impl Client {
    /// Connects, says hello and checks the Room's proof.
    pub async fn connect(room: &RoomHandle) -> Self {
        Self::greet(room, Connected::to(&room.addresses()[0]).await.unwrap()).await
    }

    /// Says hello and checks the Room's proof.
    pub async fn greet(room: &RoomHandle, mut connection: Connected) -> Self {
        connection.send(ToRoom::Hello(Hello::new("test/1"))).await;
        let Some(ToUser::HelloReply(hello)) = connection.next().await else { panic!("no hello") };
        hello.room.verify(Purpose::RoomProof, &connection.exporter, &hello.proof).unwrap();
        assert_eq!(hello.room.fingerprint(), room.fingerprint());
        Self { connection, hello }
    }

    /// Connects and logs in.
    pub async fn join(room: &RoomHandle, who: &Who) -> (Self, Welcome) {
        let mut client = Self::connect(room).await;
        let welcome = client.login(who).await.unwrap();
        (client, welcome)
    }

    pub async fn login(&mut self, who: &Who) -> Result<Welcome, LoginRefusal> {
        let identity = Identity::from_seed(&who.seed);
        let name = who.name.parse().unwrap();
        let login = Login {
            proof: identity.sign(Purpose::LoginProof, &login_proof_message(&self.connection.exporter, &name)),
            name,
            credentials: who.credentials.clone(),
            room_password: who.room_password.clone(),
            identity: identity.public(),
            noise: identity.noise_certificate(),
            instance: InstanceId([who.instance; 16]),
            take_over: who.take_over,
            presence: who.presence.clone(),
        };
        self.send(ToRoom::Login(Box::new(login))).await;
        match self.next().await {
            ToUser::Welcome(welcome) => Ok(*welcome),
            ToUser::LoginRefused(refusal) => Err(refusal),
            other => panic!("neither welcome nor refusal: {other:?}"),
        }
    }

    pub async fn send(&mut self, message: ToRoom) {
        self.connection.send(message).await;
    }

    pub async fn next(&mut self) -> ToUser {
        self.connection.next().await.expect("the Room closed the connection")
    }

    /// Reads on until the connection ends.
    pub async fn hears_nothing_more(&mut self) {
        while self.connection.next().await.is_some() {}
    }

    /// Reads on until the Room says why it closes.
    pub async fn closing(&mut self) -> Closing {
        loop {
            if let ToUser::Closing(closing) = self.next().await {
                return closing;
            }
        }
    }

    pub async fn close_code(&mut self) -> CloseCode {
        self.closing().await.code
    }

    /// The whole roster after a welcome, by name.
    pub async fn roster(&mut self) -> Vec<Member> {
        let mut members = Vec::new();
        loop {
            if let ToUser::Roster(roster) = self.next().await {
                members.extend(roster.joined);
                if roster.complete {
                    members.sort_by(|a, b| a.name.cmp(&b.name));
                    return members;
                }
            }
        }
    }

    /// Reads on until somebody with this name has come.
    pub async fn sees_join(&mut self, name: &str) {
        loop {
            if let ToUser::Roster(roster) = self.next().await
                && roster.joined.iter().any(|member| member.name.as_str() == name)
            {
                return;
            }
        }
    }

    /// Reads on until somebody with this name has gone.
    pub async fn sees_leave(&mut self, name: &str) {
        loop {
            if let ToUser::Roster(roster) = self.next().await
                && roster.left.iter().any(|left| left.as_str() == name)
            {
                return;
            }
        }
    }

    pub async fn ask_for(&mut self, request: u32, peer: &str) {
        self.send(ToRoom::Introduce(Introduce { request, peer: peer.parse().unwrap() })).await;
    }

    pub async fn introduced(&mut self) -> Introduced {
        loop {
            match self.next().await {
                ToUser::Introduced(introduced) => return *introduced,
                ToUser::IntroductionRefused(_, why) => panic!("not introduced: {why:?}"),
                _ => {}
            }
        }
    }
}

/// A link to the Room's relay that has shown its token.
pub async fn relayed(room: &RoomHandle, token: &RelayToken) -> TcpStream {
    let mut link = TcpStream::connect(socket(&room.addresses()[0])).await.unwrap();
    link.write_all(&preface::relay(token)).await.unwrap();
    link
}

fn client_config() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = SignatureOnly(Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Takes any certificate whose key signed the handshake: tests check the key themselves.
#[derive(Debug)]
struct SignatureOnly(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for SignatureOnly {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
