//! Reading what a process logs while something is measured: only what came after the start, only whole lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use drover_testkit::api::timestamp;
use drover_testkit::{BenchError, Process, Result};
use serde_json::Value;

/// An event in a log that is about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// When it was logged, since the epoch.
    pub at: Duration,
    /// What happened.
    pub message: String,
    /// The server's id.
    pub server: String,
}

impl Event {
    /// Reads a line; none if it is no event, or about no server. The server's id stands at the event or at one of its spans.
    fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let spans = event["spans"].as_array().into_iter().flatten();
        let server = std::iter::once(&event).chain(spans).find_map(|place| place["server.id"].as_str())?;
        Some(Self {
            at: timestamp(event["timestamp"].as_str()?.trim_end_matches('Z'))?,
            message: event["message"].as_str()?.to_owned(),
            server: server.to_owned(),
        })
    }
}

/// The end of a log, as it grows.
pub(crate) struct Tail {
    path: PathBuf,
    offset: u64,
    events: Vec<Event>,
}

impl Tail {
    /// Begins where the log ends now.
    pub(crate) fn of(process: &Process) -> Result<Self> {
        let path = process.log_path();
        let offset = path.metadata().map_err(BenchError::file("read", &path))?.len();
        Ok(Self { path, offset, events: Vec::new() })
    }

    /// Takes in what was logged since.
    pub(crate) fn read(&mut self) -> Result<()> {
        let failed = || format!("read {}", self.path.display());
        let mut file = File::open(&self.path).map_err(BenchError::io(failed()))?;
        file.seek(SeekFrom::Start(self.offset)).map_err(BenchError::io(failed()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(BenchError::io(failed()))?;
        let whole = whole_lines(&bytes);
        self.offset += u64::try_from(whole.len()).unwrap_or_default();
        self.events.extend(String::from_utf8_lossy(whole).lines().filter_map(Event::parse));
        Ok(())
    }

    /// When this was last said of a server, if it was.
    pub(crate) fn at(&self, message: &str, server: &str) -> Option<Duration> {
        self.events.iter().rev().find(|event| event.message == message && event.server == server).map(|event| event.at)
    }
}

/// The bytes up to the last end of a line: what follows is being written.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    &bytes[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_line_names_the_server_itself() {
        let line = r#"{"timestamp":"2026-11-24T09:00:00.250001Z","level":"INFO","message":"libvirt migrate call entered","migration.id":7,"server.id":"5a0e","target":"drover_compute::driver::libvirt::migrate"}"#;
        let event = Event::parse(line).unwrap();
        assert_eq!((event.message.as_str(), event.server.as_str()), ("libvirt migrate call entered", "5a0e"));
        assert_eq!(event.at.subsec_micros(), 250_001);
    }

    #[test]
    fn the_conductors_line_names_it_in_a_span() {
        let line = r#"{"timestamp":"2026-11-24T09:00:00.5Z","level":"INFO","message":"migration closed","status":"completed","span":{"name":"x"},"spans":[{"migration.id":"7","server.id":"5a0e","name":"conductor.drive"},{"name":"x"}]}"#;
        let event = Event::parse(line).unwrap();
        assert_eq!((event.message.as_str(), event.server.as_str()), ("migration closed", "5a0e"));
    }

    #[test]
    fn other_lines_are_passed_over() {
        for line in ["", "thread 'main' panicked", "{}", r#"{"timestamp":"2026-11-24T09:00:00.5Z","message":"listening"}"#] {
            assert_eq!(Event::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_being_written_waits() {
        assert_eq!(whole_lines(b"one\ntwo\nthr"), b"one\ntwo\n");
        assert_eq!(whole_lines(b"thr"), b"");
        assert_eq!(whole_lines(b""), b"");
    }
}
