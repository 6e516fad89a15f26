//! The datagram that a guest sends: fixed size, little endian, no dependency.

/// Environment variable (set on the guest's kernel command line) with the guest's own address and prefix.
pub const ADDRESS_VARIABLE: &str = "DROVER_ADDRESS";
/// Where the datagrams go, `address:port`.
pub const TARGET_VARIABLE: &str = "DROVER_TARGET";
/// Memory to dirty, MiB per second.
pub const DIRTY_VARIABLE: &str = "DROVER_DIRTY_MIB_S";
/// Size of the checked working set, MiB.
pub const WORKING_SET_VARIABLE: &str = "DROVER_WORKING_SET_MIB";
/// How often a datagram is sent, in milliseconds.
pub const INTERVAL_VARIABLE: &str = "DROVER_INTERVAL_MS";
/// How often a datagram is sent if nothing else is said. Each costs an emulated processor about 0.6 ms of its host's, so this is a
/// choice between the grain of the measured gaps and guests that leave the machine idle.
pub const INTERVAL_MS: u32 = 20;

const MAGIC: u64 = 0x3152_4556_4f52_4421;
const FIELDS: usize = 9;
/// Size of a datagram.
pub const REPORT_BYTES: usize = FIELDS * 8;

/// One datagram.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Random, chosen when the workload started: another value means that the guest was started anew.
    pub boot: u64,
    /// Number of the datagram in this boot, from 1.
    pub sequence: u64,
    /// The guest's monotonic clock since the workload's start.
    pub uptime_us: u64,
    /// Ticks so far (one per 100 ms).
    pub ticks: u64,
    /// Pages that did not hold what they must.
    pub memory_errors: u64,
    /// Blocks that did not hold what they must, and failed reads and writes.
    pub disk_errors: u64,
    /// Memory written so far.
    pub bytes_dirtied: u64,
    /// Blocks written to the disk so far.
    pub disk_writes: u64,
}

impl Report {
    /// The datagram's bytes.
    pub fn encode(&self) -> [u8; REPORT_BYTES] {
        let fields: [u64; FIELDS] = [
            MAGIC,
            self.boot,
            self.sequence,
            self.uptime_us,
            self.ticks,
            self.memory_errors,
            self.disk_errors,
            self.bytes_dirtied,
            self.disk_writes,
        ];
        let mut bytes = [0; REPORT_BYTES];
        for (chunk, field) in bytes.chunks_exact_mut(8).zip(fields) {
            chunk.copy_from_slice(&field.to_le_bytes());
        }
        bytes
    }

    /// Reads a datagram; `None` if it is none of ours.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
        if bytes.len() != REPORT_BYTES || fields.next() != Some(MAGIC) {
            return None;
        }
        Some(Self {
            boot: fields.next()?,
            sequence: fields.next()?,
            uptime_us: fields.next()?,
            ticks: fields.next()?,
            memory_errors: fields.next()?,
            disk_errors: fields.next()?,
            bytes_dirtied: fields.next()?,
            disk_writes: fields.next()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let report = Report {
            boot: 1,
            sequence: 2,
            uptime_us: 3,
            ticks: 4,
            memory_errors: 5,
            disk_errors: 6,
            bytes_dirtied: 7,
            disk_writes: u64::MAX,
        };
        assert_eq!(Report::decode(&report.encode()), Some(report));
    }

    #[test]
    fn foreign_datagrams_are_ignored() {
        assert_eq!(Report::decode(b"hello"), None);
        assert_eq!(Report::decode(&[0; REPORT_BYTES]), None);
        assert_eq!(Report::decode(&Report::default().encode()[1..]), None);
    }
}
