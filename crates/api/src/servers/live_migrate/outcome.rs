//! What a caller who waited for the prechecks is told of their failure.

use drover_common::fault::{Fault, FaultClass};

use crate::error::ApiError;
use crate::pipeline::mount::Mount;

/// The answer for a fault. No `_` arm: a new class must choose its status to compile.
///
/// On the legacy mount everything that ends as a server error here is then 400 with the base API's own sentence.
pub(super) fn told(fault: Fault, mount: Mount) -> ApiError {
    match fault.class {
        FaultClass::ComputeServiceUnavailable
        | FaultClass::InvalidHypervisorType
        | FaultClass::InvalidCpuInfo
        | FaultClass::UnableToMigrateToSelf
        | FaultClass::DestinationHypervisorTooOld
        | FaultClass::NoValidHost
        | FaultClass::MaxRetriesExceeded
        | FaultClass::InvalidLocalStorage
        | FaultClass::InvalidSharedStorage
        | FaultClass::HypervisorUnavailable
        | FaultClass::MigrationPreCheckError
        | FaultClass::ComputeHostNotFound => ApiError::Refused(fault),
        FaultClass::InstanceNotFound => ApiError::NotFound(fault.message),
        FaultClass::InstanceInvalidState => ApiError::Conflict(fault.message),
        // Somebody took it back meanwhile. Nova cannot abort so early; the base API knows only one word for the rest.
        FaultClass::MigrationAborted => match mount {
            Mount::Current => ApiError::Conflict(fault.message),
            Mount::Legacy => ApiError::Failed(fault),
        },
        FaultClass::NotImplemented => ApiError::NotImplemented(fault),
        FaultClass::MigrationError
        | FaultClass::InstanceLost
        | FaultClass::InstancePowerFailure
        | FaultClass::MessageDeliveryFailure
        | FaultClass::UnsupportedVersion
        | FaultClass::Unexpected => ApiError::Failed(fault),
    }
}
