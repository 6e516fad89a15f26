//! A guest's disks: where they lie, how they are made, how they stand in its XML.

use std::fmt::Write;

use super::{Disk, GuestSpec};
use crate::error::Result;
use crate::host::{Host, LOCAL_IMAGES, SHARED};

/// Disk size: enough to see a storage copy, small enough not to wait for it (the image is sparse).
const DISK_MIB: u32 = 256;
/// The same for each of several.
const LAYER_MIB: u32 = 64;
/// What a base holds in its first MiB. The workload's blocks leave most of it as it is.
pub const BASE_PATTERN: u8 = 0x5a;

/// One disk.
struct Image {
    target: &'static str,
    path: String,
    format: &'static str,
    mib: u32,
    /// Path and format of what it lies on.
    base: Option<(String, &'static str)>,
}

impl Image {
    fn new(target: &'static str, path: String, format: &'static str) -> Self {
        Self { target, path, format, mib: DISK_MIB, base: None }
    }
}

/// The first disk, if it is in the host's own directory.
pub(super) fn local(name: &str) -> String {
    format!("{LOCAL_IMAGES}/{name}.qcow2")
}

pub(super) fn own_base(name: &str) -> String {
    format!("{LOCAL_IMAGES}/{name}.base")
}

pub(super) fn config_drive(name: &str) -> String {
    format!("{LOCAL_IMAGES}/{name}.config")
}

fn images(spec: &GuestSpec) -> Vec<Image> {
    let name = &spec.name;
    match spec.disk {
        Disk::None => Vec::new(),
        Disk::Shared => vec![Image::new("vda", format!("{SHARED}/disks/{name}.qcow2"), "qcow2")],
        Disk::Local => vec![Image::new("vda", local(name), "qcow2")],
        Disk::Layers => {
            let small = |image| Image { mib: LAYER_MIB, ..image };
            let shared_base = (format!("{SHARED}/disks/{name}.base"), "qcow2");
            vec![
                small(Image { base: Some((own_base(name), "raw")), ..Image::new("vda", local(name), "qcow2") }),
                small(Image { base: Some(shared_base), ..Image::new("vdb", format!("{LOCAL_IMAGES}/{name}-2.qcow2"), "qcow2") }),
                small(Image::new("vdc", format!("{LOCAL_IMAGES}/{name}-3.raw"), "raw")),
            ]
        }
    }
}

/// All files that may belong to the guest's disks.
pub(super) fn files(spec: &GuestSpec) -> Vec<String> {
    let mut files = Vec::new();
    for image in images(spec) {
        files.push(image.path);
        files.extend(image.base.map(|(path, _)| path));
    }
    if spec.disk == Disk::Layers {
        files.push(config_drive(&spec.name));
    }
    files
}

/// Makes the disks on a host.
pub(super) fn create(host: &Host, spec: &GuestSpec) -> Result<()> {
    for Image { path, format, mib, base, .. } in images(spec) {
        let size = format!("{mib}M");
        let mut arguments = vec!["create", "-q", "-f", format];
        if let Some((base, base_format)) = &base {
            host.run("qemu-img", ["create", "-q", "-f", base_format, base, &size])?;
            host.run("qemu-io", ["-f", base_format, "-c", &format!("write -q -P {BASE_PATTERN} 0 1M"), base])?;
            arguments.extend(["-F", base_format, "-b", base]);
        }
        arguments.extend([path.as_str(), size.as_str()]);
        host.run("qemu-img", arguments)?;
    }
    if spec.disk == Disk::Layers {
        host.run("dd", ["if=/dev/urandom", &format!("of={}", config_drive(&spec.name)), "bs=1M", "count=3", "status=none"])?;
    }
    Ok(())
}

/// The disks in the domain's XML.
pub(super) fn xml(spec: &GuestSpec) -> String {
    let mut xml = String::new();
    for Image { target, path, format, .. } in images(spec) {
        // Writing to a String cannot fail.
        _ = write!(
            xml,
            r"    <disk type='file' device='disk'>
      <driver name='qemu' type='{format}' cache='none'/>
      <source file='{path}'/>
      <target dev='{target}' bus='virtio'/>
    </disk>
"
        );
    }
    if spec.disk == Disk::Layers {
        _ = write!(
            xml,
            r"    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='{}'/>
      <target dev='hda' bus='ide'/>
      <readonly/>
    </disk>
",
            config_drive(&spec.name)
        );
    }
    xml
}
