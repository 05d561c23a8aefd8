//! Names of users, callbacks and local networks. A value of these types has passed its check; nobody
//! checks it again. Cloning one is cheap.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{EVENT_NAME_BYTES, LAN_ID_BYTES, USER_NAME_CHARS};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a {kind} cannot be empty")]
    Empty {
        /// What the text was meant to name.
        kind: &'static str,
    },
    /// The text is longer than the limit.
    #[error("a {kind} has at most {limit} bytes, this one has {len}")]
    TooLong {
        /// What the text was meant to name.
        kind: &'static str,
        /// The limit in bytes.
        limit: usize,
        /// The length found, in bytes.
        len: usize,
    },
    /// A character that may not stand there.
    #[error("a {kind} cannot contain {found:?} at position {at}: {rule}")]
    Character {
        /// What the text was meant to name.
        kind: &'static str,
        /// The character found.
        found: char,
        /// Its position in characters, from 0.
        at: usize,
        /// What is allowed instead.
        rule: &'static str,
    },
}

/// The name of a user: 1-32 of `[A-Za-z0-9._-]`, the first a letter or digit.
///
/// Compared, ordered and hashed without regard to case; shown as it was written.
///
/// ```
/// use parlor_protocol::name::UserName;
/// let foo: UserName = "Foo".parse()?;
/// assert_eq!(foo, "foo".parse()?);
/// assert_eq!(foo.as_str(), "Foo");
/// assert!("a b".parse::<UserName>().is_err());
/// # Ok::<_, parlor_protocol::name::NameError>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(Arc<str>);

impl UserName {
    const KIND: &'static str = "user name";
    const RULE: &'static str = "use letters, digits, '.', '_' and '-', and start with a letter or digit";

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in lower case: equal names have equal folded forms.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// True of a made-up name for one occasion: `guest-` and something. The keys of guests are not remembered.
    pub fn is_guest(&self) -> bool {
        self.0.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("guest-"))
    }

    fn check(text: &str) -> Result<(), NameError> {
        check_length(text, Self::KIND, USER_NAME_CHARS)?;
        let allowed =
            |at: usize, c: char| c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '.' | '_' | '-'));
        match text.chars().enumerate().find(|&(at, c)| !allowed(at, c)) {
            Some((at, found)) => Err(NameError::Character { kind: Self::KIND, found, at, rule: Self::RULE }),
            None => Ok(()),
        }
    }
}

impl FromStr for UserName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl PartialEq for UserName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for UserName {}

impl Hash for UserName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            state.write_u8(byte.to_ascii_lowercase());
        }
        state.write_u8(0xff);
    }
}

impl PartialOrd for UserName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for UserName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let fold = |b: u8| b.to_ascii_lowercase();
        self.0.bytes().map(fold).cmp(other.0.bytes().map(fold))
    }
}

/// The name of a callback or of a kind of message: 1-64 bytes of UTF-8 without control characters,
/// white space or marks that change the direction of text. Case counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventName(Arc<str>);

impl EventName {
    const KIND: &'static str = "callback name";
    const RULE: &'static str = "control characters, white space and text-direction marks are not allowed";

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks a text that is to be a name.
    pub fn check(text: &str) -> Result<(), NameError> {
        check_length(text, Self::KIND, EVENT_NAME_BYTES)?;
        check_printable(text, Self::KIND, Self::RULE, false)
    }
}

impl FromStr for EventName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for EventName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a user calls the local network it is in; users with the same id try each other's private
/// addresses. 1-64 bytes of UTF-8 without control characters. A hint, never a proof.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LanId(Arc<str>);

impl LanId {
    const KIND: &'static str = "LAN id";
    const RULE: &'static str = "control characters and text-direction marks are not allowed";

    /// The id as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn check(text: &str) -> Result<(), NameError> {
        check_length(text, Self::KIND, LAN_ID_BYTES)?;
        check_printable(text, Self::KIND, Self::RULE, true)
    }
}

impl Default for LanId {
    fn default() -> Self {
        Self("Default".into())
    }
}

impl FromStr for LanId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::check(text)?;
        Ok(Self(text.into()))
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::check(&text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_type!(UserName);
text_type!(EventName);
text_type!(LanId);

fn check_length(text: &str, kind: &'static str, limit: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty { kind }),
        len if len > limit => Err(NameError::TooLong { kind, limit, len }),
        _ => Ok(()),
    }
}

fn check_printable(
    text: &str,
    kind: &'static str,
    rule: &'static str,
    space_allowed: bool,
) -> Result<(), NameError> {
    let refused = |c: char| is_unprintable(c) || (c.is_whitespace() && !(space_allowed && c == ' '));
    match text.chars().enumerate().find(|&(_, c)| refused(c)) {
        Some((at, found)) => Err(NameError::Character { kind, found, at, rule }),
        None => Ok(()),
    }
}

/// True of what must not reach a terminal or a log: control characters, marks that change the direction
/// of text (Unicode TR 9), invisible joiners and line separators.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with every character that [`is_unprintable`] replaced by its `\u{..}` escape.
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return text.into();
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unprintable(c) {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_differ_in_case_are_one_name() {
        let names: HashSet<UserName> = ["Foo", "fOO", "foo"].map(|n| n.parse().unwrap()).into();
        assert_eq!(names.len(), 1);
        assert!("Bar".parse::<UserName>().unwrap() < "foo".parse().unwrap());
    }

    #[test]
    fn a_guest_is_known_by_its_name() {
        assert!("Guest-abc".parse::<UserName>().unwrap().is_guest());
        assert!(!"guest".parse::<UserName>().unwrap().is_guest());
    }

    #[test]
    fn a_refused_name_says_which_character_and_what_is_allowed() {
        let error = "Foo bar".parse::<UserName>().unwrap_err().to_string();
        assert_eq!(
            error,
            "a user name cannot contain ' ' at position 3: use letters, digits, '.', '_' and '-', \
             and start with a letter or digit"
        );
        assert!("-x".parse::<UserName>().is_err());
        assert!("".parse::<UserName>().is_err());
        assert!("x".repeat(33).parse::<UserName>().is_err());
        assert!("é".parse::<UserName>().is_err());
    }

    #[test]
    fn callback_names_may_be_in_any_script_but_not_hidden() {
        assert!("计算".parse::<EventName>().is_ok());
        assert!("a\u{202e}b".parse::<EventName>().is_err());
        assert!("a\nb".parse::<EventName>().is_err());
        assert!("two words".parse::<EventName>().is_err());
        assert!("Office 2".parse::<LanId>().is_ok());
    }

    #[test]
    fn escapes_and_direction_marks_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
        assert!(matches!(printable("plain"), std::borrow::Cow::Borrowed("plain")));
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_error_and_a_name_survives_serde(text in ".{0,40}") {
            if let Ok(name) = text.parse::<UserName>() {
                prop_assert!(name.as_str().len() <= USER_NAME_CHARS);
                let json = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<UserName>(&json).unwrap(), name);
            }
        }

        #[test]
        fn printable_text_has_nothing_unprintable(text in any::<String>()) {
            prop_assert!(!printable(&text).chars().any(is_unprintable));
        }
    }
}
