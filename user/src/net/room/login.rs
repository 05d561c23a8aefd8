//! From a Room that has proved who it is to a session: believe it, remember it, log in, hear who is online.

use std::collections::VecDeque;
use std::sync::Arc;

use parlor_protocol::identity::{Identity, PublicIdentity, Purpose};
use parlor_protocol::limits::{CONTROL_FRAME, WHOLE_LOGIN};
use parlor_protocol::refusal::LoginRefusal;
use parlor_protocol::wire::control::{
    Credentials, HelloReply, Login, Member, Secret, TicketSecret, ToRoom, ToUser, Welcome,
    login_proof_message,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::connect::{Greeted, greet, lost_while_joining};
use super::error::{JoinError, RoomFault};
use super::{Joined, RoomOptions, frames};
use crate::data::{DataDir, DataError, StoredTicket};
use crate::net::tls;
use crate::trust::{self, Distrust, Trust};

/// Users in the list of a Room that are believed to be a list. Ten times the largest room that is tested.
const MEMBERS: usize = 100_000;
/// Other messages that may come between the parts of the first list.
const BETWEEN: usize = 1024;

/// What stays the same from one login to the next.
pub(super) struct Membership {
    pub(super) options: RoomOptions,
    config: Arc<ClientConfig>,
    passport: Option<Passport>,
    take_over: bool,
}

/// Who this user is in one Room.
pub(crate) struct Passport {
    pub(crate) room: PublicIdentity,
    pub(crate) identity: Arc<Identity>,
    pub(crate) ticket: Option<StoredTicket>,
}

/// A connection on which the user is logged in.
pub(super) struct Session {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) joined: Joined,
    /// What the Room said before its list of users was complete.
    pub(super) early: VecDeque<ToUser>,
}

impl Membership {
    /// `passport` is what is known already of who this user is in the Room.
    pub(super) fn new(options: RoomOptions, passport: Option<Passport>) -> Result<Self, JoinError> {
        let take_over = options.take_over;
        Ok(Self { options, config: tls::client_config()?, passport, take_over })
    }

    /// Logs in once, on a new connection.
    pub(super) async fn join(&mut self) -> Result<Session, JoinError> {
        self.options.check_key.store(None);
        let greeted = greet(&self.options.address, &self.options.agent, &self.config).await?;
        let late = |during| JoinError::Timeout { address: self.options.address.clone(), during };
        let (late_login, late_roster) = (late("login"), late("list of users"));
        self.same_room(&greeted)?;
        // The Room must be believed, and remembered, before anything about this user is said.
        let first_use = self.believe(&greeted).await?;
        let passport = self.passport(&greeted.hello).await?;
        let Greeted { mut stream, socket, hello, exporter, .. } = greeted;
        let welcomed = timeout(WHOLE_LOGIN, self.login(&mut stream, &hello, &exporter, &passport)).await;
        let welcome = match welcomed.map_err(|_| late_login) {
            Ok(Ok(welcome)) => welcome,
            Ok(Err(error)) | Err(error) => {
                self.passport = Some(passport);
                return Err(error);
            }
        };
        let identity = Arc::clone(&passport.identity);
        self.keep_ticket(passport, &welcome).await;
        self.take_over = false;
        let roster = timeout(WHOLE_LOGIN, self.first_roster(&mut stream)).await;
        let (members, early) = roster.map_err(|_| late_roster)??;
        let joined = Joined {
            room: hello.room,
            identity,
            first_use,
            room_socket: socket,
            observed: welcome.observed,
            check_key: welcome.check_key,
            blacklist: welcome.blacklist,
            features: hello.features,
            allow_unencrypted: hello.allow_unencrypted,
            members,
        };
        Ok(Session { stream, joined, early })
    }

    /// A membership is in one Room: another in its place is refused, even if nothing remembers the first any more.
    fn same_room(&self, greeted: &Greeted) -> Result<(), JoinError> {
        match &self.passport {
            Some(passport) if passport.room != greeted.hello.room => {
                Err(JoinError::Distrusted(Distrust::Changed {
                    address: self.options.address.clone().without_fingerprint(),
                    expected: passport.room.fingerprint(),
                    seen: greeted.seen.fingerprint,
                }))
            }
            _ => Ok(()),
        }
    }

    /// Decides whether the Room is the right one and remembers its key. True if it is trusted because its key
    /// is the first one seen.
    async fn believe(&self, greeted: &Greeted) -> Result<bool, JoinError> {
        let (address, seen, tofu) = (self.options.address.clone(), greeted.seen, self.options.tofu);
        let believed = on_disk(&self.options.data, move |data| {
            let key = trust::pin_key(&address);
            match trust::decide(&address, data.room_pin(&key)?, seen, tofu) {
                Trust::Believe => Ok(Ok(false)),
                Trust::BelieveAndPin { first_use } => {
                    data.pin_room(&key, seen.fingerprint)?;
                    Ok(Ok(first_use))
                }
                Trust::Refuse(why) => Ok(Err::<bool, Distrust>(why)),
            }
        });
        let first_use = believed.await??;
        if first_use {
            tracing::info!(
                address = %self.options.address, fingerprint = %greeted.seen.fingerprint,
                "this Room is new here: its key is trusted from now on"
            );
        }
        Ok(first_use)
    }

    /// Who this user is in the Room. Read from the disk once.
    async fn passport(&mut self, hello: &HelloReply) -> Result<Passport, JoinError> {
        if let Some(passport) = self.passport.take() {
            return Ok(passport);
        }
        let room = hello.room;
        let data = if self.options.remember { self.options.data.clone() } else { DataDir::ephemeral() };
        let (name, seed) = (self.options.name.clone(), self.options.seed.clone());
        let (identity, ticket) = on_disk(&data, move |data| {
            let identity = data.identity(room.fingerprint(), &name, &seed)?;
            let ticket = data.ticket(room.fingerprint(), &name).unwrap_or_else(|error| {
                tracing::warn!(%error, "the resume ticket cannot be read: logging in without it");
                None
            });
            Ok((Arc::new(identity), ticket))
        })
        .await?;
        Ok(Passport { room, identity, ticket })
    }

    async fn login(
        &self,
        stream: &mut TlsStream<TcpStream>,
        hello: &HelloReply,
        exporter: &[u8; 32],
        passport: &Passport,
    ) -> Result<Welcome, JoinError> {
        let lost = |why| lost_while_joining(&self.options.address, why);
        let mut credentials = match self.ticket(hello, passport) {
            Some(ticket) => Credentials::Ticket(ticket),
            None => self.without_ticket(hello)?,
        };
        loop {
            let had_ticket = matches!(credentials, Credentials::Ticket(_));
            let login = self.login_message(credentials, hello, exporter, &passport.identity);
            frames::write(stream, &ToRoom::Login(Box::new(login))).await.map_err(lost)?;
            match frames::read(stream, CONTROL_FRAME).await.map_err(lost)? {
                ToUser::Welcome(welcome) => {
                    // Before anything else: the Room's check is on its way.
                    self.options.check_key.store(Some(Arc::new(welcome.check_key)));
                    return Ok(*welcome);
                }
                ToUser::LoginRefused(LoginRefusal::Ticket) if had_ticket => {
                    credentials = self.without_ticket(hello)?;
                }
                ToUser::LoginRefused(why) => return Err(JoinError::Refused(why)),
                ToUser::Closing(closing) => return Err(JoinError::Ended(closing)),
                other => return Err(lost(RoomFault::Unexpected(frames::kind(&other)).into())),
            }
        }
    }

    /// The ticket, if the Room needs one and it was won with the passwords that are given now. Whether it has ended is
    /// for the Room to say.
    fn ticket(&self, hello: &HelloReply, passport: &Passport) -> Option<TicketSecret> {
        let needed = hello.accounts || hello.room_password;
        let ticket = passport.ticket.as_ref().filter(|_| needed)?;
        let (password, room_password) = (self.options.password.as_ref(), self.options.room_password.as_ref());
        let none_given = password.is_none() && room_password.is_none();
        let same = none_given || ticket.password_tag == password_tag(&ticket.secret, password, room_password);
        same.then(|| ticket.secret.clone())
    }

    /// What shows that the name is this user's, besides a ticket. Sends no password to a Room that wants
    /// none.
    fn without_ticket(&self, hello: &HelloReply) -> Result<Credentials, JoinError> {
        if hello.room_password && self.options.room_password.is_none() {
            return Err(JoinError::Refused(LoginRefusal::RoomPassword));
        }
        match (hello.accounts, &self.options.password) {
            (false, _) => Ok(Credentials::Open),
            (true, Some(password)) => Ok(Credentials::Password(password.clone())),
            (true, None) => Err(JoinError::Refused(LoginRefusal::PasswordNeeded)),
        }
    }

    fn login_message(
        &self,
        credentials: Credentials,
        hello: &HelloReply,
        exporter: &[u8; 32],
        identity: &Identity,
    ) -> Login {
        let options = &self.options;
        let by_ticket = matches!(credentials, Credentials::Ticket(_));
        Login {
            name: options.name.clone(),
            credentials,
            room_password: options.room_password.clone().filter(|_| hello.room_password && !by_ticket),
            identity: identity.public(),
            proof: identity.sign(Purpose::LoginProof, &login_proof_message(exporter, &options.name)),
            noise: identity.noise_certificate(),
            instance: options.instance,
            take_over: self.take_over,
            presence: options.reachability.presence(&hello.room),
        }
    }

    /// Keeps the ticket of a welcome. A disk that fails costs a bcrypt next time, not this login.
    async fn keep_ticket(&mut self, mut passport: Passport, welcome: &Welcome) {
        let options = &self.options;
        passport.ticket = welcome.ticket.as_ref().map(|ticket| StoredTicket {
            secret: ticket.secret.clone(),
            password_tag: password_tag(
                &ticket.secret,
                options.password.as_ref(),
                options.room_password.as_ref(),
            ),
        });
        let (room, name, ticket) =
            (passport.room.fingerprint(), options.name.clone(), passport.ticket.clone());
        self.passport = Some(passport);
        if !options.remember || ticket.is_none() {
            return;
        }
        let kept = on_disk(&options.data, move |data| data.set_ticket(room, &name, ticket.as_ref()));
        if let Err(error) = kept.await {
            tracing::warn!(%error, "the resume ticket cannot be kept");
        }
    }

    /// Reads until the list of users is complete.
    async fn first_roster(
        &self,
        stream: &mut TlsStream<TcpStream>,
    ) -> Result<(Vec<Member>, VecDeque<ToUser>), JoinError> {
        let lost = |why| lost_while_joining(&self.options.address, why);
        let (mut members, mut early) = (Vec::new(), VecDeque::new());
        loop {
            match frames::read(stream, CONTROL_FRAME).await.map_err(lost)? {
                ToUser::Roster(part) => {
                    members.extend(part.joined);
                    members.retain(|member: &Member| !part.left.contains(&member.name));
                    if part.complete {
                        return Ok((members, early));
                    }
                }
                ToUser::Closing(closing) => return Err(JoinError::Ended(closing)),
                other => early.push_back(other),
            }
            if members.len() > MEMBERS || early.len() > BETWEEN {
                return Err(lost(RoomFault::EndlessRoster.into()));
            }
        }
    }
}

/// Runs what may wait for the disk where a thread may block.
async fn on_disk<T: Send + 'static>(
    data: &DataDir,
    work: impl FnOnce(&DataDir) -> Result<T, DataError> + Send + 'static,
) -> Result<T, JoinError> {
    let data = data.clone();
    let done = tokio::task::spawn_blocking(move || work(&data)).await;
    Ok(done.unwrap_or_else(|error| {
        let source = std::io::Error::other(error);
        Err(DataError::Io { op: "use", path: "the data directory".into(), source })
    })?)
}

/// 8 bits that tell most pairs of passwords from others; keyed with the ticket, so that equal passwords
/// differ.
fn password_tag(ticket: &TicketSecret, password: Option<&Secret>, room_password: Option<&Secret>) -> u8 {
    let mut hasher = blake3::Hasher::new_keyed(&ticket.0);
    for secret in [password, room_password] {
        // No password holds a NUL.
        hasher.update(secret.map_or("", Secret::expose).as_bytes()).update(&[0]);
    }
    hasher.finalize().as_bytes()[0]
}
