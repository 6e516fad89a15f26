//! libvirt's errors as ours.

use virt::connect::Connect;
use virt::error::Error;
use virt::sys;

use crate::driver::{DriverError, ErrorClass};

/// What libvirt says, with what the state of the connection makes of it: on a dead one nobody knows what was done.
pub(super) fn on(connect: &Connect, error: &Error) -> DriverError {
    let error = of(error);
    if error.class != ErrorClass::NoDomain && !connect.is_alive().unwrap_or(false) {
        return DriverError { class: ErrorClass::Unavailable, ..error };
    }
    error
}

/// What libvirt says.
pub(super) fn of(error: &Error) -> DriverError {
    let code = error.code().to_raw();
    DriverError { class: class(code), code, domain: error.domain().to_raw(), message: error.message().to_owned() }
}

fn class(code: sys::virErrorNumber) -> ErrorClass {
    match code {
        sys::VIR_ERR_NO_DOMAIN => ErrorClass::NoDomain,
        sys::VIR_ERR_NO_CONNECT | sys::VIR_ERR_INVALID_CONN => ErrorClass::Unavailable,
        sys::VIR_ERR_NO_SUPPORT
        | sys::VIR_ERR_CONFIG_UNSUPPORTED
        | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
        | sys::VIR_ERR_OPERATION_UNSUPPORTED => ErrorClass::Unsupported,
        sys::VIR_ERR_OPERATION_TIMEOUT => ErrorClass::Busy,
        _ => ErrorClass::Other,
    }
}
