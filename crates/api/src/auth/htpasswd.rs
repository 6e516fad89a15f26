//! The file of users and hashes: one `USER:HASH` a line, bcrypt only, as `htpasswd -B` writes it.

use std::collections::HashMap;
use std::fmt;

use bcrypt::HashParts;

/// What a hash may cost. Apache's default is 5; each step doubles it, and 14 takes about a second.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

/// The users and the hashes of their passwords.
pub(super) struct Users(HashMap<String, String>);

/// What is wrong with a line; never what stands in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct Malformed {
    line: usize,
    problem: &'static str,
}

impl Users {
    /// Reads the file's text. Empty lines and lines that begin with `#` say nothing.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().map(str::trim).enumerate() {
            let malformed = |problem| Malformed { line: number + 1, problem };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (user, hash) = line.split_once(':').ok_or_else(|| malformed("not USER:HASH"))?;
            if user.is_empty() {
                return Err(malformed("no user"));
            }
            let parts: HashParts = hash.parse().map_err(|_| malformed("not a bcrypt hash ($2y$..., as htpasswd -B makes it)"))?;
            if !COSTS.contains(&parts.get_cost()) {
                return Err(malformed("a hash that costs less than 4 or more than 14"));
            }
            if users.insert(user.to_owned(), hash.to_owned()).is_some() {
                return Err(malformed("a user who stands there already"));
            }
        }
        Ok(Self(users))
    }

    /// Whether this is the user's password. Takes as long for a user that there is not, and long in any case.
    pub(super) fn verify(&self, user: &str, password: &[u8]) -> bool {
        let known = self.0.get(user);
        let hash = known.or_else(|| self.0.values().next());
        hash.is_some_and(|hash| bcrypt::verify(password, hash).unwrap_or(false)) && known.is_some()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Users").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `secret`.
    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuu5Lwn0W0mM7rRGjp1tGbI4gmOVdMBDZu";

    #[test]
    fn a_password_is_verified_against_the_users_hash() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = Users::parse(&format!("# operators\n\nalice:{hash}\n")).unwrap();
        assert!(users.verify("alice", b"secret"));
        for (user, password) in [("alice", "Secret"), ("alice", ""), ("bob", "secret"), ("", "secret")] {
            assert!(!users.verify(user, password.as_bytes()), "{user} {password}");
        }
        assert!(!Users::parse("").unwrap().verify("alice", b"secret"));
    }

    #[test]
    fn what_htpasswd_writes_is_taken() {
        let hash = bcrypt::hash("secret", 4).unwrap().replacen("$2b$", "$2y$", 1);
        assert!(Users::parse(&format!("alice:{hash}")).unwrap().verify("alice", b"secret"));
    }

    #[test]
    fn a_malformed_line_is_named_and_not_shown() {
        let twice = format!("a:{HASH}\na:{HASH}");
        let dear = format!("a:{}", HASH.replacen("$04$", "$15$", 1));
        for (text, says) in [
            ("\nalice", "line 2: not USER:HASH"),
            (":$2y$", "line 1: no user"),
            ("alice:secret", "line 1: not a bcrypt hash ($2y$..., as htpasswd -B makes it)"),
            ("alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "line 1: not a bcrypt hash ($2y$..., as htpasswd -B makes it)"),
            (&twice, "line 2: a user who stands there already"),
            (&dear, "line 1: a hash that costs less than 4 or more than 14"),
        ] {
            assert_eq!(Users::parse(text).unwrap_err().to_string(), says, "{text}");
        }
    }
}
