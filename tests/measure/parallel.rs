//! Four guests that leave a host at the same time, by Drover and by as many `virsh migrate`.

use drover_testkit::{Guest, Result};

use crate::clock::Span;
use crate::cloud::{Cloud, Route};
use crate::timeline::Timeline;
use crate::{drover, methods};

/// Both in the same direction, from the first start to the last end, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    /// Through Drover's API, asked for at the same time.
    pub drover_ms: f64,
    /// As many `virsh migrate`, started at the same time.
    pub virsh_ms: f64,
}

/// So many pairs, two in a round: there and back by the one, there and back by the other, who take turns in beginning. One round
/// trip by Drover before them warms everything up and does not count.
pub(crate) fn measure(cloud: &Cloud, guests: &[Guest], pairs: u32) -> Result<Vec<Pair>> {
    let mut route = cloud.route()?;
    there_and_back(cloud, guests, &mut route, by_drover)?;
    let mut measured = Vec::new();
    for round in 0..pairs.div_ceil(2) {
        let (drover, virsh) = if round % 2 == 0 {
            let drover = there_and_back(cloud, guests, &mut route, by_drover)?;
            (drover, there_and_back(cloud, guests, &mut route, by_virsh)?)
        } else {
            let virsh = there_and_back(cloud, guests, &mut route, by_virsh)?;
            (there_and_back(cloud, guests, &mut route, by_drover)?, virsh)
        };
        for (drover_ms, virsh_ms) in drover.into_iter().zip(virsh) {
            measured.push(Pair { drover_ms, virsh_ms });
            eprintln!("    {:>3} of {pairs}: Drover {drover_ms:>6.0} ms, virsh {virsh_ms:>6.0} ms", measured.len());
        }
    }
    Ok(measured)
}

type Method = fn(&Cloud, &[Guest], &Route) -> Result<Vec<Span>>;

fn by_drover(cloud: &Cloud, guests: &[Guest], route: &Route) -> Result<Vec<Span>> {
    Ok(drover::migrate(cloud, guests, route)?.iter().map(Timeline::span).collect())
}

fn by_virsh(_: &Cloud, guests: &[Guest], route: &Route) -> Result<Vec<Span>> {
    methods::virsh(guests, route)
}

fn there_and_back(cloud: &Cloud, guests: &[Guest], route: &mut Route, method: Method) -> Result<[f64; 2]> {
    let mut took = [0.0; 2];
    for ms in &mut took {
        *ms = Span::around(&method(cloud, guests, route)?).ms();
        cloud.settle(guests, &route.destination)?;
        route.turn();
    }
    Ok(took)
}
