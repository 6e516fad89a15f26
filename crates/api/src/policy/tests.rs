use super::*;

fn caller(roles: &[&str], project: &str) -> Caller {
    Caller::new("u", project, roles)
}

fn overridden(rules: &[(&str, &str)]) -> Result<Policy, BadRule> {
    Policy::new(&rules.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect())
}

fn defaults() -> Policy {
    overridden(&[]).unwrap()
}

#[test]
fn an_admin_may_everything_and_a_stranger_nothing() {
    let policy = defaults();
    for &rule in Rule::ALL {
        assert!(policy.allows(rule, &caller(&["admin"], "ops"), "p"), "{rule}");
        let everybody = rule.default_check() == Check::Everybody;
        assert_eq!(policy.allows(rule, &caller(&["manager", "member", "reader"], "q"), "p"), everybody, "{rule}");
    }
}

#[test]
fn a_manager_may_migrate_in_its_project_but_not_choose_the_host() {
    let (policy, manager) = (defaults(), caller(&["manager", "member", "reader"], "p"));
    assert!(policy.allows(Rule::MigrateLive, &manager, "p"));
    assert!(!policy.allows(Rule::MigrateLiveHost, &manager, "p"));
    assert!(!policy.allows(Rule::MigrateLive, &caller(&["member", "reader"], "p"), "p"));
}

#[test]
fn a_refusal_names_the_rule() {
    let error = defaults().enforce_own(Rule::ServicesList, &caller(&["reader"], "p")).unwrap_err();
    assert_eq!(error.to_string(), "Policy doesn't allow os_compute_api:os-services:list to be performed.");
}

#[test]
fn an_override_replaces_the_default_of_one_rule() {
    let policy = overridden(&[("os_compute_api:os-services:list", "role:auditor or rule:admin_api")]).unwrap();
    assert!(policy.allows(Rule::ServicesList, &caller(&["auditor"], "p"), "p"));
    assert!(policy.allows(Rule::ServicesList, &caller(&["admin"], "p"), "p"));
    assert!(!policy.allows(Rule::ServicesUpdate, &caller(&["auditor"], "p"), "p"));
}

#[test]
fn an_override_of_a_base_rule_moves_all_that_follow_it() {
    let policy = overridden(&[("project_manager_api", "role:operator"), ("context_is_admin", "role:cloud_admin")]).unwrap();
    assert!(policy.allows(Rule::MigrateLive, &caller(&["operator"], "q"), "p"));
    let (old, new) = (policy.judge(caller(&["admin"], "p")), policy.judge(caller(&["cloud_admin"], "p")));
    assert!(!old.is_admin() && new.is_admin());
    assert!(!policy.allows(Rule::ServicesList, &old, "p"));
    assert!(policy.allows(Rule::ServicesList, &new, "p"));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (name, text, says) in [
        ("os_compute_api:os-servces:list", "@", "os_compute_api:os-servces:list is no rule of this API"),
        ("admin_api", "rule:nobody", "admin_api: there is no rule nobody"),
        ("admin_api", "role:", "admin_api: role: names nothing"),
        ("admin_api", "role:a and", "admin_api: it ends where a check should stand"),
        ("admin_api", "role:a role:b", "admin_api: role:b stands where \"and\" or \"or\" should"),
        ("admin_api", "(role:a", "admin_api: a parenthesis is not closed"),
        ("admin_api", "role:a)", "admin_api: ) stands where \"and\" or \"or\" should"),
        ("admin_api", "or role:a", "admin_api: or stands where a check should"),
        ("admin_api", "admin", "admin_api: admin is no check: it has no ':'"),
        (
            "admin_api",
            "domain_id:default",
            "admin_api: domain_id:default checks what callers do not have (known: role, rule, user_id, project_id, is_admin, is_admin_project)",
        ),
        ("admin_api", "user_id:%(id)s", "admin_api: %(id)s is not known of what is asked for (known: %(project_id)s, %(user_id)s)"),
        ("admin_api", "rule:admin_api", "admin_api: refers to itself"),
    ] {
        assert_eq!(overridden(&[(name, text)]).unwrap_err().to_string(), says, "{text}");
    }
    let circle = overridden(&[("admin_api", "rule:context_is_admin"), ("context_is_admin", "not rule:admin_api")]);
    assert_eq!(circle.unwrap_err().to_string(), "admin_api: refers to itself");
}
