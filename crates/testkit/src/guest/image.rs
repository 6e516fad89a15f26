//! What a guest boots: the kernel and an initramfs with busybox, the modules and the workload.
//!
//! The initramfs is not compressed: unpacking it costs an emulated processor more than reading it. Its file name comes from what
//! it is made of, so a rebuilt workload gets a new file, and guests that run keep the one they know (a migration needs it on the
//! other side).

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cpio::Archive;
use super::kernel::{self, Kernel, MODULES, module_file};
use crate::command::run;
use crate::drover::program;
use crate::error::{BenchError, Result};
use crate::host::SHARED;
use crate::layout::Layout;
use crate::plan::Plan;

const BUSYBOX: &str = "/bin/busybox";
const WORKLOAD: &str = "guest-workload";

/// Kernel and initramfs as the hosts see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootImage {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Downloads, builds and lays out in the shared directory what is missing.
pub(crate) fn prepare(plan: Plan) -> Result<BootImage> {
    let kernel = kernel::prepare()?;
    let directory = Layout::new(plan).shared().join("boot");
    fs::create_dir_all(&directory).map_err(BenchError::file("create", &directory))?;
    let image = directory.join(&kernel.name);
    if !image.exists() {
        publish(&image, &fs::read(&kernel.image).map_err(BenchError::file("read", &kernel.image))?)?;
    }
    let initramfs = directory.join(format!("initramfs-{:016x}.cpio", fingerprint(&kernel)?));
    if !initramfs.exists() {
        publish(&initramfs, &build(&Layout::new(plan).run(), &kernel)?)?;
    }
    let inside = |path: &Path| Path::new(SHARED).join("boot").join(path.file_name().unwrap_or_default());
    Ok(BootImage { kernel: inside(&image), initramfs: inside(&initramfs) })
}

/// Writes what a guest boots into any directory, as `kernel` and `initramfs`: for guests that are none of the bench's.
pub(crate) fn export(directory: &Path) -> Result<()> {
    let kernel = kernel::prepare()?;
    fs::create_dir_all(directory).map_err(BenchError::file("create", directory))?;
    publish(&directory.join("kernel"), &read(&kernel.image)?)?;
    publish(&directory.join("initramfs"), &build(directory, &kernel)?)
}

/// A number that changes with anything that the initramfs is made of.
fn fingerprint(kernel: &Kernel) -> Result<u64> {
    let mut text = format!("{}\n{}\n", kernel.name, init_script());
    for path in [program(WORKLOAD)?, PathBuf::from(BUSYBOX)] {
        let data = fs::metadata(&path).map_err(BenchError::file("look at", &path))?;
        // Writing to a String cannot fail.
        _ = writeln!(text, "{} {}.{}", data.len(), data.mtime(), data.mtime_nsec());
    }
    Ok(hash(text.as_bytes()))
}

/// Writes a file whole or not at all, whoever else does so at the same time.
fn publish(path: &Path, content: &[u8]) -> Result<()> {
    let draft = path.with_extension(uuid::Uuid::new_v4().to_string());
    fs::write(&draft, content).map_err(BenchError::file("write", &draft))?;
    fs::rename(&draft, path).map_err(BenchError::file("replace", path))
}

/// The archive; `scratch` is a directory for a file that is removed again.
fn build(scratch: &Path, kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "proc", "sys", "lib", "modules"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", init_script().as_bytes());
    archive.file("bin/busybox", &read(Path::new(BUSYBOX))?);
    for module in MODULES {
        let name = module_file(module);
        archive.file(&format!("modules/{name}"), &read(&kernel.modules.join(&name))?);
    }
    let workload = program(WORKLOAD)?;
    archive.file(&format!("bin/{WORKLOAD}"), &stripped(scratch, &workload)?);
    for library in libraries(&workload)? {
        let mut parents = String::new();
        let path = library.to_string_lossy();
        let (parent, _) = path.trim_start_matches('/').rsplit_once('/').unwrap_or_default();
        for part in parent.split('/') {
            parents = if parents.is_empty() { part.to_owned() } else { format!("{parents}/{part}") };
            archive.directory(&parents);
        }
        archive.file(path.trim_start_matches('/'), &read(&library)?);
    }
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(BenchError::io(format!("read {} (deploy/dev/install-packages installs what the guest needs)", path.display())))
}

/// The program without debugging information, which is most of it; as it is where `strip` is missing.
fn stripped(scratch: &Path, program: &Path) -> Result<Vec<u8>> {
    let small = scratch.join(format!("{WORKLOAD}.{}", uuid::Uuid::new_v4()));
    if run(Command::new("strip").arg("-o").arg(&small).arg(program)).is_err() {
        return read(program);
    }
    let content = read(&small);
    fs::remove_file(&small).map_err(BenchError::file("remove", &small))?;
    content
}

/// The shared libraries of a program, as `ldd` lists them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    Ok(parse_ldd(&run(Command::new("ldd").arg(program))?))
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

/// The guest's first process. It ends as the workload; when that ends, the kernel panics and the guest starts anew, which the
/// receiver of the datagrams notices.
fn init_script() -> String {
    let modules: Vec<String> = MODULES.iter().map(|module| module_file(module)).collect();
    format!(
        "#!/bin/busybox sh\n\
         b=/bin/busybox\n\
         $b mount -t devtmpfs dev /dev\n\
         $b mount -t proc proc /proc\n\
         $b mount -t sysfs sys /sys\n\
         for module in {}; do $b insmod /modules/$module $(test $module != virtio_net.ko || echo napi_tx=0); done\n\
         $b ip link set lo up\n\
         if test -n \"$DROVER_ADDRESS\"; then $b ip address add \"$DROVER_ADDRESS\" dev eth0; $b ip link set eth0 up; fi\n\
         exec /bin/{WORKLOAD} </dev/null >/dev/ttyS0 2>&1\n",
        modules.join(" ")
    )
}

/// FNV-1a: names a content, resists nobody.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_the_kernels_own_is_not() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse_ldd(text),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }

    #[test]
    fn the_init_script_loads_the_modules_in_order() {
        let script = init_script();
        let at = |name: &str| script.find(name).expect("loaded");
        assert!(at("virtio_ring.ko") < at("virtio.ko") && at("virtio_pci.ko") < at("virtio_net.ko"));
        assert!(at("failover.ko") < at("net_failover.ko") && at("net_failover.ko") < at("virtio_net.ko"));
    }

    #[test]
    fn different_contents_get_different_names() {
        assert_ne!(hash(b"a"), hash(b"b"));
    }
}
