//! What the datagrams of one guest tell: pure, so that it can be tested without a guest.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::workload::report::Report;

/// Arrivals remembered per guest: more than two hours at one per 10 ms.
const ARRIVALS_MAX: usize = 1_000_000;

/// What is known of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The newest report.
    pub last: Report,
    /// Time since the last datagram.
    pub silent_for: Duration,
    /// Boot ids in the order of their first datagram. More than one: the guest was restarted.
    pub boots: Vec<u64>,
    /// Datagrams with a number that was seen before in the same boot: a second copy of the guest ran.
    pub overlaps: u64,
    /// Datagrams received.
    pub received: u64,
}

impl Observed {
    /// Times the guest started anew since it was first heard.
    pub fn restarts(&self) -> usize {
        self.boots.len().saturating_sub(1)
    }

    /// Whether nothing is wrong: one boot, one copy, no bad page, no bad block.
    pub fn is_unharmed(&self) -> bool {
        self.restarts() == 0 && self.overlaps == 0 && self.last.memory_errors == 0 && self.last.disk_errors == 0
    }
}

/// A silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// How long it lasted.
    pub length: Duration,
    /// Datagrams that were sent in it but never arrived.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(super) struct Track {
    arrivals: VecDeque<(Duration, u64)>,
    boots: Vec<u64>,
    seen: BTreeMap<u64, Vec<u64>>,
    overlaps: u64,
    received: u64,
    last: Report,
}

impl Track {
    pub(super) fn record(&mut self, at: Duration, report: &Report) {
        self.received += 1;
        if !self.boots.contains(&report.boot) {
            self.boots.push(report.boot);
        }
        if !self.first_time(report) {
            self.overlaps += 1;
        }
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((at, report.sequence));
        if report.boot != self.last.boot || report.sequence > self.last.sequence {
            self.last = *report;
        }
    }

    /// Marks the number as seen; false if it was already.
    fn first_time(&mut self, report: &Report) -> bool {
        let bits = self.seen.entry(report.boot).or_default();
        let Ok(word) = usize::try_from(report.sequence / 64) else {
            return true;
        };
        if word > ARRIVALS_MAX {
            return true; // No guest of a test lives so long; do not let a damaged number eat the memory.
        }
        if bits.len() <= word {
            bits.resize(word + 1, 0);
        }
        let bit = 1 << (report.sequence % 64);
        let fresh = bits[word] & bit == 0;
        bits[word] |= bit;
        fresh
    }

    pub(super) fn last_heard(&self) -> Duration {
        self.arrivals.back().map(|(at, _)| *at).unwrap_or_default()
    }

    pub(super) fn observed(&self, now: Duration) -> Observed {
        Observed {
            last: self.last,
            silent_for: now.saturating_sub(self.last_heard()),
            boots: self.boots.clone(),
            overlaps: self.overlaps,
            received: self.received,
        }
    }

    /// The longest silence of which at least a part lies after `mark`.
    pub(super) fn longest_gap(&self, mark: Duration, now: Duration) -> Gap {
        let mut longest = Gap { length: now.saturating_sub(self.last_heard()), lost: 0 };
        for (earlier, later) in self.arrivals.iter().zip(self.arrivals.iter().skip(1)) {
            if later.0 > mark {
                let lost = later.1.saturating_sub(earlier.1).saturating_sub(1);
                longest = longest.max(Gap { length: later.0.saturating_sub(earlier.0), lost });
            }
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn track(arrivals: &[(u64, u64, u64)]) -> Track {
        let mut track = Track::default();
        for (at, boot, sequence) in arrivals {
            track.record(ms(*at), &Report { boot: *boot, sequence: *sequence, ..Report::default() });
        }
        track
    }

    #[test]
    fn the_longest_gap_counts_what_was_lost_in_it() {
        let track = track(&[(0, 1, 1), (10, 1, 2), (150, 1, 6), (160, 1, 7)]);
        assert_eq!(track.longest_gap(ms(5), ms(165)), Gap { length: ms(140), lost: 3 });
    }

    #[test]
    fn a_gap_before_the_mark_does_not_count_but_one_across_it_does() {
        let track = track(&[(0, 1, 1), (500, 1, 2), (510, 1, 3), (700, 1, 4)]);
        assert_eq!(track.longest_gap(ms(505), ms(701)).length, ms(190));
        assert_eq!(track.longest_gap(ms(600), ms(701)).length, ms(190));
        assert_eq!(track.longest_gap(ms(499), ms(701)).length, ms(500));
    }

    #[test]
    fn a_silence_that_lasts_is_a_gap() {
        assert_eq!(track(&[(0, 1, 1), (10, 1, 2)]).longest_gap(ms(0), ms(900)).length, ms(890));
    }

    #[test]
    fn a_second_copy_shows_as_overlap_and_a_restart_as_a_boot() {
        let copy = track(&[(0, 1, 1), (10, 1, 2), (11, 1, 2)]).observed(ms(20));
        assert_eq!((copy.overlaps, copy.restarts()), (1, 0));
        let restart = track(&[(0, 1, 1), (10, 1, 2), (11, 2, 1)]).observed(ms(20));
        assert_eq!((restart.overlaps, restart.restarts()), (0, 1));
        assert!(!copy.is_unharmed() && !restart.is_unharmed());
    }

    #[test]
    fn datagrams_out_of_order_are_neither() {
        let seen = track(&[(0, 1, 1), (10, 1, 3), (11, 1, 2)]).observed(ms(20));
        assert!(seen.is_unharmed());
        assert_eq!(seen.last.sequence, 3);
    }
}
