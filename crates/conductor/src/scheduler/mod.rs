//! The scheduler: filters, then weighs, over one snapshot of the hosts. Pure.
//!
//! *Adding a filter:* a file in `filters/` with a type that implements [`filters::Filter`], a line in [`filters::ALL`], its name in
//! the default file. *Adding a weigher:* a function in `weighers.rs` and its multiplier.

pub mod filters;
pub mod weighers;

use std::cmp::Reverse;

use drover_common::config::ConfigError;
use drover_common::fault::Fault;
use drover_common::ids::{HostName, ServerId};
use drover_common::server_group::GroupRule;
use drover_store::hosts::HostState;
use drover_store::migrations::Refusal;

use self::filters::Filter;
use self::weighers::Weights;

/// What is to be placed.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The guest.
    pub server: ServerId,
    /// Where it is.
    pub source: HostName,
    /// `hypervisor_type` there.
    pub hypervisor_type: String,
    /// `hypervisor_version` there.
    pub hypervisor_version: i32,
    /// Its size.
    pub vcpus: i64,
    /// Its size.
    pub memory_mb: i64,
    /// The availability zone that it must stay in.
    pub availability_zone: Option<PinnedZone>,
    /// The server group that it is in.
    pub group: Option<GroupRule>,
}

/// A zone that a server must stay in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedZone {
    /// Its name.
    pub name: String,
    /// That of hosts which no aggregate puts into one (`default_availability_zone`).
    pub default: String,
}

/// How far hosts may be promised, and which differences are overlooked.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Memory.
    pub ram_allocation_ratio: f64,
    /// CPUs.
    pub cpu_allocation_ratio: f64,
    /// MiB that each host keeps.
    pub reserved_host_memory_mb: i64,
    /// Take older hypervisors.
    pub skip_hypervisor_version_check: bool,
}

/// The scheduler as configured.
pub struct Scheduler {
    filters: Vec<&'static dyn Filter>,
    weights: Weights,
    /// The rules that filters share with the prechecks of a requested host.
    pub allowance: Allowance,
}

impl Scheduler {
    /// Finds the filters by their names.
    pub fn new(enabled: &[String], weights: Weights, allowance: Allowance) -> Result<Self, ConfigError> {
        let find = |name: &String| {
            filters::ALL.iter().copied().find(|filter| filter.name() == name).ok_or_else(|| {
                let known: Vec<&str> = filters::ALL.iter().map(|filter| filter.name()).collect();
                ConfigError::not_allowed(
                    "[filter_scheduler] enabled_filters",
                    name,
                    format_args!("filters are {}", known.join(", ")),
                )
            })
        };
        Ok(Self { filters: enabled.iter().map(find).collect::<Result<_, _>>()?, weights, allowance })
    }

    /// The first filter's reason against this host, if there is one.
    pub fn refuse(&self, host: &HostState, spec: &Spec) -> Option<Fault> {
        self.filters.iter().find_map(|filter| filter.refuse(host, spec, &self.allowance))
    }

    /// Hosts that pass, the best first, and the others with the reason against each. Equal hosts stand in the order of their names.
    pub fn select_destinations<'a>(&self, hosts: &'a [HostState], spec: &Spec) -> (Vec<&'a HostState>, Vec<Refusal>) {
        let (mut passed, mut refused) = (Vec::new(), Vec::new());
        for host in hosts {
            match self.refuse(host, spec) {
                None => passed.push(host),
                Some(fault) => refused.push(Refusal { host: host.host.clone(), fault }),
            }
        }
        let weighed = weighers::weigh(&passed, spec, &self.weights, &self.allowance);
        let mut order: Vec<_> = passed.into_iter().zip(weighed).collect();
        order.sort_by(|(a, weight_a), (b, weight_b)| Reverse(weight_a).cmp(&Reverse(weight_b)).then_with(|| a.host.cmp(&b.host)));
        (order.into_iter().map(|(host, _)| host).collect(), refused)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn host(name: &str) -> HostState {
        HostState {
            host: HostName::new(name).unwrap(),
            node: name.to_owned(),
            hypervisor_type: "QEMU".to_owned(),
            hypervisor_version: 10_000_002,
            vcpus: 8,
            memory_mb: 16384,
            vcpus_used: 0,
            memory_mb_used: 0,
            migrations: 0,
            disabled: None,
            forced_down: false,
            up: true,
            silent_for_s: 3,
            zone: None,
            group_members: 0,
            owes_cleanup: false,
        }
    }

    pub(crate) fn spec() -> Spec {
        Spec {
            server: ServerId::random(),
            source: HostName::new("h1").unwrap(),
            hypervisor_type: "QEMU".to_owned(),
            hypervisor_version: 10_000_002,
            vcpus: 2,
            memory_mb: 4096,
            availability_zone: None,
            group: None,
        }
    }

    pub(crate) const WEIGHTS: Weights = Weights { ram: 1.0, cpu: 1.0, io_ops: -1.0, soft_affinity: 1.0, soft_anti_affinity: 1.0 };

    pub(crate) const ALLOWANCE: Allowance = Allowance {
        ram_allocation_ratio: 1.0,
        cpu_allocation_ratio: 1.0,
        reserved_host_memory_mb: 512,
        skip_hypervisor_version_check: false,
    };

    fn scheduler() -> Scheduler {
        let all: Vec<String> = filters::ALL.iter().map(|f| f.name().to_owned()).collect();
        Scheduler::new(&all, WEIGHTS, ALLOWANCE).unwrap()
    }

    #[test]
    fn the_emptiest_host_comes_first_and_equal_hosts_by_name() {
        let mut full = host("h2");
        full.memory_mb_used = 8000;
        let hosts = [full, host("h4"), host("h3"), host("h1")];
        let (passed, refused) = scheduler().select_destinations(&hosts, &spec());
        let names: Vec<_> = passed.iter().map(|h| h.host.as_str()).collect();
        assert_eq!(names, ["h3", "h4", "h2"]);
        assert_eq!(refused.len(), 1, "the source itself");
    }

    #[test]
    fn every_refused_host_has_a_reason_that_names_it() {
        let mut down = host("h2");
        down.up = false;
        let mut small = host("h3");
        small.memory_mb = 1024;
        let hosts = [down, small];
        let (passed, refused) = scheduler().select_destinations(&hosts, &spec());
        assert!(passed.is_empty());
        for refusal in refused {
            assert!(refusal.fault.message.contains(refusal.host.as_str()), "{}", refusal.fault);
        }
    }

    #[test]
    fn an_unknown_filter_is_refused_with_the_known_ones() {
        let Err(error) = Scheduler::new(&["RamFiler".to_owned()], WEIGHTS, ALLOWANCE) else { panic!("taken") };
        assert!(error.to_string().contains("RamFiler") && error.to_string().contains("RamFilter"), "{error}");
    }
}
