//! The policy file: YAML, one `"RULE": "EXPRESSION"` a line (JSON is YAML, too), as Nova's `policy.yaml`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest file that is read.
const LENGTH_MAX: u64 = 1 << 20;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("the file cannot be read")]
    Read(#[from] std::io::Error),
    #[error("the file is not \"RULE\": \"EXPRESSION\" in YAML")]
    Malformed(#[source] Box<serde_saphyr::Error>),
}

/// The rules by name, as text.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>, FileError> {
    let mut text = String::new();
    File::open(path)?.take(LENGTH_MAX).read_to_string(&mut text)?;
    parse(&text)
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, FileError> {
    // A file in which everything is commented out says nothing.
    let rules: Option<BTreeMap<String, String>> =
        serde_saphyr::from_str(text).map_err(|error| FileError::Malformed(Box::new(error)))?;
    Ok(rules.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_nova_writes_them() {
        let text = "# Live migrate.\n# POST  /servers/{server_id}/action\n\"os_compute_api:os-migrate-server:migrate_live\": \"rule:admin_api\"\nadmin_api: is_admin:True\n\"b\": \"\"\n";
        let rules = parse(text).unwrap();
        let seen: Vec<(&str, &str)> = rules.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let live = "os_compute_api:os-migrate-server:migrate_live";
        assert_eq!(seen, [("admin_api", "is_admin:True"), ("b", ""), (live, "rule:admin_api")]);
        assert_eq!(parse(r#"{"a": "@"}"#).unwrap().len(), 1);
    }

    #[test]
    fn a_file_of_comments_says_nothing_and_anything_else_is_refused() {
        assert!(parse("").unwrap().is_empty() && parse("# \"a\": \"@\"\n").unwrap().is_empty());
        for bad in ["a", "- a", "a: [role:b]", "a: @\nb", "a: x\na: y"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
