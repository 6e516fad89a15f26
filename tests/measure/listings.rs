//! What the API takes to list servers: many requests for few of them, and each filter over very many.

use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat};
use drover_testkit::{Answer, Api, Bench, BenchError, LATEST, Result};

use crate::clock;
use crate::cloud::Cloud;

/// Live servers while many ask at once.
pub(crate) const FEW: u32 = 100;
/// Connections that ask at once.
pub(crate) const CONNECTIONS: usize = 8;
/// Servers in the table, deleted ones included, while the filters are tried.
pub(crate) const MANY: u32 = 100_000;
/// How long many ask at once.
const SPAN: Duration = Duration::from_secs(10);
/// Requests with each filter.
const REQUESTS: usize = 200;

const POPULATION: &str = include_str!("population.sql");

/// Many requests at once.
pub(crate) struct Load {
    pub requests_per_second: f64,
    pub latencies_ms: Vec<f64>,
}

/// One filter over all servers.
pub(crate) struct Filtered {
    pub query: String,
    /// Servers on the page.
    pub found: usize,
    pub latencies_ms: Vec<f64>,
}

/// Everything here.
pub(crate) struct Listings {
    pub load: Load,
    pub filters: Vec<Filtered>,
}

/// Measures both. Whatever else the table holds counts among the servers.
pub(crate) fn measure(cloud: &Cloud) -> Result<Listings> {
    let own = cloud.bench.guests()?.len();
    let last = FEW.saturating_sub(u32::try_from(own).unwrap_or(FEW));
    populate(&cloud.bench, 1, last)?;
    let load = load(&cloud.api)?;
    populate(&cloud.bench, last + 1, MANY)?;
    let filters = queries(&cloud.api)?.into_iter().map(|query| filtered(&cloud.api, query)).collect::<Result<_>>()?;
    Ok(Listings { load, filters })
}

fn populate(bench: &Bench, first: u32, last: u32) -> Result<()> {
    bench.sql(&POPULATION.replace("FIRST", &first.to_string()).replace("LAST", &last.to_string())).map(drop)
}

/// `GET /servers/detail` on so many connections, each with its next question as soon as it has an answer.
fn load(api: &Api) -> Result<Load> {
    const PATH: &str = "/v2.1/servers/detail?all_tenants=1";
    let listed = servers(&ask(api, PATH)?);
    if listed != FEW as usize {
        return Err(BenchError::Refused(format!("{listed} servers are listed, {FEW} are there")));
    }
    let began = Instant::now();
    let asked = thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(|| {
                    let own = Api::new(api.base()); // A connection of its own.
                    let mut latencies = Vec::new();
                    while began.elapsed() < SPAN {
                        latencies.push(timed(&own, PATH)?);
                    }
                    Ok(latencies)
                })
            })
            .collect();
        connections.into_iter().map(|one| one.join().unwrap_or_else(|_| Err(crate::drover::panicked()))).collect::<Result<Vec<_>>>()
    });
    let latencies_ms: Vec<f64> = asked?.concat();
    let seconds = began.elapsed().as_secs_f64();
    Ok(Load { requests_per_second: f64::from(u32::try_from(latencies_ms.len()).unwrap_or(u32::MAX)) / seconds, latencies_ms })
}

/// The whole list and each filter, as clients write them.
fn queries(api: &Api) -> Result<Vec<String>> {
    let page = ask(api, "/v2.1/servers?all_tenants=1&limit=100")?;
    let marker = page.body["servers"][99]["id"].as_str().unwrap_or_default().to_owned();
    let hours_ago = |hours: u64| {
        let at = clock::now().saturating_sub(Duration::from_hours(hours)).as_secs();
        let at = DateTime::from_timestamp(i64::try_from(at).unwrap_or_default(), 0).unwrap_or_default();
        at.to_rfc3339_opts(SecondsFormat::Secs, true)
    };
    let (recently, long_ago) = (hours_ago(24), hours_ago(24 * 30));
    let filters = [
        "",
        "project_id=project-7",
        "user_id=user-7",
        "host=far-7",
        "node=far-7.example.org",
        "availability_zone=nova",
        "name=web-77776",
        "name=cache",
        "hostname=db-5",
        "flavor=m1.small",
        "status=ACTIVE",
        "status=ERROR",
        "status=PAUSED",
        "vm_state=stopped",
        "task_state=migrating",
        "power_state=4",
        "progress=42",
        "locked=true",
        "tags=blue",
        "not-tags=blue",
        "deleted=true",
    ];
    let mut queries: Vec<String> = filters.map(str::to_owned).into();
    queries.extend([format!("marker={marker}"), format!("changes-since={recently}"), format!("changes-before={long_ago}")]);
    Ok(queries)
}

fn filtered(api: &Api, query: String) -> Result<Filtered> {
    let path = format!("/v2.1/servers/detail?all_tenants=1&limit=100&{query}");
    let found = servers(&ask(api, &path)?);
    let latencies_ms = (0..REQUESTS).map(|_| timed(api, &path)).collect::<Result<_>>()?;
    Ok(Filtered { query: if query.is_empty() { "no filter".to_owned() } else { query }, found, latencies_ms })
}

fn servers(answer: &Answer) -> usize {
    answer.body["servers"].as_array().map_or(0, Vec::len)
}

fn ask(api: &Api, path: &str) -> Result<Answer> {
    let answer = api.get(LATEST, path);
    if answer.status == 200 { Ok(answer) } else { Err(BenchError::Refused(format!("{path}: {} {}", answer.status, answer.body))) }
}

/// Until the last byte is there; what it says is not looked at.
fn timed(api: &Api, path: &str) -> Result<f64> {
    let began = Instant::now();
    let (status, _) = api.get_bytes(LATEST, path);
    let took = began.elapsed().as_secs_f64() * 1e3;
    if status == 200 { Ok(took) } else { Err(BenchError::Refused(format!("{path}: {status}"))) }
}
