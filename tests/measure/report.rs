//! The document: what was measured, where, how, and what it means.

use std::time::Duration;

use chrono::DateTime;

use crate::clock::ms_between;
use crate::footprint::{self, Footprint};
use crate::listings::{CONNECTIONS, FEW, Filtered, Listings, MANY};
use crate::machine::Machine;
use crate::pairs::Triple;
use crate::parallel;
use crate::statistics::{Summary, p99};
use crate::table::{ms, ms_row, ratio_row, table};
use crate::targets::{
    ACCEPTED_MS, Bound, CONTROL_PATH_MEDIAN_MS, CONTROL_PATH_P95_MS, CPU_PERCENT, FILTER_P99_MS, FOUR_AT_ONCE_RATIO, LIST_P99_MS,
    OVER_BARE_CALL_MS, REQUESTS_PER_SECOND, RSS_MIB, Target,
};
use crate::timeline::Timeline;

/// Everything that a run measured.
pub(crate) struct Report {
    /// When it began, since the epoch.
    pub began: Duration,
    /// What was typed.
    pub command: String,
    pub machine: Machine,
    /// Runnable processes at the end, on average of 1, 5 and 15 minutes.
    pub load_after: String,
    /// With `--quick`: too few rounds to tell.
    pub quick: bool,
    pub triples: Vec<Triple>,
    pub fsync_ms: Vec<f64>,
    pub parallel: Vec<parallel::Pair>,
    pub footprint: Vec<Footprint>,
    pub listings: Listings,
}

const FIGURES: [&str; 4] = ["", "median", "95 % interval of the median", "p95"];

impl Report {
    /// The whole document.
    pub(crate) fn text(&self) -> String {
        let sections = [
            self.head(),
            self.targets(),
            self.one_guest(),
            self.steps(),
            self.four_at_once(),
            self.footprint(),
            self.listings(),
            BESIDE_NOVA.to_owned(),
            HOW.to_owned(),
        ];
        sections.join("\n")
    }

    fn head(&self) -> String {
        let machine = &self.machine;
        let began = i64::try_from(self.began.as_secs()).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let date = began.map_or_else(|| "unknown".to_owned(), |date| date.format("%Y-%m-%d %H:%M UTC").to_string());
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let rows = [
            row("date", date),
            row(
                "command",
                format!("`{}`: {} moves by each method, {} of four at once", self.command, self.triples.len(), self.parallel.len()),
            ),
            row("commit", machine.commit.clone()),
            row("processor", format!("{} × {}", machine.cores, machine.processor)),
            row("memory", format!("{} MiB", machine.memory_mib)),
            row("load before and after", format!("{}; {}", machine.load_average, self.load_after)),
            row("kernel", format!("Linux {}", machine.kernel)),
            row("hypervisor", format!("libvirt {}, QEMU {}, emulated (TCG)", machine.libvirt, machine.qemu)),
        ];
        let warning =
            if self.quick { "\nA quick run: it shows that the measurement works; the figures mean little.\n" } else { "" };
        format!("{HEAD}\n{}{warning}", table(&["", ""], &rows))
    }

    fn targets(&self) -> String {
        let control_path = Summary::of(&self.of_drover(Timeline::control_path_ms));
        let over_bare = Summary::of(&self.over(|one| one.bare_ms));
        let accepted = Summary::of(&self.of_drover(Timeline::accepted_ms));
        let four = Summary::of(&self.four_ratios());
        let most = |of: fn(&Footprint) -> f64| self.footprint.iter().map(of).reduce(f64::max).unwrap_or(f64::NAN);
        let target =
            |what: &str, limit, measured, unit| Target { what: what.to_owned(), bound: Bound::AtMost(limit), measured, unit };
        let load = &self.listings.load;
        let slowest = self.listings.filters.iter().map(|filter| (p99(&filter.latencies_ms), filter.query.as_str()));
        let (slowest, slowest_name) = slowest.max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap_or((f64::NAN, "none"));
        let few = format!("`GET /servers/detail`, {FEW} servers, {CONNECTIONS} connections");
        let targets = [
            target("control path, median", CONTROL_PATH_MEDIAN_MS, control_path.median, " ms"),
            target("control path, p95", CONTROL_PATH_P95_MS, control_path.p95, " ms"),
            target("over the bare call: upper bound of the median difference", OVER_BARE_CALL_MS, over_bare.interval.high, " ms"),
            target(&format!("POST → 202, median ({})", self.fsync()), ACCEPTED_MS, accepted.median, " ms"),
            target("four at once, as a multiple of parallel virsh, median", FOUR_AT_ONCE_RATIO, four.median, ""),
            target("resident memory of the largest process", RSS_MIB, most(|process| process.rss_mib), " MiB"),
            target("processor time of the busiest idle process", CPU_PERCENT, most(|process| process.cpu_percent), " %"),
            Target {
                what: few.clone(),
                bound: Bound::AtLeast(REQUESTS_PER_SECOND),
                measured: load.requests_per_second,
                unit: " requests/s",
            },
            target(&format!("{few}, p99"), LIST_P99_MS, p99(&load.latencies_ms), " ms"),
            target(&format!("{MANY} servers, slowest filter (`{slowest_name}`), p99"), FILTER_P99_MS, slowest, " ms"),
        ];
        let rows: Vec<_> = targets.iter().map(Target::row).collect();
        format!("## Targets\n\n{}", table(&["", "target", "measured", ""], &rows))
    }

    fn fsync(&self) -> String {
        let summary = Summary::of(&self.fsync_ms);
        format!("fsync of the disk: {}, p95 {}", ms(summary.median), ms(summary.p95))
    }

    fn one_guest(&self) -> String {
        let by = |of: fn(&Triple) -> f64| self.triples.iter().map(of).collect::<Vec<_>>();
        let over =
            |of: fn(&Triple) -> f64| by(of).iter().zip(by(drover_ms)).map(|(other, drover)| drover / other).collect::<Vec<_>>();
        let rows = [
            ms_row("Drover: POST → ACTIVE on the destination", &by(drover_ms)),
            ms_row("`virsh migrate`", &by(|one| one.virsh_ms)),
            ms_row("bare call", &by(|one| one.bare_ms)),
            ms_row("Drover minus virsh, paired", &self.over(|one| one.virsh_ms)),
            ms_row("Drover minus bare call, paired", &self.over(|one| one.bare_ms)),
            ratio_row("Drover / virsh, paired", &over(|one| one.virsh_ms)),
            ratio_row("Drover / bare call, paired", &over(|one| one.bare_ms)),
        ];
        format!("## One guest\n\n{ONE_GUEST}\n{}", table(&FIGURES, &rows))
    }

    fn steps(&self) -> String {
        let names = self.triples.first().map(|one| one.drover.steps().map(|(name, _)| name));
        let step = |(index, name): (usize, &'static str)| {
            let lengths = self.of_drover(|drover| drover.steps().get(index).map_or(f64::NAN, |(_, ms)| *ms));
            ms_row(name, &lengths)
        };
        let mut rows: Vec<_> = names.into_iter().flatten().enumerate().map(step).collect();
        rows.push(ms_row("**control path**: all but libvirt's call", &self.of_drover(Timeline::control_path_ms)));
        rows.push(ms_row("before libvirt's call", &self.of_drover(|drover| ms_between(drover.sent, drover.entered))));
        rows.push(ms_row("after libvirt's call", &self.of_drover(|drover| ms_between(drover.returned, drover.closed))));
        rows.push(ms_row("POST → 202", &self.of_drover(Timeline::accepted_ms)));
        rows.push(ms_row("`write` and `fsync` of 8 KiB on the bench's disk", &self.fsync_ms));
        let slower: Vec<f64> = self.triples.iter().map(|one| one.drover.call_ms() - one.bare_ms).collect();
        rows.push(ms_row("libvirt's call by Drover minus bare call, paired", &slower));
        format!("## Where Drover's time goes\n\n{STEPS}\n{}", table(&FIGURES, &rows))
    }

    fn four_at_once(&self) -> String {
        let by = |of: fn(&parallel::Pair) -> f64| self.parallel.iter().map(of).collect::<Vec<_>>();
        let rows = [
            ms_row("Drover, four POSTs", &by(|one| one.drover_ms)),
            ms_row("four `virsh migrate`", &by(|one| one.virsh_ms)),
            ratio_row("Drover / virsh, paired", &self.four_ratios()),
        ];
        format!("## Four guests at once\n\n{FOUR}\n{}", table(&FIGURES, &rows))
    }

    fn footprint(&self) -> String {
        let row = |process: &Footprint| {
            vec![process.process.clone(), format!("{:.1} MiB", process.rss_mib), format!("{:.2} %", process.cpu_percent)]
        };
        let mut rows: Vec<_> = self.footprint.iter().map(row).collect();
        let sum = |of: fn(&Footprint) -> f64| self.footprint.iter().map(of).sum::<f64>();
        rows.push(vec![
            "all".to_owned(),
            format!("{:.1} MiB", sum(|process| process.rss_mib)),
            format!("{:.2} %", sum(|process| process.cpu_percent)),
        ]);
        let seconds = footprint::SPAN.as_secs();
        let text = format!(
            "Resident memory (`VmRSS`) and processor time (of one processor) of each process over {seconds} s with four idle guests,\n\
             after all that stands above.\n"
        );
        format!("## Footprint\n\n{text}\n{}", table(&["process", "resident", "processor"], &rows))
    }

    fn listings(&self) -> String {
        let row = |filter: &Filtered| {
            let median = Summary::of(&filter.latencies_ms).median;
            vec![format!("`{}`", filter.query), filter.found.to_string(), ms(median), ms(p99(&filter.latencies_ms))]
        };
        let rows: Vec<_> = self.listings.filters.iter().map(row).collect();
        format!("## Listing servers\n\n{LISTINGS}\n{}", table(&["filter", "found", "median", "p99"], &rows))
    }

    fn of_drover(&self, of: impl Fn(&Timeline) -> f64) -> Vec<f64> {
        self.triples.iter().map(|triple| of(&triple.drover)).collect()
    }

    /// Drover's time minus another's, pair by pair.
    fn over(&self, other: impl Fn(&Triple) -> f64) -> Vec<f64> {
        self.triples.iter().map(|triple| drover_ms(triple) - other(triple)).collect()
    }

    fn four_ratios(&self) -> Vec<f64> {
        self.parallel.iter().map(|one| one.drover_ms / one.virsh_ms).collect()
    }
}

fn drover_ms(triple: &Triple) -> f64 {
    triple.drover.span().ms()
}

const HEAD: &str = "\
# Benchmarks

Written by `make bench`; do not edit. The yardstick is libvirt itself: the same guest, moved on the same bench in the same minutes
by Drover, by `virsh migrate` and by nothing but libvirt's call.
";

const ONE_GUEST: &str = "\
An idle guest of 128 MiB without a disk goes there and back between two hosts by each method in turn, the three in every order. A
paired row is about the differences (or ratios) of moves of one round in the same direction: what slows down a whole round, or
one direction, cancels out.
";

const STEPS: &str = "\
Drover's moves of the table above, step by step; each row begins where the one before ends. Times of the row and of the logs are
of one machine's clock.
";

const FOUR: &str = "\
Four such guests leave a host together; from the first start to the last end. `max_concurrent_live_migrations = 0`.
";

const LISTINGS: &str = "\
`GET /servers/detail?all_tenants=1&limit=100` with each filter, one after the other on one connection, 100,000 servers in the table
(5 % of them deleted) on a hundred hosts. No answer comes from a cache. What the database does for each: docs/performance.md.
";

const BESIDE_NOVA: &str = "\
## Beside Nova

Nova 34 on a comparable machine (2 cores, emulated guests), measured before; not part of this run.

| | Nova 34 |
| --- | --- |
| control path | 868 ms |
| of that: API | 87 ms |
| Nova's own checks in the conductor | 105 ms |
| scheduler and placement | 165 ms |
| checks on the hosts | 169 ms |
| queue and `pre_live_migration` | 189 ms |
| after libvirt's call | 131 ms |
| one guest, as a multiple of `virsh migrate` | 1.8 |
| POST → 202 | 90 ms |
| four at once, as a multiple of parallel `virsh migrate` | 2.7 to 4.6 |
| resident memory | 1.1 GiB |
";

const HOW: &str = "\
## What the rows mean

- **Drover**: from just before the POST is written (microversion 2.84, `host: null`: the scheduler chooses) until the transaction
  is committed that makes the server ACTIVE on the destination, as the conductor logs it. That is a commit later than the row's
  `ended_at`.
- **virsh**: `virsh migrate --live --p2p --persistent --undefinesource`, run on the source host, from before the program starts
  until after it ends.
- **bare call**: `virDomainMigrateToURI3` with the same flags on an open connection, the domain looked up before: what libvirt
  itself takes. Drover's call also gives the destination's XML.
- Drover's agents run and follow the guest all the time, also while the other two are measured.
- **control path**: from the POST until the agent enters libvirt's call, and from its return until the commit: all that Drover adds.
- **95 % interval**: percentile bootstrap of the median, 2000 resamples with a fixed seed. **p95**: nearest rank.
- Before each move half a second of quiet; one round before the first is not counted. Each migration counted completed, and its
  guest was found alive and unharmed (one boot, one copy, no lost page).
- Guests are emulated and hosts share the machine's processors, so libvirt's own time says little about real hardware; the
  difference to it is Drover's.
";
