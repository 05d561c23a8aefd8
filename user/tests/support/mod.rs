//! A Room of a test's own: it speaks real TLS and real frames, does what the test says, and writes down what
//! it heard.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::{Identity, InstanceId, Purpose};
use parlor_protocol::limits::CONTROL_FRAME;
use parlor_protocol::presence::Encryption;
use parlor_protocol::refusal::CloseCode;
use parlor_protocol::wire::control::{
    ALPN, Closing, Credentials, EXPORTER_LABEL, Features, HelloReply, LENGTH_BYTES, Login, Member, Roster,
    Ticket, TicketSecret, ToRoom, ToUser, VERSION, Welcome, frame_length, login_proof_message,
};
use parlor_protocol::wire::preface;
use parlor_user::data::DataDir;
use parlor_user::net::interfaces::Reachability;
use parlor_user::net::listener::CheckKey;
use parlor_user::net::room::{JoinError, Joined, RoomClient, RoomEvent, RoomOptions};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use zeroize::Zeroizing;

/// Nothing here takes this long; a test that waits longer has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// A user in a room, by the Room's client alone.
pub struct User {
    pub client: RoomClient,
    pub joined: Joined,
    pub events: mpsc::Receiver<RoomEvent>,
}

impl User {
    pub async fn join(options: RoomOptions) -> Result<Self, JoinError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let join = RoomClient::join(options, &tasks, &stop);
        let (client, joined, events) = timeout(LONG, join).await.unwrap()?;
        Ok(Self { client, joined, events })
    }
}

/// How a Room answers a login.
pub type Verdict = Box<dyn FnMut(&Login) -> ToUser + Send>;

/// What a Room is like.
pub struct Character {
    /// The seed of its identity.
    pub seed: u8,
    /// What it shows in the TLS handshake.
    pub certificate: Certificate,
    /// Whether its proof is over this connection.
    pub honest_proof: bool,
    /// Whether names are accounts.
    pub accounts: bool,
    /// Whether it wants a room password.
    pub room_password: bool,
    /// Whether it checks the user's listener before it lists users, and lists none without the right answer.
    pub checks: bool,
    /// How it answers a login.
    pub verdict: Verdict,
}

/// What a Room shows in the TLS handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Certificate {
    /// A certificate of its identity's key.
    Own,
    /// A certificate of another Ed25519 key.
    OfAnotherKey,
    /// A certificate of its identity's key, without having that key.
    Stolen,
    /// A self-signed certificate of another kind of key.
    OfNobody,
}

impl Default for Character {
    fn default() -> Self {
        Self {
            seed: 1,
            certificate: Certificate::Own,
            honest_proof: true,
            accounts: false,
            room_password: false,
            checks: false,
            verdict: Box::new(|_| welcome(None)),
        }
    }
}

/// A Room that runs until it is dropped.
pub struct FakeRoom {
    /// Where it listens.
    pub socket: SocketAddr,
    /// Its identity.
    pub identity: Arc<Identity>,
    /// Connections whose login was welcomed.
    pub sessions: mpsc::Receiver<FakeSession>,
    logins: Arc<Mutex<Vec<Login>>>,
    greeted: Arc<Mutex<u32>>,
    listener: Arc<TcpListener>,
    task: AbortOnDropHandle<()>,
}

/// A welcomed connection, in the hands of the test.
pub struct FakeSession(pub TlsStream<TcpStream>);

impl FakeRoom {
    /// A Room on a port of the system's choice.
    pub async fn start(character: Character) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::start_on(Arc::new(listener), character)
    }

    /// A Room in the place of one that stopped.
    pub fn start_on(listener: Arc<TcpListener>, character: Character) -> Self {
        let socket = listener.local_addr().unwrap();
        let identity = Arc::new(Identity::from_seed(&[character.seed; 32]));
        let (welcomed, sessions) = mpsc::channel(16);
        let logins = Arc::<Mutex<Vec<Login>>>::default();
        let greeted = Arc::<Mutex<u32>>::default();
        let task = AbortOnDropHandle::new(TaskTracker::new().spawn(serve(
            Arc::clone(&listener),
            character,
            Arc::clone(&identity),
            Arc::clone(&logins),
            Arc::clone(&greeted),
            welcomed,
        )));
        Self { socket, identity, sessions, logins, greeted, listener, task }
    }

    /// Stops, and leaves its place to another, so that nobody else takes the port meanwhile.
    pub async fn stop(self) -> Arc<TcpListener> {
        self.task.abort();
        let _ = self.task.await;
        self.listener
    }

    /// Its address without a fingerprint.
    pub fn address(&self) -> RoomAddress {
        RoomAddress::from_socket(self.socket)
    }

    /// Every login it got, in order.
    pub fn logins(&self) -> Vec<Login> {
        self.logins.lock().unwrap().clone()
    }

    /// How often it said who it is.
    pub fn greeted(&self) -> u32 {
        *self.greeted.lock().unwrap()
    }

    /// The next welcomed connection.
    pub async fn session(&mut self) -> FakeSession {
        tokio::time::timeout(LONG, self.sessions.recv()).await.unwrap().unwrap()
    }
}

impl FakeSession {
    /// What the user says next. `None`: it went.
    pub async fn read(&mut self) -> Option<ToRoom> {
        tokio::time::timeout(LONG, read(&mut self.0)).await.unwrap()
    }

    /// Says something.
    pub async fn write(&mut self, message: &ToUser) {
        write(&mut self.0, message).await.unwrap();
    }

    /// Closes the connection with a reason.
    pub async fn close(mut self, code: CloseCode, reconnect_in_ms: Option<u32>) {
        self.write(&ToUser::Closing(Closing { code, reconnect_in_ms })).await;
        self.0.shutdown().await.unwrap();
    }
}

/// A welcome with a ticket of these bytes.
pub fn welcome(ticket: Option<u8>) -> ToUser {
    ToUser::Welcome(Box::new(Welcome {
        observed: "127.0.0.1:9".parse().unwrap(),
        ticket: ticket.map(|byte| Ticket { secret: TicketSecret([byte; 32]), seconds: 3600 }),
        check_key: [4; 32],
        blacklist: vec!["192.0.2.0/24".parse().unwrap()],
    }))
}

/// Two users that are always there, in two parts.
pub fn roster() -> [Roster; 2] {
    let member = |name: &str, seed| Member {
        name: name.parse().unwrap(),
        identity: Identity::from_seed(&[seed; 32]).public(),
    };
    [
        Roster { joined: vec![member("Bar", 10)], left: vec![], complete: false },
        Roster { joined: vec![member("Baz", 11)], left: vec![], complete: true },
    ]
}

/// Options of a user called Foo that keeps nothing.
pub fn options(address: RoomAddress) -> RoomOptions {
    RoomOptions {
        address,
        name: "Foo".parse().unwrap(),
        password: None,
        room_password: None,
        tofu: false,
        take_over: false,
        instance: InstanceId([3; 16]),
        seed: Zeroizing::new([2; 32]),
        remember: true,
        agent: "test".to_owned(),
        reachability: Reachability {
            lan_id: "office".parse().unwrap(),
            port: 7,
            public: None,
            encryption: Encryption::On,
            addresses: Some(vec![IpAddr::from([10, 0, 0, 1])]),
            aes: true,
        },
        check_key: CheckKey::default(),
        data: DataDir::ephemeral(),
    }
}

/// True if the login came with this password.
pub fn has_password(login: &Login, password: &str) -> bool {
    matches!(&login.credentials, Credentials::Password(secret) if secret.expose() == password)
}

async fn serve(
    listener: Arc<TcpListener>,
    mut character: Character,
    identity: Arc<Identity>,
    logins: Arc<Mutex<Vec<Login>>>,
    greeted: Arc<Mutex<u32>>,
    welcomed: mpsc::Sender<FakeSession>,
) {
    let acceptor = acceptor(character.certificate, character.seed);
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
        if meet(&mut stream, &mut character, &identity, &logins, &greeted).await.is_some() {
            let _ = welcomed.send(FakeSession(stream)).await;
        }
    }
}

/// Greets and answers logins until one is welcomed. `None`: the user went.
async fn meet(
    stream: &mut TlsStream<TcpStream>,
    character: &mut Character,
    identity: &Identity,
    logins: &Mutex<Vec<Login>>,
    greeted: &Mutex<u32>,
) -> Option<()> {
    let ToRoom::Hello(_) = read(stream).await? else { panic!("no hello") };
    let exporter: [u8; 32] =
        stream.get_ref().1.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).unwrap();
    let signed = if character.honest_proof { exporter } else { [0; 32] };
    let hello = HelloReply {
        version: VERSION,
        features: Features::default(),
        room: identity.public(),
        proof: identity.sign(Purpose::RoomProof, &signed),
        accounts: character.accounts,
        room_password: character.room_password,
        allow_unencrypted: false,
    };
    *greeted.lock().unwrap() += 1;
    write(stream, &ToUser::HelloReply(hello)).await.ok()?;
    loop {
        let ToRoom::Login(login) = read(stream).await? else { panic!("no login") };
        let message = login_proof_message(&exporter, &login.name);
        login.identity.verify(Purpose::LoginProof, &message, &login.proof).unwrap();
        login.noise.verify(&login.identity).unwrap();
        let verdict = (character.verdict)(&login);
        let port = login.presence.port;
        logins.lock().unwrap().push(*login);
        write(stream, &verdict).await.ok()?;
        if let ToUser::Welcome(welcome) = verdict {
            if character.checks {
                check(port, &welcome.check_key).await;
            }
            for part in roster() {
                write(stream, &ToUser::Roster(part)).await.ok()?;
            }
            return Some(());
        }
    }
}

/// Asks the listener at a port of this machine for its key.
async fn check(port: u16, key: &[u8; 32]) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(&preface::check(&[9; 32])).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, preface::check_answer(key, &[9; 32]));
}

async fn read(stream: &mut TlsStream<TcpStream>) -> Option<ToRoom> {
    let mut prefix = [0; LENGTH_BYTES];
    stream.read_exact(&mut prefix).await.ok()?;
    let mut bytes = vec![0; frame_length(prefix, CONTROL_FRAME).unwrap()];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(ToRoom::decode(&bytes).unwrap())
}

async fn write(stream: &mut TlsStream<TcpStream>, message: &ToUser) -> std::io::Result<()> {
    stream.write_all(&message.encode()).await?;
    stream.flush().await
}

fn acceptor(certificate: Certificate, seed: u8) -> TlsAcceptor {
    let own = ed25519(seed);
    let other = ed25519(seed ^ 0xff);
    let (shown, signing) = match certificate {
        Certificate::Own => (&own, &own),
        Certificate::OfAnotherKey => (&other, &other),
        Certificate::Stolen => (&own, &other),
        Certificate::OfNobody => {
            let key = &rcgen::KeyPair::generate().unwrap();
            return acceptor_of(key, key);
        }
    };
    acceptor_of(shown, signing)
}

fn ed25519(seed: u8) -> rcgen::KeyPair {
    // PKCS #8 of an Ed25519 key (RFC 8410 section 7).
    const HEAD: [u8; 16] =
        [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der = PrivatePkcs8KeyDer::from([HEAD.as_slice(), &[seed; 32]].concat());
    rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).unwrap()
}

fn acceptor_of(shown: &rcgen::KeyPair, signing: &rcgen::KeyPair) -> TlsAcceptor {
    let certificate =
        rcgen::CertificateParams::new(vec!["room".to_owned()]).unwrap().self_signed(shown).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing.serialize_der()));
    let key = provider.key_provider.load_private_key(key).unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
