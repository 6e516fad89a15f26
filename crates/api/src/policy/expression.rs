//! oslo.policy's language, as far as Nova's rules use it:
//!
//! ```text
//! role:NAME   rule:NAME   project_id:%(project_id)s   user_id:%(user_id)s   user_id:ID   is_admin:True   is_admin_project:True   @   !
//! not A       A and B     A or B                      (A)          (nothing, like @: everybody)
//! ```
//!
//! `not` binds closer than `and`, `and` closer than `or`.

use crate::context::Caller;

/// Who may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// `@`
    Everybody,
    /// `!`
    Nobody,
    /// Whose token carries this role.
    Role(String),
    /// Whose attribute has this value.
    Is(Attribute, Value),
    /// Who may not by the other.
    Not(Box<Expression>),
    /// Who may by each.
    All(Vec<Expression>),
    /// Who may by any.
    Any(Vec<Expression>),
}

/// What is known of a caller beside the roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribute {
    /// `user_id`
    User,
    /// `project_id`
    Project,
    /// `is_admin`
    Admin,
    /// `is_admin_project`
    AdminProject,
}

/// What it is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// This text.
    Literal(String),
    /// `%(project_id)s`: the project of what is asked for.
    ItsProject,
    /// `%(user_id)s`: its user.
    ItsUser,
}

/// Whose is what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// A project's.
    Project(&'a str),
    /// A user's.
    User(&'a str),
}

impl Expression {
    /// Whether the caller may, on something of `owner`.
    pub(super) fn allows(&self, caller: &Caller, owner: Owner<'_>) -> bool {
        match self {
            Self::Everybody => true,
            Self::Nobody => false,
            Self::Role(role) => caller.has_role(role),
            Self::Is(attribute, value) => {
                let expected = match (value, owner) {
                    (Value::Literal(text), _) => Some(text.as_str()),
                    (Value::ItsProject, Owner::Project(id)) | (Value::ItsUser, Owner::User(id)) => Some(id),
                    (Value::ItsProject, Owner::User(_)) | (Value::ItsUser, Owner::Project(_)) => None,
                };
                expected == Some(attribute.of(caller))
            }
            Self::Not(other) => !other.allows(caller, owner),
            Self::All(each) => each.iter().all(|one| one.allows(caller, owner)),
            Self::Any(each) => each.iter().any(|one| one.allows(caller, owner)),
        }
    }

    /// Reads an expression; `rule` knows what a `rule:NAME` stands for. An error says what is wrong.
    pub(super) fn parse(text: &str, rule: &dyn Fn(&str) -> Result<Self, String>) -> Result<Self, String> {
        let mut parser = Parser { words: words(text), next: 0, rule };
        if parser.words.is_empty() {
            return Ok(Self::Everybody);
        }
        let expression = parser.any()?;
        match parser.peek() {
            None => Ok(expression),
            Some(word) => Err(format!("{word} stands where \"and\" or \"or\" should")),
        }
    }
}

impl Attribute {
    fn named(name: &str) -> Option<Self> {
        match name {
            "user_id" => Some(Self::User),
            "project_id" => Some(Self::Project),
            "is_admin" => Some(Self::Admin),
            "is_admin_project" => Some(Self::AdminProject),
            _ => None,
        }
    }

    fn of(self, caller: &Caller) -> &str {
        let python = |value: bool| if value { "True" } else { "False" };
        match self {
            Self::User => &caller.user_id,
            Self::Project => &caller.project_id,
            Self::Admin => python(caller.is_admin()),
            Self::AdminProject => python(caller.is_admin_project()),
        }
    }
}

/// Splits at white space, and takes parentheses off both ends of a word (those of `%(project_id)s` are inside).
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.trim_start_matches('(');
        let bare = inner.trim_end_matches(')');
        words.extend(std::iter::repeat_n("(", word.len() - inner.len()));
        words.extend(Some(bare).filter(|bare| !bare.is_empty()));
        words.extend(std::iter::repeat_n(")", inner.len() - bare.len()));
    }
    words
}

struct Parser<'a> {
    words: Vec<&'a str>,
    next: usize,
    rule: &'a dyn Fn(&str) -> Result<Expression, String>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    /// Takes the next word if it is this one.
    fn take(&mut self, wanted: &str) -> bool {
        let is_it = self.peek().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        self.next += usize::from(is_it);
        is_it
    }

    fn any(&mut self) -> Result<Expression, String> {
        let mut each = vec![self.all()?];
        while self.take("or") {
            each.push(self.all()?);
        }
        Ok(one_or(Expression::Any, each))
    }

    fn all(&mut self) -> Result<Expression, String> {
        let mut each = vec![self.one()?];
        while self.take("and") {
            each.push(self.one()?);
        }
        Ok(one_or(Expression::All, each))
    }

    fn one(&mut self) -> Result<Expression, String> {
        let mut negated = false;
        while self.take("not") {
            negated = !negated;
        }
        let expression = if self.take("(") {
            let inner = self.any()?;
            if !self.take(")") {
                return Err(self.peek().map_or_else(
                    || "a parenthesis is not closed".to_owned(),
                    |word| format!("{word} stands where \"and\" or \"or\" should"),
                ));
            }
            inner
        } else {
            let word = self.peek().ok_or("it ends where a check should stand")?;
            self.next += 1;
            self.check(word)?
        };
        Ok(if negated { Expression::Not(Box::new(expression)) } else { expression })
    }

    fn check(&self, word: &str) -> Result<Expression, String> {
        match word {
            "@" => return Ok(Expression::Everybody),
            "!" => return Ok(Expression::Nobody),
            ")" => return Err(") stands where a check should".to_owned()),
            _ if ["and", "or"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) => {
                return Err(format!("{word} stands where a check should"));
            }
            _ => {}
        }
        let (kind, value) = word.split_once(':').ok_or_else(|| format!("{word} is no check: it has no ':'"))?;
        if value.is_empty() {
            return Err(format!("{word} names nothing"));
        }
        if value.contains("%(") && (kind == "role" || kind == "rule" || !["%(project_id)s", "%(user_id)s"].contains(&value)) {
            return Err(format!("{value} is not known of what is asked for (known: %(project_id)s, %(user_id)s)"));
        }
        if kind == "rule" {
            return (self.rule)(value);
        }
        if kind == "role" {
            return Ok(Expression::Role(value.to_owned()));
        }
        let attribute = Attribute::named(kind).ok_or_else(|| {
            format!("{word} checks what callers do not have (known: role, rule, user_id, project_id, is_admin, is_admin_project)")
        })?;
        let value = match value {
            "%(project_id)s" => Value::ItsProject,
            "%(user_id)s" => Value::ItsUser,
            text => Value::Literal(text.trim_matches('\'').to_owned()),
        };
        Ok(Expression::Is(attribute, value))
    }
}

/// The only one itself, or all of them under `several`.
fn one_or(several: impl FnOnce(Vec<Expression>) -> Expression, mut each: Vec<Expression>) -> Expression {
    match each.pop() {
        Some(only) if each.is_empty() => only,
        Some(last) => {
            each.push(last);
            several(each)
        }
        None => several(each),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Expression {
        Expression::parse(text, &|name| Ok(Expression::Role(format!("as-in-{name}")))).unwrap()
    }

    /// Whether the user `u` of the project `p` may, with these roles.
    fn allows(text: &str, roles: &[&str], project: &str) -> bool {
        parse(text).allows(&Caller::new("u", "p", roles), Owner::Project(project))
    }

    #[test]
    fn checks_look_at_roles_user_project_and_adminness() {
        assert!(allows("role:manager", &["Manager"], "q"));
        assert!(allows("rule:x", &["as-in-x"], "q"));
        assert!(allows("project_id:%(project_id)s", &[], "p") && !allows("project_id:%(project_id)s", &[], "q"));
        assert!(allows("project_id:p", &[], "q") && allows("user_id:'u'", &[], "q") && !allows("user_id:v", &[], "q"));
        let of_user = |user| parse("user_id:%(user_id)s").allows(&Caller::new("u", "p", &[]), Owner::User(user));
        assert!(of_user("u") && !of_user("v") && !allows("user_id:%(user_id)s", &[], "u"));
        assert!(allows("is_admin:True", &["admin"], "q") && allows("is_admin:False", &[], "q"));
        assert!(allows("is_admin_project:True", &[], "q"));
        assert!(allows("@", &[], "q") && allows("", &[], "q") && !allows("!", &["admin"], "q"));
    }

    #[test]
    fn not_binds_closer_than_and_and_and_closer_than_or() {
        for (text, a, b, c, expected) in [
            ("role:a or role:b and role:c", true, false, false, true),
            ("(role:a or role:b) and role:c", true, false, false, false),
            ("not role:a and role:b", false, true, false, true),
            ("not (role:a and role:b)", false, true, false, true),
            ("not not role:a", true, false, false, true),
            ("NOT role:a OR role:b AND role:c", true, true, true, true),
            ("((role:a))", true, false, false, true),
            ("(role:a and project_id:%(project_id)s)", true, false, false, true),
        ] {
            let roles: Vec<&str> = [("a", a), ("b", b), ("c", c)].iter().filter(|(_, has)| *has).map(|(role, _)| *role).collect();
            assert_eq!(allows(text, &roles, "p"), expected, "{text} {roles:?}");
        }
    }
}
