//! A user of a real Room whose identity is in order: it is introduced to its victim, dials it or is dialled by it on
//! one host, and shakes hands as far as its row says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parlor_protocol::address::RoomAddress;
use parlor_protocol::identity::{Identity, InstanceId, PublicIdentity};
use parlor_protocol::introduction::{Introduction, Party};
use parlor_protocol::limits::RECEIVE_WINDOW;
use parlor_protocol::name::{LanId, UserName};
use parlor_protocol::noise::handshake::{
    HandshakeSetup, Initiator, Responder, ResponderPending, framed_message,
};
use parlor_protocol::noise::payload::{Epoch, LinkAccept, LinkHello};
use parlor_protocol::presence::Encryption;
use parlor_protocol::rung::Rung;
use parlor_protocol::wire::control::RungOffer;
use parlor_protocol::wire::peer::RecordHeader;
use parlor_protocol::wire::preface;
use parlor_user::net::interfaces::Reachability;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::client::{Client, Who, who};
use super::ground::Ground;
use super::link::{Link, record};
use super::outcome::Outcome;

/// The longest that a user may take for one step.
const PATIENCE: Duration = Duration::from_secs(40);

/// Most that a hostile peer says it takes of one body.
const MAX_BODY: u32 = 1024 * 1024;

/// A hostile peer.
pub struct Peer {
    /// Its connection to the Room.
    pub client: Client,
    name: UserName,
    identity: Identity,
    listener: TcpListener,
    requests: u32,
}

/// Two users that a Room introduced.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// What the Room states.
    pub introduction: Introduction,
    /// The hostile peer's side of the rungs.
    pub offers: Vec<RungOffer>,
}

impl Peer {
    /// Joins as `who`. With `listens` it can be dialled.
    pub async fn join(room: &RoomAddress, mut who: Who, listens: bool) -> Result<Self> {
        let mut client = Client::connect(Ipv4Addr::LOCALHOST.into(), room).await?;
        let hello = client.hello().await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        who.presence = same_host(if listens { listener.local_addr()?.port() } else { 0 }, &hello.room);
        if let Err(refusal) = client.login(&who).await? {
            bail!("the hostile peer is refused: {refusal}");
        }
        Ok(Self { client, name: who.name.parse()?, identity: who.identity(), listener, requests: 0 })
    }

    /// A peer with this name, whose identity is as good as any.
    pub async fn named(room: &RoomAddress, name: &str, listens: bool) -> Result<Self> {
        Self::join(room, who(name, seed_of(name)), listens).await
    }

    /// Asks to be introduced.
    pub async fn asks_for(&mut self, victim: &str) -> Result<Meeting> {
        self.requests += 1;
        self.client.asks_for(self.requests, victim).await?;
        match self.client.answer(self.requests).await? {
            Ok(introduced) => self.meeting(&introduced),
            Err(outcome) => bail!("not introduced: {outcome}"),
        }
    }

    /// Waits until somebody asks for it.
    pub async fn is_asked_for(&mut self) -> Result<Meeting> {
        let introduced = self.client.introduced().await?;
        self.meeting(&introduced)
    }

    fn meeting(&self, introduced: &parlor_protocol::wire::control::Introduced) -> Result<Meeting> {
        let introduction = self.client.statement(introduced)?;
        Ok(Meeting { introduction, offers: introduced.rungs.clone() })
    }

    /// Its epoch, unless it lies.
    pub fn epoch(&self) -> Epoch {
        Epoch { instance: InstanceId([seed_of(self.name.as_str()); 16]), generation: 0 }
    }

    /// What it says first, unless it lies.
    pub fn hello(&self) -> LinkHello {
        LinkHello { epoch: self.epoch(), peer_epoch: None, recv_next: 0, max_body: MAX_BODY, features: 0 }
    }

    /// What it answers, unless it lies.
    pub fn accept(&self) -> LinkAccept {
        LinkAccept { epoch: self.epoch(), recv_next: 0, max_body: MAX_BODY, features: 0 }
    }

    /// Makes message 1.
    pub fn opens(&self, meeting: &Meeting, rung: Rung, payload: &[u8]) -> Result<(Initiator, Vec<u8>)> {
        Ok(Initiator::start(self.setup(&meeting.introduction, rung, true), payload)?)
    }

    /// Reads message 1.
    pub fn reads(&self, meeting: &Meeting, message: &[u8]) -> Result<(LinkHello, ResponderPending)> {
        let setup = self.setup(&meeting.introduction, Rung::SameHost, false);
        let (payload, pending) = Responder::answer(setup, message)?;
        Ok((LinkHello::decode(&payload)?, pending))
    }

    fn setup<'a>(
        &'a self,
        introduction: &'a Introduction,
        rung: Rung,
        initiator: bool,
    ) -> HandshakeSetup<'a> {
        static DRAWN: AtomicU64 = AtomicU64::new(1);
        // Who has no secrets needs no chance, only another number each time.
        let mut ephemeral = Zeroizing::new([7; 32]);
        ephemeral[..8].copy_from_slice(&DRAWN.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let (local, local_name) = (&self.identity, &self.name);
        HandshakeSetup { introduction, local, local_name, initiator, rung, ephemeral }
    }

    /// Connects to the victim's listener and says nothing yet.
    pub async fn connects(&self, meeting: &Meeting) -> Result<TcpStream> {
        self.connects_from(Ipv4Addr::LOCALHOST.into(), meeting).await
    }

    /// The same from another address of loopback's.
    pub async fn connects_from(&self, from: IpAddr, meeting: &Meeting) -> Result<TcpStream> {
        let to = meeting.offers.iter().flat_map(|offer| &offer.dial).find(|to| to.ip().is_loopback());
        Ok(Ground::connect(from, *to.context("the Room offers no address")?).await?)
    }

    /// Connects and sends message 1 with this hello. Gives what it sent, too.
    pub async fn dials(
        &self,
        meeting: &Meeting,
        hello: &LinkHello,
    ) -> Result<(TcpStream, Initiator, Vec<u8>)> {
        let mut stream = self.connects(meeting).await?;
        let (initiator, message) = self.opens(meeting, Rung::SameHost, &hello.encode())?;
        let said = [preface::link(&meeting.introduction.id).as_slice(), &framed_message(&message)].concat();
        stream.write_all(&said).await?;
        Ok((stream, initiator, said))
    }

    /// Itself, as a Room states it.
    pub fn party(&self) -> Party {
        let (identity, noise) = (self.identity.public(), self.identity.noise_certificate());
        Party { name: self.name.clone(), identity, noise }
    }

    /// The link that a handshake of its makes; its first record has not been said.
    pub async fn finishes(&self, mut stream: TcpStream, initiator: Initiator) -> Result<Link> {
        let Ok(message) = message_2(&mut stream).await? else { bail!("the victim refused") };
        let (payload, keys) = initiator.finish(&message)?;
        Link::new(stream, keys, LinkAccept::decode(&payload)?.epoch)
    }

    /// A link that it dialled with this hello; its first record has not been said.
    pub async fn dialled(&self, meeting: &Meeting, hello: &LinkHello) -> Result<Result<Link, Outcome>> {
        let (mut stream, initiator, _) = self.dials(meeting, hello).await?;
        Ok(match message_2(&mut stream).await? {
            Ok(message) => {
                let (payload, keys) = initiator.finish(&message)?;
                let accept = LinkAccept::decode(&payload)?;
                Ok(Link::new(stream, keys, accept.epoch)?)
            }
            Err(outcome) => Err(outcome),
        })
    }

    /// A link like any other, dialled by it.
    pub async fn links(&self, meeting: &Meeting) -> Result<Link> {
        let Ok(mut link) = self.dialled(meeting, &self.hello()).await? else { bail!("the victim refused") };
        link.say(&record(first_words(), &[])).await?;
        Ok(link)
    }

    /// The victim's next connection and what it says first: its preface and message 1.
    pub async fn is_dialled(&self) -> Result<(TcpStream, Vec<u8>)> {
        let dialled = async {
            let (mut stream, _) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut head = [0; preface::LINK_BYTES];
            stream.read_exact(&mut head).await?;
            preface::parse_link(&head)?;
            let mut message = vec![0; usize::from(stream.read_u16_le().await?)];
            stream.read_exact(&mut message).await?;
            Ok((stream, message))
        };
        timeout(PATIENCE, dialled).await.context("the victim does not dial")?
    }

    /// A link that the victim dialled, answered with this.
    pub async fn answered(&self, meeting: &Meeting, accept: &LinkAccept) -> Result<Link> {
        let (mut stream, message) = self.is_dialled().await?;
        let (hello, pending) = self.reads(meeting, &message)?;
        let (message, keys) = pending.reply(&accept.encode())?;
        stream.write_all(&framed_message(&message)).await?;
        Link::new(stream, keys, hello.epoch)
    }

    /// A link like any other, dialled by the victim.
    pub async fn accepts(&self, meeting: &Meeting) -> Result<Link> {
        let mut link = self.answered(meeting, &self.accept()).await?;
        link.say(&record(first_words(), &[])).await?;
        Ok(link)
    }
}

/// What the first record on a link says.
pub fn first_words() -> RecordHeader {
    RecordHeader { ack: Some(0), credit: Some(RECEIVE_WINDOW), seq: None }
}

/// What the victim answers to message 1.
pub async fn message_2(stream: &mut TcpStream) -> Result<Result<Vec<u8>, Outcome>> {
    let read = async {
        let Ok(len) = stream.read_u16_le().await else { return Ok(Err(Outcome::Dropped)) };
        if len == 0 {
            return Ok(Err(Outcome::Refused(stream.read_u16_le().await?.into())));
        }
        let mut message = vec![0; usize::from(len)];
        stream.read_exact(&mut message).await?;
        Ok(Ok(message))
    };
    timeout(PATIENCE, read).await.context("the victim neither answers nor hangs up")?
}

/// An address of the machine's own that others are told to dial.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn same_host(port: u16, room: &PublicIdentity) -> parlor_protocol::presence::Presence {
    let reachability = Reachability {
        lan_id: LanId::default(),
        port,
        public: None,
        encryption: Encryption::On,
        // Who names neither a port nor an address takes the relay only.
        addresses: Some(vec![Ipv4Addr::new(192, 168, 77, 77).into()]),
        aes: false,
    };
    reachability.presence(room)
}

fn seed_of(name: &str) -> u8 {
    name.bytes().fold(1, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte))
}
