//! `AvailabilityZoneFilter`: a server that is pinned to a zone stays in it; any other may cross zones (Nova:
//! `availability_zone_filter.py`, which looks at the zone that was asked for at the server's creation).

use drover_common::fault::Fault;
use drover_store::hosts::HostState;

use super::Filter;
use crate::scheduler::{Allowance, PinnedZone, Spec};

/// See the module.
pub struct AvailabilityZoneFilter;

impl Filter for AvailabilityZoneFilter {
    fn name(&self) -> &'static str {
        "AvailabilityZoneFilter"
    }

    fn refuse(&self, host: &HostState, spec: &Spec, _allowance: &Allowance) -> Option<Fault> {
        let PinnedZone { name, default } = spec.availability_zone.as_ref()?;
        let zone = host.zone.as_deref().unwrap_or(default);
        (zone != name).then(|| {
            Fault::precheck(format_args!("{} is in availability zone {zone}, {} must stay in {name}", host.host, spec.server))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{ALLOWANCE, host, spec};

    #[test]
    fn only_a_pinned_server_is_kept_in_its_zone() {
        let refuses = |zone: Option<&str>, pinned: Option<&str>| {
            let host = HostState { zone: zone.map(str::to_owned), ..host("h2") };
            let pinned = pinned.map(|name| PinnedZone { name: name.to_owned(), default: "nova".to_owned() });
            let spec = Spec { availability_zone: pinned, ..spec() };
            AvailabilityZoneFilter.refuse(&host, &spec, &ALLOWANCE).is_some()
        };
        assert!(!refuses(Some("az1"), None));
        assert!(!refuses(Some("az1"), Some("az1")));
        assert!(refuses(Some("az2"), Some("az1")));
        assert!(refuses(None, Some("az1")));
        assert!(!refuses(None, Some("nova")), "hosts outside of all zones are in the default one");
    }
}
