//! Whether guests can arrive by post-copy: QEMU takes faults of missing pages from `userfaultfd`, which the kernel gives to some only.
//!
//! libvirt does not tell whether QEMU can; without it libvirt's call would fail in its first moment. So the kernel is asked, for the
//! user that libvirt runs QEMU as.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::domain_xml::Element;
use crate::driver::HostDescription;

/// 1: anybody may; 0: only through the device, or with a privilege that libvirt takes from QEMU. Absent: this kernel has none.
const SYSCTL: &str = "/proc/sys/vm/unprivileged_userfaultfd";
/// Whoever may open it may (since Linux 6.1 and QEMU 8.0).
const DEVICE: &str = "/dev/userfaultfd";
/// QEMU's from which on it opens the device, as libvirt writes versions.
const OPENS_THE_DEVICE: i32 = 8_000_000;

/// What was found out about this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The sysctl.
    pub unprivileged: Option<bool>,
    /// The device's owner, group and mode.
    pub device: Option<(u32, u32, u32)>,
    /// QEMU.
    pub qemu: Qemu,
}

/// Why no guest can arrive by post-copy, if that is so.
pub fn refusal(found: Found) -> Option<String> {
    match found.unprivileged {
        None => return Some(format!("its kernel has no userfaultfd ({SYSCTL} is missing)")),
        Some(true) => return None,
        Some(false) => {}
    }
    let advice = "set sysctl vm.unprivileged_userfaultfd=1 there";
    let Some((owner, group, mode)) = found.device else {
        return Some(format!("vm.unprivileged_userfaultfd is 0 and there is no {DEVICE}: {advice}"));
    };
    if found.qemu.version < OPENS_THE_DEVICE {
        return Some(format!("vm.unprivileged_userfaultfd is 0 and QEMU before 8.0 does not know {DEVICE}: {advice}"));
    }
    // libvirt takes root's privileges from a QEMU that runs as root, but not what the files' modes give to their owner.
    let may_open = |(uid, gid): (u32, u32)| {
        let bits = if uid == owner {
            mode >> 6
        } else if gid == group {
            mode >> 3
        } else {
            mode
        };
        bits & 0o6 == 0o6
    };
    match found.qemu.user {
        Some(user) if may_open(user) => None,
        Some((uid, _)) => Some(format!("vm.unprivileged_userfaultfd is 0 and QEMU's user {uid} may not open {DEVICE}: {advice}")),
        None => None, // A libvirt that does not tell: its call will.
    }
}

/// QEMU as libvirt starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qemu {
    /// Its user and group, if libvirt tells.
    pub user: Option<(u32, u32)>,
    /// Its version.
    pub version: i32,
}

impl Qemu {
    /// From what libvirt says of the host; none if it drives another hypervisor.
    pub fn of(host: &HostDescription, capabilities: &Element) -> Option<Self> {
        let is_qemu = host.hypervisor_type.eq_ignore_ascii_case("qemu");
        is_qemu.then(|| Self { user: user(capabilities), version: host.hypervisor_version })
    }
}

/// Why no guest can arrive here by post-copy, if that is so.
pub fn look(qemu: Qemu) -> Option<String> {
    let unprivileged = fs::read_to_string(SYSCTL).ok().map(|text| text.trim() == "1");
    let device = fs::metadata(DEVICE).ok().map(|data| (data.uid(), data.gid(), data.mode()));
    refusal(Found { unprivileged, device, qemu })
}

/// `<secmodel><model>dac</model><baselabel>+64055:+109</baselabel>`.
fn user(capabilities: &Element) -> Option<(u32, u32)> {
    let mut models = capabilities.at(&["host"])?.children_named("secmodel");
    let dac = models.find(|model| model.text_at(&["model"]) == Some("dac"))?;
    let label = dac.text_at(&["baselabel"])?;
    let (uid, gid) = label.trim().split_once(':')?;
    let number = |text: &str| text.trim_start_matches('+').parse().ok();
    Some((number(uid)?, number(gid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_whether_qemu_may_and_a_refusal_says_what_to_do() {
        let root = Some((0, 0, 0o020_600));
        let found = |unprivileged, device, user, version| refusal(Found { unprivileged, device, qemu: Qemu { user, version } });
        let (qemu, new) = (Some((64055, 109)), 10_000_002);
        assert_eq!(found(Some(true), None, qemu, new), None);
        assert_eq!(found(Some(false), root, Some((0, 0)), new), None);
        assert_eq!(found(Some(false), Some((0, 109, 0o020_660)), qemu, new), None);
        assert_eq!(found(Some(false), root, None, new), None);
        for (refused, part) in [
            (found(None, root, qemu, new), "no userfaultfd"),
            (found(Some(false), None, qemu, new), "there is no /dev/userfaultfd"),
            (found(Some(false), root, qemu, new), "QEMU's user 64055 may not open"),
            (found(Some(false), root, Some((0, 0)), 7_002_000), "QEMU before 8.0"),
        ] {
            let refused = refused.unwrap();
            assert!(refused.contains(part), "{refused}");
        }
    }

    #[test]
    fn qemus_user_is_read_from_libvirts_capabilities() {
        let capabilities = "<capabilities><host><secmodel><model>apparmor</model><doi>0</doi></secmodel><secmodel><model>dac</model>\
            <doi>0</doi><baselabel type='kvm'>+64055:+109</baselabel><baselabel type='qemu'>+64055:+109</baselabel></secmodel></host>\
            </capabilities>";
        let read = |text| user(&Element::parse(text).unwrap());
        assert_eq!(read(capabilities), Some((64055, 109)));
        assert_eq!(read("<capabilities/>"), None);
    }
}
