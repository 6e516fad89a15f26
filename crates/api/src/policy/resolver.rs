//! From names to expressions: a rule's own text, with what it refers to put in its place.

use std::collections::BTreeMap;

use super::expression::Expression;
use super::{BASE_RULES, Rule};

/// A rule that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRule {
    #[error("{0} is no rule of this API")]
    Unknown(String),
    #[error("{rule}: {problem}")]
    Expression { rule: String, problem: String },
}

/// Every rule by its name, as text.
pub(super) struct Resolver<'a> {
    texts: BTreeMap<&'a str, &'a str>,
}

impl<'a> Resolver<'a> {
    /// The defaults under these overrides, each of which must name a rule and make sense.
    pub(super) fn new(overrides: &'a BTreeMap<String, String>) -> Result<Self, BadRule> {
        let mut texts: BTreeMap<&str, &str> = BASE_RULES.into_iter().collect();
        texts.extend(Rule::ALL.iter().map(|rule| (rule.as_str(), rule.default_check().expression())));
        for (name, text) in overrides {
            *texts.get_mut(name.as_str()).ok_or_else(|| BadRule::Unknown(name.clone()))? = text;
        }
        let resolver = Self { texts };
        for name in overrides.keys() {
            resolver.resolve(name)?;
        }
        Ok(resolver)
    }

    /// What the rule says.
    pub(super) fn resolve(&self, name: &str) -> Result<Expression, BadRule> {
        self.expand(name, &[]).map_err(|problem| BadRule::Expression { rule: name.to_owned(), problem })
    }

    /// The same, referred to by way of these.
    fn expand(&self, name: &str, by_way_of: &[&str]) -> Result<Expression, String> {
        if by_way_of.contains(&name) {
            return Err("refers to itself".to_owned());
        }
        let text = self.texts.get(name).ok_or_else(|| format!("there is no rule {name}"))?;
        let path = [by_way_of, &[name]].concat();
        Expression::parse(text, &|referred| self.expand(referred, &path))
    }
}
