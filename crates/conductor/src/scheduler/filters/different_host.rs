//! `DifferentHostFilter`: the destination is not the source (Nova: `_check_destination_is_not_source`).

use drover_common::fault::Fault;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// See the module.
pub struct DifferentHostFilter;

impl Filter for DifferentHostFilter {
    fn name(&self) -> &'static str {
        "DifferentHostFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, _allowance: &Allowance) -> Option<Fault> {
        (host.host == spec.source).then(|| Fault::unable_to_migrate_to_self(spec.server, &host.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn only_the_source_is_refused() {
        assert!(DifferentHostFilter.refuse(&host("h1"), &spec(), &ALLOWANCE).is_some());
        assert!(DifferentHostFilter.refuse(&host("h2"), &spec(), &ALLOWANCE).is_none());
    }
}
