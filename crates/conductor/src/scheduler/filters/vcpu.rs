//! `VcpuFilter`: enough CPUs that are not promised yet (placement's `VCPU`).

use drover_common::fault::Fault;
use drover_store::claims::room;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// See the module.
pub struct VcpuFilter;

impl Filter for VcpuFilter {
    fn name(&self) -> &'static str {
        "VcpuFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, allowance: &Allowance) -> Option<Fault> {
        let free = room(host.vcpus, allowance.cpu_allocation_ratio, host.vcpus_used, 0);
        (free < spec.vcpus).then(|| {
            Fault::precheck(format_args!(
                "{} has {free} free VCPUs, {} are needed (cpu_allocation_ratio counted)",
                host.host, spec.vcpus
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn what_fits_exactly_passes_and_one_cpu_more_does_not() {
        assert!(VcpuFilter.refuse(&HostState { vcpus_used: 6, ..host("h2") }, &spec(), &ALLOWANCE).is_none());
        assert!(VcpuFilter.refuse(&HostState { vcpus_used: 7, ..host("h2") }, &spec(), &ALLOWANCE).is_some());
    }
}
