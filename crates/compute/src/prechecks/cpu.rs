//! Whether a guest can run here: its machine type and its CPU, by libvirt's word.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use drover_common::fault::Fault;

use crate::context::Context;
use crate::domain_xml::{Element, Machine, XmlError};
use crate::driver::{CpuComparison, DriverError, ErrorClass};

/// Answers that are kept. A host has a handful of machine types in use.
const CACHE_MAX: usize = 64;

/// What of the domain capabilities matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    modes: HashSet<String>,
    usable_models: HashSet<String>,
}

impl Capabilities {
    /// Reads libvirt's `<domainCapabilities>`.
    pub fn parse(xml: &str) -> Result<Self, XmlError> {
        let root = Element::parse(xml)?;
        let mut capabilities = Self::default();
        for mode in root.child("cpu").into_iter().flat_map(|cpu| cpu.children_named("mode")) {
            if mode.attribute("supported") != Some("yes") {
                continue;
            }
            capabilities.modes.extend(mode.attribute("name").map(str::to_owned));
            let models = mode.children_named("model").filter(|model| model.attribute("usable") == Some("yes"));
            capabilities.usable_models.extend(models.map(|model| model.text.clone()));
        }
        Ok(capabilities)
    }
}

/// Domain capabilities by machine: libvirt needs milliseconds for them, and they change only with libvirt or QEMU.
#[derive(Debug, Default)]
pub struct CapabilityCache {
    known: Mutex<(u64, HashMap<Machine, Arc<Capabilities>>)>,
}

impl CapabilityCache {
    /// Forgets everything: libvirt or QEMU is another now.
    pub fn clear(&self) {
        self.lock().1.clear();
    }

    /// The capabilities for such a guest, asked once for each connection to libvirt.
    pub async fn get(&self, ctx: &Context, machine: &Machine) -> Result<Arc<Capabilities>, DriverError> {
        let connection = ctx.driver.connection().borrow().count;
        if let Some(known) = self.find(connection, machine) {
            return Ok(known);
        }
        let xml = ctx.driver.capabilities(machine.clone()).await?;
        let read = Capabilities::parse(&xml)
            .map_err(|error| DriverError::other(format!("domain capabilities: {}", drover_common::telemetry::chain(&error))))?;
        let capabilities = Arc::new(read);
        let mut known = self.lock();
        if known.0 != connection || known.1.len() >= CACHE_MAX {
            *known = (connection, HashMap::new());
        }
        known.1.insert(machine.clone(), Arc::clone(&capabilities));
        Ok(capabilities)
    }

    fn find(&self, connection: u64, machine: &Machine) -> Option<Arc<Capabilities>> {
        let known = self.lock();
        (known.0 == connection).then(|| known.1.get(machine).cloned()).flatten()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, HashMap<Machine, Arc<Capabilities>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks machine type, emulator and CPU of a guest against this host. `source_cpu` is the `<cpu>` of the host that it runs on.
pub async fn check(ctx: &Context, machine: &Machine, cpu: Option<&str>, source_cpu: Option<&str>) -> Result<(), Fault> {
    let skipped = ctx.options.skip_cpu_compare_on_dest;
    let compared = if skipped { None } else { what_to_compare(machine, cpu, source_cpu) };
    let comparison = async {
        match compared {
            Some(Compared::Guests(cpu)) => ctx.driver.compare_cpu(machine.clone(), cpu.to_owned()).await.map(Some),
            Some(Compared::Hosts(cpu)) => ctx.driver.compare_host_cpu(cpu.to_owned()).await.map(Some),
            None => Ok(None),
        }
    };
    let (capabilities, comparison) = tokio::join!(ctx.capabilities.get(ctx, machine), comparison);
    // Without the machine there is nothing to compare a CPU with, so its refusal comes first.
    let capabilities = capabilities.map_err(|error| machine_fault(ctx, machine, error))?;
    let comparison = comparison.map_err(|error| {
        let reason = format!("libvirt on {}: {}", ctx.options.host, error.message);
        if error.class == ErrorClass::Unavailable {
            Fault::hypervisor_unavailable(&ctx.options.host, error.message)
        } else {
            Fault::invalid_cpu_info(reason)
        }
    })?;
    if skipped {
        return Ok(());
    }
    judge(&capabilities, cpu, comparison)
        .map_err(|why| Fault::invalid_cpu_info(format_args!("libvirt on {}: {why}", ctx.options.host)))
}

/// What libvirt is asked to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared<'a> {
    /// The guest's CPU with what guests can have here.
    Guests(&'a str),
    /// The CPU of the host that the guest runs on with this host's.
    Hosts(&'a str),
}

/// As in Nova: the guest's CPU if it has a model, else the CPU of the host that it runs on, which is what it sees. That only matters
/// under KVM: an emulated CPU is as good on any host.
fn what_to_compare<'a>(machine: &Machine, cpu: Option<&'a str>, source_cpu: Option<&'a str>) -> Option<Compared<'a>> {
    let own = cpu.filter(|cpu| !is_passed_through(cpu)).map(Compared::Guests);
    let sees_its_host = machine.virt_type == "kvm" && !cpu.is_some_and(has_model);
    source_cpu.filter(|_| sees_its_host).map(Compared::Hosts).or(own)
}

fn machine_fault(ctx: &Context, machine: &Machine, error: DriverError) -> Fault {
    match error.class {
        ErrorClass::Unavailable => Fault::hypervisor_unavailable(&ctx.options.host, error.message),
        ErrorClass::Unsupported | ErrorClass::NoDomain | ErrorClass::Busy => {
            Fault::precheck(format_args!("{} cannot run {} guests: {}", ctx.options.host, machine.virt_type, error.message))
        }
        ErrorClass::Other => Fault::destination_hypervisor_too_old(format_args!(
            "{} ({}) cannot run a guest with machine type {} and emulator {}: {}",
            ctx.options.host,
            ctx.hypervisor_shown(),
            machine.machine.as_deref().unwrap_or("(none)"),
            machine.emulator.as_deref().unwrap_or("(none)"),
            error.message
        )),
    }
}

/// The element's mode; libvirt means "custom" when it says nothing.
fn mode(cpu: &str) -> Option<String> {
    let element = Element::parse(cpu).ok()?;
    Some(element.attribute("mode").unwrap_or("custom").to_owned())
}

/// A CPU passed through from the host has no model of its own that could be compared: libvirt calls everything a superset of it.
fn is_passed_through(cpu: &str) -> bool {
    matches!(mode(cpu).as_deref(), Some("host-passthrough" | "maximum"))
}

fn has_model(cpu: &str) -> bool {
    !is_passed_through(cpu) && Element::parse(cpu).is_ok_and(|cpu| cpu.text_at(&["model"]).is_some())
}

/// The verdict on the CPU, from libvirt's comparison or, where libvirt cannot compare, from its lists of usable models and modes.
fn judge(capabilities: &Capabilities, cpu: Option<&str>, comparison: Option<CpuComparison>) -> Result<(), String> {
    if let Some(CpuComparison::Incompatible(why)) = comparison {
        return Err(why);
    }
    let Some(cpu) = cpu else { return Ok(()) };
    if is_passed_through(cpu) {
        let mode = mode(cpu).unwrap_or_default();
        if capabilities.modes.contains(&mode) {
            return Ok(());
        }
        return Err(format!("CPU mode {mode} is not supported here"));
    }
    match comparison {
        Some(CpuComparison::CannotTell(why)) => {
            let element = Element::parse(cpu).map_err(|error| error.to_string())?;
            let model = element.text_at(&["model"]);
            if model.is_some_and(|model| capabilities.usable_models.contains(model)) {
                return Ok(());
            }
            let model = model.unwrap_or("(none)");
            Err(format!("CPU model {model} is not among those that guests can have here ({why})"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPABILITIES: &str = "<domainCapabilities><machine>pc</machine><cpu>\
        <mode name='host-passthrough' supported='no'/><mode name='maximum' supported='yes'/>\
        <mode name='custom' supported='yes'><model usable='yes' vendor='Intel'>Westmere</model>\
        <model usable='no' vendor='AMD'>EPYC</model><blockers model='EPYC'><feature name='x'/></blockers></mode>\
        </cpu></domainCapabilities>";

    fn cpu(model: &str) -> String {
        format!("<cpu mode='custom' match='exact'><model fallback='forbid'>{model}</model></cpu>")
    }

    #[test]
    fn libvirts_comparison_decides_where_there_is_one() {
        let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
        assert_eq!(judge(&capabilities, Some(&cpu("EPYC")), Some(CpuComparison::Fits)), Ok(()));
        let missing = CpuComparison::Incompatible("Host CPU does not provide required features: aes".to_owned());
        let error = judge(&capabilities, Some(&cpu("Westmere")), Some(missing)).unwrap_err();
        assert!(error.contains("aes"), "{error}");
    }

    #[test]
    fn where_libvirt_cannot_compare_the_list_of_usable_models_decides() {
        let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
        let cannot = || Some(CpuComparison::CannotTell("not for this type".to_owned()));
        assert_eq!(judge(&capabilities, Some(&cpu("Westmere")), cannot()), Ok(()));
        for model in ["EPYC", "NoSuch"] {
            let error = judge(&capabilities, Some(&cpu(model)), cannot()).unwrap_err();
            assert!(error.contains(model) && error.contains("not for this type"), "{error}");
        }
    }

    #[test]
    fn a_cpu_without_a_model_is_judged_by_its_mode() {
        let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
        assert_eq!(judge(&capabilities, Some("<cpu mode='maximum'/>"), None), Ok(()));
        assert!(judge(&capabilities, Some("<cpu mode='host-passthrough'/>"), None).is_err());
    }

    #[test]
    fn a_guest_that_sees_its_hosts_cpu_is_compared_by_that() {
        let machine = |virt_type: &str| Machine { virt_type: virt_type.to_owned(), arch: None, machine: None, emulator: None };
        let (kvm, tcg) = (machine("kvm"), machine("qemu"));
        let source = "<cpu><arch>x86_64</arch><model>Skylake-Client</model></cpu>";
        let own = cpu("Westmere");
        for passed in ["<cpu mode='host-passthrough'/>", "<cpu mode='maximum'/>", "<cpu><topology sockets='1'/></cpu>"] {
            assert_eq!(what_to_compare(&kvm, Some(passed), Some(source)), Some(Compared::Hosts(source)), "{passed}");
        }
        assert_eq!(what_to_compare(&kvm, None, Some(source)), Some(Compared::Hosts(source)));
        assert_eq!(what_to_compare(&kvm, Some(&own), Some(source)), Some(Compared::Guests(&own)));
        assert_eq!(what_to_compare(&tcg, Some(&own), Some(source)), Some(Compared::Guests(&own)));
        assert_eq!(what_to_compare(&tcg, Some("<cpu mode='maximum'/>"), Some(source)), None);
        assert_eq!(what_to_compare(&kvm, Some("<cpu mode='host-passthrough'/>"), None), None, "the source's agent is older");
        let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
        let missing = || Some(CpuComparison::Incompatible("Host CPU does not provide required features: hle".to_owned()));
        assert!(judge(&capabilities, Some("<cpu mode='maximum'/>"), missing()).unwrap_err().contains("hle"));
        assert!(judge(&capabilities, None, missing()).is_err());
        assert!(judge(&capabilities, Some("<cpu mode='maximum'/>"), Some(CpuComparison::Fits)).is_ok());
        assert!(judge(&capabilities, Some("<cpu mode='host-passthrough'/>"), Some(CpuComparison::Fits)).is_err());
    }
}
