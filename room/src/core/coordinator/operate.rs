//! What the operator does, what time does, and the end.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parlor_protocol::name::UserName;
use parlor_protocol::network::{canonical, covers};
use parlor_protocol::refusal::{CloseCode, LoginRefusal};
use parlor_protocol::wire::control::{Closing, ToUser};

use super::{BLACKLIST_HANDED_OUT, CallId, Command, Coordinator, HOUSEKEEPING, Stage, TICKETS_BATCH};
use crate::admin::{
    AccountSource, AdminError, AdminErrorKind, AdminRequest, AdminResponse, BanEntry, OnlineUser,
    StatusReport, UserEntry,
};
use crate::core::accounts::Account;
use crate::core::blacklist::CannotUnban;
use crate::core::{ConnId, Now};
use crate::password::PasswordHash;
use crate::store::{Ban, StoreChange};

/// The shortest wait before a user comes back after a restart, in milliseconds.
const RECONNECT_FROM_MS: u64 = 250;
/// Milliseconds by which each user online widens the span over which all of them come back: 200 logins a second.
const RECONNECT_SPREAD_MS: u64 = 5;
/// The span in milliseconds: at least and at most.
const RECONNECT_SPAN_MS: std::ops::RangeInclusive<u64> = 1_000..=30_000;

impl Coordinator {
    pub(super) fn admin(&mut self, call: CallId, request: AdminRequest, now: Now, out: &mut Vec<Command>) {
        let answer = match request {
            AdminRequest::UserAdd { name, hash } => self.user_add(name, hash, call, now, out),
            AdminRequest::UserPassword { name, hash } => self.user_password(name, hash, call, out),
            AdminRequest::UserRemove { name } => self.user_remove(&name, call, now, out),
            AdminRequest::ResetIdentity { name } => self.reset_identity(name, call, now, out),
            AdminRequest::UserList => Ok(Some(AdminResponse::Users { users: self.user_list() })),
            AdminRequest::BanAdd { net, seconds } => {
                let until = seconds.map(|seconds| now.unix.saturating_add(seconds));
                tracing::info!(%net, ?seconds, "banned by the operator");
                self.ban(Ban { net, until, reason: "by the operator".to_owned() }, Some(call), now, out);
                Ok(None)
            }
            AdminRequest::BanRemove { net } => self.unban(net, call, now, out),
            AdminRequest::BanList => Ok(Some(AdminResponse::Bans { bans: self.ban_list(now) })),
            AdminRequest::Status => Ok(Some(AdminResponse::Status(self.status()))),
        };
        match answer {
            Ok(Some(response)) => out.push(Command::Answer { call, response }),
            // The store answers when it is done.
            Ok(None) => {}
            Err(error) => out.push(Command::Answer { call, response: AdminResponse::Failed(error) }),
        }
    }

    fn user_add(
        &mut self,
        name: UserName,
        hash: PasswordHash,
        call: CallId,
        now: Now,
        out: &mut Vec<Command>,
    ) -> Answer {
        if let Some(known) = self.accounts.spelling(&name) {
            let sentence = format!(
                "there is an account {known} already; `parlor-room user passwd` changes its password"
            );
            return failed(AdminErrorKind::Exists, sentence);
        }
        self.accounts.set(name.clone(), hash.clone());
        if self.accounts.binding(&name).is_some() {
            // Of an account that had this name before.
            self.accounts.bind(&name, None);
            let change = StoreChange::Binding { name: name.clone(), identity: None };
            out.push(Command::Store { change, call: None });
        }
        // Who has the name so far has proved nothing that its account asks for.
        self.void_logins(&name, out);
        self.end_session(&name, CloseCode::Removed, now, out);
        out.push(Command::Store {
            change: StoreChange::Account { name, hash: Some(hash) },
            call: Some(call),
        });
        Ok(None)
    }

    fn user_password(
        &mut self,
        name: UserName,
        hash: PasswordHash,
        call: CallId,
        out: &mut Vec<Command>,
    ) -> Answer {
        self.stored_account(&name)?;
        self.accounts.set(name.clone(), hash.clone());
        self.void_logins(&name, out);
        out.push(Command::Store {
            change: StoreChange::Account { name, hash: Some(hash) },
            call: Some(call),
        });
        Ok(None)
    }

    fn user_remove(&mut self, name: &UserName, call: CallId, now: Now, out: &mut Vec<Command>) -> Answer {
        self.stored_account(name)?;
        self.accounts.remove(name);
        self.binding.remove(name);
        self.void_logins(name, out);
        out.push(Command::Store {
            change: StoreChange::Binding { name: name.clone(), identity: None },
            call: None,
        });
        let change = StoreChange::Account { name: name.clone(), hash: None };
        out.push(Command::Store { change, call: Some(call) });
        self.end_session(name, CloseCode::Removed, now, out);
        tracing::info!(%name, "account removed by the operator");
        Ok(None)
    }

    /// Cuts off whoever is online under a name, and its relayed links with it.
    fn end_session(&mut self, name: &UserName, code: CloseCode, now: Now, out: &mut Vec<Command>) {
        if let Some(conn) = self.directory.named(name).map(|session| session.conn) {
            self.close(conn, code, now, out);
        }
        self.end_relays_of(name, code, out);
    }

    fn end_relays_of(&mut self, name: &UserName, code: CloseCode, out: &mut Vec<Command>) {
        let waited = self.relay.void_offers_of(name).into_iter();
        out.extend(waited.map(|link| Command::RelayRefuse { link, code }));
        let pairs = self.relay.pairs_of(name).into_iter();
        out.extend(pairs.map(|pair| Command::RelayEnd { pair }));
    }

    fn reset_identity(&mut self, name: UserName, call: CallId, now: Now, out: &mut Vec<Command>) -> Answer {
        if self.accounts.get(&name).is_none() {
            return failed(AdminErrorKind::NotFound, no_account(&name));
        }
        self.accounts.bind(&name, None);
        self.binding.remove(&name);
        self.void_logins(&name, out);
        self.end_session(&name, CloseCode::Removed, now, out);
        out.push(Command::Store { change: StoreChange::Binding { name, identity: None }, call: Some(call) });
        Ok(None)
    }

    /// An account that the operator can change while the Room runs.
    fn stored_account(&self, name: &UserName) -> Result<(), AdminError> {
        match self.accounts.get(name) {
            None => Err(AdminError { kind: AdminErrorKind::NotFound, sentence: no_account(name) }),
            Some(account) if account.configured => {
                let sentence = format!(
                    "the account {name} stands in the configuration file; change it there and restart the Room"
                );
                Err(AdminError { kind: AdminErrorKind::Invalid, sentence })
            }
            Some(_) => Ok(()),
        }
    }

    /// What was proved with the old password or identity of a name counts no longer, on disk first.
    fn void_logins(&mut self, name: &UserName, out: &mut Vec<Command>) {
        self.tickets.void(name);
        self.keep_tickets(out);
        for connection in self.connections.values_mut() {
            match &mut connection.stage {
                Stage::Checking { checking, .. } if checking.name() == name => checking.void(),
                Stage::Binding { newcomer, void } if newcomer.login.name == *name => *void = true,
                _ => {}
            }
        }
    }

    fn user_list(&self) -> Vec<UserEntry> {
        let entry = |(name, account): (&UserName, &Account)| UserEntry {
            name: name.clone(),
            source: if account.configured { AccountSource::File } else { AccountSource::Store },
            identity: self.accounts.binding(name).map(|identity| identity.fingerprint()),
            online: self.directory.named(name).is_some(),
        };
        self.accounts.iter().map(entry).collect()
    }

    /// Bans a network: nobody gets in from there, who is in is cut off, and all others are told.
    pub(super) fn ban(&mut self, ban: Ban, call: Option<CallId>, now: Now, out: &mut Vec<Command>) {
        let net = self.blacklist.ban(ban.clone());
        let seconds = ban.until.map(|until| until.saturating_sub(now.unix));
        out.push(Command::Store { change: StoreChange::Ban(Ban { net, ..ban }), call });
        let cut: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, connection)| covers(net, connection.from.ip()))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in cut {
            if let Some(name) = self.directory.on(conn).map(|session| session.name.clone()) {
                self.tickets.void(&name);
                self.end_relays_of(&name, CloseCode::Banned, out);
            }
            self.close_banned(conn, seconds, now, out);
        }
        let waited = self.relay.void_offers_from(|ip| covers(net, ip)).into_iter();
        out.extend(waited.map(|link| Command::RelayRefuse { link, code: CloseCode::Banned }));
        let pairs = self.relay.pairs_from(|ip| covers(net, ip)).into_iter();
        out.extend(pairs.map(|pair| Command::RelayEnd { pair }));
        self.new_blacklist(now, out);
    }

    fn unban(&mut self, net: IpNet, call: CallId, now: Now, out: &mut Vec<Command>) -> Answer {
        let pardoned = self.penalties.pardon(canonical(net), now.instant);
        if pardoned {
            out.push(Command::Pardon(canonical(net)));
        }
        match self.blacklist.unban(net) {
            Ok(net) => {
                out.push(Command::Store { change: StoreChange::Unban(net), call: Some(call) });
                self.new_blacklist(now, out);
                Ok(None)
            }
            Err(_) if pardoned => Ok(Some(AdminResponse::Done)),
            Err(error) => {
                let kind = match error {
                    CannotUnban::NotBanned(_) => AdminErrorKind::NotFound,
                    CannotUnban::Configured(_) => AdminErrorKind::Invalid,
                };
                failed(kind, error.to_string())
            }
        }
    }

    fn ban_list(&self, now: Now) -> Vec<BanEntry> {
        let listed = self.blacklist.entries().map(|(net, until, reason)| BanEntry {
            net,
            until,
            reason: reason.unwrap_or("by the configuration").to_owned(),
        });
        let barred = self.penalties.barred(now.instant).map(|(source, until)| BanEntry {
            net: source.net(),
            until: Some(now.unix + until.saturating_duration_since(now.instant).as_secs()),
            reason: "for misbehaving".to_owned(),
        });
        let mut bans: Vec<BanEntry> = listed.chain(barred).collect();
        bans.sort_by_key(|ban| ban.net);
        bans
    }

    /// How the Room does.
    pub fn status(&self) -> StatusReport {
        let mut users: Vec<OnlineUser> = self
            .directory
            .iter()
            .map(|session| OnlineUser {
                name: session.name.clone(),
                address: session.observed,
                agent: session.agent.clone(),
                since: session.since,
                identity: session.identity.fingerprint(),
            })
            .collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        StatusReport {
            addresses: self.addresses.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            users,
            relayed_pairs: self.relay.running() as u64,
            totals: self.totals,
        }
    }

    /// The door acts on the new blacklist at once; the users are told with the roster's next changes.
    fn new_blacklist(&mut self, now: Now, out: &mut Vec<Command>) {
        out.push(Command::Blacklist(Arc::new(self.blacklist.clone())));
        self.blacklist_changed = true;
        self.changed(now);
    }

    fn hand_out_blacklist(&self, now: Now, out: &mut Vec<Command>) {
        let nets = self.blacklist.nets(now.unix, BLACKLIST_HANDED_OUT);
        if self.blacklist.len() > BLACKLIST_HANDED_OUT {
            tracing::warn!(
                entries = self.blacklist.len(),
                "users are handed the first {BLACKLIST_HANDED_OUT} entries of the blacklist only; merge some into ranges"
            );
        }
        out.push(Command::Broadcast(ToUser::Blacklist(nets)));
    }

    /// What is due: the roster's changes, and what has ended.
    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Command>) {
        if self.flush_at.is_some_and(|at| at <= now.instant) {
            self.flush_at = None;
            if std::mem::take(&mut self.blacklist_changed) {
                self.hand_out_blacklist(now, out);
            }
            let changes = self.directory.take_changes().into_iter();
            out.extend(changes.map(|roster| Command::Broadcast(ToUser::Roster(roster))));
        }
        if now.instant < self.housekeeping_at {
            return;
        }
        self.housekeeping_at = now.instant + HOUSEKEEPING;
        self.check_due_addresses(now, out);
        let in_vain = self.relay.expire(now.instant).into_iter();
        out.extend(in_vain.map(|link| Command::RelayRefuse { link, code: CloseCode::TimedOut }));
        let passed = self.blacklist.expire(now.unix);
        if !passed.is_empty() {
            let unban = |net| Command::Store { change: StoreChange::Unban(net), call: None };
            out.extend(passed.into_iter().map(unban));
            self.new_blacklist(now, out);
        }
        if self.keep_tickets_at <= now.instant {
            self.keep_tickets_at = now.instant + TICKETS_BATCH;
            self.tickets.expire(now.unix);
            self.penalties.forget_old(now.instant);
            self.throttle.forget_old(now.instant);
            self.asks.forget_old(now.instant);
            self.keep_tickets(out);
        }
    }

    fn keep_tickets(&mut self, out: &mut Vec<Command>) {
        if let Some(all) = self.tickets.take_changed() {
            out.push(Command::Store { change: StoreChange::Tickets { all }, call: None });
        }
    }

    /// Sends everybody away, each with its own time to come back, so that they do not come all at once.
    pub(super) fn drain(&mut self, out: &mut Vec<Command>) {
        self.draining = true;
        self.keep_tickets(out);
        let span = (self.directory.len() as u64 * RECONNECT_SPREAD_MS)
            .clamp(*RECONNECT_SPAN_MS.start(), *RECONNECT_SPAN_MS.end());
        let conns: Vec<ConnId> = self.connections.keys().copied().collect();
        for conn in conns {
            if self.directory.leave(conn).is_none() {
                self.turn_away_for_shutdown(conn, out);
                continue;
            }
            let draw = self.chance.draw();
            let draw = u64::from(u32::from_le_bytes([draw[0], draw[1], draw[2], draw[3]]));
            let reconnect_in_ms = u32::try_from(RECONNECT_FROM_MS + draw * span / (1 << 32)).ok();
            let closing = Closing { code: CloseCode::ShuttingDown, reconnect_in_ms };
            out.push(Command::Close { conn, closing });
            self.connections.remove(&conn);
        }
        // Nobody is left to be told.
        self.directory.take_changes();
        self.blacklist_changed = false;
        self.flush_at = None;
    }

    pub(super) fn turn_away_for_shutdown(&mut self, conn: ConnId, out: &mut Vec<Command>) {
        self.connections.remove(&conn);
        out.push(Command::Send { conn, frame: ToUser::LoginRefused(LoginRefusal::ShuttingDown) });
        let wait = u32::try_from(Duration::from_millis(*RECONNECT_SPAN_MS.start()).as_millis()).ok();
        let closing = Closing { code: CloseCode::ShuttingDown, reconnect_in_ms: wait };
        out.push(Command::Close { conn, closing });
    }
}

/// `Ok(None)`: the store answers.
type Answer = Result<Option<AdminResponse>, AdminError>;

fn failed(kind: AdminErrorKind, sentence: String) -> Answer {
    Err(AdminError { kind, sentence })
}

fn no_account(name: &UserName) -> String {
    format!("there is no account {name}; `parlor-room user list` shows all")
}
