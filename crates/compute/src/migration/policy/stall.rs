//! Whether a copy gets anywhere: looked at when a new pass over the memory begins.
//!
//! What counts is how long the guest would have to stand if the rest were sent now: what is left at the beginning of a pass (all that
//! the guest wrote in the pass before), divided by the bandwidth. In a copy that converges it shrinks from pass to pass. It stalls
//! when none of the last three passes is better than what was reached before. "Reached before" is the second best of the earlier
//! passes, so that one sample that is too good fools nobody; one that is too bad does not either, as one better pass among three is
//! enough.
//!
//! What QEMU counts (`dirty-sync-count`) need not be whole passes: newer ones look for written pages several times in one. A pass
//! counts here only after half of the one before was sent, or there was time enough for that.

use std::time::Duration;

use super::Situation;

/// So many passes in a row that bring nothing are a stall.
pub const PASSES: usize = 3;
/// The first pass sends everything and says nothing about what the guest writes.
const FIRST_THAT_COUNTS: i64 = 2;
/// A pass has brought something if it is better than before by this much.
const BETTER_PERCENT: u64 = 5;
/// Passes that are remembered.
const REMEMBERED: usize = 64;

/// One pass over the memory.
#[derive(Debug, Clone, Copy)]
struct Pass {
    iteration: i64,
    began: Duration,
    /// The most that was left in it, bytes.
    dirty: u64,
    /// The best bandwidth seen in it, bytes per second.
    bandwidth: u64,
}

impl Pass {
    fn needs_ms(&self) -> u64 {
        self.dirty.saturating_mul(1000) / self.bandwidth.max(1)
    }

    /// Whether what begins now, with so much left, is a pass after this one.
    fn is_over(&self, now: Duration, left: u64) -> bool {
        left <= self.dirty / 2 || now.saturating_sub(self.began) >= Duration::from_millis(self.needs_ms() / 2)
    }
}

/// A copy that gets nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled {
    /// How long the guest would have to stand, in the best of the last passes.
    pub needs_ms: u64,
    /// What the guest writes in a pass, bytes.
    pub dirty: u64,
    /// What the link carries, bytes per second.
    pub bandwidth: u64,
}

/// The passes so far.
#[derive(Debug, Clone, Default)]
pub struct Passes {
    seen: Vec<Pass>,
    /// The newest iteration that was looked at.
    newest: i64,
    bandwidth: u64,
}

impl Passes {
    /// Takes a sample in; at the beginning of a pass says whether the copy stalls.
    pub fn look(&mut self, now: &Situation) -> Option<Stalled> {
        let (left, bandwidth) = (positive(now.remaining), positive(now.bytes_per_second));
        let begins = now.iteration > self.newest && now.iteration >= FIRST_THAT_COUNTS;
        self.newest = self.newest.max(now.iteration);
        if !begins || self.seen.last().is_some_and(|pass| !pass.is_over(now.elapsed, left)) {
            self.bandwidth = self.bandwidth.max(bandwidth);
            if let Some(pass) = self.seen.last_mut().filter(|pass| begins || pass.iteration == now.iteration) {
                pass.dirty = pass.dirty.max(left);
                pass.bandwidth = pass.bandwidth.max(bandwidth);
            }
            return None;
        }
        // A pass that has just begun has no bandwidth of its own yet: that of the one before.
        let bandwidth = bandwidth.max(self.bandwidth);
        self.seen.push(Pass { iteration: now.iteration, began: now.elapsed, dirty: left, bandwidth });
        self.bandwidth = 0;
        if self.seen.len() > REMEMBERED {
            self.seen.remove(0);
        }
        self.stalled()
    }

    /// Something was changed: what was seen before says nothing any more.
    pub fn forget(&mut self) {
        self.seen.clear();
    }

    fn stalled(&self) -> Option<Stalled> {
        let (earlier, last) = self.seen.split_at(self.seen.len().checked_sub(PASSES)?);
        let mut reached: Vec<u64> = earlier.iter().map(Pass::needs_ms).collect();
        reached.sort_unstable();
        let reached = *reached.get(1)?;
        let best = last.iter().min_by_key(|pass| pass.needs_ms())?;
        let stalls = best.needs_ms() > reached.saturating_mul(100 - BETTER_PERCENT) / 100;
        stalls.then(|| Stalled { needs_ms: best.needs_ms(), dirty: best.dirty, bandwidth: best.bandwidth })
    }
}

fn positive(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: i64 = 1 << 20;

    /// The pass at whose beginning a stall is seen, each pass given by what is left at its beginning, at 10 MiB/s.
    fn stalls_at(left_mib: &[i64]) -> Option<i64> {
        let (mut passes, mut elapsed) = (Passes::default(), Duration::ZERO);
        (1..).zip(left_mib).find_map(|(iteration, left)| {
            let now = Situation { elapsed, iteration, remaining: left * MIB, bytes_per_second: 10 * MIB, ..Situation::default() };
            elapsed += Duration::from_millis(u64::try_from(left * 100).unwrap());
            let late = Situation { remaining: now.remaining / 4, ..now };
            let stalled = passes.look(&now);
            assert_eq!(passes.look(&late), None, "the middle of a pass decides nothing");
            stalled.map(|_| iteration)
        })
    }

    #[test]
    fn a_stall_is_seen_within_three_passes_of_its_beginning() {
        for (left, expected) in [
            (&[128, 30, 30, 30, 30, 30, 30][..], Some(6)), // From the third pass on nothing gets better.
            (&[128, 60, 30, 20, 20, 20, 20, 20], Some(8)),
            (&[128, 128, 128, 128, 128, 128], Some(6)),
            (&[128, 64, 32, 16, 8, 4, 2, 1], None),
            (&[128, 60, 55, 50, 46, 42, 39, 36, 33], None), // Slowly, but it does.
        ] {
            assert_eq!(stalls_at(left), expected, "{left:?}");
        }
    }

    #[test]
    fn one_bad_sample_fools_nobody() {
        for left in [
            &[128, 64, 48, 400, 36, 27, 20, 15, 11][..], // Far too bad.
            &[128, 64, 1, 48, 36, 27, 20, 15, 11],       // Far too good: what follows does not look worse for it.
            &[128, 1, 64, 48, 36, 27, 20, 15, 11],
        ] {
            assert_eq!(stalls_at(left), None, "{left:?}");
        }
        assert_eq!(stalls_at(&[128, 30, 30, 400, 30, 30, 30]), Some(6), "nor does it hide a stall");
    }

    #[test]
    fn what_counts_is_time_not_bytes_and_a_silent_bandwidth_is_no_bandwidth() {
        let mut passes = Passes::default();
        let mut look = |iteration, bytes_per_second| {
            let elapsed = Duration::from_secs(3 * u64::try_from(iteration).unwrap());
            passes.look(&Situation { elapsed, iteration, remaining: 30 * MIB, bytes_per_second, ..Situation::default() })
        };
        for (iteration, mib_s) in (2..8).zip([10, 12, 0, 18, 21, 25]) {
            assert_eq!(look(iteration, mib_s * MIB), None, "the link gets faster");
        }
    }

    /// Half of a pass is left in its middle, too: only what is left at a beginning says what the guest writes.
    #[test]
    fn a_pass_that_was_over_too_soon_to_count_is_not_taken_up_in_the_middle_of_the_next() {
        let mut passes = Passes::default();
        let mut look = |elapsed_s, iteration, left_mib| {
            let elapsed = Duration::from_secs(elapsed_s);
            let now =
                Situation { elapsed, iteration, remaining: left_mib * MIB, bytes_per_second: 10 * MIB, ..Situation::default() };
            passes.look(&now);
        };
        look(10, 2, 100);
        look(11, 3, 90); // Most of its pages were zero.
        look(15, 3, 30);
        look(19, 4, 90);
        assert_eq!(passes.seen.iter().map(|pass| (pass.iteration, pass.dirty >> 20)).collect::<Vec<_>>(), [(2, 100), (4, 90)]);
    }

    #[test]
    fn looks_for_written_pages_in_the_middle_of_a_pass_are_no_passes() {
        let mut passes = Passes::default();
        // 110 MiB at 10 MiB/s last 11 s; QEMU looks ten times a second, and the guest writes as fast as they are sent.
        let seen: Vec<i64> = (1..400)
            .filter(|&iteration| {
                let elapsed = Duration::from_millis(100 * u64::try_from(iteration).unwrap());
                let now =
                    Situation { elapsed, iteration, remaining: 110 * MIB, bytes_per_second: 10 * MIB, ..Situation::default() };
                passes.look(&now).is_some()
            })
            .collect();
        assert_eq!(seen.first(), Some(&222), "four halves of 5.5 s after the first that counts: {seen:?}");
    }
}
