//! Microversions: which of Nova's API versions is served, what changed in each, and how a request chooses one.
//!
//! Nova's API has one URL and many versions: a header names the version, and everything else (which keys a body may have, which
//! fields an answer has, whether a resource exists) follows from it. `version >= V2_53` in the code always means "from 2.53 on".
//!
//! *Raising the maximum:* serve what the next version changes, add its line to [`HISTORY`] and set [`MAX`]. A test holds the two
//! together.

use std::fmt;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::ApiError;
use crate::pipeline::mount::Mount;

/// A version of the API: the 2.x that a request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Microversion {
    major: u16,
    minor: u16,
}

/// 2.`minor`.
pub(crate) const fn v2(minor: u16) -> Microversion {
    Microversion { major: 2, minor }
}

/// The oldest version served, and the one of a request that names none.
pub(crate) const MIN: Microversion = v2(1);

/// The newest version served. Every endpoint in `router.rs` is complete for every version up to it.
pub(crate) const MAX: Microversion = v2(100);

/// Whether a version changed anything that is served here, and what.
#[cfg_attr(not(test), expect(dead_code, reason = "for readers, and for the test that holds it against MAX"))]
pub(crate) const HISTORY: &[(u16, &str)] = &[
    (1, "where everything begins"),
    (2, "not served: keypair types"),
    (3, "servers: kernel_id, hostname and more attributes for admins"),
    (4, "not served: fixed IPs"),
    (5, "servers: filter ip6 for everybody"),
    (6, "not served: remote consoles"),
    (7, "not served: flavor access"),
    (8, "not served: MKS consoles"),
    (9, "servers: locked"),
    (10, "not served: keypairs of other users"),
    (11, "services: forced_down, PUT /os-services/force-down"),
    (12, "not served: virtual interfaces"),
    (13, "server groups: project_id, user_id"),
    (14, "not served: evacuate"),
    (15, "server groups: soft policies"),
    (16, "servers: host_status"),
    (17, "not served: crash dumps"),
    (18, "the project's id in URLs is optional (here: in all versions, as in today's Nova)"),
    (19, "servers: description"),
    (20, "not served: attaching volumes"),
    (21, "instance actions of deleted servers"),
    (22, "server migrations: force_complete"),
    (23, "server migrations: list and show; os-migrations: migration_type, links"),
    (24, "server migrations: abort"),
    (25, "os-migrateLive: block_migration may be auto, no disk_over_commit"),
    (26, "servers: tags and filters by them"),
    (27, "the header OpenStack-API-Version (here: in all versions, as in today's Nova)"),
    (28, "hypervisors: cpu_info is an object"),
    (29, "not served: evacuate"),
    (30, "os-migrateLive: force; a host that is named goes through the scheduler"),
    (31, "not served: console tokens"),
    (32, "not served: device tags"),
    (33, "hypervisors: paging"),
    (34, "os-migrateLive: the answer does not wait for the prechecks"),
    (35, "not served: keypairs"),
    (36, "limits: none of networks and security groups"),
    (37, "not served: creating servers"),
    (38, "servers: an unknown status in a filter is refused"),
    (39, "limits: no maxImageMeta"),
    (40, "not served: usages"),
    (41, "aggregates: uuid"),
    (42, "not served: device tags"),
    (43, "not served: os-hosts"),
    (44, "not served: network proxies"),
    (45, "not served: images of servers"),
    (46, "the header X-OpenStack-Request-ID (here: in all versions, as in today's Nova)"),
    (47, "servers: the flavor is embedded"),
    (48, "not served: diagnostics"),
    (49, "not served: device tags"),
    (50, "not served: quotas"),
    (51, "instance actions: events for everybody"),
    (52, "not served: creating servers"),
    (53, "services and hypervisors by UUID; PUT /os-services/{uuid}; hypervisors by pattern, with servers"),
    (54, "not served: rebuild"),
    (55, "flavors: description"),
    (56, "not served: cold migration"),
    (57, "limits: no maxPersonality"),
    (58, "instance actions: paging, changes-since, updated_at"),
    (59, "migrations: uuid, paging, changes-since"),
    (60, "not served: volumes on several servers"),
    (61, "flavors: extra_specs"),
    (62, "instance actions: host and hostId of events"),
    (63, "servers: trusted_image_certificates"),
    (64, "server groups: policy and rules"),
    (65, "server migrations: abort of queued and preparing ones"),
    (66, "changes-before beside changes-since"),
    (67, "not served: volume types"),
    (68, "os-migrateLive: no force"),
    (69, "nothing here: partial answers while a cell is down, and there are no cells"),
    (70, "not served: device tags"),
    (71, "servers: server_groups"),
    (72, "not served: ports"),
    (73, "servers: locked_reason, filter locked"),
    (74, "not served: creating servers"),
    (75, "unknown query parameters are refused; flavors: swap is a number; hypervisors: servers always when asked for"),
    (76, "not served: external events"),
    (77, "not served: unshelve"),
    (78, "not served: NUMA topology"),
    (79, "not served: volumes"),
    (80, "migrations: user_id, project_id"),
    (81, "not served: images of aggregates"),
    (82, "not served: external events"),
    (83, "servers: more filters for everybody"),
    (84, "instance actions: details of events"),
    (85, "not served: volumes"),
    (86, "not served: writing extra specs"),
    (87, "not served: rescue"),
    (88, "hypervisors: no usage figures, no statistics, uptime is a field"),
    (89, "not served: volumes"),
    (90, "servers: hostname and the filter by it for everybody"),
    (91, "not served: unshelve"),
    (92, "not served: keypairs"),
    (93, "not served: rebuild"),
    (94, "not served: creating servers"),
    (95, "not served: evacuate"),
    (96, "servers: pinned_availability_zone"),
    (97, "not served: shares"),
    (98, "nothing here: properties of images, and servers have none"),
    (99, "not served: consoles"),
    (100, "servers: scheduler_hints (always empty: servers come from the hosts)"),
];

impl Microversion {
    /// Reads `MAJOR.MINOR` as Nova does: no leading zeros. `None` when it is not of that form; numbers too large for us count
    /// as the largest, which no range contains.
    fn parse(text: &str) -> Option<Self> {
        let number = |part: &str, zero_allowed: bool| {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            let fits = digits && (!part.starts_with('0') || (zero_allowed && part == "0"));
            fits.then(|| part.parse::<u16>().unwrap_or(u16::MAX))
        };
        let (major, minor) = text.split_once('.')?;
        Some(Self { major: number(major, false)?, minor: number(minor, true)? })
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

const STANDARD: HeaderName = HeaderName::from_static("openstack-api-version");
const LEGACY: HeaderName = HeaderName::from_static("x-openstack-nova-api-version");
const VARY: HeaderValue = HeaderValue::from_static("OpenStack-API-Version, X-OpenStack-Nova-API-Version");
/// The service that the standard header must name.
const SERVICE: &str = "compute";

/// The text that a request asks with, if it asks (`microversion_parse`): the standard header's last entry for us, else the last
/// value of Nova's own header.
fn wanted(headers: &HeaderMap) -> Option<String> {
    let entries = |name: HeaderName| -> Vec<String> {
        let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(|entry| entry.trim().to_owned()).collect()
    };
    let ours = entries(STANDARD).iter().rev().find_map(|entry| {
        let mut words = entry.split_whitespace();
        let service = words.next()?;
        let version = words.next()?;
        (service.eq_ignore_ascii_case(SERVICE) && words.next().is_none()).then(|| version.to_owned())
    });
    ours.or_else(|| entries(LEGACY).pop().filter(|version| !version.is_empty()))
}

/// The version for a request, or the refusal.
fn choose(headers: &HeaderMap) -> Result<Microversion, ApiError> {
    match wanted(headers).as_deref() {
        None => Ok(MIN),
        Some("latest") => Ok(MAX),
        Some(text) => match Microversion::parse(text) {
            None => Err(ApiError::bad_request(format!(
                "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            ))),
            Some(version) if (MIN..=MAX).contains(&version) => Ok(version),
            Some(_) => Err(ApiError::NotAcceptable { version: text.to_owned() }),
        },
    }
}

/// Middleware around every route of `/v2.1` and `/v2`: chooses the version and names it in the answer. The legacy mount knows no
/// microversions: it always answers as the first one did.
pub(crate) async fn negotiate(mut request: Request, next: Next) -> Response {
    use axum::response::IntoResponse;
    if request.extensions().get::<Mount>() == Some(&Mount::Legacy) {
        request.extensions_mut().insert(MIN);
        return next.run(request).await;
    }
    let (shown, mut response) = match choose(request.headers()) {
        Ok(version) => {
            request.extensions_mut().insert(version);
            (version.to_string(), next.run(request).await)
        }
        // The refused version is named, as if it had been served.
        Err(ApiError::NotAcceptable { version }) => (version.clone(), ApiError::NotAcceptable { version }.into_response()),
        Err(error) => return error.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [(STANDARD, format!("{SERVICE} {shown}")), (LEGACY, shown)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::VARY, VARY);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(headers: &[(HeaderName, &str)]) -> String {
        let headers = headers.iter().map(|(n, v)| (n.clone(), HeaderValue::from_str(v).unwrap())).collect();
        choose(&headers).map_or_else(|error| error.to_string(), |version| version.to_string())
    }

    #[test]
    fn the_history_has_one_line_for_every_version_up_to_the_maximum() {
        let versions: Vec<Microversion> = HISTORY.iter().map(|(minor, _)| v2(*minor)).collect();
        let expected: Vec<Microversion> = (MIN.minor..=MAX.minor).map(v2).collect();
        assert_eq!(versions, expected);
    }

    #[test]
    fn the_standard_header_wins_and_its_last_entry_for_compute_counts() {
        for (standard, legacy, expected) in [
            (None, None, "2.1"),
            (Some("compute 2.30"), None, "2.30"),
            (Some("Compute 2.30"), Some("2.5"), "2.30"),
            (Some("volume 3.0, compute 2.30, compute 2.34, volume 3.1"), None, "2.34"),
            (Some("compute latest"), None, "2.100"),
            (Some("volume 3.0"), None, "2.1"),
            (Some("2.80"), None, "2.1"),
            (Some("volume 3.0"), Some("2.5"), "2.5"),
            (None, Some("2.5, 2.60"), "2.60"),
            (None, Some(""), "2.1"),
        ] {
            let given = [standard.map(|v| (STANDARD, v)), legacy.map(|v| (LEGACY, v))];
            let headers: Vec<_> = given.into_iter().flatten().collect();
            assert_eq!(chosen(&headers), expected, "{headers:?}");
        }
    }

    #[test]
    fn what_is_no_version_is_told_from_what_is_out_of_range() {
        for bad in ["foo", "2", "2.01", "02.1", "2.1.1", "-2.1", "2.", ".1", "2.x", "LATEST"] {
            let text = chosen(&[(LEGACY, bad)]);
            assert!(text.contains("is of invalid format"), "{bad}: {text}");
        }
        for far in ["2.0", "2.101", "2.999", "3.0", "1.1", "2.99999999999999999999"] {
            let text = chosen(&[(LEGACY, far)]);
            assert_eq!(text, format!("Version {far} is not supported by the API. Minimum is 2.1 and maximum is 2.100."));
        }
    }
}
