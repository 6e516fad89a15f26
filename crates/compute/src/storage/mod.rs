//! Disks: whether both hosts share them, which ones are copied, what is made and removed for it.
//!
//! - [`probe`]: a file written by one host for the other to find tells whether a directory is shared.
//! - [`sharing`] (pure): what the probes mean for each disk; [`decision`] (pure): what is done with it.
//! - [`disks`]: files on the destination to copy into, marked with the migration that made them.

pub mod block_device;
pub mod decision;
pub mod disks;
pub mod probe;
pub mod sharing;

use std::path::Path;

use drover_common::rpc::latest::{DiskSource, GuestDisk};

/// The directory of a file disk.
pub fn directory_of(path: &str) -> &str {
    Path::new(path).parent().and_then(Path::to_str).unwrap_or("/")
}

/// The directories of a guest's file disks, each once. Read-only disks count: they have to be there on the other side too.
pub fn directories(disks: &[GuestDisk]) -> Vec<String> {
    let mut directories: Vec<String> = Vec::new();
    for disk in disks {
        if let DiskSource::File { path } = &disk.source {
            let directory = directory_of(path);
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
            }
        }
    }
    directories
}

/// Bytes that are free in a directory's file system for those who are not root; none if there is no such directory.
pub fn free_bytes(directory: &str) -> Option<u64> {
    if !Path::new(directory).is_dir() {
        return None;
    }
    let statistics = rustix::fs::statvfs(directory).ok()?;
    Some(statistics.f_bavail.saturating_mul(statistics.f_frsize))
}

/// Size of a directory's file system in bytes; none if it cannot be told.
pub fn size_bytes(directory: &Path) -> Option<u64> {
    let statistics = rustix::fs::statvfs(directory).ok()?;
    Some(statistics.f_blocks.saturating_mul(statistics.f_frsize))
}
