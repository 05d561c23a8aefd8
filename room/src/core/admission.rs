//! Who is let in under which name.
//!
//! A connection goes through typed states: [`AwaitHello`], [`AwaitLogin`], [`Checking`] while bcrypt runs
//! elsewhere, and out of here as a [`Newcomer`]. What a stranger is told is vague where an exact answer would
//! help a guesser: an unknown name costs the same time and gets the same words as a wrong password.

use parlor_protocol::identity::{PublicIdentity, Purpose};
use parlor_protocol::limits::LOGINS_PER_CONNECTION;
use parlor_protocol::name::UserName;
use parlor_protocol::refusal::LoginRefusal;
use parlor_protocol::wire::control::{Credentials, Hello, Login, Secret, VERSION, login_proof_message};

use super::accounts::Accounts;
use super::certificates::Certificates;
use super::penalty::Offence;
use super::tickets::Tickets;
use crate::password::PasswordHash;

/// A refusal, and what it costs the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the user is told.
    pub refusal: LoginRefusal,
    /// What the log says, where that is more.
    pub exactly: &'static str,
    /// What the address is charged with.
    pub offence: Option<Offence>,
}

impl Refused {
    /// A refusal that costs nothing.
    pub fn freely(refusal: LoginRefusal, exactly: &'static str) -> Self {
        Self { refusal, exactly, offence: None }
    }

    fn wrong(refusal: LoginRefusal, exactly: &'static str) -> Self {
        Self { refusal, exactly, offence: Some(Offence::WrongPassword) }
    }
}

/// Nothing was said yet.
#[derive(Debug, Clone, Copy)]
pub struct AwaitHello;

/// Versions agree; a login may come.
#[derive(Debug, Clone)]
pub struct AwaitLogin {
    /// What the program calls itself.
    pub agent: String,
    attempts: u32,
}

/// bcrypt is at work elsewhere.
#[derive(Debug)]
pub struct Checking {
    /// Where the connection stood.
    pub before: AwaitLogin,
    login: Box<Login>,
    kind: CheckKind,
    /// The account changed meanwhile: whatever bcrypt says, the login is refused.
    void: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckKind {
    Account,
    RoomPasswordOnly,
}

/// A login whose words, password and proof are in order. Whether the name is free is another question.
#[derive(Debug)]
pub struct Newcomer {
    /// What it said.
    pub login: Box<Login>,
    /// Where its connection stood: if the name is not free, another login may follow.
    pub at: AwaitLogin,
    /// True if it came with a ticket.
    pub resumed: bool,
}

/// What becomes of a login.
#[derive(Debug)]
pub enum Step {
    /// Refused; where `next` is some, another login may follow.
    Refused {
        /// What is said and what it costs.
        refused: Refused,
        /// Where the connection stands now.
        next: Option<AwaitLogin>,
    },
    /// These passwords are to be verified, all of them.
    Check {
        /// Where the connection stands now.
        next: Checking,
        /// What to verify.
        checks: Vec<PasswordCheck>,
    },
    /// In order.
    Admit(Newcomer),
}

/// A password to be verified on a thread where that may take its time.
#[derive(Debug)]
pub struct PasswordCheck {
    /// The hash.
    pub hash: PasswordHash,
    /// The password.
    pub password: Secret,
}

impl AwaitHello {
    /// The versions in common, or what to say if there is none.
    pub fn hello(self, hello: Hello) -> Result<AwaitLogin, LoginRefusal> {
        match hello.common_version() {
            Some(_) => Ok(AwaitLogin { agent: hello.agent, attempts: 0 }),
            None => Err(LoginRefusal::Version { min: VERSION, max: VERSION }),
        }
    }
}

impl AwaitLogin {
    /// Decides about a login on a connection with this TLS exporter.
    pub fn login(
        mut self,
        login: Box<Login>,
        exporter: &[u8; 32],
        accounts: &Accounts,
        tickets: &Tickets,
        certificates: &Certificates,
        unix: u64,
    ) -> Step {
        self.attempts += 1;
        let message = login_proof_message(exporter, &login.name);
        let proven = login.identity.verify(Purpose::LoginProof, &message, &login.proof).is_ok()
            && certificates.is_good(&login.identity, &login.noise);
        if !proven {
            return self.refuse(Refused::wrong(LoginRefusal::Proof, "a proof that does not match"));
        }
        let password = match &login.credentials {
            Credentials::Ticket(secret) => {
                let may_exist = !accounts.required() || accounts.get(&login.name).is_some();
                let to_prove = accounts.to_prove(&login.name);
                let good = tickets.is_good(secret, &to_prove, &login.name, &login.identity, unix);
                return if may_exist && good {
                    Step::Admit(Newcomer { login, at: self, resumed: true })
                } else {
                    self.refuse(Refused::freely(LoginRefusal::Ticket, "a ticket that is not good"))
                };
            }
            Credentials::Password(secret) if accounts.required() => Some(secret.clone()),
            Credentials::Open if accounts.required() => {
                return self.refuse(Refused::freely(LoginRefusal::PasswordNeeded, "no password"));
            }
            // A Room without accounts does not look at a password.
            Credentials::Password(_) | Credentials::Open => None,
        };
        let room_check = match (accounts.room_password(), &login.room_password) {
            (None, _) => None,
            (Some(_), None) => {
                return self.refuse(Refused::freely(LoginRefusal::RoomPassword, "no room password"));
            }
            (Some(hash), Some(secret)) => {
                Some(PasswordCheck { hash: hash.clone(), password: secret.clone() })
            }
        };
        let kind = if password.is_some() { CheckKind::Account } else { CheckKind::RoomPasswordOnly };
        let own_check =
            password.map(|password| PasswordCheck { hash: accounts.hash_for(&login.name), password });
        let checks: Vec<PasswordCheck> = own_check.into_iter().chain(room_check).collect();
        if checks.is_empty() {
            return Step::Admit(Newcomer { login, at: self, resumed: false });
        }
        Step::Check { next: Checking { before: self, login, kind, void: false }, checks }
    }

    /// Refuses this login. After the last attempt nothing may follow.
    pub fn refuse(self, refused: Refused) -> Step {
        let next = (self.attempts < LOGINS_PER_CONNECTION).then_some(self);
        Step::Refused { refused, next }
    }
}

impl Checking {
    /// The name that wants in.
    pub fn name(&self) -> &UserName {
        &self.login.name
    }

    /// The identity that it has proved.
    pub fn identity(&self) -> PublicIdentity {
        self.login.identity
    }

    /// The account changed: what bcrypt is verifying is no longer its password.
    pub fn void(&mut self) {
        self.void = true;
    }

    /// No thread had time for bcrypt. That was no attempt.
    pub fn not_checked(self) -> AwaitLogin {
        AwaitLogin { attempts: self.before.attempts - 1, ..self.before }
    }

    /// bcrypt is done: `good` if every password was right.
    pub fn checked(self, good: bool, accounts: &Accounts) -> Step {
        if self.kind == CheckKind::RoomPasswordOnly && accounts.required() {
            let refused = Refused::freely(LoginRefusal::PasswordNeeded, "the Room has accounts by now");
            return self.before.refuse(refused);
        }
        let known = self.kind == CheckKind::RoomPasswordOnly || accounts.get(&self.login.name).is_some();
        if good && known && !self.void {
            return Step::Admit(Newcomer { login: self.login, at: self.before, resumed: false });
        }
        let refused = match self.kind {
            CheckKind::RoomPasswordOnly => {
                Refused::wrong(LoginRefusal::RoomPassword, "a wrong room password")
            }
            CheckKind::Account if known => Refused::wrong(LoginRefusal::Credentials, "a wrong password"),
            CheckKind::Account => Refused::wrong(LoginRefusal::Credentials, "a name without an account"),
        };
        self.before.refuse(refused)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parlor_protocol::identity::{Identity, InstanceId};
    use parlor_protocol::name::LanId;
    use parlor_protocol::presence::{Encryption, HostTag, Presence};
    use parlor_protocol::wire::control::TicketSecret;

    use super::*;

    const EXPORTER: [u8; 32] = [5; 32];

    fn login(name: &str, credentials: Credentials, room: Option<&str>) -> Box<Login> {
        let identity = Identity::from_seed(&[1; 32]);
        let name: UserName = name.parse().unwrap();
        Box::new(Login {
            proof: identity.sign(Purpose::LoginProof, &login_proof_message(&EXPORTER, &name)),
            name,
            credentials,
            room_password: room.map(|text| Secret::new(text.into()).unwrap()),
            identity: identity.public(),
            noise: identity.noise_certificate(),
            instance: InstanceId([1; 16]),
            take_over: false,
            presence: Presence {
                host_tag: HostTag([0; 16]),
                lan_id: LanId::default(),
                port: 0,
                private: vec![],
                public: None,
                encryption: Encryption::On,
                aes: false,
            },
        })
    }

    fn password(text: &str) -> Credentials {
        Credentials::Password(Secret::new(text.into()).unwrap())
    }

    fn accounts(names: &[(&str, u32)], room_password: bool) -> Accounts {
        let accounts =
            names.iter().map(|(name, cost)| (name.parse().unwrap(), PasswordHash::dummy(*cost))).collect();
        let room_password = room_password.then(|| PasswordHash::dummy(10));
        Accounts::new(accounts, BTreeMap::new(), BTreeMap::new(), room_password, [9; 32])
    }

    fn ready() -> AwaitLogin {
        AwaitHello.hello(Hello::new("test")).unwrap()
    }

    fn step(login: Box<Login>, accounts: &Accounts) -> Step {
        ready().login(login, &EXPORTER, accounts, &Tickets::default(), &Certificates::default(), 0)
    }

    fn refusal(step: Step) -> (LoginRefusal, Option<Offence>, bool) {
        match step {
            Step::Refused { refused, next } => (refused.refusal, refused.offence, next.is_some()),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn an_open_room_lets_any_name_in_with_or_without_a_password() {
        let open = accounts(&[], false);
        assert!(matches!(step(login("Foo", Credentials::Open, None), &open), Step::Admit(_)));
        assert!(matches!(step(login("Foo", password("x"), None), &open), Step::Admit(_)));
    }

    #[test]
    fn an_unknown_name_is_checked_as_long_and_refused_in_the_same_words_as_a_wrong_password() {
        let accounts = accounts(&[("Foo", 12)], false);
        let mut answers = Vec::new();
        for name in ["Foo", "Nobody"] {
            let Step::Check { next, checks } = step(login(name, password("x"), None), &accounts) else {
                panic!("{name} is not checked")
            };
            assert_eq!(checks.iter().map(|check| check.hash.cost()).collect::<Vec<_>>(), [12]);
            answers.push(refusal(next.checked(false, &accounts)));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], (LoginRefusal::Credentials, Some(Offence::WrongPassword), true));
    }

    #[test]
    fn bcrypt_cannot_let_in_a_name_without_an_account() {
        let accounts = accounts(&[("Foo", 12)], false);
        let Step::Check { next, .. } = step(login("Nobody", password("x"), None), &accounts) else {
            panic!()
        };
        assert_eq!(refusal(next.checked(true, &accounts)).0, LoginRefusal::Credentials);
    }

    #[test]
    fn a_password_that_was_changed_while_bcrypt_ran_no_longer_logs_in() {
        let accounts = accounts(&[("Foo", 12)], false);
        let Step::Check { mut next, .. } = step(login("Foo", password("x"), None), &accounts) else {
            panic!()
        };
        next.void();
        assert_eq!(refusal(next.checked(true, &accounts)).0, LoginRefusal::Credentials);
    }

    #[test]
    fn a_room_that_has_got_its_first_account_meanwhile_wants_a_password() {
        let mut shared = accounts(&[], true);
        let Step::Check { next, .. } = step(login("Foo", Credentials::Open, Some("y")), &shared) else {
            panic!()
        };
        shared.set("Bar".parse().unwrap(), PasswordHash::dummy(10));
        assert_eq!(refusal(next.checked(true, &shared)), (LoginRefusal::PasswordNeeded, None, true));
    }

    #[test]
    fn with_a_room_password_both_are_checked_and_which_was_wrong_is_not_said() {
        let both = accounts(&[("Foo", 10)], true);
        let Step::Check { next, checks } = step(login("Foo", password("x"), Some("y")), &both) else {
            panic!()
        };
        assert_eq!(checks.len(), 2);
        assert_eq!(refusal(next.checked(false, &both)).0, LoginRefusal::Credentials);
        assert_eq!(refusal(step(login("Foo", password("x"), None), &both)).0, LoginRefusal::RoomPassword);

        let shared = accounts(&[], true);
        let Step::Check { next, checks } = step(login("Foo", Credentials::Open, Some("y")), &shared) else {
            panic!()
        };
        assert_eq!(checks.len(), 1);
        assert_eq!(refusal(next.checked(false, &shared)).0, LoginRefusal::RoomPassword);
    }

    #[test]
    fn a_ticket_needs_no_password_and_a_bad_one_costs_nothing() {
        let accounts = accounts(&[("Foo", 12)], true);
        let mut tickets = Tickets::default();
        let name: UserName = "Foo".parse().unwrap();
        let identity = Identity::from_seed(&[1; 32]).public();
        let ticket = tickets.issue([3; 32], &accounts.to_prove(&name), &name, identity, 0);
        let good = login("Foo", Credentials::Ticket(ticket.secret), None);
        let certificates = Certificates::default();
        let step = ready().login(good, &EXPORTER, &accounts, &tickets, &certificates, 0);
        assert!(matches!(step, Step::Admit(Newcomer { resumed: true, .. })));
        let bad = login("Foo", Credentials::Ticket(TicketSecret([4; 32])), None);
        let step = ready().login(bad, &EXPORTER, &accounts, &tickets, &certificates, 0);
        assert_eq!(refusal(step), (LoginRefusal::Ticket, None, true));
    }

    #[test]
    fn a_proof_from_another_connection_or_for_another_name_is_refused() {
        let open = accounts(&[], false);
        let (tickets, certificates) = (Tickets::default(), Certificates::default());
        let sent = login("Foo", Credentials::Open, None);
        let replayed = ready().login(sent, &[6; 32], &open, &tickets, &certificates, 0);
        assert_eq!(refusal(replayed).0, LoginRefusal::Proof);
        let mut renamed = login("Foo", Credentials::Open, None);
        renamed.name = "Bar".parse().unwrap();
        assert_eq!(refusal(step(renamed, &open)).0, LoginRefusal::Proof);
        let mut stolen_key = login("Foo", Credentials::Open, None);
        stolen_key.noise = Identity::from_seed(&[2; 32]).noise_certificate();
        assert_eq!(refusal(step(stolen_key, &open)).0, LoginRefusal::Proof);
    }

    #[test]
    fn a_connection_has_three_attempts() {
        let accounts = accounts(&[("Foo", 12)], false);
        let mut at = ready();
        for attempt in 1..=3 {
            let login = login("Foo", Credentials::Open, None);
            match at.login(login, &EXPORTER, &accounts, &Tickets::default(), &Certificates::default(), 0) {
                Step::Refused { next: Some(next), .. } if attempt < 3 => at = next,
                Step::Refused { next: None, .. } if attempt == 3 => return,
                other => panic!("attempt {attempt}: {other:?}"),
            }
        }
    }

    #[test]
    fn removing_the_last_account_does_not_open_the_room() {
        let mut accounts = accounts(&[("Foo", 12)], false);
        accounts.remove(&"Foo".parse().unwrap());
        assert!(accounts.required());
        assert_eq!(
            refusal(step(login("Foo", Credentials::Open, None), &accounts)).0,
            LoginRefusal::PasswordNeeded
        );
    }

    #[test]
    fn another_version_is_refused_in_words_that_never_change() {
        let hello = Hello { min_version: 7, max_version: 9, ..Hello::new("newer") };
        assert_eq!(
            AwaitHello.hello(hello).unwrap_err(),
            LoginRefusal::Version { min: VERSION, max: VERSION }
        );
    }
}
