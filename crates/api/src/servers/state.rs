//! Refusing what a server's state does not allow, in the words of the mount that was asked.

use std::fmt::Display;

use crate::error::ApiError;
use crate::pipeline::mount::Mount;

/// What somebody wants to do to a server, for the text of a refusal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verb {
    /// Nova's name for it.
    pub(crate) name: &'static str,
    /// Where it was asked.
    pub(crate) mount: Mount,
}

impl Verb {
    /// 409: the server's `attribute` is `state`.
    pub(crate) fn refused(self, server: impl Display, attribute: &str, state: &str) -> ApiError {
        let name = self.name;
        ApiError::Conflict(match self.mount {
            Mount::Current => format!("Cannot '{name}' instance {server} while it is in {attribute} {state}"),
            // The base API did not name the server.
            Mount::Legacy => format!("Cannot '{name}' while instance is in {attribute} {state}"),
        })
    }

    /// 409: something that should be set is not.
    pub(crate) fn refused_while_idle(self, server: impl Display) -> ApiError {
        ApiError::Conflict(format!("Instance {server} is in an invalid state for '{}'", self.name))
    }
}
