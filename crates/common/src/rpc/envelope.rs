//! What is around every message: version, ids, who asked, trace.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::ids::{MessageId, RequestId};
use crate::telemetry;

/// No message may be larger: a domain's XML with a generous margin.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// `major.minor`. A receiver refuses another major and takes any minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Changes when old receivers would misunderstand.
    pub major: u16,
    /// Changes when something was added.
    pub minor: u16,
}

/// What this release speaks.
pub const VERSION: Version = Version { major: 1, minor: 5 };

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (major, minor) = text.split_once('.').ok_or_else(|| format!("{text:?} is no version"))?;
        let number = |part: &str| part.parse::<u16>().map_err(|_| format!("{text:?} is no version"));
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl TryFrom<String> for Version {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Who asked for what the message is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserContext {
    /// The user's id, none for what the services do by themselves.
    pub user_id: Option<String>,
    /// The project's id.
    pub project_id: Option<String>,
}

/// A message as it travels (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope<M> {
    /// The version of `message`.
    pub version: Version,
    /// This message.
    pub message_id: MessageId,
    /// The API request it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Who asked.
    #[serde(default)]
    pub context: UserContext,
    /// The kind and the body.
    #[serde(flatten)]
    pub message: M,
}

impl<M> Envelope<M> {
    /// An envelope with a new id around `message`, in the trace of the span that is entered now.
    pub fn new(message: M) -> Self {
        Self {
            version: VERSION,
            message_id: MessageId::random(),
            request_id: None,
            traceparent: telemetry::traceparent(),
            context: UserContext::default(),
            message,
        }
    }

    /// The same, on behalf of an API request.
    #[must_use]
    pub fn for_request(mut self, request_id: Option<RequestId>) -> Self {
        self.request_id = request_id;
        self
    }
}

/// Reads a message, or says why it cannot be understood. The version is looked at before the body.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<Envelope<M>, Fault> {
    #[derive(Deserialize)]
    struct Head {
        version: Version,
    }
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(Fault::unexpected(format_args!("message of {} bytes, at most {MAX_MESSAGE_BYTES} are taken", bytes.len())));
    }
    let head: Head =
        serde_json::from_slice(bytes).map_err(|e| Fault::unexpected(format_args!("message without a version: {e}")))?;
    if head.version.major != VERSION.major {
        return Err(Fault::unsupported_version(head.version, VERSION));
    }
    serde_json::from_slice(bytes).map_err(|e| {
        if head.version.minor > VERSION.minor {
            Fault::unsupported_version(head.version, VERSION)
        } else {
            Fault::unexpected(format_args!("message cannot be read: {e}"))
        }
    })
}
