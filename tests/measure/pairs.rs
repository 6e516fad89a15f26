//! One guest, moved by each method in turn.

use std::slice;

use drover_testkit::{BenchError, Guest, Result};

use crate::clock::Span;
use crate::cloud::{Cloud, Route};
use crate::drover;
use crate::methods::{self, Method, ORDERS};
use crate::timeline::Timeline;

/// One move by each method, all in the same direction; milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Triple {
    /// Drover's, step by step.
    pub drover: Timeline,
    /// `virsh migrate`.
    pub virsh_ms: f64,
    /// The bare call.
    pub bare_ms: f64,
}

/// So many triples, two in a round: each method takes the guest there and back. One direction may be slower than the other, for
/// reasons that have nothing to do with the method, so only moves in the same direction are compared. One round before the first warms everything
/// up and does not count.
pub(crate) fn measure(cloud: &Cloud, guest: &Guest, triples: u32) -> Result<Vec<Triple>> {
    let mut route = cloud.route()?;
    round(cloud, guest, &mut route, ORDERS[0])?;
    let mut measured = Vec::new();
    for order in ORDERS.into_iter().cycle().take(triples.div_ceil(2) as usize) {
        for triple in round(cloud, guest, &mut route, order)? {
            measured.push(triple);
            let Some(Triple { drover, virsh_ms, bare_ms }) = measured.last() else { continue };
            eprintln!(
                "    {:>3} of {triples}: Drover {:>6.0} ms (control path {:>5.1}), virsh {virsh_ms:>6.0} ms, bare call {bare_ms:>6.0} ms",
                measured.len(),
                drover.span().ms(),
                drover.control_path_ms(),
            );
        }
    }
    Ok(measured)
}

/// What the methods took in one direction so far.
#[derive(Default)]
struct Moves {
    drover: Option<Timeline>,
    virsh_ms: Option<f64>,
    bare_ms: Option<f64>,
}

fn round(cloud: &Cloud, guest: &Guest, route: &mut Route, order: [Method; 3]) -> Result<[Triple; 2]> {
    let one = slice::from_ref(guest);
    let (mut there, mut back) = (Moves::default(), Moves::default());
    for method in order {
        for moves in [&mut there, &mut back] {
            match method {
                Method::Drover => moves.drover = drover::migrate(cloud, one, route)?.pop(),
                Method::Virsh => moves.virsh_ms = methods::virsh(one, route)?.pop().map(Span::ms),
                Method::Bare => moves.bare_ms = Some(methods::bare(guest, route)?.ms()),
            }
            cloud.settle(one, &route.destination)?;
            route.turn();
        }
    }
    Ok([there.whole(order)?, back.whole(order)?])
}

impl Moves {
    fn whole(self, order: [Method; 3]) -> Result<Triple> {
        match self {
            Self { drover: Some(drover), virsh_ms: Some(virsh_ms), bare_ms: Some(bare_ms) } => {
                Ok(Triple { drover, virsh_ms, bare_ms })
            }
            _ => Err(BenchError::Refused(format!("the order {order:?} leaves a method out; that is a bug"))),
        }
    }
}
