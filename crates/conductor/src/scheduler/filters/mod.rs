//! Filters: one file each; a host passes, or is refused with the reason. The checks of a requested host are the same code.

mod availability_zone;
mod cleanup_debt;
mod compute;
mod different_host;
mod hypervisor;
mod ram;
mod server_group;
mod vcpu;

use drover_common::fault::Fault;
use drover_store::hosts::HostState;

use super::{Allowance, Spec};

pub use availability_zone::AvailabilityZoneFilter;
pub use cleanup_debt::CleanupDebtFilter;
pub use compute::ComputeFilter;
pub use different_host::DifferentHostFilter;
pub use hypervisor::HypervisorFilter;
pub use ram::RamFilter;
pub use server_group::{ServerGroupAffinityFilter, ServerGroupAntiAffinityFilter};
pub use vcpu::VcpuFilter;

/// One reason to refuse a host.
pub trait Filter: Send + Sync {
    /// Its name in `enabled_filters`.
    fn name(&self) -> &'static str;
    /// `None` lets the host pass.
    fn refuse(&self, host: &HostState, spec: &Spec, allowance: &Allowance) -> Option<Fault>;
}

/// All there are.
pub const ALL: &[&dyn Filter] = &[
    &ComputeFilter,
    &DifferentHostFilter,
    &HypervisorFilter,
    &RamFilter,
    &VcpuFilter,
    &CleanupDebtFilter,
    &AvailabilityZoneFilter,
    &ServerGroupAffinityFilter,
    &ServerGroupAntiAffinityFilter,
];

/// What a host that was asked for by name must pass even when the scheduler is bypassed, in this order: not the source, up,
/// memory, hypervisor. (A disabled host may be forced; one that still owes a clean-up for this very guest may not.)
pub const REQUESTED_HOST: &[&dyn Filter] =
    &[&DifferentHostFilter, &compute::UpFilter, &RamFilter, &HypervisorFilter, &CleanupDebtFilter];
