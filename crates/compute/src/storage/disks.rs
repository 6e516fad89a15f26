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
use drover_common::rpc::latest::{Below, DiskSource, FileFacts, MigrateDisk};
use rustix::fs::XattrFlags;
use tokio::process::Command;
use uuid::Uuid;

use super::{directory_of, image};

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

/// Makes the file that a disk is copied or carried into. One that this attempt made before is fine; any other is a fault.
pub async fn create(moved: &MigrateDisk, owner: Owner, host: &HostName) -> Result<(), Fault> {
    let disk = &moved.disk;
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
    make(&passing.0, moved).await.map_err(|error| failed("cannot be made", &error))?;
    mark(&passing.0, owner).map_err(|error| failed("cannot be marked (the file system needs extended attributes)", &error))?;
    fs::hard_link(&passing.0, path).map_err(|error| failed("cannot be given its name", &error))
}

/// A file under a passing name: gone at the end, however that comes.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

async fn make(path: &Path, moved: &MigrateDisk) -> Result<(), String> {
    let disk = &moved.disk;
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = file.map_err(|error| error.to_string())?;
    if moved.carried {
        // The file itself is carried, whatever is in it.
        let facts = disk.file.as_ref().ok_or("its length is not known")?;
        return file.set_len(facts.bytes).map_err(|error| error.to_string());
    }
    match disk.format.as_str() {
        "raw" => file.set_len(disk.capacity_bytes).map_err(|error| error.to_string()),
        "qcow2" => {
            drop(file);
            make_qcow2(path, moved).await
        }
        other => Err(format!("format {other} is not known")),
    }
}

async fn make_qcow2(path: &Path, moved: &MigrateDisk) -> Result<(), String> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if moved.below == Some(Below::Kept) {
        let base = moved.disk.chain.first().ok_or("the image below it is not known")?;
        command.args(["-F", &base.format, "-b", base.source.shown()]);
    }
    command.arg("--").arg(path).arg(moved.disk.capacity_bytes.to_string());
    let output = command.kill_on_drop(true).output().await.map_err(|error| format!("qemu-img: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("qemu-img: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Marks a file as this attempt's. Blocks.
pub(super) fn mark(path: &Path, owner: Owner) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, MARK, owner.mark().as_bytes(), XattrFlags::CREATE)?)
}

/// Opens a file for writing that this attempt made; any other is left alone. Blocks.
pub(super) fn open_marked(path: &Path, owner: Owner) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().write(true).custom_flags(no_follow()).open(path)?;
    let mut value = [0_u8; MARK_BYTES_MAX];
    let length = rustix::fs::fgetxattr(&file, MARK, &mut value[..]).unwrap_or(0);
    if value.get(..length) == Some(owner.mark().as_bytes()) {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{} is not this attempt's", path.display())))
}

fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
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
pub fn marked<'a>(disks: impl IntoIterator<Item = &'a MigrateDisk>, owner: Owner) -> Vec<PathBuf> {
    let files = disks.into_iter().filter_map(|moved| match &moved.disk.source {
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

/// A file that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doomed {
    /// Its path.
    pub path: PathBuf,
    /// What it was when the migration was agreed on: another file under its name is not touched.
    pub was: Option<FileFacts>,
}

/// Removes a file unless it is another one by now, or a process has it open. That it is gone already is fine. Blocks.
fn remove_unused(doomed: &Doomed) -> Result<(), String> {
    let path = &doomed.path;
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if !metadata.is_file() {
        return Err(format!("{} is no regular file", path.display()));
    }
    let now = path.to_str().and_then(image::facts);
    if let (Some(was), Some(now)) = (&doomed.was, now)
        && !image::is_same_file(was, &now)
    {
        return Err(format!("{} is another file than the one that the guest has left", path.display()));
    }
    if let Some(process) = holder(metadata.dev(), metadata.ino()) {
        return Err(format!("{} is in use by process {process}", path.display()));
    }
    fs::remove_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Removes files that no process has open.
pub async fn remove_all_unused(files: Vec<Doomed>) -> Result<(), Fault> {
    if files.is_empty() {
        return Ok(());
    }
    let removal = tokio::task::spawn_blocking(move || files.iter().try_for_each(remove_unused));
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
    use drover_common::rpc::latest::{GuestDisk, Image, Sharing};

    use super::*;

    const OWNER: Owner = Owner { migration: MigrationId(7), attempt: Attempt(1) };

    fn raw(path: &Path) -> MigrateDisk {
        let disk = GuestDisk {
            target: "vda".to_owned(),
            source: DiskSource::File { path: path.to_str().unwrap().to_owned() },
            read_only: false,
            shareable: false,
            format: "raw".to_owned(),
            capacity_bytes: 12_345_344,
            allocation_bytes: 0,
            backing_file: None,
            resolves_to: None,
            chain: Vec::new(),
            not_copyable: None,
            file: None,
        };
        MigrateDisk { disk, sharing: Sharing::NotShared, copied: true, carried: false, below: None, why: String::new() }
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

    fn image(path: &Path, format: &str) -> Image {
        let source = DiskSource::File { path: path.to_str().unwrap().to_owned() };
        Image { source, format: format.to_owned(), resolves_to: None, file: None }
    }

    fn qemu_img(arguments: &[&str]) -> String {
        let output = std::process::Command::new("qemu-img").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[tokio::test]
    async fn an_overlay_is_made_on_the_base_that_it_keeps_and_alone_when_it_is_flattened() {
        let directory = Directory::new();
        let base = directory.0.join("base");
        fs::File::create(&base).unwrap().set_len(1 << 20).unwrap();
        for below in [Below::Kept, Below::Flattened] {
            let path = directory.0.join(below.as_str());
            let mut moved = raw(&path);
            (moved.disk.format, moved.disk.chain, moved.below) = ("qcow2".to_owned(), vec![image(&base, "raw")], Some(below));
            create(&moved, OWNER, &host()).await.unwrap();
            let info: serde_json::Value =
                serde_json::from_str(&qemu_img(&["info", "--output=json", path.to_str().unwrap()])).unwrap();
            assert_eq!(info["virtual-size"], 12_345_344);
            let expected = if below == Below::Kept { base.to_str() } else { None };
            assert_eq!(info["backing-filename"].as_str(), expected, "{info:#}");
            assert_eq!(info["backing-filename-format"].as_str(), expected.map(|_| "raw"), "{info:#}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_carried_is_made_with_the_length_of_the_file_whatever_is_in_it() {
        let directory = Directory::new();
        let mut moved = raw(&directory.0.join("disk.config"));
        (moved.copied, moved.carried, moved.disk.format) = (false, true, "qcow2".to_owned());
        assert!(create(&moved, OWNER, &host()).await.is_err(), "nobody knows its length");
        moved.disk.file = Some(FileFacts { bytes: 4711, allocated_bytes: 0, inode: 1, made_ns: None });
        create(&moved, OWNER, &host()).await.unwrap();
        assert_eq!(fs::metadata(directory.0.join("disk.config")).unwrap().len(), 4711);
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1);
    }

    #[test]
    fn another_file_that_has_taken_the_name_is_not_removed() {
        let directory = Directory::new();
        let path = directory.0.join("disk");
        fs::write(&path, "the guest's").unwrap();
        let held = fs::File::open(&path).unwrap();
        let was = image::facts(path.to_str().unwrap());
        fs::rename(&path, directory.0.join("moved away")).unwrap();
        fs::write(&path, "another").unwrap();
        drop(held);
        let doomed = Doomed { path: path.clone(), was };
        let error = remove_unused(&doomed).unwrap_err();
        assert!(error.contains("another file than the one that the guest has left"), "{error}");
        fs::rename(directory.0.join("moved away"), &path).unwrap();
        remove_unused(&doomed).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_removed_only_when_nobody_has_it_open() {
        let directory = Directory::new();
        let path = directory.0.join("disk");
        let open = fs::File::create(&path).unwrap();
        let doomed = Doomed { path: path.clone(), was: None };
        let error = remove_unused(&doomed).unwrap_err();
        assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
        drop(open);
        remove_unused(&doomed).unwrap();
        remove_unused(&doomed).unwrap();
        assert!(remove_unused(&Doomed { path: directory.0.clone(), was: None }).is_err());
    }
}
