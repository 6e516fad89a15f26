//! libvirt's own two ways to move a guest: `virsh` and the bare call. Drover's is in [`crate::drover`].

use std::path::Path;
use std::thread;

use drover_testkit::{BenchError, Guest, Host, Result};
use virt::connect::Connect;
use virt::domain::MigrateParameters;
use virt::error::Error;
use virt::sys;

use crate::clock::{self, Span};
use crate::cloud::Route;
use crate::drover::panicked;

/// The flags that Drover gives by default, as libvirt's call takes them …
const FLAGS: u32 =
    sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PEER2PEER | sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
/// … and as virsh does.
const OPTIONS: [&str; 4] = ["--live", "--p2p", "--persistent", "--undefinesource"];

/// A way to move a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// Drover's API.
    Drover,
    /// `virsh migrate` on the source host.
    Virsh,
    /// Nothing but `virDomainMigrateToURI3`.
    Bare,
}

/// The orders in which the methods take turns. Each method stands at each place equally often, and follows each other equally often.
pub(crate) const ORDERS: [[Method; 3]; 6] = [
    [Method::Drover, Method::Virsh, Method::Bare],
    [Method::Drover, Method::Bare, Method::Virsh],
    [Method::Virsh, Method::Bare, Method::Drover],
    [Method::Virsh, Method::Drover, Method::Bare],
    [Method::Bare, Method::Drover, Method::Virsh],
    [Method::Bare, Method::Virsh, Method::Drover],
];

/// `virsh migrate` for each guest, all at once; from before each program's start until after its end.
pub(crate) fn virsh(guests: &[Guest], route: &Route) -> Result<Vec<Span>> {
    let destination = route.destination.libvirt_uri();
    let migrate = |guest: &Guest| {
        let start = clock::now();
        route.source.virsh(["migrate"].into_iter().chain(OPTIONS).chain([guest.uuid(), destination.as_str()]))?;
        Ok(Span { start, end: clock::now() })
    };
    thread::scope(|scope| {
        let moves: Vec<_> = guests.iter().map(|guest| scope.spawn(|| migrate(guest))).collect();
        moves.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(panicked()))).collect()
    })
}

/// The call alone: the connection is open and the domain looked up before.
pub(crate) fn bare(guest: &Guest, route: &Route) -> Result<Span> {
    let failed = |error: Error| BenchError::Refused(format!("libvirt's own migration of {}: {error}", guest.name()));
    let connect = connect(&route.source)?;
    let domain = connect.lookup_domain_by_uuid_string(guest.uuid()).map_err(failed)?;
    let destination = route.destination.libvirt_uri();
    let start = clock::now();
    domain.migrate_to_uri3(Some(&destination), MigrateParameters::default(), FLAGS).map_err(failed)?;
    Ok(Span { start, end: clock::now() })
}

/// Has libvirt tell of a guest on this host again, by defining it as it is. Drover hears of a guest that was moved without it first
/// from the destination, while the source still has it; without this it follows with the next complete report, up to a minute later.
pub(crate) fn tell_again(guest: &Guest, host: &Host) -> Result<()> {
    let failed = |error: Error| BenchError::Refused(format!("define {} on {} again: {error}", guest.name(), host.name()));
    let connect = connect(host)?;
    let domain = connect.lookup_domain_by_uuid_string(guest.uuid()).map_err(failed)?;
    let definition = domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(failed)?;
    connect.define_domain_xml(&definition).map_err(failed)?;
    Ok(())
}

/// A connection to a host's libvirtd by its Unix socket, as its agent has one.
pub(crate) fn connect(host: &Host) -> Result<Connect> {
    let socket = host.outside_path(Path::new("/run/libvirt/libvirt-sock"))?;
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    Connect::open(Some(&uri)).map_err(|error| BenchError::Refused(format!("connect to libvirt of {}: {error}", host.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_every_place_and_follows_every_other() {
        for method in [Method::Drover, Method::Virsh, Method::Bare] {
            let mut places: Vec<usize> = Vec::new();
            let mut before = Vec::new();
            for order in ORDERS {
                let place = order.iter().position(|m| *m == method).unwrap();
                places.push(place);
                before.extend(place.checked_sub(1).map(|p| format!("{:?}", order[p])));
            }
            places.sort_unstable();
            assert_eq!(places, [0, 0, 1, 1, 2, 2], "{method:?}");
            before.sort_unstable();
            assert!(before.len() == 4 && before[0] == before[1] && before[1] != before[2] && before[2] == before[3], "{before:?}");
        }
    }
}
