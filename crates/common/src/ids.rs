//! Identifiers as types of their own, so that mixing them up does not compile.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new random identifier.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id! {
    /// A server, which is a libvirt domain: the two share one UUID.
    ServerId
}
uuid_id! {
    /// One life of one process: made at start, never stored. Facts and grants name it, so that a word from before a restart is
    /// never taken for one from after it.
    Incarnation
}
uuid_id! {
    /// One AMQP message; a reply names it as its correlation id.
    MessageId
}

/// The integer id of a migration, which Nova's API shows as `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MigrationId(pub i64);

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The integer id of a power action: fences agents, which ask for leave with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PowerActionId(pub i64);

impl fmt::Display for PowerActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing token of a migration. It changes only with a new destination or with the decision to roll back; an agent that
/// still works for an older attempt is refused every grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub i32);

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The version of a migration's row: every edge adds one, and every compare-and-swap names the one it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub i64);

/// The name of a compute host, as operators write it: letters, digits, `-`, `.` and `_`, 1 to 255 characters (Nova's `fqdn`
/// parameter type). Nothing else gets into a queue name, a URI or a log line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Why a text is no host name.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a host name: 1 to 255 characters out of letters, digits, '-', '.' and '_'")]
pub struct BadHostName(String);

impl HostName {
    /// Checks `text` and takes it as a host name.
    pub fn new(text: impl Into<String>) -> Result<Self, BadHostName> {
        let text = text.into();
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if fits { Ok(Self(text)) } else { Err(BadHostName(text)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = BadHostName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl FromStr for HostName {
    type Err = BadHostName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one API request, `req-<uuid>`; also the id of the instance action that the request starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(String);

impl RequestId {
    /// A new one, as Nova makes them (`oslo_context`).
    pub fn random() -> Self {
        Self(format!("req-{}", Uuid::new_v4()))
    }

    /// Takes a stored id back.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_with_anything_that_could_leave_a_queue_name_or_uri_are_refused() {
        for bad in ["", "h 1", "h1/system", "h%s", "h\n1", "h;reboot", "h#", "hö", &"h".repeat(256)] {
            assert!(HostName::new(bad).is_err(), "{bad:?}");
        }
        for good in ["h1", "compute-1.example.org", "under_score", &"h".repeat(255)] {
            assert!(HostName::new(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_host_name_in_a_message_is_checked_too() {
        assert!(serde_json::from_str::<HostName>("\"h1\"").is_ok());
        assert!(serde_json::from_str::<HostName>("\"h1 --uri\"").is_err());
    }
}
