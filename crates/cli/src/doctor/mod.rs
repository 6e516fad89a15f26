//! `drover doctor`: asks the API for facts about the whole deployment and judges them ([`checks`]).

mod checks;

use std::fmt::Write;
use std::process::ExitCode;

use drover_common::doctor::Facts;
use drover_common::telemetry;
use serde_json::Value;
use ureq::http::StatusCode;

use crate::api::{ApiError, Client};
use crate::table::shown;
use checks::{CHECKS, Judgement, Severity};

/// Judges and prints; the exit code is the worst that was found.
pub(crate) fn run(client: &Client) -> ExitCode {
    let facts = match ask(client) {
        Ok(facts) => facts,
        Err(why) => {
            println!("BROKEN   api: {why}");
            return Severity::Broken.exit_code();
        }
    };
    let (text, worst) = told(&facts);
    print!("{text}");
    worst.exit_code()
}

fn ask(client: &Client) -> Result<Facts, String> {
    let said = client.get("/drover/v1/doctor", &[], "doctor").map_err(|error| match error {
        ApiError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. } => {
            "it has no database: look at PostgreSQL, at [database] connection, and at drover-api's log".to_owned()
        }
        error => telemetry::chain(&error),
    })?;
    serde_json::from_value(said).map_err(|error| format!("its answer is of another release ({error}): use that release's `drover`"))
}

/// A line for each check, and under it what is wrong with how to mend it.
fn told(facts: &Facts) -> (String, Severity) {
    let (mut text, mut worst) = (String::new(), Severity::Well);
    for (name, check) in CHECKS {
        let found = check(facts);
        let severity = found.iter().map(|judgement| judgement.severity).max().unwrap_or(Severity::Well);
        worst = worst.max(severity);
        if found.is_empty() {
            let _ = writeln!(text, "{:<9}{name}", Severity::Well.name()); // Writing to a String cannot fail.
        }
        for Judgement { severity, what, mend } in found {
            // What others wrote ends up on a terminal.
            let (what, mend) = (shown(&Value::from(what)), shown(&Value::from(mend)));
            let _ = writeln!(text, "{:<9}{name}: {what}\n         -> {mend}", severity.name());
        }
    }
    (text, worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_a_line_and_what_is_wrong_is_said_with_how_to_mend_it() {
        let (text, worst) = told(&checks::tests::healthy());
        assert_eq!(worst, Severity::Well, "{text}");
        assert!(text.lines().all(|line| line.starts_with("ok       ")) && text.lines().count() == CHECKS.len(), "{text}");
        let mut facts = checks::tests::healthy();
        facts.database.steps_missing = vec!["20261124000100 pause and trace".to_owned()];
        let (text, worst) = told(&facts);
        assert_eq!(worst, Severity::Broken);
        let expected = "BROKEN   database: the schema lacks 20261124000100 pause and trace\n         -> run `drover db migrate`\n";
        assert!(text.contains(expected), "{text}");
    }
}
