//! `ComputeFilter`: the host's agent is alive and the host is enabled (Nova: `compute_filter.py`).

use drover_common::fault::Fault;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// See the module.
pub struct ComputeFilter;

impl Filter for ComputeFilter {
    fn name(&self) -> &'static str {
        "ComputeFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, allowance: &Allowance) -> Option<Fault> {
        if let Some(reason) = &host.disabled {
            let reason = if reason.is_empty() { "no reason was given" } else { reason };
            return Some(Fault::precheck(format_args!("compute service of {} is disabled: {reason}", host.host)));
        }
        UpFilter.refuse(host, spec, allowance)
    }
}

/// Alive only: what a host must be that was asked for by name.
pub(super) struct UpFilter;

impl Filter for UpFilter {
    fn name(&self) -> &'static str {
        "UpFilter"
    }

    fn refuse(&self, host: &HostState, _spec: &Spec, _allowance: &Allowance) -> Option<Fault> {
        if host.up {
            return None;
        }
        let why = if host.forced_down {
            "It is forced down.".to_owned()
        } else {
            format!("Its last heartbeat was {} s ago.", host.silent_for_s)
        };
        Some(Fault::compute_service_unavailable(&host.host, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn down_forced_down_and_disabled_hosts_are_refused_with_the_reason() {
        let refuse = |host: &HostState| ComputeFilter.refuse(host, &spec(), &ALLOWANCE).map(|fault| fault.message);
        assert_eq!(refuse(&host("h2")), None);
        let silent = HostState { up: false, silent_for_s: 77, ..host("h2") };
        assert_eq!(refuse(&silent).unwrap(), "Compute service of h2 is unavailable at this time. Its last heartbeat was 77 s ago.");
        let forced = HostState { up: false, forced_down: true, ..host("h2") };
        assert_eq!(refuse(&forced).unwrap(), "Compute service of h2 is unavailable at this time. It is forced down.");
        let disabled = HostState { disabled: Some("new memory".to_owned()), ..host("h2") };
        assert_eq!(refuse(&disabled).unwrap(), "Migration pre-check error: compute service of h2 is disabled: new memory");
        assert_eq!(UpFilter.refuse(&disabled, &spec(), &ALLOWANCE), None);
    }
}
