//! `RamFilter`: enough memory that is not promised yet (Nova: `_check_destination_has_enough_memory`, placement's `MEMORY_MB`).

use drover_common::fault::Fault;
use drover_store::claims::room;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// See the module.
pub struct RamFilter;

impl Filter for RamFilter {
    fn name(&self) -> &'static str {
        "RamFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, allowance: &Allowance) -> Option<Fault> {
        let free = room(host.memory_mb, allowance.ram_allocation_ratio, host.memory_mb_used, allowance.reserved_host_memory_mb);
        (free < spec.memory_mb).then(|| Fault::lack_of_memory(spec.server, &host.host, free, spec.memory_mb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn what_fits_exactly_passes_and_one_mebibyte_more_does_not() {
        let used = 16384 - 512 - spec().memory_mb;
        assert!(RamFilter.refuse(&HostState { memory_mb_used: used, ..host("h2") }, &spec(), &ALLOWANCE).is_none());
        let refused = RamFilter.refuse(&HostState { memory_mb_used: used + 1, ..host("h2") }, &spec(), &ALLOWANCE).unwrap();
        assert!(refused.message.ends_with("Lack of memory(host:4095 <= instance:4096)"), "{refused}");
    }
}
