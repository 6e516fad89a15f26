//! `CleanupDebtFilter`: the host owes no clean-up of an earlier migration of this very server: its leftovers would be in the way.

use drover_common::fault::Fault;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// See the module.
pub struct CleanupDebtFilter;

impl Filter for CleanupDebtFilter {
    fn name(&self) -> &'static str {
        "CleanupDebtFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, _allowance: &Allowance) -> Option<Fault> {
        host.owes_cleanup.then(|| {
            Fault::precheck(format_args!(
                "{} has not yet removed what an earlier migration of {} left there; it does so when its agent is back",
                host.host, spec.server
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn only_a_host_with_an_open_debt_for_this_server_is_refused() {
        assert!(CleanupDebtFilter.refuse(&host("h2"), &spec(), &ALLOWANCE).is_none());
        assert!(CleanupDebtFilter.refuse(&HostState { owes_cleanup: true, ..host("h2") }, &spec(), &ALLOWANCE).is_some());
    }
}
