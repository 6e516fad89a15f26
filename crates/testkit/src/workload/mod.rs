//! What runs inside a guest, and what it reports.
//!
//! The workload exists to be caught out: if a migration restarts the guest, runs a second copy of it, loses or mixes up a page of
//! memory, or loses a disk write, something here notices and says so in every datagram and on every line of the serial console.
//!
//! - [`report`]: the datagram, shared with the receiver ([`crate::watch`]).
//! - [`memory`]: a working set whose every page is checked before it is written again.
//! - [`disk`]: checked blocks, written around the whole disk.
//! - [`run`]: the threads that do it all, in the program `guest-workload`.

pub mod disk;
pub mod memory;
pub mod report;
pub mod run;

/// A stream of numbers that depends on its seed only (splitmix64); fills pages and blocks with content that can be checked.
#[derive(Debug, Clone)]
pub struct Stream {
    state: u64,
}

impl Stream {
    /// The stream of a seed made of three parts.
    pub fn new(run: u64, place: u64, version: u64) -> Self {
        let state = run ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32).wrapping_mul(0xd1b5_4a32_d192_ed03);
        Self { state }
    }
}

impl Iterator for Stream {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(word ^ (word >> 31))
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    #[test]
    fn streams_differ_in_every_part_of_their_seed() {
        let first = |run, place, version| Stream::new(run, place, version).next();
        let all = [first(1, 1, 1), first(2, 1, 1), first(1, 2, 1), first(1, 1, 2)];
        for (index, word) in all.iter().enumerate() {
            assert!(!all[index + 1..].contains(word));
        }
    }
}
