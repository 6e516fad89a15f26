//! A disk that is checked: blocks with known content, written around the whole disk, read back and compared.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::Stream;

const BLOCK: usize = 4096;
/// Blocks in use; they are spread evenly over the disk, so that a copy that misses a part is noticed.
const BLOCKS: u64 = 512;

/// The disk under test. It knows what it wrote since the workload's start; what was there before is not judged.
#[derive(Debug)]
pub struct CheckedDisk {
    file: File,
    boot: u64,
    stride: u64,
    versions: Vec<u64>,
    written: u64,
    buffer: Vec<u8>,
}

impl CheckedDisk {
    /// Opens a block device past the guest's page cache, so that every write and read reaches the virtual disk.
    pub fn open(path: &Path, size: u64, boot: u64) -> io::Result<Self> {
        let direct = nix::fcntl::OFlag::O_DIRECT.bits();
        let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(path)?;
        Self::with_file(file, size, boot)
    }

    fn with_file(file: File, size: u64, boot: u64) -> io::Result<Self> {
        let stride = size / BLOCKS / BLOCK as u64 * BLOCK as u64;
        if stride == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a disk of {size} bytes is too small")));
        }
        // Twice the block: O_DIRECT wants an aligned buffer, which lies somewhere inside.
        Ok(Self {
            file,
            boot,
            stride,
            versions: vec![0; usize::try_from(BLOCKS).unwrap_or(1)],
            written: 0,
            buffer: vec![0; 2 * BLOCK],
        })
    }

    /// Blocks written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes the next block, then reads an earlier one (if there is any) and returns whether it holds what was written.
    pub fn step(&mut self) -> io::Result<bool> {
        let place = self.written % BLOCKS;
        let index = usize::try_from(place).unwrap_or_default();
        self.versions[index] += 1;
        let range = self.aligned();
        fill(&mut self.buffer[range.clone()], self.boot, place, self.versions[index]);
        self.file.write_all_at(&self.buffer[range], place * self.stride)?;
        self.written += 1;
        // 173 is coprime to the number of blocks: in time every block is read.
        self.holds(self.written * 173 % self.written.min(BLOCKS))
    }

    fn holds(&mut self, place: u64) -> io::Result<bool> {
        let range = self.aligned();
        self.file.read_exact_at(&mut self.buffer[range.clone()], place * self.stride)?;
        let mut expected = vec![0; BLOCK];
        fill(&mut expected, self.boot, place, self.versions[usize::try_from(place).unwrap_or_default()]);
        Ok(self.buffer[range] == expected)
    }

    fn aligned(&self) -> std::ops::Range<usize> {
        let offset = self.buffer.as_ptr().align_offset(BLOCK).min(BLOCK);
        offset..offset + BLOCK
    }
}

fn fill(block: &mut [u8], boot: u64, place: u64, version: u64) {
    for (chunk, word) in block.chunks_exact_mut(8).zip(Stream::new(boot, place, version)) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 8 << 20;

    /// A disk in a file that has no name any more, so that nothing is left behind.
    fn disk(name: &str) -> (CheckedDisk, File) {
        let path = std::env::temp_dir().join(format!("drover-disk-{}-{name}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
        file.set_len(SIZE).expect("room");
        let other = file.try_clone().expect("a second handle");
        std::fs::remove_file(path).expect("remove");
        (CheckedDisk::with_file(file, SIZE, 9).expect("a disk"), other)
    }

    #[test]
    fn an_honest_disk_shows_no_error() {
        let (mut disk, _) = disk("honest");
        for _ in 0..2 * BLOCKS {
            assert!(disk.step().expect("I/O works"));
        }
    }

    #[test]
    fn a_lost_write_is_found() {
        let (mut disk, file) = disk("lost");
        for _ in 0..BLOCKS {
            disk.step().expect("I/O works");
        }
        file.write_all_at(&[0; BLOCK], 10 * disk.stride).expect("damage");
        let bad = (0..BLOCKS).filter(|place| !disk.holds(*place).expect("I/O works")).count();
        assert_eq!(bad, 1);
    }

    #[test]
    fn every_block_is_read_in_time() {
        let read: std::collections::HashSet<u64> = (BLOCKS..2 * BLOCKS).map(|written| written * 173 % BLOCKS).collect();
        assert_eq!(read.len() as u64, BLOCKS);
    }
}
