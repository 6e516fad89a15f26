//! What a file is, and whether two hosts have the same content under one path.
//!
//! A base image that every host keeps for itself (Nova's `_base`) is not shared, yet an overlay need not bring it along. Equal length
//! and SHA-256 are taken for equal content; a digest is read once for each file as it is, and kept.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use drover_common::ids::HostName;
use drover_common::rpc::latest::{DiskSource, FileFacts, ImageCheck};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

/// A check waits no longer than this for a digest, so that it keeps within the caller's time; reading goes on for the next one.
const DIGEST_WITHIN: Duration = Duration::from_secs(20);
/// Digests that are kept. A host has a handful of base images in use.
const KNOWN_MAX: usize = 1024;
const READ_BYTES: usize = 1 << 20;

/// What the file under a path is; none if there is no such file. Blocks.
pub fn facts(path: &str) -> Option<FileFacts> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    Some(FileFacts {
        bytes: metadata.len(),
        allocated_bytes: metadata.blocks().saturating_mul(512),
        inode: metadata.ino(),
        made_ns: made.and_then(|made| i64::try_from(made.as_nanos()).ok()),
    })
}

/// Whether a path still is the file that it was: not another one that has taken its name, be it the destination's.
pub fn is_same_file(then: &FileFacts, now: &FileFacts) -> bool {
    then.inode == now.inode && then.made_ns == now.made_ns
}

/// A file as it is: with any of these changed its content may have, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Version {
    path: String,
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Version {
    fn of(path: &str) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

type Known = HashMap<Version, Arc<OnceCell<Result<String, String>>>>;

/// Digests of files, each read once.
#[derive(Debug, Clone)]
pub struct Digests {
    known: Arc<Mutex<Known>>,
    /// One file at a time: they are large, and a disk reads one fastest.
    turn: Arc<Semaphore>,
}

impl Default for Digests {
    fn default() -> Self {
        Self { known: Arc::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Digests {
    /// SHA-256 of a file in hexadecimal, or why there is none (yet).
    pub async fn get(&self, path: String) -> Result<String, String> {
        let reading = tokio::spawn(self.clone().read_once(path));
        match tokio::time::timeout(DIGEST_WITHIN, reading).await {
            Ok(read) => read.unwrap_or_else(|error| Err(error.to_string())),
            Err(_) => Err(format!(
                "it is still being read to compare it, after {} s; once that is done it is known for later",
                DIGEST_WITHIN.as_secs()
            )),
        }
    }

    async fn read_once(self, path: String) -> Result<String, String> {
        let version = Version::of(&path).map_err(|error| error.to_string())?;
        let cell = self.cell(version.clone());
        let turn = Arc::clone(&self.turn);
        let read = cell.get_or_init(|| async move {
            let _turn = turn.acquire_owned().await.map_err(|error| error.to_string())?;
            let reading = tokio::task::spawn_blocking(move || read(&version));
            reading.await.unwrap_or_else(|error| Err(error.to_string()))
        });
        read.await.clone()
    }

    fn cell(&self, version: Version) -> Arc<OnceCell<Result<String, String>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // A failure may pass, and what grows without end is no cache.
        known.retain(|_, cell| cell.get().is_none_or(Result::is_ok));
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        Arc::clone(known.entry(version).or_default())
    }
}

fn read(version: &Version) -> Result<String, String> {
    let digest = digest(Path::new(&version.path)).map_err(|error| error.to_string())?;
    let unchanged = Version::of(&version.path).is_ok_and(|now| now == *version);
    if unchanged { Ok(digest) } else { Err("it changed while it was read".to_owned()) }
}

fn digest(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut buffer) = (fs::File::open(path)?, Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// What the destination has under a path of the source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of the same content.
    Same,
    /// No file, for people.
    Absent(String),
    /// A file of another content, or of one that is not known; for people.
    Other(String),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same => f.write_str("the destination has the same content"),
            Self::Absent(why) | Self::Other(why) => f.write_str(why),
        }
    }
}

/// What the destination has under the path of an image. `digest` is the source's own, where the destination has told its.
pub fn content_there(
    source: &DiskSource,
    here: Option<&FileFacts>,
    checks: Option<&[ImageCheck]>,
    digest: Option<&Result<String, String>>,
    destination: &HostName,
) -> Content {
    let DiskSource::File { path } = source else {
        return Content::Other(format!("{} is no file that could be compared", source.shown()));
    };
    let Some(checks) = checks else {
        return Content::Other(format!("the agent of {destination} is too old to look for {path}"));
    };
    let Some(check) = checks.iter().find(|check| check.path == *path) else {
        return Content::Other(format!("{destination} did not look for {path}"));
    };
    let Some(there) = check.bytes else {
        return Content::Absent(format!("{destination} has no {path}"));
    };
    let Some(here) = here else {
        return Content::Other(format!("{path} is not there to be compared"));
    };
    if there != here.bytes {
        return Content::Other(format!("{path} has {} bytes here and {there} on {destination}", here.bytes));
    }
    match (digest, &check.digest) {
        (Some(Ok(here)), Some(Ok(there))) if here == there => Content::Same,
        (Some(Ok(_)), Some(Ok(_))) => Content::Other(format!("{path} on {destination} has another content")),
        (_, Some(Err(why))) => Content::Other(format!("{path} on {destination}: {why}")),
        (Some(Err(why)), _) => Content::Other(format!("{path}: {why}")),
        _ => Content::Other(format!("{path} was not compared with that of {destination}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_digest_is_read_once_and_again_when_the_file_has_changed() {
        let path = std::env::temp_dir().join(format!("drover-digest-{}", uuid::Uuid::new_v4()));
        let text = path.to_str().unwrap().to_owned();
        fs::write(&path, "abc").unwrap();
        let digests = Digests::default();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digests.get(text.clone()).await.as_deref(), Ok(abc));
        assert_eq!(digests.get(text.clone()).await.as_deref(), Ok(abc));
        assert_eq!(digests.known.lock().unwrap().len(), 1);
        fs::write(&path, "abcd").unwrap();
        assert_ne!(digests.get(text.clone()).await.as_deref(), Ok(abc));
        fs::remove_file(&path).unwrap();
        assert!(digests.get(text).await.is_err());
    }

    #[test]
    fn another_file_under_the_name_is_told_from_the_first() {
        let path = std::env::temp_dir().join(format!("drover-facts-{}", uuid::Uuid::new_v4()));
        let text = path.to_str().unwrap();
        assert_eq!(facts(text), None);
        let first = fs::File::create(&path).unwrap();
        let then = facts(text).unwrap();
        first.set_len(5000).unwrap();
        let grown = facts(text).unwrap();
        assert!(is_same_file(&then, &grown) && grown.bytes == 5000);
        fs::remove_file(&path).unwrap();
        let _second = fs::File::create(&path).unwrap(); // The first is open still, so its inode is not free.
        assert!(!is_same_file(&then, &facts(text).unwrap()));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn content_is_the_same_only_if_both_hosts_say_so() {
        let host = HostName::new("h2").unwrap();
        let file = DiskSource::File { path: "/base/a".to_owned() };
        let here = FileFacts { bytes: 10, allocated_bytes: 0, inode: 1, made_ns: None };
        let check = |bytes, digest: Option<Result<&str, &str>>| ImageCheck {
            path: "/base/a".to_owned(),
            bytes,
            digest: digest.map(|digest| digest.map(str::to_owned).map_err(str::to_owned)),
        };
        let own = Ok("d1".to_owned());
        let same = |checks: Option<Vec<ImageCheck>>, own: Option<&Result<String, String>>| {
            content_there(&file, Some(&here), checks.as_deref(), own, &host)
        };
        assert_eq!(same(Some(vec![check(Some(10), Some(Ok("d1")))]), Some(&own)), Content::Same);
        assert!(matches!(same(Some(vec![check(None, None)]), None), Content::Absent(_)));
        for (checks, part) in [
            (None, "too old"),
            (Some(vec![]), "did not look"),
            (Some(vec![check(None, None)]), "h2 has no /base/a"),
            (Some(vec![check(Some(11), None)]), "10 bytes here and 11 on h2"),
            (Some(vec![check(Some(10), Some(Ok("d2")))]), "another content"),
            (Some(vec![check(Some(10), Some(Err("still being read")))]), "still being read"),
            (Some(vec![check(Some(10), None)]), "was not compared"),
        ] {
            let there = same(checks, Some(&own));
            assert!(there != Content::Same && there.to_string().contains(part), "{there}");
        }
        assert!(matches!(content_there(&DiskSource::Empty, None, Some(&[]), None, &host), Content::Other(_)));
    }
}
