//! Weighers: which of the hosts that passed is best. Each criterion is scaled to 0..1 over these hosts and counts with its
//! multiplier, as Nova's do (`nova/weights.py`).

use drover_common::server_group::GroupPolicy;
use drover_store::claims::room;
use drover_store::hosts::HostState;

use super::{Allowance, Spec};

/// The multipliers; 0 switches a criterion off, below 0 turns it round.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Free memory (`ram_weight_multiplier`).
    pub ram: f64,
    /// Free CPUs (`cpu_weight_multiplier`).
    pub cpu: f64,
    /// Migrations under way (`io_ops_weight_multiplier`).
    pub io_ops: f64,
    /// Members of a group with soft affinity (`soft_affinity_weight_multiplier`).
    pub soft_affinity: f64,
    /// The lack of members of a group with soft anti-affinity (`soft_anti_affinity_weight_multiplier`).
    pub soft_anti_affinity: f64,
}

/// A weight that can be compared: thousandths, so that rounding noise does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(i64);

/// The weight of each host, in their order.
pub(super) fn weigh(hosts: &[&HostState], spec: &Spec, weights: &Weights, allowance: &Allowance) -> Vec<Weight> {
    let ram =
        scaled(hosts, |h| room(h.memory_mb, allowance.ram_allocation_ratio, h.memory_mb_used, allowance.reserved_host_memory_mb));
    let cpu = scaled(hosts, |h| room(h.vcpus, allowance.cpu_allocation_ratio, h.vcpus_used, 0));
    let io_ops = scaled(hosts, |h| h.migrations);
    let members = scaled(hosts, |h| h.group_members);
    let group = match spec.group.as_ref().map(|group| group.policy) {
        Some(GroupPolicy::SoftAffinity) => weights.soft_affinity,
        Some(GroupPolicy::SoftAntiAffinity) => -weights.soft_anti_affinity,
        _ => 0.0,
    };
    let sum = |i: usize| ram[i] * weights.ram + cpu[i] * weights.cpu + io_ops[i] * weights.io_ops + members[i] * group;
    (0..hosts.len()).map(|i| Weight(thousandths(sum(i)))).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "multipliers are small numbers")]
fn thousandths(weight: f64) -> i64 {
    (weight * 1000.0).round() as i64
}

#[expect(clippy::cast_precision_loss, reason = "sizes of hosts are far below 2^52")]
fn scaled(hosts: &[&HostState], value: impl Fn(&HostState) -> i64) -> Vec<f64> {
    let values: Vec<f64> = hosts.iter().map(|host| value(host) as f64).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    values.into_iter().map(|v| if high > low { (v - low) / (high - low) } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, WEIGHTS, host, spec};
    use drover_common::server_group::GroupRule;

    #[test]
    fn memory_cpus_and_migrations_each_count_with_their_multiplier() {
        let (busy, free) = (HostState { migrations: 3, ..host("h2") }, host("h3"));
        let weigh_with = |weights| weigh(&[&busy, &free], &spec(), &weights, &ALLOWANCE);
        let by_io = weigh_with(WEIGHTS);
        assert!(by_io[1] > by_io[0]);
        let off = weigh_with(Weights { io_ops: 0.0, ..WEIGHTS });
        assert_eq!(off[0], off[1]);
    }

    #[test]
    fn soft_policies_prefer_hosts_with_members_or_without() {
        let (with, without) = (HostState { group_members: 2, ..host("h2") }, host("h3"));
        let weigh_for = |policy| {
            let group = GroupRule { name: "g".to_owned(), policy, max_server_per_host: 1, others: 2 };
            let weighed = weigh(&[&with, &without], &Spec { group: Some(group), ..spec() }, &WEIGHTS, &ALLOWANCE);
            weighed[0].cmp(&weighed[1])
        };
        assert_eq!(weigh_for(GroupPolicy::SoftAffinity), std::cmp::Ordering::Greater);
        assert_eq!(weigh_for(GroupPolicy::SoftAntiAffinity), std::cmp::Ordering::Less);
        assert_eq!(weigh_for(GroupPolicy::AntiAffinity), std::cmp::Ordering::Equal);
    }
}
