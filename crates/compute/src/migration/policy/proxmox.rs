//! Proxmox VE's way, for comparison (`PVE/QemuMigrate.pm`): a downtime of 100 ms, doubled without a limit whenever more than five
//! looks found no less left than the look before.

use super::{Decision, Measure, Policy, Situation};

const FIRST_MS: u64 = 100;
const LOOKS: u32 = 5;

/// The policy for one guest.
#[derive(Debug, Clone)]
pub struct Proxmox {
    downtime_ms: u64,
    last: Option<i64>,
    not_less: u32,
}

impl Default for Proxmox {
    fn default() -> Self {
        Self { downtime_ms: FIRST_MS, last: None, not_less: 0 }
    }
}

impl Policy for Proxmox {
    fn describe(&self) -> String {
        format!("downtime {FIRST_MS} ms, doubled when more than {LOOKS} looks brought nothing")
    }

    fn decide(&mut self, now: &Situation) -> Vec<Decision> {
        if self.last.is_some_and(|last| now.remaining >= last) {
            self.not_less += 1;
        }
        self.last = Some(now.remaining);
        if self.not_less > LOOKS {
            self.not_less = 0;
            self.downtime_ms = self.downtime_ms.saturating_mul(2);
        }
        if now.downtime_ms == Some(self.downtime_ms) {
            return Vec::new();
        }
        let why = format!("more than {LOOKS} looks found no less left");
        vec![Decision { measure: Measure::SetDowntime { milliseconds: self.downtime_ms }, why }]
    }
}
