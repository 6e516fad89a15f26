//! The guest's domain XML.
//!
//! It names everything that a migration compares (machine type with version, CPU model, every device), so that two hosts with
//! different QEMU releases build the same machine.

use std::net::Ipv4Addr;

use super::image::BootImage;
use super::{CONSOLE_PORT, GuestSpec, disks};
use crate::error::{BenchError, Result};
use crate::host::SHARED;
use crate::plan::Plan;
use crate::workload::report::{ADDRESS_VARIABLE, DIRTY_VARIABLE, INTERVAL_VARIABLE, TARGET_VARIABLE, WORKING_SET_VARIABLE};

/// Kernel parameters that make the boot on an emulated processor quick: nothing is patched for a real processor, nothing unneeded
/// is tested, the clock is not calibrated.
const QUICK_BOOT: &str = "quiet panic=-1 mitigations=off noreplace-smp nokaslr \
                          cryptomgr.notests audit=0 tsc=reliable nowatchdog ipv6.disable=1 lsm= ima=off";
/// Path of the guest's serial console inside a host. Shared and appended to, so that it reads on across migrations.
pub(super) fn serial_path(name: &str) -> String {
    format!("{SHARED}/serial/{name}.log")
}

/// Refuses what must not end up in XML, file names or the kernel's command line.
pub(super) fn check(spec: &GuestSpec) -> Result<()> {
    let plain = |text: &str, extra: &str| {
        !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || extra.contains(character))
    };
    let refuse = |what: &str, value: &str| Err(BenchError::Refused(format!("{what} {value:?}: letters, digits and -._ only")));
    if !plain(&spec.name, "-_.") || spec.name.starts_with(['-', '.']) || spec.name.len() > 60 {
        return refuse("guest name", &spec.name);
    }
    if !plain(&spec.cpu, "-_.") {
        return refuse("CPU model", &spec.cpu);
    }
    if !plain(&spec.machine, "-_.") {
        return refuse("machine type", &spec.machine);
    }
    if spec.memory_mib < 96 {
        return Err(BenchError::Refused(format!("{} MiB of memory: the guest's kernel needs at least 96", spec.memory_mib)));
    }
    Ok(())
}

fn command_line(plan: Plan, spec: &GuestSpec, address: Ipv4Addr) -> String {
    format!(
        "console=ttyS0 {QUICK_BOOT} {ADDRESS_VARIABLE}={address}/24 \
         {TARGET_VARIABLE}={} {DIRTY_VARIABLE}={} {WORKING_SET_VARIABLE}={} {INTERVAL_VARIABLE}={}",
        plan.watch(),
        spec.dirty_mib_s,
        spec.working_set_mib(),
        spec.interval_ms,
    )
}

/// The domain XML.
pub(super) fn xml(plan: Plan, spec: &GuestSpec, uuid: &str, address: Ipv4Addr, image: &BootImage) -> String {
    format!(
        r"<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initramfs}</initrd>
    <cmdline>{command_line}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='partial'><model fallback='forbid'>{cpu}</model></cpu>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
{disks}    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
    <serial type='file'>
      <source path='{serial}' append='on'/>
      <target port='0'/>
    </serial>
{console}    <memballoon model='none'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
",
        name = spec.name,
        disks = disks::xml(spec),
        memory = spec.memory_mib,
        vcpus = spec.vcpus,
        machine = spec.machine,
        kernel = image.kernel.display(),
        initramfs = image.initramfs.display(),
        command_line = command_line(plan, spec, address),
        cpu = spec.cpu,
        mac = plan.guest_mac(address.octets()[3]),
        serial = serial_path(&spec.name),
        console = if spec.console { console() } else { String::new() },
    )
}

fn console() -> String {
    format!(
        "    <serial type='tcp'>
      <source mode='bind' host='127.0.0.1' service='{CONSOLE_PORT}'/>
      <protocol type='raw'/>
      <target port='1'/>
    </serial>
"
    )
}

#[cfg(test)]
mod tests {
    use super::super::Disk;
    use super::*;

    fn render(spec: &GuestSpec) -> String {
        let plan = Plan::new(0).expect("a plan");
        let image = BootImage { kernel: "/srv/shared/boot/k".into(), initramfs: "/srv/shared/boot/i".into() };
        xml(plan, spec, "b9d9e8f0-0000-4000-8000-000000000001", Ipv4Addr::new(10, 213, 0, 100), &image)
    }

    #[test]
    fn a_guest_without_a_disk_has_none() {
        assert!(!render(&GuestSpec::new("g", "h1")).contains("<disk"));
    }

    #[test]
    fn disks_lie_where_their_kind_says() {
        let shared = render(&GuestSpec { disk: Disk::Shared, ..GuestSpec::new("g", "h1") });
        assert!(shared.contains("<source file='/srv/shared/disks/g.qcow2'/>"), "{shared}");
        let local = render(&GuestSpec { disk: Disk::Local, ..GuestSpec::new("g", "h1") });
        assert!(local.contains("<source file='/var/lib/libvirt/images/g.qcow2'/>"), "{local}");
        let layers = render(&GuestSpec { disk: Disk::Layers, ..GuestSpec::new("g", "h1") });
        assert_eq!((layers.matches("bus='virtio'/>").count(), layers.matches("<readonly/>").count()), (3, 1), "{layers}");
    }

    #[test]
    fn the_workload_learns_where_to_report() {
        let text = render(&GuestSpec { dirty_mib_s: 4.5, ..GuestSpec::new("g", "h1") });
        assert!(text.contains("DROVER_ADDRESS=10.213.0.100/24 DROVER_TARGET=10.213.0.254:4985 DROVER_DIRTY_MIB_S=4.5"), "{text}");
    }

    #[test]
    fn names_that_could_break_out_are_refused() {
        for name in ["", "a b", "a'b", "../x", "a&b", "-x", ".x"] {
            assert!(check(&GuestSpec::new(name, "h1")).is_err(), "{name:?}");
        }
        assert!(check(&GuestSpec::new("web-1.test_a", "h1")).is_ok());
        assert!(check(&GuestSpec { machine: "pc'".to_owned(), ..GuestSpec::new("g", "h1") }).is_err());
    }
}
