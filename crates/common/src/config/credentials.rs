//! Options that are secrets, as systemd hands them to a service (`LoadCredential=`): one file each, in a directory that only the
//! service sees. A unit loads a directory under the name `drover`; systemd puts that before each file's name.

use std::fs;
use std::path::{Path, PathBuf};

use super::ConfigError;

/// Of what systemd names the files.
const PREFIX: &str = "drover_";

/// The directory of this service's credentials, if it has one.
pub(super) fn directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The options in `directory`: `section.option`, as in the configuration file, and the value. Other credentials are none of ours.
pub(super) fn read(directory: &Path) -> Result<Vec<(String, String)>, ConfigError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| ConfigError::Credential { path, source }
    };
    let mut options = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let Some(option) = path.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)) else { continue };
        let value = fs::read_to_string(&path).map_err(unreadable(&path))?;
        options.push((option.to_owned(), value.trim_end_matches('\n').to_owned()));
    }
    options.sort();
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_an_option_and_other_credentials_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("drover_database.connection", "postgresql://d:secret@db/drover\n"),
            ("drover_DEFAULT.transport_url", "amqp://b"),
            ("tls", "k"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let options = read(directory.path()).unwrap();
        let expected = [("DEFAULT.transport_url", "amqp://b"), ("database.connection", "postgresql://d:secret@db/drover")];
        assert_eq!(options, expected.map(|(option, value)| (option.to_owned(), value.to_owned())));
    }

    #[test]
    fn one_that_cannot_be_read_is_named() {
        let error = read(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/nowhere"), "{error}");
    }
}
