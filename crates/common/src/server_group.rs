//! Server groups: the rule of each policy, shared by the scheduler's filters and the late check in the claim.

use crate::names;

/// What a group wants of its members' hosts (`nova/objects/instance_group.py`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPolicy {
    /// All on one host.
    Affinity,
    /// No more than so many on one host.
    AntiAffinity,
    /// Together if possible.
    SoftAffinity,
    /// Apart if possible.
    SoftAntiAffinity,
}
names!("server group policy", GroupPolicy {
    Affinity = "affinity",
    AntiAffinity = "anti-affinity",
    SoftAffinity = "soft-affinity",
    SoftAntiAffinity = "soft-anti-affinity",
});

/// The group of a server that is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRule {
    /// Its name, for messages.
    pub name: String,
    /// What it wants.
    pub policy: GroupPolicy,
    /// Of anti-affinity: members that one host may have.
    pub max_server_per_host: i64,
    /// Members beside the server.
    pub others: i64,
}

impl GroupRule {
    /// Why the server cannot go to `host`, which has `there` of the other members or will have them; `None`: it can. The soft
    /// policies refuse nobody.
    pub fn refuse(&self, host: impl std::fmt::Display, there: i64) -> Option<String> {
        let Self { name, policy, max_server_per_host, others } = self;
        match policy {
            GroupPolicy::Affinity if *others > 0 && there == 0 => {
                Some(format!("{host} has none of the {others} other members of the server group {name}, whose policy is affinity"))
            }
            GroupPolicy::AntiAffinity if there >= *max_server_per_host => Some(format!(
                "{host} has or awaits {there} other members of the server group {name}, whose policy is anti-affinity with at most \
                 {max_server_per_host} a host"
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_refuses_on_its_own_side_of_the_boundary() {
        let rule = |policy, max_server_per_host, others| GroupRule { name: "g".to_owned(), policy, max_server_per_host, others };
        for (policy, most, others, there, refuses) in [
            (GroupPolicy::Affinity, 1, 0, 0, false),
            (GroupPolicy::Affinity, 1, 2, 0, true),
            (GroupPolicy::Affinity, 1, 2, 1, false),
            (GroupPolicy::AntiAffinity, 1, 2, 0, false),
            (GroupPolicy::AntiAffinity, 1, 2, 1, true),
            (GroupPolicy::AntiAffinity, 2, 2, 1, false),
            (GroupPolicy::AntiAffinity, 2, 2, 2, true),
            (GroupPolicy::SoftAffinity, 1, 2, 0, false),
            (GroupPolicy::SoftAntiAffinity, 1, 2, 2, false),
        ] {
            assert_eq!(rule(policy, most, others).refuse("h2", there).is_some(), refuses, "{policy} {most} {others} {there}");
        }
    }
}
