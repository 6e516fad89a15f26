//! Probe files: each host writes one beside a guest's disks, and the other looks whether it is there too.
//!
//! Names are random, so no cache of a network file system knows them as absent. A probe's content is its own name: a file of that
//! name with that content is no accident. Files are removed when they were needed, else after a while, else by the next probe that
//! this host writes in the same directory; their age is then told by the file system's own clock.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_common::ids::{HostName, MigrationId};
use drover_common::rpc::latest::StorageProbe;
use tracing::debug;
use uuid::Uuid;

const PREFIX: &str = ".drover-probe-";
/// The destination's probes serve the one question that follows at once.
pub const DESTINATION_KEEP: Duration = Duration::from_mins(1);
/// The source's probes serve all candidates, each of which may take its whole time to answer.
pub const SOURCE_KEEP: Duration = Duration::from_mins(5);
/// What is older belongs to an agent that died.
const LEFTOVER_AGE: Duration = Duration::from_mins(10);

/// The probes that this agent has written and not removed yet.
#[derive(Debug, Clone)]
pub struct Probes {
    host: HostName,
    written: Arc<Mutex<HashMap<MigrationId, Vec<PathBuf>>>>,
}

impl Probes {
    /// None yet.
    pub fn new(host: HostName) -> Self {
        Self { host, written: Arc::default() }
    }

    /// Writes one probe in each directory, to be removed after `keep` at the latest.
    pub async fn write(&self, migration: MigrationId, directories: Vec<String>, keep: Duration) -> Vec<StorageProbe> {
        if directories.is_empty() {
            return Vec::new();
        }
        let probes = self.clone();
        let written = tokio::task::spawn_blocking(move || probes.write_all(migration, directories)).await;
        let (answers, paths) = written.unwrap_or_default();
        let probes = self.clone();
        tokio::spawn(async move {
            let swept = paths.clone();
            let prefix = probes.prefix();
            tokio::task::spawn_blocking(move || swept.iter().for_each(|path| sweep(&prefix, path))).await.ok();
            tokio::time::sleep(keep).await;
            probes.remove_paths(migration, &paths).await;
        });
        answers
    }

    /// Removes what was written for a migration: nobody will look any more.
    pub async fn remove(&self, migration: MigrationId) {
        let paths = self.lock().get(&migration).cloned().unwrap_or_default();
        self.remove_paths(migration, &paths).await;
    }

    /// Removes everything, at the end of the process.
    pub async fn remove_all(&self) {
        let migrations: Vec<MigrationId> = self.lock().keys().copied().collect();
        for migration in migrations {
            self.remove(migration).await;
        }
    }

    fn write_all(&self, migration: MigrationId, directories: Vec<String>) -> (Vec<StorageProbe>, Vec<PathBuf>) {
        let mut paths = Vec::new();
        let answers = directories.into_iter().map(|directory| {
            let name = format!("{}{}", self.prefix(), Uuid::new_v4());
            let path = Path::new(&directory).join(&name);
            let written = create(&path, &name).map(|()| name).map_err(|error| error.to_string());
            if written.is_ok() {
                self.lock().entry(migration).or_default().push(path.clone());
                paths.push(path);
            }
            StorageProbe { directory, written }
        });
        (answers.collect(), paths)
    }

    async fn remove_paths(&self, migration: MigrationId, paths: &[PathBuf]) {
        let mine: Vec<PathBuf> = {
            let mut written = self.lock();
            let Some(known) = written.get_mut(&migration) else { return };
            let (mine, others) = known.drain(..).partition(|path| paths.contains(path));
            *known = others;
            if known.is_empty() {
                written.remove(&migration);
            }
            mine
        };
        let removal = tokio::task::spawn_blocking(move || {
            for path in mine {
                if let Err(error) = fs::remove_file(&path) {
                    debug!(error = %error, path = %path.display(), "probe file not removed");
                }
            }
        });
        removal.await.ok();
    }

    fn prefix(&self) -> String {
        format!("{PREFIX}{}-", self.host)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MigrationId, Vec<PathBuf>>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the other host's probe is here. An error means that nobody can tell. Blocks.
pub fn sees(probe: &StorageProbe) -> Result<bool, String> {
    let name = probe.written.as_ref().map_err(|why| format!("the other host could not write there: {why}"))?;
    if !name.starts_with(PREFIX) || name.contains('/') {
        return Err(format!("{name:?} is no name of a probe"));
    }
    match fs::read(Path::new(&probe.directory).join(name)) {
        Ok(content) if content == name.as_bytes() => Ok(true),
        Ok(_) => Err(format!("{name} has a content that is not its own")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

fn create(path: &Path, content: &str) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(content.as_bytes()) // Closing it lets a network file system send it.
}

/// Removes probes of this host that are much older than the one just written beside them.
fn sweep(prefix: &str, just_written: &Path) {
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let (Some(directory), Ok(now)) = (just_written.parent(), modified(just_written)) else { return };
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().and_then(|name| name.strip_prefix(prefix)).is_some_and(|rest| rest.parse::<Uuid>().is_ok());
        let old = || modified(&entry.path()).is_ok_and(|then| now.duration_since(then).is_ok_and(|age| age > LEFTOVER_AGE));
        if ours && old() {
            fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("drover-probe-test-{}", Uuid::new_v4()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> usize {
            fs::read_dir(&self.0).unwrap().count()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn probes() -> Probes {
        Probes::new(HostName::new("h1").unwrap())
    }

    #[tokio::test]
    async fn a_probe_is_seen_where_it_was_written_and_gone_when_removed() {
        let directory = Directory::new();
        let probes = probes();
        let text = directory.0.to_str().unwrap().to_owned();
        let written = probes.write(MigrationId(1), vec![text], SOURCE_KEEP).await;
        assert_eq!(written.len(), 1);
        assert_eq!(sees(&written[0]), Ok(true));
        let elsewhere = StorageProbe { directory: "/nowhere".to_owned(), ..written[0].clone() };
        assert_eq!(sees(&elsewhere), Ok(false));
        probes.remove(MigrationId(2)).await;
        assert_eq!(directory.files(), 1);
        probes.remove_all().await;
        assert_eq!((directory.files(), sees(&written[0])), (0, Ok(false)));
    }

    #[tokio::test]
    async fn where_nothing_can_be_written_the_answer_says_why() {
        let written = probes().write(MigrationId(1), vec!["/nowhere/at/all".to_owned()], SOURCE_KEEP).await;
        assert!(written[0].written.is_err());
        assert!(sees(&written[0]).is_err());
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_no_probe() {
        for name in ["/etc/passwd", ".drover-probe-../../etc/passwd", "x"] {
            let probe = StorageProbe { directory: "/tmp".to_owned(), written: Ok(name.to_owned()) };
            assert!(sees(&probe).is_err(), "{name}");
        }
    }

    #[test]
    fn only_old_probes_of_this_host_are_swept() {
        let directory = Directory::new();
        let old = |name: String| {
            let path = directory.0.join(name);
            let file = fs::File::create(&path).unwrap();
            let fresh = file.metadata().unwrap().modified().unwrap();
            file.set_modified(fresh - Duration::from_secs(700)).unwrap();
            path
        };
        let ours = old(format!(".drover-probe-h1-{}", Uuid::new_v4()));
        let kept = [
            old(format!(".drover-probe-h1-b-{}", Uuid::new_v4())),
            old(format!(".drover-probe-h2-{}", Uuid::new_v4())),
            old("disk.qcow2".to_owned()),
        ];
        let new = directory.0.join(format!(".drover-probe-h1-{}", Uuid::new_v4()));
        create(&new, "x").unwrap();
        sweep(".drover-probe-h1-", &new);
        assert!(!ours.exists() && new.exists());
        assert!(kept.iter().all(|path| path.exists()));
    }
}
