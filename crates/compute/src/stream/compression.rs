//! Whether compression is worth its cores on a link.
//!
//! Each parallel connection compresses on a core of its own. As long as those cores fill the link with compressed memory, more memory
//! crosses it than without; from where they cannot, compression is the narrowest point and costs more than it saves.

use super::StreamOptions;
use super::link::Link;

/// How much smaller memory gets, at the least that is worth reckoning with. Guests' memory with zero pages left out, which QEMU never
/// sends, is seldom below it.
const RATIO: u64 = 2;
/// It must carry at least so many quarters of what the link carries without it: less is not worth the cores.
const WORTH_QUARTERS: u64 = 5;

/// What one core compresses at a level, MiB/s: zstd's own figures (its README: level 1 about 500 MB/s on a desktop's core of 2018), with
/// a margin for servers' slower cores.
const fn core_mib_s(level: u8) -> u64 {
    match level {
        0..=1 => 300,
        2 => 220,
        3..=4 => 150,
        5..=7 => 70,
        8..=12 => 30,
        _ => 5,
    }
}

/// Whether to compress, and why. `cannot` is why it cannot be at all.
pub fn choose(options: &StreamOptions, link: Option<&Link>, cannot: Option<String>) -> (bool, String) {
    if let Some(why) = cannot {
        return (false, format!("not compressed: {why}"));
    }
    let Some((carries, what)) = carries(options.bandwidth_mib, link) else {
        return (false, "not compressed: how fast the link is is not known".to_owned());
    };
    let cores = u64::from(options.connections);
    let compressed = (carries * RATIO).min(core_mib_s(options.level) * cores);
    let worth = compressed * 4 >= carries * WORTH_QUARTERS;
    let verdict = if worth { format!("zstd level {}", options.level) } else { "not compressed".to_owned() };
    let why = format!(
        "{verdict}: {what} carries {carries} MiB/s, and with zstd on {cores} {} about {compressed} MiB/s of memory",
        if cores == 1 { "core" } else { "cores" }
    );
    (worth, why)
}

/// MiB/s, and of what: the narrower of link and option.
fn carries(bandwidth_mib: u64, link: Option<&Link>) -> Option<(u64, String)> {
    let option = (bandwidth_mib > 0).then(|| (bandwidth_mib, "live_migration_bandwidth".to_owned()));
    let link = link.map(|link| (link.mib_s, link.interface.clone()));
    [option, link].into_iter().flatten().min_by_key(|(mib_s, _)| *mib_s)
}

#[cfg(test)]
mod tests {
    use drover_common::config::Compression;

    use super::*;

    fn chosen(connections: u8, level: u8, bandwidth_mib: u64, mbit_s: Option<u64>) -> (bool, String) {
        let options = StreamOptions { require_tls: false, connections, compression: Compression::Auto, level, bandwidth_mib };
        let link = mbit_s.map(|mbit_s| Link::new("eth0", mbit_s));
        choose(&options, link.as_ref(), None)
    }

    #[test]
    fn slow_links_are_worth_it_and_fast_ones_are_not() {
        for (connections, level, bandwidth_mib, mbit_s, expected) in [
            (1, 1, 0, Some(100), true),
            (1, 1, 0, Some(1000), true),
            (1, 1, 0, Some(2500), false),
            (2, 1, 0, Some(2500), true),
            (1, 1, 0, Some(10_000), false),
            (4, 1, 0, Some(10_000), false),
            (8, 1, 0, Some(10_000), true),
            (8, 1, 0, Some(100_000), false),
            (1, 19, 0, Some(100), false),     // That level cannot even fill this link.
            (1, 1, 100, Some(100_000), true), // A migration may not take more of it.
            (1, 1, 100_000, Some(1000), true),
            (1, 1, 50, None, true),
            (1, 1, 0, None, false),
        ] {
            let (zstd, why) = chosen(connections, level, bandwidth_mib, mbit_s);
            assert_eq!(zstd, expected, "{connections} {level} {bandwidth_mib} {mbit_s:?}: {why}");
        }
    }

    #[test]
    fn the_choice_comes_with_its_reason() {
        assert_eq!(
            chosen(1, 1, 0, Some(1000)).1,
            "zstd level 1: eth0 carries 119 MiB/s, and with zstd on 1 core about 238 MiB/s of memory"
        );
        assert_eq!(
            chosen(2, 1, 0, Some(10_000)).1,
            "not compressed: eth0 carries 1192 MiB/s, and with zstd on 2 cores about 600 MiB/s of memory"
        );
        assert!(chosen(1, 1, 8, Some(1000)).1.contains("live_migration_bandwidth carries 8 MiB/s"));
        assert!(chosen(1, 1, 0, None).1.contains("not known"));
    }
}
