//! What the copy may take of the links while it runs.

use tracing::debug;

use super::{Doing, Monitor};
use crate::actor::Command;
use crate::driver::{Action, NO_LIMIT};

/// What the copy may take of the links, MiB/s; 0 for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// What an earlier life of the agent gave it.
    Unknown,
    /// Given with the start.
    Started(u64),
    /// Set in the job: libvirt keeps it for the guest's next one.
    Set(u64),
}

impl Limit {
    /// In MiB/s, if it is known.
    pub(super) const fn mib(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Started(mib) | Self::Set(mib) => Some(mib),
        }
    }
}

impl Monitor {
    pub(super) fn set_bandwidth(&mut self, share_mib: Option<u64>) {
        let limit = self.ctx.options.bandwidth(share_mib);
        if self.doing.iter().any(|doing| matches!(doing, Doing::SetBandwidth(_))) {
            return; // One after the other; the next sample brings it up again.
        }
        if self.limit.mib() == Some(limit) {
            return self.wanted.retain(|command| !matches!(command, Command::Bandwidth(_)));
        }
        let mib = if limit == 0 { NO_LIMIT } else { limit };
        self.act(Doing::SetBandwidth(limit), Action::SetMaxSpeed { mib, post_copy: self.may_post_copy });
    }

    /// The limit that the job was started with, MiB/s; 0 for none.
    pub const fn runs_under(&mut self, limit_mib: u64) {
        self.limit = Limit::Started(limit_mib);
    }

    /// The job is over and the guest may have stayed: a limit that was set in it must not hold for its next migration.
    pub fn forget_bandwidth(&self) {
        if matches!(self.limit, Limit::Set(_)) {
            let no_limit = Action::SetMaxSpeed { mib: NO_LIMIT, post_copy: false };
            let (done, server) = (self.ctx.driver.act(self.of.server, no_limit), self.of.server);
            tokio::spawn(async move {
                if let Err(error) = done.await {
                    debug!(server.id = %server, error = %error, "the guest keeps the limit of its last migration");
                }
            });
        }
    }
}
