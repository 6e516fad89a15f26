//! `http_basic`: a user and a password, as standalone OpenStack services take them. Whoever stands in the file is admin of the
//! project that servers without an owner belong to.
//!
//! - The file is looked at for each request and read again when it changed: who is taken out of it is out at once. While it cannot
//!   be read nobody gets in.
//! - A hash is meant to be dear to verify. So few are verified at a time, on threads of their own, and what proved good is
//!   remembered for a minute.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_common::config::ConfigError;
use drover_common::telemetry;
use http::{HeaderMap, HeaderValue, header};

use super::gate::Gate;
use super::htpasswd::{Malformed, Users};
use super::verified::Verified;
use crate::context::Caller;
use crate::error::ApiError;
use crate::stamp::Stamp;

/// How long a password that proved good is taken without verifying it again.
const REMEMBERED_FOR: Duration = Duration::from_mins(1);
/// Hashes that are verified at a time: each keeps a CPU busy.
const VERIFIED_AT_ONCE: usize = 2;
/// Callers who wait for that: some seconds of work at most.
const WAITING_MAX: usize = 64;

/// The strategy.
pub(crate) struct HttpBasic {
    path: PathBuf,
    project: String,
    file: Mutex<Arc<File>>,
    gate: Gate,
}

/// The file as it was read.
struct File {
    stamp: Stamp,
    users: Users,
    /// Goes with the file: what proved good under another one does not count.
    verified: Verified<()>,
}

/// Why there are no users.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be read")]
    Read(#[from] std::io::Error),
    #[error("cannot be used")]
    Malformed(#[from] Malformed),
}

impl HttpBasic {
    /// With the users of this file, each of them admin of this project.
    pub(super) fn new(path: &Path, project: &str) -> Result<Self, ConfigError> {
        let file = File::read(path).map_err(|error| {
            ConfigError::not_allowed("[api] http_basic_auth_user_file", path, format_args!("the file {}", telemetry::chain(&error)))
        })?;
        Ok(Self {
            path: path.to_owned(),
            project: project.to_owned(),
            file: Mutex::new(Arc::new(file)),
            gate: Gate::new(VERIFIED_AT_ONCE, WAITING_MAX),
        })
    }

    /// Who the headers prove to be asking.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let refused = || ApiError::Unauthorized { challenge: HeaderValue::from_static("Basic realm=\"Compute API\"") };
        let credentials = credentials(headers).ok_or_else(refused)?;
        let colon = credentials.iter().position(|&byte| byte == b':').ok_or_else(refused)?;
        let user = str::from_utf8(&credentials[..colon]).map_err(|_| refused())?.to_owned();
        let file = self.file()?;
        let fingerprint = file.verified.fingerprint(&credentials);
        if file.verified.get(&fingerprint).is_none() {
            let inside = self.gate.enter().await?;
            // Somebody with the same password may have been inside meanwhile.
            if file.verified.get(&fingerprint).is_none() {
                let (theirs, name) = (file.clone(), user.clone());
                let verify = move || {
                    let _inside = inside;
                    theirs.users.verify(&name, &credentials[colon + 1..])
                };
                if !tokio::task::spawn_blocking(verify).await.unwrap_or(false) {
                    return Err(refused());
                }
                file.verified.insert(fingerprint, (), REMEMBERED_FOR);
            }
        }
        Ok(Caller::new(&user, &self.project, &["admin", "manager", "member", "reader"]))
    }

    /// The file as it is now. (Looking at it costs a microsecond: no thread is worth it.)
    fn file(&self) -> Result<Arc<File>, ApiError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let look = || -> Result<Option<File>, FileError> {
            let stamp = Stamp::of(&self.path)?;
            if stamp == file.stamp { Ok(None) } else { File::read(&self.path).map(Some) }
        };
        match look() {
            Ok(None) => {}
            Ok(Some(changed)) => {
                tracing::info!(path = %self.path.display(), "the users' file changed and was read again");
                *file = Arc::new(changed);
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), error = telemetry::chain(&error), "nobody can be authenticated");
                return Err(ApiError::Unavailable("Nobody can be authenticated now.".to_owned()));
            }
        }
        Ok(file.clone())
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, FileError> {
        // The stamp first: if the file changes meanwhile it is read once more, not missed.
        let stamp = Stamp::of(path)?;
        Ok(Self { stamp, users: Users::parse(&fs::read_to_string(path)?)?, verified: Verified::new() })
    }
}

impl fmt::Debug for HttpBasic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpBasic").field("path", &self.path).finish_non_exhaustive()
    }
}

/// `USER:PASSWORD`.
fn credentials(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    BASE64_STANDARD.decode(encoded.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with these users, whose passwords are their names.
    struct Htpasswd(tempfile::NamedTempFile);

    impl Htpasswd {
        fn of(users: &[&str]) -> Self {
            let file = Self(tempfile::NamedTempFile::new().unwrap());
            file.rewrite(users);
            file
        }

        fn rewrite(&self, users: &[&str]) {
            let lines = users.iter().map(|user| format!("{user}:{}\n", bcrypt::hash(user, 4).unwrap()));
            fs::write(self.0.path(), lines.collect::<String>()).unwrap();
        }
    }

    fn basic(user: &str, password: &str) -> HeaderMap {
        let value = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    async fn status(auth: &HttpBasic, headers: &HeaderMap) -> u16 {
        auth.caller(headers).await.map_or_else(|error| error.status().as_u16(), |_| 200)
    }

    #[tokio::test]
    async fn a_user_of_the_file_is_admin_of_the_default_project() {
        let file = Htpasswd::of(&["alice", "bob"]);
        let auth = HttpBasic::new(file.0.path(), "p1").unwrap();
        for _ in 0..2 {
            let caller = auth.caller(&basic("alice", "alice")).await.unwrap();
            assert_eq!((caller.user_id.as_str(), caller.project_id.as_str(), caller.is_admin()), ("alice", "p1", true));
        }
        for refused in [
            basic("alice", "bob"),
            basic("carol", "alice"),
            HeaderMap::new(),
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Basic !"))]),
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer YWxpY2U6YWxpY2U="))]),
        ] {
            let ApiError::Unauthorized { challenge } = auth.caller(&refused).await.unwrap_err() else { panic!("{refused:?}") };
            assert_eq!(challenge, "Basic realm=\"Compute API\"");
        }
    }

    #[tokio::test]
    async fn a_change_of_the_file_counts_at_once() {
        let file = Htpasswd::of(&["alice", "bob"]);
        let auth = HttpBasic::new(file.0.path(), "p1").unwrap();
        assert_eq!(status(&auth, &basic("bob", "bob")).await, 200);
        file.rewrite(&["alice"]);
        assert_eq!(status(&auth, &basic("bob", "bob")).await, 401);
        assert_eq!(status(&auth, &basic("alice", "alice")).await, 200);
        fs::write(file.0.path(), "alice:plain").unwrap();
        assert_eq!(status(&auth, &basic("alice", "alice")).await, 503);
        fs::remove_file(file.0.path()).unwrap();
        assert_eq!(status(&auth, &basic("alice", "alice")).await, 503);
        file.rewrite(&["alice"]);
        assert_eq!(status(&auth, &basic("alice", "alice")).await, 200);
    }

    #[test]
    fn without_a_usable_file_there_is_no_start() {
        let error = HttpBasic::new(Path::new("/nowhere/htpasswd"), "p1").unwrap_err().to_string();
        assert!(error.contains("http_basic_auth_user_file = \"/nowhere/htpasswd\"") && error.contains("No such file"), "{error}");
    }
}
