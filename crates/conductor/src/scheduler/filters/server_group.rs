//! `ServerGroupAffinityFilter` and `ServerGroupAntiAffinityFilter`: the policy of the server's group (Nova: `affinity_filter.py`). The
//! claim looks again, under the group's lock: of two members that move at once, both pass here.

use drover_common::fault::Fault;
use drover_common::server_group::GroupPolicy;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, Spec};

/// Members with affinity go where the others are.
pub struct ServerGroupAffinityFilter;

/// Members with anti-affinity go where not too many others are.
pub struct ServerGroupAntiAffinityFilter;

fn refuse(policy: GroupPolicy, host: &HostState, spec: &Spec) -> Option<Fault> {
    let group = spec.group.as_ref().filter(|group| group.policy == policy)?;
    group.refuse(&host.host, host.group_members).map(Fault::precheck)
}

impl Filter for ServerGroupAffinityFilter {
    fn name(&self) -> &'static str {
        "ServerGroupAffinityFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, _allowance: &Allowance) -> Option<Fault> {
        refuse(GroupPolicy::Affinity, host, spec)
    }
}

impl Filter for ServerGroupAntiAffinityFilter {
    fn name(&self) -> &'static str {
        "ServerGroupAntiAffinityFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, _allowance: &Allowance) -> Option<Fault> {
        refuse(GroupPolicy::AntiAffinity, host, spec)
    }
}

#[cfg(test)]
mod tests {
    use drover_common::server_group::GroupRule;

    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn each_filter_minds_its_own_policy() {
        let of = |policy| {
            let group = GroupRule { name: "g".to_owned(), policy, max_server_per_host: 1, others: 1 };
            Spec { group: Some(group), ..spec() }
        };
        let (with, without) = (HostState { group_members: 1, ..host("h2") }, host("h3"));
        let affinity = |host: &HostState, spec: &Spec| ServerGroupAffinityFilter.refuse(host, spec, &ALLOWANCE).is_some();
        let anti_affinity = |host: &HostState, spec: &Spec| ServerGroupAntiAffinityFilter.refuse(host, spec, &ALLOWANCE).is_some();
        let (together, apart) = (of(GroupPolicy::Affinity), of(GroupPolicy::AntiAffinity));
        assert!(!affinity(&with, &together) && affinity(&without, &together));
        assert!(anti_affinity(&with, &apart) && !anti_affinity(&without, &apart));
        assert!(!affinity(&without, &apart) && !anti_affinity(&with, &together));
        assert!(!affinity(&without, &spec()) && !anti_affinity(&with, &spec()), "in no group");
    }
}
