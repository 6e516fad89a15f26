//! The links between the hosts, shared among the copies under way.
//!
//! Each host's link (`live_migration_link_bandwidth`) bounds what leaves it and what arrives, in all. The shares are max-min fair: all
//! copies get more at the same pace until a link is full or a copy has what one may take; who is held up by neither goes on. They
//! are worked out anew when a copy begins or ends, when a host comes up, and by the sweep, which also tells agents again that run a
//! copy under another limit than its share. A start takes what the claim worked out ([`drover_store::claims`]), so it waits for nothing.

use std::collections::HashMap;
use std::sync::Arc;

use drover_common::ids::{HostName, MigrationId};
use drover_common::rpc::latest::{Bandwidth, OfAttempt, ToCompute};
use drover_common::telemetry;
use drover_store::bandwidth::{self, Stream};
use drover_store::{StoreError, commit};
use tracing::{debug, info, warn};

use crate::Conductor;

/// A host's link in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Link<'a> {
    From(&'a HostName),
    To(&'a HostName),
}

/// What is left of a link, and who is still to get something of it.
struct Rest {
    mib: u64,
    streams: u64,
}

/// The links of a copy that have a limit.
fn links(stream: &Stream) -> impl Iterator<Item = (Link<'_>, u64)> {
    let ends = [(Link::From(&stream.source), stream.source_link_mib), (Link::To(&stream.destination), stream.destination_link_mib)];
    ends.into_iter().filter(|(_, mib)| *mib > 0)
}

/// Max-min fair shares by progressive filling, in whole MiB/s and at least one; none for a copy over links without a limit.
fn fair_shares(streams: &[Stream]) -> HashMap<MigrationId, Option<u64>> {
    let mut rests: HashMap<Link<'_>, Rest> = HashMap::new();
    for (link, mib) in streams.iter().flat_map(links) {
        rests.entry(link).or_insert(Rest { mib, streams: 0 }).streams += 1;
    }
    let mut shares: HashMap<MigrationId, Option<u64>> = streams.iter().map(|stream| (stream.migration, None)).collect();
    let mut open: Vec<&Stream> = streams.iter().filter(|stream| links(stream).next().is_some()).collect();
    while !open.is_empty() {
        let offers = |stream: &Stream| {
            let offered = links(stream).map(|(link, _)| rests[&link].mib / rests[&link].streams);
            let wanted = Some(stream.limit_mib).filter(|mib| *mib > 0);
            offered.chain(wanted).min().unwrap_or(0)
        };
        // Whoever is offered least has the tightest link, or wants no more: that is what it gets.
        let level = open.iter().map(|stream| offers(stream)).min().unwrap_or(0);
        let (settled, others): (Vec<&Stream>, Vec<&Stream>) = open.iter().partition(|stream| offers(stream) == level);
        // One at a time: what integer division leaves over goes to those who come after.
        let Some(stream) = settled.first() else { break };
        shares.insert(stream.migration, Some(level.max(1)));
        for (link, _) in links(stream) {
            if let Some(rest) = rests.get_mut(&link) {
                *rest = Rest { mib: rest.mib.saturating_sub(level.max(1)), streams: rest.streams - 1 };
            }
        }
        open = settled[1..].iter().chain(&others).copied().collect();
    }
    shares
}

/// What the agent is to run the copy under; 0 for no limit.
fn in_force(stream: &Stream, share: Option<u64>) -> u64 {
    share.unwrap_or(stream.limit_mib)
}

impl Conductor {
    /// Shares the links out anew, on a task of its own.
    pub(crate) fn links_changed(self: &Arc<Self>) {
        let conductor = Arc::clone(self);
        self.life.spawn(async move {
            if let Err(error) = conductor.share_out().await {
                warn!(error = telemetry::chain(&error), "links not shared out; the sweep does it");
            }
        });
    }

    /// Works out the shares, writes those that changed, and tells the sources whose copy runs under another limit.
    pub(crate) async fn share_out(&self) -> Result<(), StoreError> {
        let mut tx = self.store.begin_unsynced().await?; // Lost, the next sweep does it again.
        bandwidth::lock(&mut tx).await?;
        let streams = bandwidth::streams(&mut tx).await?;
        let shares = fair_shares(&streams);
        let changed: Vec<(MigrationId, Option<u64>)> = streams
            .iter()
            .filter(|stream| stream.share_mib != shares[&stream.migration])
            .map(|stream| (stream.migration, shares[&stream.migration]))
            .collect();
        if !changed.is_empty() {
            bandwidth::set(&mut tx, &changed).await?;
        }
        commit(tx).await?;
        for stream in &streams {
            let share = shares[&stream.migration];
            let told = stream.in_force_mib.is_none_or(|mib| mib == in_force(stream, share));
            if stream.share_mib != share || !told {
                self.tell_share(stream, share).await;
            }
        }
        Ok(())
    }

    /// Lost, it is told again: the agent says with each sample what the copy runs under.
    async fn tell_share(&self, stream: &Stream, share: Option<u64>) {
        info!(migration.id = %stream.migration, bandwidth_mib = share, "share of the links");
        let of = OfAttempt { migration: stream.migration, attempt: stream.attempt, server: stream.server };
        let message = ToCompute::LiveMigrationBandwidth(Bandwidth { of, bandwidth_mib: share });
        if let Err(fault) = self.agents.cast(&stream.source, message, None).await {
            debug!(migration.id = %stream.migration, source = %stream.source, error = %fault, "share not told; it is told again");
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_common::ids::{Attempt, ServerId};

    use super::*;

    /// Copies (source, destination, what one may take) over these links; a host that is not named has none.
    fn shares(copies: &[(&str, &str, u64)], limits: &[(&str, u64)]) -> Vec<Option<u64>> {
        let link = |host: &str| limits.iter().find(|(name, _)| *name == host).map_or(0, |(_, mib)| *mib);
        let stream = |(id, (source, destination, limit_mib)): (usize, &(&str, &str, u64))| Stream {
            migration: MigrationId(i64::try_from(id).unwrap()),
            attempt: Attempt(1),
            server: ServerId::random(),
            source: HostName::new(*source).unwrap(),
            destination: HostName::new(*destination).unwrap(),
            limit_mib: *limit_mib,
            source_link_mib: link(source),
            destination_link_mib: link(destination),
            share_mib: None,
            in_force_mib: None,
        };
        let streams: Vec<Stream> = copies.iter().enumerate().map(stream).collect();
        let shares = fair_shares(&streams);
        streams.iter().map(|stream| shares[&stream.migration]).collect()
    }

    #[test]
    fn without_a_limit_on_any_link_nobody_has_a_share() {
        assert_eq!(shares(&[("h1", "h2", 50), ("h1", "h3", 0)], &[]), [None, None]);
        assert_eq!(shares(&[], &[("h1", 100)]), []);
    }

    #[test]
    fn copies_over_one_link_get_equal_parts_of_it() {
        assert_eq!(shares(&[("h1", "h2", 0)], &[("h1", 100)]), [Some(100)]);
        assert_eq!(shares(&[("h1", "h2", 0), ("h1", "h3", 0)], &[("h1", 100)]), [Some(50), Some(50)]);
        assert_eq!(shares(&[("h1", "h3", 0), ("h2", "h3", 0)], &[("h3", 100)]), [Some(50), Some(50)], "they arrive at one host");
        assert_eq!(shares(&[("h1", "h2", 0), ("h2", "h1", 0)], &[("h1", 100), ("h2", 100)]), [Some(100), Some(100)], "duplex");
    }

    #[test]
    fn what_one_cannot_use_the_others_get() {
        assert_eq!(shares(&[("h1", "h2", 20), ("h1", "h3", 0)], &[("h1", 100)]), [Some(20), Some(80)]);
        // h3's link holds two of three up; the third has the rest of h1's.
        let copies = [("h1", "h3", 0), ("h2", "h3", 0), ("h1", "h4", 0)];
        assert_eq!(shares(&copies, &[("h1", 100), ("h3", 60)]), [Some(30), Some(30), Some(70)]);
    }

    #[test]
    fn whole_numbers_leave_nothing_over_and_never_less_than_one() {
        assert_eq!(shares(&[("h1", "h2", 0), ("h1", "h3", 0), ("h1", "h4", 0)], &[("h1", 100)]), [Some(33), Some(33), Some(34)]);
        assert_eq!(shares(&[("h1", "h2", 0), ("h1", "h3", 0)], &[("h1", 1)]), [Some(1), Some(1)]);
    }

    /// Whatever the copies: no link carries more than it may, and each copy has all it wants or a link that is full.
    #[test]
    fn no_link_is_overcommitted_and_none_is_left_idle() {
        let hosts = ["h1", "h2", "h3", "h4", "h5"];
        let mut random = 12345_usize;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..500 {
            let limits: Vec<(&str, u64)> =
                hosts.iter().map(|host| (*host, [0, 100, 250, 1000][next(4)])).filter(|(_, mib)| *mib > 0).collect();
            let copies: Vec<(&str, &str, u64)> = (0..=next(12))
                .map(|_| {
                    let source = next(5);
                    (hosts[source], hosts[(source + 1 + next(4)) % 5], [0, 7, 60][next(3)])
                })
                .collect();
            let got = shares(&copies, &limits);
            let carried = |from: bool, host: &str| -> u64 {
                let over = copies.iter().zip(&got).filter(|((source, to, _), _)| host == if from { *source } else { *to });
                over.filter_map(|(_, share)| *share).sum()
            };
            // But for what whole numbers leave over: less than 1 MiB/s for each copy.
            let copies_over = copies.len() as u64;
            let full =
                |from: bool, host: &str| limits.iter().any(|(name, mib)| *name == host && carried(from, host) + copies_over > *mib);
            for (host, mib) in &limits {
                assert!(carried(true, host) <= *mib && carried(false, host) <= *mib, "{copies:?} {limits:?} {got:?}");
            }
            for ((source, destination, limit), share) in copies.iter().zip(&got) {
                let contented = share.is_none_or(|share| *limit > 0 && share == *limit);
                assert!(contented || full(true, source) || full(false, destination), "{copies:?} {limits:?} {got:?}");
            }
        }
    }
}
