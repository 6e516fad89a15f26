//! Files that a migration makes on its destination, and removes on its source.
//!
//! Each file is made under a passing name, marked with the migration and attempt in an extended attribute, and only then given its
//! own name, by a link that fails if the name is taken. So a file under a disk's name is either whole and marked, or not ours.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use drover_common::fault::Fault;
use drover_common::ids::{Attempt, HostName, MigrationId};
use drover_common::rpc::latest::{DiskSource, GuestDisk};
use rustix::fs::XattrFlags;
use tokio::process::Command;
use uuid::Uuid;

use super::directory_of;

const MARK: &str = "user.drover.migration";
/// The longest mark: two numbers and a slash.
const MARK_BYTES_MAX: usize = 64;

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The migration.
    pub migration: MigrationId,
    /// Its attempt.
    pub attempt: Attempt,
}

impl Owner {
    fn mark(self) -> String {
        format!("{}/{}", self.migration, self.attempt)
    }
}

/// Makes the file that `disk` is copied into. One that this attempt made before is fine; any other is a fault.
pub async fn create(disk: &GuestDisk, owner: Owner, host: &HostName) -> Result<(), Fault> {
    let DiskSource::File { path } = &disk.source else {
        return Err(Fault::migration_error(format_args!("disk {} is no file and cannot be made on {host}", disk.target)));
    };
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Fault::migration_error(format_args!("disk {} ({path}) on {host}: {what}: {error}", disk.target))
    };
    match has_mark(Path::new(path), owner) {
        Ok(Some(true)) => return Ok(()),
        Ok(Some(false)) => {
            return Err(Fault::migration_error(format_args!(
                "{path} exists already on {host} and is not this migration's: move it away, then try again"
            )));
        }
        Ok(None) => {}
        Err(error) => return Err(failed("cannot be looked at", &error)),
    }
    let passing = Passing(Path::new(directory_of(path)).join(format!(".drover-disk-{host}-{}", Uuid::new_v4())));
    make(&passing.0, disk).await.map_err(|error| failed("cannot be made", &error))?;
    rustix::fs::setxattr(&passing.0, MARK, owner.mark().as_bytes(), XattrFlags::CREATE)
        .map_err(|error| failed("cannot be marked (the file system needs extended attributes)", &error))?;
    fs::hard_link(&passing.0, path).map_err(|error| failed("cannot be given its name", &error))
}

/// A file under a passing name: gone at the end, however that comes.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

async fn make(path: &Path, disk: &GuestDisk) -> Result<(), String> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| error.to_string())?;
    match disk.format.as_str() {
        "raw" => file.set_len(disk.capacity_bytes).map_err(|error| error.to_string()),
        "qcow2" => {
            drop(file);
            let mut command = Command::new("qemu-img");
            command.args(["create", "-q", "-f", "qcow2", "--"]).arg(path).arg(disk.capacity_bytes.to_string());
            let output = command.kill_on_drop(true).output().await.map_err(|error| format!("qemu-img: {error}"))?;
            if output.status.success() {
                return Ok(());
            }
            Err(format!("qemu-img: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        other => Err(format!("format {other} is not known")),
    }
}

/// Whether a file carries this mark; none if there is no file.
fn has_mark(path: &Path, owner: Owner) -> io::Result<Option<bool>> {
    let mut value = [0_u8; MARK_BYTES_MAX];
    match rustix::fs::lgetxattr(path, MARK, &mut value[..]) {
        Ok(length) => Ok(Some(value.get(..length) == Some(owner.mark().as_bytes()))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::RANGE) => Ok(Some(false)),
        Err(error) => Err(error.into()),
    }
}

/// Those of the disks' files that carry this mark. Blocks.
pub fn marked<'a>(disks: impl IntoIterator<Item = &'a GuestDisk>, owner: Owner) -> Vec<PathBuf> {
    let files = disks.into_iter().filter_map(|disk| match &disk.source {
        DiskSource::File { path } => Some(PathBuf::from(path)),
        _ => None,
    });
    files.filter(|path| matches!(has_mark(path, owner), Ok(Some(true)))).collect()
}

/// Takes the mark off: the file is the guest's now. Blocks.
pub fn unmark(path: &Path) -> io::Result<()> {
    match rustix::fs::lremovexattr(path, MARK) {
        Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file unless a process has it open. That it is gone already is fine. Blocks.
fn remove_unused(path: &Path) -> Result<(), String> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if !metadata.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    if let Some(process) = holder(metadata.dev(), metadata.ino()) {
        return Err(format!("{} is in use by process {process}", path.display()));
    }
    fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Removes files that no process has open.
pub async fn remove_all_unused(files: Vec<PathBuf>) -> Result<(), Fault> {
    if files.is_empty() {
        return Ok(());
    }
    let removal = tokio::task::spawn_blocking(move || files.iter().try_for_each(|path| remove_unused(path)));
    removal.await.map_err(Fault::unexpected)?.map_err(Fault::migration_error)
}

/// A process that has this file open. Processes of others' that may not be looked at are taken for not holding it; the agent is
/// root, so there are none.
fn holder(device: u64, inode: u64) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            return false;
        };
        descriptors
            .flatten()
            .any(|descriptor| fs::metadata(descriptor.path()).is_ok_and(|open| open.dev() == device && open.ino() == inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { migration: MigrationId(7), attempt: Attempt(1) };

    fn raw(path: &Path) -> GuestDisk {
        GuestDisk {
            target: "vda".to_owned(),
            source: DiskSource::File { path: path.to_str().unwrap().to_owned() },
            read_only: false,
            format: "raw".to_owned(),
            capacity_bytes: 12_345_344,
            allocation_bytes: 0,
            backing_file: None,
            resolves_to: None,
        }
    }

    fn host() -> HostName {
        HostName::new("h1").unwrap()
    }

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("drover-disks-test-{}", Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[tokio::test]
    async fn a_disk_is_made_once_with_its_size_and_mark_and_nothing_beside_it() {
        let directory = Directory::new();
        let path = directory.0.join("disk");
        create(&raw(&path), OWNER, &host()).await.unwrap();
        create(&raw(&path), OWNER, &host()).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 12_345_344);
        assert_eq!(marked([&raw(&path)], OWNER), std::slice::from_ref(&path));
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
        let later = Owner { attempt: Attempt(2), ..OWNER };
        let fault = create(&raw(&path), later, &host()).await.unwrap_err();
        assert!(fault.message.contains("exists already on h1"), "{fault}");
        unmark(&path).unwrap();
        unmark(&path).unwrap();
        assert!(marked([&raw(&path)], OWNER).is_empty());
        assert!(create(&raw(&path), OWNER, &host()).await.is_err());
    }

    #[test]
    fn a_file_is_removed_only_when_nobody_has_it_open() {
        let directory = Directory::new();
        let path = directory.0.join("disk");
        let open = fs::File::create(&path).unwrap();
        let error = remove_unused(&path).unwrap_err();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(open);
        remove_unused(&path).unwrap();
        remove_unused(&path).unwrap();
        assert!(remove_unused(&directory.0).is_err());
    }
}
