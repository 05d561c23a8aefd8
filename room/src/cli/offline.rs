//! What an operator's request means where no Room runs: the same as in a running one, on the data directory alone.

use std::path::Path;

use parlor_protocol::identity::PublicIdentity;
use parlor_protocol::name::UserName;
use parlor_protocol::network::canonical;

use crate::admin::{
    AccountSource, AdminError, AdminErrorKind, AdminRequest, AdminResponse, BanEntry, UserEntry,
};
use crate::config::RoomConfig;
use crate::store::{Ban, Loaded, Store, StoreChange, StoreError};

/// The data directory of a Room that does not run, and what its configuration says besides.
pub(super) struct Offline<'a> {
    config: &'a RoomConfig,
    store: Store,
    loaded: Loaded,
}

impl<'a> Offline<'a> {
    pub(super) fn open(config: &'a RoomConfig, data: &Path) -> Result<Self, StoreError> {
        Self::with(config, Some(data))
    }

    /// A directory that does not exist, and that a question does not make.
    pub(super) fn nothing(config: &'a RoomConfig) -> Result<Self, StoreError> {
        Self::with(config, None)
    }

    fn with(config: &'a RoomConfig, data: Option<&Path>) -> Result<Self, StoreError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| StoreError::Io {
            op: "make a key for",
            path: data.unwrap_or(Path::new("memory")).to_owned(),
            source: std::io::Error::other(error.to_string()),
        })?;
        let (store, loaded) = Store::open(data, seed)?;
        Ok(Self { config, store, loaded })
    }

    /// Answers one request. `now` in seconds since 1970.
    pub(super) fn answer(mut self, request: AdminRequest, now: u64) -> AdminResponse {
        match self.act(request, now) {
            Ok(response) => response,
            Err(error) => AdminResponse::Failed(error),
        }
    }

    fn act(&mut self, request: AdminRequest, now: u64) -> Result<AdminResponse, AdminError> {
        match request {
            AdminRequest::UserAdd { name, hash } => {
                let stored = self.loaded.accounts.get_key_value(&name);
                if let Some((known, _)) = stored.or(self.config.accounts.get_key_value(&name)) {
                    let sentence = format!(
                        "there is an account {known} already; `parlor-room user passwd` changes its password"
                    );
                    return Err(AdminError { kind: AdminErrorKind::Exists, sentence });
                }
                if self.loaded.bindings.contains_key(&name) {
                    // Of an account that had this name before.
                    self.apply([StoreChange::Binding { name: name.clone(), identity: None }])?;
                }
                self.apply([StoreChange::Account { name, hash: Some(hash) }])
            }
            AdminRequest::UserPassword { name, hash } => {
                self.stored_account(&name)?;
                let tickets = self.tickets_without(&name);
                self.apply([tickets, StoreChange::Account { name, hash: Some(hash) }])
            }
            AdminRequest::UserRemove { name } => {
                self.stored_account(&name)?;
                let tickets = self.tickets_without(&name);
                let binding = StoreChange::Binding { name: name.clone(), identity: None };
                self.apply([tickets, binding, StoreChange::Account { name, hash: None }])
            }
            AdminRequest::ResetIdentity { name } => {
                if !self.config.accounts.contains_key(&name) && !self.loaded.bindings.contains_key(&name) {
                    self.stored_account(&name)?;
                }
                let tickets = self.tickets_without(&name);
                self.apply([tickets, StoreChange::Binding { name, identity: None }])
            }
            AdminRequest::UserList => Ok(AdminResponse::Users { users: self.users() }),
            AdminRequest::BanAdd { net, seconds } => {
                let until = seconds.map(|seconds| now.saturating_add(seconds));
                let ban = Ban { net: canonical(net), until, reason: "by the operator".to_owned() };
                self.apply([StoreChange::Ban(ban)])
            }
            AdminRequest::BanRemove { net } => {
                let net = canonical(net);
                if self.bans(now).iter().any(|ban| ban.net == net) {
                    return self.apply([StoreChange::Unban(net)]);
                }
                if self.config.blacklist.iter().any(|&configured| canonical(configured) == net) {
                    let sentence = format!("{net} stands in the configuration file: remove it there");
                    return Err(AdminError { kind: AdminErrorKind::Invalid, sentence });
                }
                let sentence = format!("{net} is not banned; `parlor-room ban list` shows what is");
                Err(AdminError { kind: AdminErrorKind::NotFound, sentence })
            }
            AdminRequest::BanList => Ok(AdminResponse::Bans { bans: self.ban_list(now) }),
            AdminRequest::Status => {
                let sentence = "no Room is running here: start one with parlor-room".to_owned();
                Err(AdminError { kind: AdminErrorKind::Invalid, sentence })
            }
        }
    }

    fn apply<const N: usize>(&mut self, changes: [StoreChange; N]) -> Result<AdminResponse, AdminError> {
        for change in changes {
            self.store
                .apply(change)
                .map_err(|error| AdminError { kind: AdminErrorKind::Io, sentence: error.to_string() })?;
        }
        Ok(AdminResponse::Done)
    }

    fn stored_account(&self, name: &UserName) -> Result<(), AdminError> {
        if self.loaded.accounts.contains_key(name) {
            return Ok(());
        }
        if self.config.accounts.contains_key(name) {
            let sentence = format!("the account {name} stands in the configuration file: change it there");
            return Err(AdminError { kind: AdminErrorKind::Invalid, sentence });
        }
        let sentence = format!("there is no account {name}; `parlor-room user list` shows those there are");
        Err(AdminError { kind: AdminErrorKind::NotFound, sentence })
    }

    /// What was proved with an old password or identity counts no longer.
    fn tickets_without(&self, name: &UserName) -> StoreChange {
        let all = self.loaded.tickets.iter().filter(|ticket| ticket.name != *name).cloned().collect();
        StoreChange::Tickets { all }
    }

    fn users(&self) -> Vec<UserEntry> {
        let entry = |name: &UserName, source| UserEntry {
            name: name.clone(),
            source,
            identity: self.loaded.bindings.get(name).map(PublicIdentity::fingerprint),
            online: false,
        };
        let configured = &self.config.accounts;
        let stored = self.loaded.accounts.keys().filter(|name| !configured.contains_key(*name));
        let mut users: Vec<UserEntry> = configured
            .keys()
            .map(|name| entry(name, AccountSource::File))
            .chain(stored.map(|name| entry(name, AccountSource::Store)))
            .collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// Bans of the store that are in force.
    fn bans(&self, now: u64) -> Vec<BanEntry> {
        let in_force = self.loaded.bans.iter().filter(|ban| ban.until.is_none_or(|until| until > now));
        in_force.map(|ban| BanEntry { net: ban.net, until: ban.until, reason: ban.reason.clone() }).collect()
    }

    fn ban_list(&self, now: u64) -> Vec<BanEntry> {
        let configured = self.config.blacklist.iter().map(|&net| BanEntry {
            net: canonical(net),
            until: None,
            reason: "by the configuration".to_owned(),
        });
        let mut bans: Vec<BanEntry> = configured.chain(self.bans(now)).collect();
        bans.sort_by_key(|ban| ban.net);
        bans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password::PasswordHash;

    #[test]
    fn an_account_that_is_made_again_belongs_to_nobody() {
        let home = tempfile::tempdir().unwrap();
        let (data, config) = (home.path().join("room"), RoomConfig::default());
        let name: UserName = "Foo".parse().unwrap();
        // Of an account of the configuration that is there no longer.
        let (mut store, _) = Store::open(Some(&data), [1; 32]).unwrap();
        store.bind([(name.clone(), Some(PublicIdentity([9; 32])))]).unwrap();
        drop(store);
        let added = AdminRequest::UserAdd { name, hash: PasswordHash::dummy(10) };
        assert_eq!(Offline::open(&config, &data).unwrap().answer(added, 0), AdminResponse::Done);
        let (_, loaded) = Store::open(Some(&data), [1; 32]).unwrap();
        assert!(loaded.accounts.len() == 1 && loaded.bindings.is_empty());
    }
}
