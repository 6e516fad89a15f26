//! The guest's kernel: Debian's cloud kernel, downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{command, run};
use crate::error::{BenchError, Result};
use crate::lock::FileLock;
use crate::plan::Plan;

const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// The modules that a guest needs, in the order in which they must be loaded.
pub(super) const MODULES: [&str; 10] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/char/hw_random/virtio-rng",
];

/// A kernel and its modules.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// Package name, which holds the version.
    pub(super) name: String,
    /// The kernel, unpacked if that was possible (it boots a second faster on an emulated processor).
    pub(super) image: PathBuf,
    /// Directory with the modules, uncompressed.
    pub(super) modules: PathBuf,
}

/// File name of a module.
pub(super) fn module_file(module: &str) -> String {
    format!("{}.ko", module.rsplit('/').next().unwrap_or(module))
}

/// The cached kernel; downloads it if there is none.
pub(super) fn prepare() -> Result<Kernel> {
    let cache = Plan::cache_dir().join("kernel");
    fs::create_dir_all(&cache).map_err(BenchError::file("create", &cache))?;
    if let Some(kernel) = cached(&cache) {
        return Ok(kernel);
    }
    let package = newest_package()?;
    let _lock = FileLock::of_cache()?;
    if let Some(kernel) = cached(&cache) {
        return Ok(kernel); // Somebody else fetched it while we waited.
    }
    eprintln!("==> Downloading the guest's kernel, {package} (once)");
    let work = cache.join("unpack");
    remove(&work)?;
    fs::create_dir_all(&work).map_err(BenchError::file("create", &work))?;
    run(command("apt-get", ["--quiet", "--option", "APT::Sandbox::User=root", "download", &package]).current_dir(&work))?;
    let archive = only_entry(&work)?;
    run(command("dpkg", ["--extract"]).arg(&archive).arg(work.join("root")))?;

    let draft = cache.join("draft");
    remove(&draft)?;
    fs::create_dir_all(draft.join("modules")).map_err(BenchError::file("create", &draft))?;
    let boot = work.join("root/boot");
    let release = package.trim_start_matches("linux-image-");
    let vmlinuz = fs::read(boot.join(format!("vmlinuz-{release}"))).map_err(BenchError::file("read the kernel in", &boot))?;
    write_image(&draft, &vmlinuz)?;
    let module_root = [work.join("root/lib/modules"), work.join("root/usr/lib/modules")]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| BenchError::Refused(format!("{package} has no modules")))?;
    for module in MODULES {
        copy_module(&module_root.join(release).join("kernel"), module, &draft.join("modules"))?;
    }
    let done = cache.join(&package);
    fs::rename(&draft, &done).map_err(BenchError::file("create", &done))?;
    remove(&work)?;
    cached(&cache).ok_or_else(|| BenchError::Refused(format!("{} is gone again", done.display())))
}

fn cached(cache: &Path) -> Option<Kernel> {
    let entries = fs::read_dir(cache).ok()?;
    let name = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("linux-image-"))
        .max()?;
    let directory = cache.join(&name);
    Some(Kernel { image: directory.join("kernel"), modules: directory.join("modules"), name })
}

/// The package that the meta package of the machine's suite depends on.
fn newest_package() -> Result<String> {
    let look = || -> Result<Option<String>> {
        let text = run(&mut command("apt-cache", ["depends", META_PACKAGE]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).find(|name| name.starts_with("linux-image-") && name.ends_with("cloud-amd64")))
    };
    if let Ok(Some(package)) = look() {
        return Ok(package);
    }
    run(&mut command("apt-get", ["--quiet", "update"]))?;
    look()?.ok_or_else(|| {
        BenchError::Refused(format!("apt knows no {META_PACKAGE}; the bench needs a Debian mirror in /etc/apt (suite main)"))
    })
}

fn only_entry(directory: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(directory).map_err(BenchError::file("read", directory))?;
    entries
        .find_map(|entry| entry.ok().map(|entry| entry.path()))
        .ok_or_else(|| BenchError::Refused(format!("the download left nothing in {}", directory.display())))
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(BenchError::file("remove", directory)(error)),
        _ => Ok(()),
    }
}

/// Writes the kernel, unpacked if it is packed with LZ4 (Debian's is) and `lz4` is there; else as it is, which boots as well.
fn write_image(directory: &Path, vmlinuz: &[u8]) -> Result<()> {
    let image = directory.join("kernel");
    if let Some(payload) = lz4_payload(vmlinuz) {
        let packed = directory.join("kernel.lz4");
        fs::write(&packed, payload).map_err(BenchError::file("write", &packed))?;
        let unpacked = run(command("lz4", ["-d", "-f", "-q"]).arg(&packed).arg(&image));
        fs::remove_file(&packed).map_err(BenchError::file("remove", &packed))?;
        let is_elf = fs::read(&image).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
        if unpacked.is_ok() && is_elf {
            return Ok(());
        }
    }
    fs::write(&image, vmlinuz).map_err(BenchError::file("write", &image))
}

/// The packed kernel inside a bzImage, from the boot protocol's header: sectors of set-up code at 0x1f1, offset and length of the
/// payload at 0x248 and 0x24c. The last four bytes of the payload are the unpacked size, which `lz4` does not want.
fn lz4_payload(vmlinuz: &[u8]) -> Option<&[u8]> {
    const LZ4_LEGACY: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
    let number = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = vmlinuz.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = usize::from(*vmlinuz.get(0x1f1)?);
    let start = (sectors + 1) * 512 + number(0x248)?;
    let payload = vmlinuz.get(start..start + number(0x24c)?.checked_sub(4)?)?;
    payload.starts_with(&LZ4_LEGACY).then_some(payload)
}

/// Copies a module, unpacking it if the package has it packed.
fn copy_module(kernel: &Path, module: &str, target: &Path) -> Result<()> {
    let (plain, packed) = (kernel.join(format!("{module}.ko")), kernel.join(format!("{module}.ko.xz")));
    let target = target.join(module_file(module));
    if plain.exists() {
        fs::copy(&plain, &target).map_err(BenchError::file("copy", &plain))?;
        return Ok(());
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(&packed).output().map_err(BenchError::io("run xz"))?;
    if !output.status.success() {
        return Err(BenchError::Refused(format!("the kernel package has no module {module} that could be unpacked")));
    }
    fs::write(&target, output.stdout).map_err(BenchError::file("write", &target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_found_through_the_header() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12_u32.to_le_bytes());
        image[1040..1044].copy_from_slice(&[0x02, 0x21, 0x4c, 0x18]);
        assert_eq!(lz4_payload(&image).map(<[u8]>::len), Some(8));
        image[1040] = 0;
        assert_eq!(lz4_payload(&image), None);
        assert_eq!(lz4_payload(b"short"), None);
    }

    #[test]
    fn modules_are_named_by_their_last_part() {
        assert_eq!(module_file("drivers/char/hw_random/virtio-rng"), "virtio-rng.ko");
    }
}
