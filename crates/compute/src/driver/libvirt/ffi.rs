//! The only `unsafe` of the workspace: libvirt's functions that `virt` 0.5 does not wrap, or not well enough.
//!
//! - `virDomainGetJobStats`: `virt` makes a `Vec` of a null pointer when there is no job, which is undefined.
//! - `virDomainGetState`: `virt` does not look at the result.
//! - `virDomainMigrateToURI3`: `virt` leaks its string parameters, two XML documents each time.
//! - Events, close callback, abort, post-copy, block jobs, `virConnectCompareHypervisorCPU`: not wrapped at all.
#![expect(unsafe_code, reason = "libvirt is a C library; every call of it that virt does not wrap is here")]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{Domain, MigrateParameters};
use virt::error::Error;
use virt::sys;

use crate::domain_xml::Machine;

/// libvirt's typed parameters, copied.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(CString, u64)>);

impl Params {
    /// A number by its name; negative ones and texts do not occur in what we read.
    pub(super) fn number(&self, name: &CStr) -> Option<u64> {
        self.0.iter().find(|(key, _)| key.as_c_str() == name).map(|(_, value)| *value)
    }

    #[cfg(test)]
    pub(super) fn of(numbers: &[(&CStr, u64)]) -> Self {
        Self(numbers.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
    }

    /// # Safety
    /// `params` points to `count` parameters (or `count` is 0).
    unsafe fn copy(params: sys::virTypedParameterPtr, count: c_int) -> Self {
        let count = usize::try_from(count).unwrap_or(0);
        if params.is_null() || count == 0 {
            return Self::default();
        }
        // SAFETY: the caller's promise.
        let params = unsafe { std::slice::from_raw_parts(params, count) };
        let numbers = params.iter().filter_map(|param| {
            // SAFETY: libvirt ends names with a zero byte, and `type_` says which field of the union was written.
            let (name, value) = unsafe {
                let value = match c_int::cast_unsigned(param.type_) {
                    sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok(),
                    sys::VIR_TYPED_PARAM_UINT => Some(param.value.ui.into()),
                    sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok(),
                    sys::VIR_TYPED_PARAM_ULLONG => Some(param.value.ul),
                    sys::VIR_TYPED_PARAM_BOOLEAN => Some(u64::from(param.value.b != 0)),
                    _ => None,
                };
                (CStr::from_ptr(param.field.as_ptr()), value)
            };
            Some((name.to_owned(), value?))
        });
        Self(numbers.collect())
    }
}

/// -1 is libvirt's word for "ask for the error".
fn checked(result: c_int) -> Result<c_int, Error> {
    if result < 0 { Err(Error::last_error()) } else { Ok(result) }
}

/// State and reason (`virDomainState`, `virDomain*Reason`).
pub(super) fn state(domain: &Domain) -> Result<(c_int, c_int), Error> {
    let (mut state, mut reason) = (0, 0);
    // SAFETY: the domain lives as long as the reference, and libvirt writes two integers.
    checked(unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) })?;
    Ok((state, reason))
}

/// The job's type (`virDomainJobType`) and numbers.
pub(super) fn job_stats(domain: &Domain) -> Result<(c_int, Params), Error> {
    let (mut job_type, mut params, mut count) = (0, ptr::null_mut(), 0);
    // SAFETY: libvirt allocates `count` parameters, which are copied and then freed by libvirt's own function.
    unsafe {
        checked(sys::virDomainGetJobStats(domain.as_ptr(), &raw mut job_type, &raw mut params, &raw mut count, 0))?;
        let copy = Params::copy(params, count);
        sys::virTypedParamsFree(params, count);
        Ok((job_type, copy))
    }
}

/// Takes the job back.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain lives as long as the reference.
    checked(unsafe { sys::virDomainAbortJob(domain.as_ptr()) }).map(drop)
}

/// Switches the migration to post-copy.
pub(super) fn start_post_copy(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain lives as long as the reference.
    checked(unsafe { sys::virDomainMigrateStartPostCopy(domain.as_ptr(), 0) }).map(drop)
}

/// Whether a block job works on the disk with this target.
pub(super) fn has_block_job(domain: &Domain, target: &str) -> Result<bool, Error> {
    let target = CString::new(target)?;
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: the domain and the text live until the call returns, and libvirt writes one structure.
    let found = unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), target.as_ptr(), &raw mut info, 0) };
    Ok(checked(found)? == 1)
}

/// How fast the block job on the disk with this target may copy, in MiB/s; 0 for no limit.
pub(super) fn set_block_job_speed(domain: &Domain, target: &str, mib: u64) -> Result<(), Error> {
    let target = CString::new(target)?;
    // SAFETY: the domain and the text live until the call returns.
    checked(unsafe { sys::virDomainBlockJobSetSpeed(domain.as_ptr(), target.as_ptr(), mib, 0) }).map(drop)
}

/// Compares a `<cpu>` with what the hypervisor can give such a guest: `virCPUCompareResult`. What is incompatible is an error that
/// says what is missing.
pub(super) fn compare_hypervisor_cpu(connect: &Connect, machine: &Machine, cpu: &str) -> Result<c_int, Error> {
    let text = |value: &Option<String>| value.as_deref().map(CString::new).transpose();
    let (emulator, arch, kind) = (text(&machine.emulator)?, text(&machine.arch)?, text(&machine.machine)?);
    let (virt_type, cpu) = (CString::new(machine.virt_type.as_str())?, CString::new(cpu)?);
    let pointer = |value: &Option<CString>| value.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    // SAFETY: the connection and the texts live until the call returns.
    checked(unsafe {
        sys::virConnectCompareHypervisorCPU(
            connect.as_ptr(),
            pointer(&emulator),
            pointer(&arch),
            pointer(&kind),
            virt_type.as_ptr(),
            cpu.as_ptr(),
            sys::VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE,
        )
    })
}

/// Migrates. Returns when it is over.
pub(super) fn migrate_to_uri3(domain: &Domain, uri: &str, parameters: &MigrateParameters, flags: u32) -> Result<(), Error> {
    let uri = CString::new(uri)?;
    let mut params = parameters.to_vec();
    let count = u32::try_from(params.len()).unwrap_or(u32::MAX);
    // SAFETY: all arguments live until the call returns; libvirt only reads the parameters.
    let result = unsafe { sys::virDomainMigrateToURI3(domain.as_ptr(), uri.as_ptr(), params.as_mut_ptr(), count, flags) };
    let result = checked(result).map(drop);
    for param in &params {
        if c_int::cast_unsigned(param.type_) == sys::VIR_TYPED_PARAM_STRING {
            // SAFETY: `to_vec` made each text with `CString::into_raw`, and nobody uses it any more.
            drop(unsafe { CString::from_raw(param.value.s) });
        }
    }
    result
}

/// What libvirt's event loop tells.
#[derive(Debug)]
pub(super) enum RawEvent {
    /// Something happened to this domain.
    Lifecycle(Uuid),
    /// Its CPUs run here from now on: it came by a migration, or one away was taken back. Told before its lifecycle event.
    Arrived(Uuid),
    /// Its migration began another pass.
    Iteration(Uuid),
    /// Its job ended well.
    JobCompleted(Uuid, Params),
    /// The connection is gone.
    Closed,
}

/// Who is told. Called on libvirt's event loop, so it must not wait.
pub(super) type Sink = Arc<dyn Fn(RawEvent) + Send + Sync>;

/// Events of one connection, for as long as this lives.
pub(super) struct Subscriptions {
    connect: Connect,
    ids: Vec<c_int>,
    watches_close: bool,
}

impl Subscriptions {
    /// Subscribes to everything that this hypervisor offers of [`RawEvent`].
    pub(super) fn new(connect: &Connect, sink: &Sink) -> Self {
        // SAFETY: libvirt keeps each callback together with its event's number and calls it with that event's arguments, so the
        // cast to the generic type is undone before it is called. `opaque` is freed by `release`, once, by libvirt.
        let ids = unsafe {
            [
                (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, std::mem::transmute::<LifecycleCallback, GenericCallback>(on_lifecycle)),
                (
                    sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
                    std::mem::transmute::<IterationCallback, GenericCallback>(on_iteration),
                ),
                (
                    sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                    std::mem::transmute::<JobCompletedCallback, GenericCallback>(on_job_completed),
                ),
            ]
            .into_iter()
            .filter_map(|(event, callback)| register(connect, event, callback, sink))
            .collect()
        };
        Self { connect: connect.clone(), ids, watches_close: watch_close(connect, sink) }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        // SAFETY: the connection lives as long as `self`. Each registration holds a reference to it, so without this it would
        // never be closed. That it fails on a dead connection does not matter.
        unsafe {
            for id in &self.ids {
                sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *id);
            }
            if self.watches_close {
                sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close));
            }
        }
    }
}

type GenericCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type LifecycleCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type IterationCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, *mut c_void);
type JobCompletedCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, sys::virTypedParameterPtr, c_int, *mut c_void);

/// # Safety
/// `callback` takes what libvirt gives for `event`.
unsafe fn register(connect: &Connect, event: sys::virDomainEventID, callback: GenericCallback, sink: &Sink) -> Option<c_int> {
    let opaque = Box::into_raw(Box::new(Arc::clone(sink))).cast::<c_void>();
    // SAFETY: the connection lives as long as the reference; a null domain means all of them.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            event.cast_signed(),
            Some(callback),
            opaque,
            Some(release),
        )
    };
    if id >= 0 {
        return Some(id);
    }
    // SAFETY: a registration that failed keeps nothing.
    unsafe { release(opaque) };
    None
}

fn watch_close(connect: &Connect, sink: &Sink) -> bool {
    let opaque = Box::into_raw(Box::new(Arc::clone(sink))).cast::<c_void>();
    // SAFETY: as for events.
    unsafe {
        let result = sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(on_close), opaque, Some(release));
        if result < 0 {
            release(opaque);
        }
        result >= 0
    }
}

/// # Safety
/// `opaque` came from `Box::into_raw` of a boxed [`Sink`] and is not used any more.
unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: the caller's promise.
    drop(unsafe { Box::from_raw(opaque.cast::<Sink>()) });
}

/// # Safety
/// `opaque` points to a [`Sink`], `domain` to a domain, both until the function returns.
unsafe fn tell(opaque: *mut c_void, domain: sys::virDomainPtr, event: impl FnOnce(Uuid) -> RawEvent) {
    let mut bytes = [0_u8; 16];
    // SAFETY: the caller's promise; libvirt writes 16 bytes.
    unsafe {
        if sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) == 0 {
            (*opaque.cast::<Sink>())(event(Uuid::from_bytes(bytes)));
        }
    }
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let details = [sys::VIR_DOMAIN_EVENT_RESUMED_MIGRATED, sys::VIR_DOMAIN_EVENT_RESUMED_POSTCOPY];
    let resumed = event.cast_unsigned() == sys::VIR_DOMAIN_EVENT_RESUMED;
    // SAFETY: libvirt's promise to callbacks.
    unsafe {
        if resumed && details.contains(&detail.cast_unsigned()) {
            tell(opaque, domain, RawEvent::Arrived);
        }
        tell(opaque, domain, RawEvent::Lifecycle);
    }
    0
}

unsafe extern "C" fn on_iteration(_: sys::virConnectPtr, domain: sys::virDomainPtr, _iteration: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt's promise to callbacks.
    unsafe { tell(opaque, domain, RawEvent::Iteration) };
}

unsafe extern "C" fn on_job_completed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt's promise to callbacks; the parameters stay libvirt's.
    unsafe {
        let params = Params::copy(params, count);
        tell(opaque, domain, |server| RawEvent::JobCompleted(server, params));
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: libvirt's promise to callbacks.
    unsafe { (*opaque.cast::<Sink>())(RawEvent::Closed) };
}
