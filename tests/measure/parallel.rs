//! Four guests that leave a host at the same time, by Drover and by as many `virsh migrate`.

use drover_testkit::{Guest, Result};

use crate::clock::Span;
use crate::cloud::{Cloud, Route};
use crate::timeline::Timeline;
use crate::{drover, methods};

/// From the first start to the last end, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// Through Drover's API, asked for at the same time.
    pub drover_ms: f64,
    /// As many `virsh migrate`, started at the same time.
    pub virsh_ms: f64,
}

/// So many rounds. They begin with the one and the other in turns, so that each has either direction equally often.
pub(crate) fn measure(cloud: &Cloud, guests: &[Guest], rounds: u32) -> Result<Vec<Round>> {
    let mut route = cloud.route()?;
    (1..=rounds)
        .map(|number| {
            let round = if number % 2 == 1 {
                let drover_ms = by_drover(cloud, guests, &mut route)?;
                Round { drover_ms, virsh_ms: by_virsh(cloud, guests, &mut route)? }
            } else {
                let virsh_ms = by_virsh(cloud, guests, &mut route)?;
                Round { drover_ms: by_drover(cloud, guests, &mut route)?, virsh_ms }
            };
            eprintln!("    {number:>3} of {rounds}: Drover {:>6.0} ms, virsh {:>6.0} ms", round.drover_ms, round.virsh_ms);
            Ok(round)
        })
        .collect()
}

fn by_drover(cloud: &Cloud, guests: &[Guest], route: &mut Route) -> Result<f64> {
    let spans: Vec<Span> = drover::migrate(cloud, guests, route)?.iter().map(Timeline::span).collect();
    arrive(cloud, guests, route)?;
    Ok(Span::around(&spans).ms())
}

fn by_virsh(cloud: &Cloud, guests: &[Guest], route: &mut Route) -> Result<f64> {
    let spans = methods::virsh(guests, route)?;
    arrive(cloud, guests, route)?;
    Ok(Span::around(&spans).ms())
}

fn arrive(cloud: &Cloud, guests: &[Guest], route: &mut Route) -> Result<()> {
    cloud.settle(guests, &route.destination)?;
    route.turn();
    Ok(())
}
