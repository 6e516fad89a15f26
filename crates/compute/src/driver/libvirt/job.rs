//! libvirt's numbers about a job.

use std::ffi::CStr;

use drover_common::migration::{JobResult, Progress};
use drover_common::rpc::latest::JobKind;
use virt::sys;

use super::ffi::Params;

/// Which job it is (`virDomainJobOperation`).
pub(super) fn kind(params: &Params) -> JobKind {
    let operation = params.number(sys::VIR_DOMAIN_JOB_OPERATION).and_then(|n| u32::try_from(n).ok());
    match operation {
        Some(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT) => JobKind::MigrationOut,
        Some(sys::VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN) => JobKind::MigrationIn,
        _ => JobKind::Other,
    }
}

/// How far it is.
pub(super) fn progress(params: &Params) -> Progress {
    let number = |name: &CStr| params.number(name).and_then(|n| i64::try_from(n).ok());
    let or_zero = |name: &CStr| number(name).unwrap_or(0);
    let page_size = number(sys::VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE).unwrap_or(4096);
    Progress {
        elapsed_ms: or_zero(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
        memory_total: or_zero(sys::VIR_DOMAIN_JOB_MEMORY_TOTAL),
        memory_processed: or_zero(sys::VIR_DOMAIN_JOB_MEMORY_PROCESSED),
        memory_remaining: or_zero(sys::VIR_DOMAIN_JOB_MEMORY_REMAINING),
        disk_total: or_zero(sys::VIR_DOMAIN_JOB_DISK_TOTAL),
        disk_processed: or_zero(sys::VIR_DOMAIN_JOB_DISK_PROCESSED),
        disk_remaining: or_zero(sys::VIR_DOMAIN_JOB_DISK_REMAINING),
        iteration: or_zero(sys::VIR_DOMAIN_JOB_MEMORY_ITERATION),
        bytes_per_second: or_zero(sys::VIR_DOMAIN_JOB_MEMORY_BPS).saturating_add(or_zero(sys::VIR_DOMAIN_JOB_DISK_BPS)),
        dirty_bytes_per_second: or_zero(sys::VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE).saturating_mul(page_size),
        throttle_percent: i32::try_from(or_zero(sys::VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE)).unwrap_or(0),
        outlook: None,
        bandwidth_mib: None,
    }
}

/// The account of a job that ended well.
pub(super) fn result(params: &Params) -> JobResult {
    let number = |name: &CStr| params.number(name).and_then(|n| i64::try_from(n).ok());
    JobResult {
        total_ms: number(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
        downtime_ms: number(sys::VIR_DOMAIN_JOB_DOWNTIME),
        setup_ms: number(sys::VIR_DOMAIN_JOB_SETUP_TIME),
        progress: progress(params),
        call_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_libvirt_gives_are_taken_and_others_stay_unknown() {
        let params = Params::of(&[
            (c"operation", 5),
            (c"time_elapsed", 1200),
            (c"memory_total", 134_217_728),
            (c"memory_remaining", 4096),
            (c"memory_bps", 1000),
            (c"disk_bps", 24),
            (c"memory_dirty_rate", 10),
            (c"memory_page_size", 4096),
            (c"setup_time", 3),
        ]);
        assert_eq!(kind(&params), JobKind::MigrationOut);
        let result = result(&params);
        assert_eq!((result.total_ms, result.downtime_ms, result.setup_ms), (Some(1200), None, Some(3)));
        assert_eq!((result.progress.bytes_per_second, result.progress.dirty_bytes_per_second), (1024, 40960));
        assert_eq!(result.progress.memory_remaining, 4096);
    }

    #[test]
    fn any_other_operation_is_a_foreign_job() {
        assert_eq!(kind(&Params::of(&[(c"operation", 9)])), JobKind::Other);
        assert_eq!(kind(&Params::of(&[(c"operation", 4)])), JobKind::MigrationIn);
        assert_eq!(kind(&Params::default()), JobKind::Other);
    }
}
