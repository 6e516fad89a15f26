//! `HypervisorFilter`: the same type, and no older than the source's (Nova: `_check_compatible_with_source_hypervisor`).

use drover_common::fault::Fault;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// See the module.
pub struct HypervisorFilter;

impl Filter for HypervisorFilter {
    fn name(&self) -> &'static str {
        "HypervisorFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, allowance: &Allowance) -> Option<Fault> {
        if host.hypervisor_type != spec.hypervisor_type {
            return Some(Fault::invalid_hypervisor_type(&host.host, &host.hypervisor_type, &spec.hypervisor_type));
        }
        (host.hypervisor_version < spec.hypervisor_version && !allowance.skip_hypervisor_version_check).then(|| {
            Fault::destination_hypervisor_too_old(format_args!(
                "{} has {} {}, the source {} has {}.",
                host.host,
                host.hypervisor_type,
                version(host.hypervisor_version),
                spec.source,
                version(spec.hypervisor_version),
            ))
        })
    }
}

/// libvirt's number as people write it.
fn version(number: i32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn another_type_and_an_older_version_are_refused_a_newer_one_passes() {
        let refuse = |host: &HostState, allowance| HypervisorFilter.refuse(host, &spec(), &allowance).map(|fault| fault.message);
        assert_eq!(refuse(&host("h2"), ALLOWANCE), None);
        let newer = HostState { hypervisor_version: 10_001_000, ..host("h2") };
        assert_eq!(refuse(&newer, ALLOWANCE), None);
        let older = HostState { hypervisor_version: 7_002_022, ..host("h2") };
        assert_eq!(
            refuse(&older, ALLOWANCE).unwrap(),
            "The instance requires a newer hypervisor version than has been provided. h2 has QEMU 7.2.22, the source h1 has 10.0.2."
        );
        assert_eq!(refuse(&older, Allowance { skip_hypervisor_version_check: true, ..ALLOWANCE }), None);
        let other = HostState { hypervisor_type: "TEST".to_owned(), ..host("h2") };
        assert_eq!(
            refuse(&other, ALLOWANCE).unwrap(),
            "The supplied hypervisor type of is invalid. h2 runs TEST, the server needs QEMU."
        );
    }
}
