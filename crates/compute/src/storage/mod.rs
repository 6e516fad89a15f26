//! Disks: whether both hosts share them, which ones are copied, what is made and removed for it.
//!
//! - [`probe`]: a file written by one host for the other to find tells whether a directory is shared.
//! - [`sharing`] (pure): what the probes mean for each disk; [`decision`] (pure): what is done with it.
//! - [`image`]: what a file is, and whether two hosts have the same content under one path.
//! - [`disks`]: files on the destination to copy into, marked with the migration that made them.
//! - [`carry`]: small read-only images, piece by piece.

pub mod block_device;
pub mod carry;
pub mod decision;
pub mod disks;
pub mod image;
pub mod probe;
pub mod sharing;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use drover_common::rpc::latest::{GuestDisk, MigrateData};

/// The directory of a file disk.
pub fn directory_of(path: &str) -> &str {
    Path::new(path).parent().and_then(Path::to_str).unwrap_or("/")
}

/// Links that are followed; as many as Linux follows.
const LINKS_MAX: usize = 40;

/// Where a path leads to if its last component is a symbolic link, also when nothing is there. Links among its directories do not
/// count: through them each host comes to its own place, and probe files do, too. Blocks.
pub fn resolve_link(path: &str) -> Option<String> {
    let mut resolved = PathBuf::from(path);
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&resolved) else { break };
        resolved = resolved.parent().unwrap_or(Path::new("/")).join(target);
    }
    resolved.to_str().filter(|resolved| *resolved != path).map(str::to_owned)
}

/// The directories with the images of a guest's file disks, each once. Read-only disks and images below a disk count: they have to be
/// there on the other side too.
pub fn directories(disks: &[GuestDisk]) -> Vec<String> {
    let images = disks.iter().flat_map(GuestDisk::images);
    each_once(images.filter_map(|(source, resolves_to, _)| source.data_file(resolves_to)))
}

/// The directories of the files that a migration makes on its destination and removes on its source, each once.
pub fn moved_directories(data: &MigrateData) -> Vec<String> {
    each_once(data.moved_disks().filter_map(|disk| disk.disk.data_file()))
}

fn each_once<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut directories: Vec<String> = Vec::new();
    for directory in paths.map(directory_of) {
        if !directories.iter().any(|known| known == directory) {
            directories.push(directory.to_owned());
        }
    }
    directories
}

/// The device number of a directory's file system; none if there is no such directory.
pub fn device(directory: &str) -> Option<u64> {
    std::fs::metadata(directory).ok().map(|metadata| metadata.dev())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_link_at_the_end_of_a_path_is_followed() {
        let root = std::env::temp_dir().join(format!("drover-links-{}", uuid::Uuid::new_v4()));
        let text = |name: &str| root.join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(root.join("pool")).unwrap();
        std::fs::write(root.join("pool/disk"), "").unwrap();
        symlink("pool/disk", root.join("relative")).unwrap();
        symlink(root.join("relative"), root.join("twice")).unwrap();
        symlink("/nowhere/disk", root.join("dangling")).unwrap();
        symlink("pool", root.join("directory")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(resolve_link(&text("pool/disk")), None);
        assert_eq!(resolve_link(&text("absent")), None);
        assert_eq!(resolve_link(&text("relative")), Some(text("pool/disk")));
        assert_eq!(resolve_link(&text("twice")), Some(text("pool/disk")));
        assert_eq!(resolve_link(&text("dangling")).as_deref(), Some("/nowhere/disk"));
        assert_eq!(resolve_link(&text("directory/disk")), None);
        assert_eq!(resolve_link(&text("loop")), None, "and it ends");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
