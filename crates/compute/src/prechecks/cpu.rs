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

/// Checks machine type, emulator and CPU of a guest against this host.
pub async fn check(ctx: &Context, machine: &Machine, cpu: Option<&str>) -> Result<(), Fault> {
    let comparison = async {
        match cpu.filter(|_| !ctx.options.skip_cpu_compare_on_dest) {
            Some(cpu) if is_comparable(cpu) => ctx.driver.compare_cpu(machine.clone(), cpu.to_owned()).await.map(Some),
            _ => Ok(None),
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
    let Some(cpu) = cpu.filter(|_| !ctx.options.skip_cpu_compare_on_dest) else {
        return Ok(());
    };
    judge(&capabilities, cpu, comparison)
        .map_err(|why| Fault::invalid_cpu_info(format_args!("libvirt on {}: {why}", ctx.options.host)))
}

fn machine_fault(ctx: &Context, machine: &Machine, error: DriverError) -> Fault {
    match error.class {
        ErrorClass::Unavailable => Fault::hypervisor_unavailable(&ctx.options.host, error.message),
        ErrorClass::Unsupported | ErrorClass::NoDomain => {
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

/// A CPU passed through from the host has no model that could be compared: libvirt calls everything a superset of it.
fn is_comparable(cpu: &str) -> bool {
    !matches!(mode(cpu).as_deref(), Some("host-passthrough" | "maximum"))
}

/// The verdict on the CPU, from libvirt's comparison or, where libvirt cannot compare, from its list of usable models.
fn judge(capabilities: &Capabilities, cpu: &str, comparison: Option<CpuComparison>) -> Result<(), String> {
    match comparison {
        Some(CpuComparison::Fits) => Ok(()),
        Some(CpuComparison::Incompatible(why)) => Err(why),
        Some(CpuComparison::CannotTell(why)) => {
            let element = Element::parse(cpu).map_err(|error| error.to_string())?;
            let model = element.text_at(&["model"]);
            if model.is_some_and(|model| capabilities.usable_models.contains(model)) {
                return Ok(());
            }
            let model = model.unwrap_or("(none)");
            Err(format!("CPU model {model} is not among those that guests can have here ({why})"))
        }
        None => {
            let mode = mode(cpu).unwrap_or_default();
            if capabilities.modes.contains(&mode) {
                return Ok(());
            }
            Err(format!("CPU mode {mode} is not supported here"))
        }
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
        assert_eq!(judge(&capabilities, &cpu("EPYC"), Some(CpuComparison::Fits)), Ok(()));
        let missing = CpuComparison::Incompatible("Host CPU does not provide required features: aes".to_owned());
        let error = judge(&capabilities, &cpu("Westmere"), Some(missing)).unwrap_err();
        assert!(error.contains("aes"), "{error}");
    }

    #[test]
    fn where_libvirt_cannot_compare_the_list_of_usable_models_decides() {
        let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
        let cannot = || Some(CpuComparison::CannotTell("not for this type".to_owned()));
        assert_eq!(judge(&capabilities, &cpu("Westmere"), cannot()), Ok(()));
        for model in ["EPYC", "NoSuch"] {
            let error = judge(&capabilities, &cpu(model), cannot()).unwrap_err();
            assert!(error.contains(model) && error.contains("not for this type"), "{error}");
        }
    }

    #[test]
    fn a_cpu_without_a_model_is_judged_by_its_mode() {
        let capabilities = Capabilities::parse(CAPABILITIES).unwrap();
        assert!(!is_comparable("<cpu mode='host-passthrough'/>") && !is_comparable("<cpu mode='maximum'/>"));
        assert!(is_comparable(&cpu("Westmere")) && is_comparable("<cpu><topology sockets='1'/></cpu>"));
        assert_eq!(judge(&capabilities, "<cpu mode='maximum'/>", None), Ok(()));
        assert!(judge(&capabilities, "<cpu mode='host-passthrough'/>", None).is_err());
    }
}
