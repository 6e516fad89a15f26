//! What the copy may take of the links while it runs.
//!
//! libvirt takes one number with the start and gives it to the memory and to the block job of each disk. All disks are copied at once,
//! before the memory, so each may have a part of the share and the memory all of it.

use drover_common::migration::Progress;
use tracing::debug;

use super::{Doing, Done, Monitor};
use crate::actor::Command;
use crate::config::Options;
use crate::driver::{Action, MigrateCall, NO_LIMIT};

/// The oldest libvirt that is known to change the speed of a block job while it migrates the guest. 9.0 refuses after half a minute in
/// which it says nothing else of the guest ("cannot acquire state change lock").
const CHANGES_DISKS: i32 = 11_003_000;

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

/// The disks that are copied.
#[derive(Debug, Default)]
pub(super) struct Disks {
    targets: Vec<String>,
    /// What each may take, MiB/s; none if an earlier life of the agent gave it.
    each_mib: Option<u64>,
}

/// The limit for each of so many disks with this share of the links, MiB/s; 0 for none. Without a share each has what one migration may
/// take, as in Nova.
pub fn of_each_disk(options: &Options, share_mib: Option<u64>, disks: usize) -> u64 {
    let disks = u64::try_from(disks).unwrap_or(u64::MAX).max(1);
    options.bandwidth(share_mib.map(|mib| (mib / disks).max(1)))
}

impl Monitor {
    /// Sets what differs, of what is being sent by now: before the first page libvirt is still about to set what the job was started
    /// with, and a disk has no block job yet.
    pub(super) fn set_bandwidth(&mut self, share_mib: Option<u64>, progress: &Progress) {
        if self.doing.iter().any(|doing| matches!(doing, Doing::SetBandwidth(_) | Doing::SetDiskBandwidth(_))) {
            return; // One after the other; the next sample brings it up again.
        }
        let limit = self.ctx.options.bandwidth(share_mib);
        let each = of_each_disk(&self.ctx.options, share_mib, self.disks.targets.len());
        let may_change = self.ctx.libvirt_version().is_some_and(|version| version >= CHANGES_DISKS);
        let disks_follow = !may_change || self.disks.targets.is_empty() || self.disks.each_mib == Some(each);
        let memory_follows = self.limit.mib() == Some(limit);
        if !disks_follow && progress.disk_total > 0 {
            self.set_disk_bandwidth(each);
        }
        if !memory_follows && progress.memory_total > 0 {
            let mib = if limit == 0 { NO_LIMIT } else { limit };
            self.act(Doing::SetBandwidth(limit), Action::SetMaxSpeed { mib, post_copy: self.may_post_copy });
        }
        if disks_follow && memory_follows {
            self.wanted.retain(|command| !matches!(command, Command::Bandwidth(_)));
        }
    }

    fn set_disk_bandwidth(&mut self, each_mib: u64) {
        let doing = Doing::SetDiskBandwidth(each_mib);
        let set = self.ctx.driver.set_disk_speed(self.of.server, self.disks.targets.clone(), each_mib);
        self.begin(doing, async move { Done::Acted(doing, set.await.map_err(|error| error.message)) });
    }

    /// libvirt has answered. What it refused is not asked for again until the share changes: no sample is taken while it takes its time.
    pub(super) const fn disks_run_under(&mut self, each_mib: u64) {
        self.disks.each_mib = Some(each_mib);
    }

    /// What the job was started with.
    pub fn runs_under(&mut self, call: &MigrateCall) {
        self.limit = Limit::Started(call.bandwidth_mib);
        self.disks = Disks { targets: call.migrate_disks.clone(), each_mib: Some(call.bandwidth_mib) };
    }

    /// An earlier life of the agent started it, with copies of these disks.
    pub fn copies(&mut self, targets: Vec<String>) {
        self.disks = Disks { targets, each_mib: None };
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
