//! One guest, moved by each method in turn.

use std::slice;

use drover_testkit::{BenchError, Guest, Result};

use crate::cloud::{Cloud, Route};
use crate::drover;
use crate::methods::{self, Method, ORDERS};
use crate::timeline::Timeline;

/// One move by each method; milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Drover's, step by step.
    pub drover: Timeline,
    /// `virsh migrate`.
    pub virsh_ms: f64,
    /// The bare call.
    pub bare_ms: f64,
}

/// So many rounds; the guest goes to and fro, and is where it began at the end. One round before them warms everything up and does not
/// count.
pub(crate) fn measure(cloud: &Cloud, guest: &Guest, rounds: u32) -> Result<Vec<Round>> {
    let mut route = cloud.route()?;
    round(cloud, guest, &mut route, ORDERS[0])?;
    bring_back(cloud, guest, &mut route)?;
    let orders = ORDERS.into_iter().cycle();
    let measured = (1..=rounds)
        .zip(orders)
        .map(|(number, order)| {
            let measured = round(cloud, guest, &mut route, order)?;
            eprintln!(
                "    {number:>3} of {rounds}: Drover {:>6.0} ms (control path {:>5.1}), virsh {:>6.0} ms, bare call {:>6.0} ms",
                measured.drover.span().ms(),
                measured.drover.control_path_ms(),
                measured.virsh_ms,
                measured.bare_ms
            );
            Ok(measured)
        })
        .collect::<Result<_>>()?;
    bring_back(cloud, guest, &mut route)?;
    Ok(measured)
}

/// To the first host, if it is not there: an odd number of rounds ends on the other.
fn bring_back(cloud: &Cloud, guest: &Guest, route: &mut Route) -> Result<()> {
    if route.source.name() == cloud.route()?.source.name() {
        return Ok(());
    }
    methods::virsh(slice::from_ref(guest), route)?;
    arrive(cloud, guest, route)
}

fn round(cloud: &Cloud, guest: &Guest, route: &mut Route, order: [Method; 3]) -> Result<Round> {
    let one = slice::from_ref(guest);
    let (mut drover, mut virsh, mut bare) = (None, None, None);
    for method in order {
        match method {
            Method::Drover => drover = drover::migrate(cloud, one, route)?.pop(),
            Method::Virsh => virsh = methods::virsh(one, route)?.pop(),
            Method::Bare => bare = Some(methods::bare(guest, route)?),
        }
        arrive(cloud, guest, route)?;
    }
    match (drover, virsh, bare) {
        (Some(drover), Some(virsh), Some(bare)) => Ok(Round { drover, virsh_ms: virsh.ms(), bare_ms: bare.ms() }),
        _ => Err(BenchError::Refused(format!("the order {order:?} leaves a method out; that is a bug"))),
    }
}

/// All is quiet and well on the destination, from where the next move starts.
fn arrive(cloud: &Cloud, guest: &Guest, route: &mut Route) -> Result<()> {
    cloud.settle(slice::from_ref(guest), &route.destination)?;
    route.turn();
    Ok(())
}
