//! How long the disk takes to make a write durable: the floor of every commit, and so of every answer.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use drover_testkit::{BenchError, Result};

use crate::clock::{Span, now};

const WRITES: usize = 50;
/// A page of PostgreSQL's log.
const BYTES: [u8; 8192] = [0x5a; 8192];

/// Appends in this directory, each made durable by `fsync`; milliseconds of write and `fsync` together.
pub(crate) fn fsync_ms(directory: &Path) -> Result<Vec<f64>> {
    let path = directory.join("fsync");
    let failed = |what: &'static str| BenchError::file(what, &path);
    let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("create"))?;
    let mut taken = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let start = now();
        file.write_all(&BYTES).map_err(failed("write"))?;
        file.sync_all().map_err(failed("fsync"))?;
        taken.push(Span { start, end: now() }.ms());
    }
    fs::remove_file(&path).map_err(failed("remove"))?;
    Ok(taken)
}
