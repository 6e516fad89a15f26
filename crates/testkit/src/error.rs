//! What can go wrong on the bench. Every message names the thing and, where we know one, the way out.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Result of everything the bench does.
pub type Result<T, E = BenchError> = std::result::Result<T, E>;

/// A failure of the bench. The cause, if there is one, is the error's source: print the whole chain with [`BenchError::chain`].
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The operating system refused something.
    #[error("cannot {what}")]
    Io {
        /// What was tried, with the path or address.
        what: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A program that we ran ended with an error.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status in words.
        status: String,
        /// What it wrote, trimmed.
        output: String,
    },
    /// A condition did not come true in time.
    #[error("waited {} s for {what}: {last}", .waited.as_secs())]
    TimedOut {
        /// The condition, in words.
        what: String,
        /// For how long.
        waited: Duration,
        /// What the last look showed.
        last: String,
    },
    /// A process of the bench did not come up.
    #[error("{name} did not start: {reason}; its log is {log}")]
    NotStarted {
        /// Name as in `cluster.json`.
        name: String,
        /// How it failed, with the end of its log.
        reason: String,
        /// Its log file.
        log: String,
    },
    /// A name that the bench does not know.
    #[error("there is no {kind} {name:?} on this bench (known: {known})")]
    Unknown {
        /// "host", "guest", "process".
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// What there is instead.
        known: String,
    },
    /// The bench number is in use by another checkout.
    #[error(
        "bench {number} belongs to {owner}, and it is running; \
         set DROVER_BENCH to another number (0 to 9) or run `deploy/dev/bench down` there"
    )]
    Foreign {
        /// The bench's number.
        number: u8,
        /// The other checkout.
        owner: String,
    },
    /// Something is not as it must be; the text says what and what to do.
    #[error("{0}")]
    Refused(String),
}

impl BenchError {
    /// For `map_err`: "cannot {what}", with the system's error as the source.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err` on calls of the `nix` crate.
    pub fn sys(what: impl Into<String>) -> impl FnOnce(nix::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source: source.into() }
    }

    /// For `map_err` on file operations: "cannot {verb} {path}".
    pub fn file(verb: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::io(format!("{verb} {}", path.display()))
    }

    /// The message with all its causes, as one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
