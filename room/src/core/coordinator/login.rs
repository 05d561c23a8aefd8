//! From hello to welcome.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::Duration;

use parlor_protocol::identity::{PublicIdentity, Purpose};
use parlor_protocol::limits::{INTRODUCTION_BURST, INTRODUCTIONS_PER_SECOND};
use parlor_protocol::name::{UserName, printable};
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{
    Credentials, Features, Hello, HelloReply, Login, ToUser, VERSION, Welcome,
};

use super::{Attempt, BLACKLIST_HANDED_OUT, Binding, Command, Coordinator, PasswordVerdict, Stage};
use crate::core::admission::{Newcomer, Refused, Step};
use crate::core::directory::{Reach, Session};
use crate::core::fair::FairBucket;
use crate::core::line::Precedence;
use crate::core::penalty::{Offence, Verdict};
use crate::core::rate::TokenBucket;
use crate::core::{ConnId, Now, Source};
use crate::store::Ban;

/// Passwords of one address that are verified at once; the next login from there is told to come back. One address
/// cannot keep all threads busy.
const CHECKS_PER_SOURCE: usize = 2;
/// The same for loopback, from where every program of the machine comes.
const CHECKS_OF_LOOPBACK: usize = 4;
/// When to come back then, in milliseconds: one bcrypt of cost 12 takes about a quarter of a second.
const CHECKS_RETRY_MS: u32 = 500;
/// Logins that one connection may ask for, those among them that were no attempts because the Room was busy. Who comes
/// back as it is told asks 20 times in the 10 s that a login may take; each costs the hub two signatures to verify.
const LOGINS_ASKED: u32 = 24;
/// When to come back after the disk did not take an identity, in milliseconds.
const DISK_RETRY_MS: u32 = 5_000;
/// Introductions to one user that others may ask for at once: a thousand users that come back together find whom they
/// all talk to. Together they cannot fill its connection.
const ASKED_FOR_BURST: u64 = 1_000;
/// Introductions to one user a second that others may ask for after a burst.
const ASKED_FOR_PER_SECOND: u64 = 200;
/// Checks of its address that a user may cause at once; then one a second.
const ADDRESS_CHECKS: u64 = 4;

impl Coordinator {
    pub(super) fn hello(&mut self, conn: ConnId, hello: Hello, now: Now, out: &mut Vec<Command>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Stage::Hello(at) = connection.stage else { return };
        match at.hello(hello) {
            Ok(next) => {
                let reply = HelloReply {
                    version: VERSION,
                    features: Features::default(),
                    room: self.identity.public(),
                    proof: self.identity.sign(Purpose::RoomProof, &connection.exporter),
                    accounts: self.accounts.required(),
                    room_password: self.accounts.room_password_required(),
                    allow_unencrypted: self.allow_unencrypted,
                };
                connection.stage = Stage::Login(next);
                out.push(Command::Send { conn, frame: ToUser::HelloReply(reply) });
            }
            Err(refusal) => {
                tracing::info!(address = %connection.from, "refused: no protocol version in common");
                self.totals.refused_logins += 1;
                out.push(Command::Send { conn, frame: ToUser::LoginRefused(refusal) });
                self.close(conn, CloseCode::Version, now, out);
            }
        }
    }

    pub(super) fn login(&mut self, conn: ConnId, login: Box<Login>, now: Now, out: &mut Vec<Command>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let Stage::Login(at) = &connection.stage else { return };
        connection.logins_asked += 1;
        connection.told_to_wait = false;
        if connection.logins_asked > LOGINS_ASKED {
            return self.close(conn, CloseCode::LimitExceeded, now, out);
        }
        let (at, name, exporter) = (at.clone(), login.name.clone(), connection.exporter);
        let (from, source) = (connection.from, Source::of(connection.from.ip()));
        let guesses = !matches!(login.credentials, Credentials::Ticket(_)) && self.accounts.gives_tickets();
        // Its address failed too often on other connections, which this one must not be a way around.
        if guesses && let Some(banned) = self.kept_out(from, now) {
            return self.turn_away_banned(conn, banned, now, out);
        }
        let step = match self.throttle.check(source, &name, now.instant) {
            Err(wait) if guesses && self.limits.penalties => {
                let seconds = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
                let refusal = LoginRefusal::TooManyAttempts { seconds };
                at.refuse(Refused::freely(refusal, "too many failed logins"))
            }
            _ if guesses && self.checks_too_much(source) => {
                // It has asked all the same.
                self.asks.note(source, now.instant);
                return self.have_wait(conn, CHECKS_RETRY_MS, out);
            }
            _ => {
                let (accounts, tickets, certificates) = (&self.accounts, &self.tickets, &self.certificates);
                at.login(login, &exporter, accounts, tickets, certificates, now.unix)
            }
        };
        self.step(conn, &name, step, now, out);
    }

    /// Tells who asked to come back, because the Room is busy. The time until then is none of the user's.
    fn have_wait(&mut self, conn: ConnId, retry_after_ms: u32, out: &mut Vec<Command>) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.told_to_wait = true;
        }
        let refusal = LoginRefusal::Busy { retry_after_ms };
        out.push(Command::Send { conn, frame: ToUser::LoginRefused(refusal) });
    }

    fn checks_too_much(&self, source: Source) -> bool {
        let most = if source.is_loopback() { CHECKS_OF_LOOPBACK } else { CHECKS_PER_SOURCE };
        self.checks_of(source) >= most
    }

    /// Logins from an address whose passwords are being verified, or wait for it.
    fn checks_of(&self, source: Source) -> usize {
        self.attempts.values().filter(|attempt| Source::of(attempt.from.ip()) == source).count()
    }

    /// Whose turn it is before whose. One login of an account at a time goes before others, so that whoever owns one cannot
    /// keep all threads busy. A name without an account ranks as one with an account does.
    fn precedence(
        &mut self,
        source: Source,
        name: &UserName,
        identity: PublicIdentity,
        now: Now,
    ) -> Precedence {
        let owner = self.accounts.get(name).is_some() && self.accounts.binding(name) == Some(identity);
        let first = |attempt: &Attempt| attempt.precedence != Precedence::Known || attempt.name != *name;
        if owner
            && self.attempts.values().all(first)
            && !self.throttle.has_failures(source, name, now.instant)
        {
            return Precedence::Known;
        }
        let asked = Reverse(self.asks.note(source, now.instant));
        if self.penalties.has_score(source, now.instant) {
            Precedence::Suspect(asked)
        } else if self.directory.from_source(source) > 0 {
            Precedence::Neighbour(asked)
        } else {
            Precedence::Stranger(asked)
        }
    }

    /// A wrong password costs its address also when the connection did not wait for the answer.
    pub(super) fn passwords_checked(
        &mut self,
        conn: ConnId,
        attempt: u64,
        verdict: PasswordVerdict,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        let Some(asked) = self.attempts.remove(&attempt) else { return };
        let Some(connection) =
            self.connections.get_mut(&conn).filter(|connection| connection.waits_for(attempt))
        else {
            if verdict == PasswordVerdict::Wrong {
                self.totals.refused_logins += 1;
                tracing::info!(name = %asked.name, address = %asked.from, "a wrong login did not wait for its answer");
                self.throttle.failed(Source::of(asked.from.ip()), &asked.name, now.instant);
                self.charge(asked.from.ip(), Offence::WrongPassword, now, out);
            }
            return;
        };
        // The stage is set again below, whatever becomes of the login.
        let stage = std::mem::replace(&mut connection.stage, Stage::Between);
        let Stage::Checking { checking, .. } = stage else { return };
        let name = checking.name().clone();
        let good = match verdict {
            PasswordVerdict::Right => true,
            PasswordVerdict::Wrong => false,
            PasswordVerdict::Skipped | PasswordVerdict::Busy { .. } => {
                let retry_after = match verdict {
                    PasswordVerdict::Busy { retry_after } => retry_after,
                    _ => Duration::from_millis(CHECKS_RETRY_MS.into()),
                };
                connection.stage = Stage::Login(checking.not_checked());
                let retry_after_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                tracing::warn!(%name, "a login has to wait: the password threads are busy");
                return self.have_wait(conn, retry_after_ms, out);
            }
        };
        let step = checking.checked(good, &self.accounts);
        self.step(conn, &name, step, now, out);
    }

    fn step(&mut self, conn: ConnId, name: &UserName, step: Step, now: Now, out: &mut Vec<Command>) {
        match step {
            Step::Admit(newcomer) => match self.find_place(conn, &newcomer) {
                Ok(()) if self.is_unbound(name) => self.bind(conn, newcomer, out),
                Ok(()) => self.admit(conn, newcomer, now, out),
                Err(refused) => {
                    let step = newcomer.at.refuse(refused);
                    self.step(conn, name, step, now, out);
                }
            },
            Step::Check { next, checks } => {
                let attempt = self.next_attempt;
                self.next_attempt += 1;
                let Some(from) = self.connections.get(&conn).map(|connection| connection.from) else {
                    return;
                };
                let precedence = self.precedence(Source::of(from.ip()), name, next.identity(), now);
                self.attempts.insert(attempt, Attempt { from, name: name.clone(), precedence });
                self.set_stage(conn, Stage::Checking { attempt, checking: Box::new(next) });
                out.push(Command::CheckPasswords { conn, attempt, checks, precedence });
            }
            Step::Refused { refused, next } => {
                let Some(from) = self.connections.get(&conn).map(|connection| connection.from) else {
                    return;
                };
                tracing::info!(%name, address = %from, reason = refused.exactly, "login refused");
                self.totals.refused_logins += 1;
                match refused.refusal {
                    LoginRefusal::Busy { retry_after_ms } => self.have_wait(conn, retry_after_ms, out),
                    refusal => out.push(Command::Send { conn, frame: ToUser::LoginRefused(refusal) }),
                }
                let mut verdict = Verdict::Noted;
                if let Some(offence) = refused.offence {
                    self.throttle.failed(Source::of(from.ip()), name, now.instant);
                    verdict = self.charge(from.ip(), offence, now, out);
                }
                match (verdict, next) {
                    (Verdict::Noted, Some(next)) => self.set_stage(conn, Stage::Login(next)),
                    (Verdict::Noted, None) => self.close(conn, CloseCode::LimitExceeded, now, out),
                    (Verdict::Barred { until }, _) => {
                        let left = until.saturating_duration_since(now.instant).as_secs() + 1;
                        self.close_banned(conn, Some(left), now, out);
                    }
                    (Verdict::ForGood, _) => self.close_banned(conn, None, now, out),
                }
            }
        }
    }

    /// True of an account that belongs to no identity yet.
    fn is_unbound(&self, name: &UserName) -> bool {
        self.accounts.get(name).is_some() && self.accounts.binding(name).is_none()
    }

    /// The identity of an account's first login goes to the disk before anybody relies on it.
    fn bind(&mut self, conn: ConnId, newcomer: Newcomer, out: &mut Vec<Command>) {
        let (name, identity) = (newcomer.login.name.clone(), newcomer.login.identity);
        self.binding.insert(name.clone(), Binding { conn, identity });
        self.set_stage(conn, Stage::Binding { newcomer: Box::new(newcomer), void: false });
        out.push(Command::Bind { conn, name, identity });
    }

    /// The account belongs to the identity if that is on disk, also when its login did not wait. If the disk did not
    /// take it, nobody has got in and the account is as free as before.
    pub(super) fn bound(
        &mut self,
        conn: ConnId,
        name: &UserName,
        kept: bool,
        now: Now,
        out: &mut Vec<Command>,
    ) {
        if self.binding.get(name).is_some_and(|binding| binding.conn == conn)
            && let Some(binding) = self.binding.remove(name)
            && kept
        {
            self.accounts.bind(name, Some(binding.identity));
            if let Some(connection) = self.connections.get(&conn) {
                // Each account does that once; who could do it again and again could ask at will.
                self.asks.forget(Source::of(connection.from.ip()));
            }
        }
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        if !matches!(connection.stage, Stage::Binding { .. }) {
            return;
        }
        // The stage is set again below, whatever becomes of the login.
        let stage = std::mem::replace(&mut connection.stage, Stage::Between);
        let Stage::Binding { newcomer, void } = stage else { return };
        let step = if void || (kept && self.is_unbound(name)) {
            newcomer.at.refuse(Refused::freely(LoginRefusal::Credentials, "its account changed meanwhile"))
        } else if kept {
            Step::Admit(*newcomer)
        } else {
            tracing::error!(%name, "a first login has to wait: its identity could not be written");
            let refusal = LoginRefusal::Busy { retry_after_ms: DISK_RETRY_MS };
            newcomer.at.refuse(Refused::freely(refusal, "the account's identity could not be written"))
        };
        self.step(conn, name, step, now, out);
    }

    /// Whether there is a place for the newcomer, and its name is free.
    fn find_place(&self, conn: ConnId, newcomer: &Newcomer) -> Result<(), Refused> {
        let login = &newcomer.login;
        if self.binding.contains_key(&login.name) {
            let refusal = LoginRefusal::Busy { retry_after_ms: CHECKS_RETRY_MS };
            return Err(Refused::freely(refusal, "another first login of the account is under way"));
        }
        if let Some(bound) = self.accounts.binding(&login.name)
            && self.accounts.get(&login.name).is_some()
            && bound != login.identity
        {
            return Err(Refused::freely(LoginRefusal::IdentityMismatch, "the account's identity is another"));
        }
        let Some(there) = self.directory.named(&login.name) else { return self.has_room(conn) };
        let same_identity = there.identity == login.identity;
        // What a program that is gone said last may arrive after the next one's login, and replaces nobody.
        let is_later = conn > there.conn;
        if same_identity && is_later && (there.instance == login.instance || login.take_over) {
            return Ok(());
        }
        Err(Refused::freely(LoginRefusal::NameInUse { same_identity }, "the name is in use"))
    }

    /// Whether one more user has room, of all and of its address. Where a password is asked for, an address has as
    /// many users as accounts; loopback, from where every program of the machine comes, has no limit of its own.
    fn has_room(&self, conn: ConnId) -> Result<(), Refused> {
        let full = |exactly| Err(Refused::freely(LoginRefusal::Full, exactly));
        if self.directory.len() >= self.limits.max_users {
            return full("the Room is full");
        }
        let source = self.connections.get(&conn).map(|connection| Source::of(connection.from.ip()));
        let most = self.limits.users_per_address;
        let counts = |source: &Source| most > 0 && !source.is_loopback() && !self.accounts.gives_tickets();
        if source.filter(counts).is_some_and(|source| self.directory.from_source(source) >= most) {
            return full("too many users from this address");
        }
        Ok(())
    }

    fn admit(&mut self, conn: ConnId, newcomer: Newcomer, now: Now, out: &mut Vec<Command>) {
        let Some(from) = self.connections.get(&conn).map(|connection| connection.from) else { return };
        if let Some(banned) = self.blacklist.banned(from.ip(), now.unix) {
            return self.turn_away_banned(conn, banned, now, out);
        }
        let Newcomer { login, at, resumed } = newcomer;
        let name = login.name.clone();
        let ticket = self.accounts.gives_tickets().then(|| {
            let proved = self.accounts.to_prove(&name);
            let again = match &login.credentials {
                Credentials::Ticket(shown) => self.tickets.again(shown, &proved, now.unix),
                Credentials::Open | Credentials::Password(_) => None,
            };
            again.unwrap_or_else(|| {
                self.tickets.issue(self.chance.draw(), &proved, &name, login.identity, now.unix)
            })
        });
        self.certificates.remember(login.identity, &login.noise);
        let check_key = self.chance.draw();
        let session = Session {
            conn,
            name: name.clone(),
            identity: login.identity,
            noise: login.noise,
            instance: login.instance,
            observed: from,
            agent: printable(&at.agent).into_owned(),
            since: now.unix,
            presence: login.presence,
            reach: Reach {
                check_key,
                checked: Vec::new(),
                generation: 0,
                checks: TokenBucket::new(1, ADDRESS_CHECKS, now.instant),
                due: None,
                failures: 0,
            },
            introductions: TokenBucket::new(
                INTRODUCTIONS_PER_SECOND.into(),
                INTRODUCTION_BURST.into(),
                now.instant,
            ),
            asked_for: FairBucket::new(ASKED_FOR_PER_SECOND, ASKED_FOR_BURST, now.instant),
        };
        tracing::info!(%name, address = %from, identity = %session.identity.fingerprint(), agent = %session.agent,
            resumed, "joined");
        self.totals.logins += 1;
        self.totals.resumed += u64::from(resumed);
        if let Some(old) = self.directory.join(session) {
            self.close(old.conn, CloseCode::Replaced, now, out);
        }
        self.set_stage(conn, Stage::Ready);
        self.changed(now);
        out.push(Command::Admitted { conn });
        let blacklist = self.blacklist.nets(now.unix, BLACKLIST_HANDED_OUT);
        let welcome = Welcome { observed: from, ticket, check_key, blacklist };
        out.push(Command::Send { conn, frame: ToUser::Welcome(Box::new(welcome)) });
        let roster = self.directory.whole().into_iter();
        out.extend(roster.map(|frame| Command::SendEncoded { conn, frame }));
        self.review_reach(conn, now, out);
    }

    /// Charges an address with an offence, and keeps it out if that was one too many.
    pub(super) fn charge(
        &mut self,
        from: IpAddr,
        offence: Offence,
        now: Now,
        out: &mut Vec<Command>,
    ) -> Verdict {
        if !self.limits.penalties {
            return Verdict::Noted;
        }
        let source = Source::of(from);
        let verdict = self.penalties.charge(source, offence, now.instant);
        match verdict {
            Verdict::Noted => {}
            Verdict::Barred { until } => {
                let seconds = until.saturating_duration_since(now.instant).as_secs();
                tracing::warn!(address = %source.net(), ?offence, seconds, "kept out for a while");
                out.push(Command::Bar { source, until });
            }
            Verdict::ForGood => {
                tracing::warn!(address = %source.net(), ?offence, "banned for good, as the configuration says");
                let reason = "kept out too often".to_owned();
                self.ban(Ban { net: source.net(), until: None, reason }, None, now, out);
            }
        }
        verdict
    }

    pub(super) fn set_stage(&mut self, conn: ConnId, stage: Stage) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.stage = stage;
        }
    }
}
