//! `drover doctor`: every agent is asked how it stands with its host, then to try some of the others.

use std::time::Duration;

use chrono::{DateTime, Utc};
use drover_common::bus::ReplyTo;
use drover_common::doctor::own_clock;
use drover_common::ids::HostName;
use drover_common::rpc::latest::{Diagnose, Diagnosed, FleetDiagnosis, HostDiagnosis, Peer, ToCompute};
use drover_store::{StoreError, hosts};
use futures::stream::{self, StreamExt};
use tracing::info;

use crate::Conductor;
use crate::consumer::Done;

/// How long an agent has for each of its two answers. Its tries of other hosts have seconds of their own.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Agents that are asked at a time.
const AT_A_TIME: usize = 64;
/// Other hosts that each tries: all of a small fleet, and in a large one every host is tried by so many.
const PEERS: usize = 4;

impl Conductor {
    /// Asks all agents that are not said to be down, and answers with what they say.
    pub(crate) async fn diagnose(&self, reply_to: Option<&ReplyTo>) -> Done {
        let hosts = match self.hosts_to_ask().await {
            Ok(hosts) => hosts,
            Err(error) => return Done::Again(error),
        };
        let clock = own_clock();
        let here = self.diagnose_all(hosts.iter().map(|host| (host.clone(), Vec::new())).collect()).await;
        let answered: Vec<Peer> = here.iter().filter_map(|one| Some(one.diagnosis.as_ref()?.here.clone())).collect();
        let trying = answered.iter().enumerate().map(|(at, peer)| (peer.host.clone(), peers_of(at, &answered))).collect();
        let tried = self.diagnose_all(trying).await;
        // Who answered the first time only is told as it was then, with no tries.
        let hosts: Vec<Diagnosed> = here
            .into_iter()
            .map(|first| {
                tried.iter().find(|second| second.host == first.host && second.diagnosis.is_some()).cloned().unwrap_or(first)
            })
            .collect();
        info!(hosts = hosts.len(), "fleet diagnosed");
        self.bus.reply(reply_to, Ok(FleetDiagnosis { release: env!("CARGO_PKG_VERSION").to_owned(), clock, hosts })).await;
        Done::Yes
    }

    async fn hosts_to_ask(&self) -> Result<Vec<HostName>, StoreError> {
        let mut conn = self.store.connection().await?;
        let known = hosts::snapshot(&mut conn, None, None, self.settings.service_down_time).await?;
        let mut hosts: Vec<HostName> = known.into_iter().filter(|host| !host.forced_down).map(|host| host.host).collect();
        hosts.sort();
        Ok(hosts)
    }

    /// Asks each with its peers, some at a time; in the order in which they were given.
    async fn diagnose_all(&self, hosts: Vec<(HostName, Vec<Peer>)>) -> Vec<Diagnosed> {
        let asked = hosts.into_iter().map(|(host, peers)| self.diagnose_one(host, peers));
        stream::iter(asked).buffered(AT_A_TIME).collect().await
    }

    async fn diagnose_one(&self, host: HostName, peers: Vec<Peer>) -> Diagnosed {
        let tries = !peers.is_empty();
        let began = own_clock();
        let answer = self.agents.call::<HostDiagnosis>(&host, ToCompute::Diagnose(Diagnose { peers }), None, ANSWER_WITHIN).await;
        let ended = own_clock();
        match answer {
            Ok(diagnosis) => {
                // An answer that waited for tries was made at its end; one without was made half-way.
                let made = if tries { ended } else { half_way(began, ended) };
                let clock_ahead_ms = Some((diagnosis.clock - made).num_milliseconds());
                Diagnosed { host, clock_ahead_ms, diagnosis: Some(diagnosis), problem: None }
            }
            Err(fault) => Diagnosed { host, clock_ahead_ms: None, diagnosis: None, problem: Some(fault.message) },
        }
    }
}

fn half_way(began: DateTime<Utc>, ended: DateTime<Utc>) -> DateTime<Utc> {
    began + (ended - began) / 2
}

/// Those after it in the order of names, in a circle.
fn peers_of(at: usize, all: &[Peer]) -> Vec<Peer> {
    (1..all.len().min(PEERS + 1)).map(|step| all[(at + step) % all.len()].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(count: usize) -> Vec<Peer> {
        let peer = |n| Peer { host: HostName::new(format!("h{n}")).unwrap(), address: format!("h{n}"), migration_port: None };
        (0..count).map(peer).collect()
    }

    #[test]
    fn in_a_small_fleet_everybody_tries_everybody_else_and_in_a_large_one_each_is_tried_as_often() {
        assert!(peers_of(0, &peers(1)).is_empty());
        let small = peers(3);
        let named = |peers: Vec<Peer>| -> Vec<String> { peers.into_iter().map(|peer| peer.address).collect() };
        assert_eq!(named(peers_of(2, &small)), ["h0", "h1"]);
        let large = peers(10);
        let tried: Vec<String> = (0..10).flat_map(|at| named(peers_of(at, &large))).collect();
        for peer in &large {
            assert_eq!(tried.iter().filter(|name| **name == peer.address).count(), PEERS);
        }
    }

    #[test]
    fn the_way_there_and_back_is_halved() {
        let at = DateTime::from_timestamp_millis;
        assert_eq!(half_way(at(1000).unwrap(), at(1400).unwrap()), at(1200).unwrap());
    }
}
