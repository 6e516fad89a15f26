//! What tells a block device apart on every host that sees it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The device's WWID or device-mapper UUID; none if it is not there or has no such thing. Blocks.
pub fn identity(path: &str) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.file_type().is_block_device() {
        return None;
    }
    let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
    identity_in(&PathBuf::from(format!("/sys/dev/block/{major}:{minor}")))
}

/// The same from the device's directory in sysfs.
fn identity_in(sysfs: &Path) -> Option<String> {
    let read = |relative: &str| {
        let text = fs::read_to_string(sysfs.join(relative)).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let whole = read("dm/uuid").or_else(|| read("wwid")).or_else(|| read("device/wwid"));
    if whole.is_some() {
        return whole;
    }
    // A partition: the disk above it, and its number.
    let number = read("partition")?;
    let resolved = fs::canonicalize(sysfs).ok()?;
    let disk = identity_in(resolved.parent()?)?;
    Some(format!("{disk}-part{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_mapper_scsi_nvme_and_partitions_have_an_identity() {
        let root = std::env::temp_dir().join(format!("drover-sysfs-{}", uuid::Uuid::new_v4()));
        let device = |name: &str, file: &str, content: &str| {
            let path = root.join(name).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            root.join(name)
        };
        assert_eq!(identity_in(&device("dm-0", "dm/uuid", "LVM-abc\n")).as_deref(), Some("LVM-abc"));
        let scsi = device("sda", "device/wwid", "naa.5000\n");
        assert_eq!(identity_in(&scsi).as_deref(), Some("naa.5000"));
        assert_eq!(identity_in(&device("nvme0n1", "wwid", "eui.1\n")).as_deref(), Some("eui.1"));
        assert_eq!(identity_in(&device("sda/sda2", "partition", "2\n")).as_deref(), Some("naa.5000-part2"));
        assert_eq!(identity_in(&device("loop0", "size", "8\n")), None);
        assert_eq!(identity_in(&device("vda", "dm/uuid", "\n")), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn what_is_no_block_device_has_none() {
        assert_eq!(identity("/dev/null"), None);
        assert_eq!(identity("/nowhere"), None);
    }
}
