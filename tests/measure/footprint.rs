//! What Drover's processes take when nothing happens.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use drover_testkit::{BenchError, ClusterProcess, Result};

use crate::cloud::Cloud;

/// For how long nothing happens.
pub(crate) const SPAN: Duration = Duration::from_secs(20);
/// Processor time in `/proc` is counted in these, on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// One process of Drover.
#[derive(Debug, Clone)]
pub(crate) struct Footprint {
    /// Its name on the bench.
    pub process: String,
    /// Resident memory (`VmRSS`), MiB.
    pub rss_mib: f64,
    /// Processor time, user and system, in percent of one processor.
    pub cpu_percent: f64,
}

/// Looks at each of Drover's processes before and after a time in which nothing is asked of it.
pub(crate) fn measure(cloud: &Cloud) -> Result<Vec<Footprint>> {
    let is_drovers = |process: &ClusterProcess| {
        let name = process.name.as_str();
        name == "api" || name.starts_with("conductor-") || name.starts_with("compute-")
    };
    let processes: Vec<_> = cloud.bench.cluster()?.processes.into_iter().filter(is_drovers).collect();
    let began = Instant::now();
    let before = processes.iter().map(ticks).collect::<Result<Vec<_>>>()?;
    thread::sleep(SPAN);
    let length = began.elapsed().as_secs_f64();
    let look = |(process, before): (&ClusterProcess, f64)| {
        Ok(Footprint {
            process: process.name.clone(),
            rss_mib: rss_mib(process)?,
            cpu_percent: (ticks(process)? - before) / TICKS_PER_SECOND / length * 100.0,
        })
    };
    processes.iter().zip(before).map(look).collect()
}

fn read(process: &ClusterProcess, file: &str) -> Result<(PathBuf, String)> {
    let path = PathBuf::from(format!("/proc/{}/{file}", process.pid));
    let text = fs::read_to_string(&path).map_err(BenchError::io(format!("read {} of {}", path.display(), process.name)))?;
    Ok((path, text))
}

fn ticks(process: &ClusterProcess) -> Result<f64> {
    let (path, text) = read(process, "stat")?;
    ticks_in(&text).ok_or_else(|| BenchError::Refused(format!("{} has no times: {text}", path.display())))
}

fn rss_mib(process: &ClusterProcess) -> Result<f64> {
    let (path, text) = read(process, "status")?;
    rss_mib_in(&text).ok_or_else(|| BenchError::Refused(format!("{} has no VmRSS: {text}", path.display())))
}

/// `utime` and `stime` of `/proc/PID/stat`: fields 14 and 15. The second, the program's name in brackets, may have spaces.
fn ticks_in(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some(times.next()?? + times.next()??)
}

fn rss_mib_in(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_and_system() {
        let stat = "4711 (a (b) c) S 1 4711 4711 0 -1 4194560 900 0 3 0 150 25 0 0 20 0 9 0 123456 1000 2000";
        assert_eq!(ticks_in(stat), Some(175.0));
        assert_eq!(ticks_in("4711 (x) S 1"), None);
    }

    #[test]
    fn resident_memory_is_in_mib() {
        assert_eq!(rss_mib_in("Name:\tx\nVmHWM:\t 9999 kB\nVmRSS:\t   18432 kB\nThreads:\t4\n"), Some(18.0));
        assert_eq!(rss_mib_in("Name:\tx\n"), None);
    }
}
