//! The files' content as TOML has it.

use std::collections::BTreeMap;

use ipnet::IpNet;
use parlor_protocol::identity::{Fingerprint, Identity, PublicIdentity};
use parlor_protocol::name::UserName;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use super::{Ban, TicketRecord};
use crate::password::PasswordHash;

/// 32 bytes as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Hex32(pub(super) [u8; 32]);

impl Serialize for Hex32 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        let text: Zeroizing<String> =
            Zeroizing::new(self.0.iter().flat_map(digits).map(char::from).collect());
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let wrong = || de::Error::custom("64 hexadecimal digits are expected");
        if text.len() != 64 {
            return Err(wrong());
        }
        let digit = |c: u8| char::from(c).to_digit(16).ok_or_else(wrong);
        let mut bytes = [0; 32];
        for (pair, byte) in text.as_bytes().chunks_exact(2).zip(&mut bytes) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(bytes))
    }
}

/// `identity.key`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityFile {
    pub(super) seed: Hex32,
    /// For people; it follows from the seed.
    pub(super) fingerprint: Fingerprint,
}

impl IdentityFile {
    pub(super) fn of(identity: &Identity) -> Self {
        Self { seed: Hex32(*identity.seed()), fingerprint: identity.fingerprint() }
    }
}

/// `accounts.toml`
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountsFile {
    #[serde(deserialize_with = "each_once")]
    pub(super) accounts: BTreeMap<UserName, PasswordHash>,
}

/// Reads a table by name. Names are equal without regard to case, so two keys may be one name.
fn each_once<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<UserName, V>, D::Error> {
    let written = BTreeMap::<String, V>::deserialize(deserializer)?;
    let mut names = BTreeMap::new();
    for (name, value) in written {
        let name: UserName = name.parse().map_err(de::Error::custom)?;
        if let Some((first, _)) = names.get_key_value(&name) {
            return Err(de::Error::custom(format_args!("{first} and {name} are one name")));
        }
        names.insert(name, value);
    }
    Ok(names)
}

/// `identities.toml`
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BindingsFile {
    #[serde(deserialize_with = "each_once")]
    pub(super) identities: BTreeMap<UserName, Hex32>,
}

/// `bans.toml`
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BansFile {
    #[serde(default, rename = "ban")]
    pub(super) bans: Vec<BanRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BanRow {
    net: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<u64>,
    reason: String,
}

impl From<&Ban> for BanRow {
    fn from(ban: &Ban) -> Self {
        Self { net: ban.net, until: ban.until, reason: ban.reason.clone() }
    }
}

impl From<BanRow> for Ban {
    fn from(row: BanRow) -> Self {
        Self { net: row.net, until: row.until, reason: row.reason }
    }
}

/// `tickets.toml`
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketsFile {
    #[serde(default, rename = "ticket")]
    pub(super) tickets: Vec<TicketRow>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketRow {
    hash: Hex32,
    name: UserName,
    identity: Hex32,
    expires: u64,
}

impl From<&TicketRecord> for TicketRow {
    fn from(ticket: &TicketRecord) -> Self {
        Self {
            hash: Hex32(ticket.hash),
            name: ticket.name.clone(),
            identity: Hex32(ticket.identity.0),
            expires: ticket.expires,
        }
    }
}

impl From<TicketRow> for TicketRecord {
    fn from(row: TicketRow) -> Self {
        Self {
            hash: row.hash.0,
            name: row.name,
            identity: PublicIdentity(row.identity.0),
            expires: row.expires,
        }
    }
}
