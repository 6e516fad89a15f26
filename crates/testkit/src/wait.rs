//! Waiting for a condition: the only way this crate (and the live tests) let time pass.

use std::thread;
use std::time::{Duration, Instant};

use crate::error::{BenchError, Result};

/// Pause between two looks at a condition: short enough not to show in a measured time, long enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What one look at a condition showed.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds.
    Done(T),
    /// Not yet; the text says how things stand and ends up in the error if the time runs out.
    NotYet(String),
}

/// Looks until the condition holds. An error ends the waiting at once; when `within` has passed the error names `what` and the
/// last look.
pub fn wait_until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look()? {
            Look::Done(value) => return Ok(value),
            Look::NotYet(last) if Instant::now() >= deadline => {
                return Err(BenchError::TimedOut { what: what.to_owned(), waited: within, last });
            }
            Look::NotYet(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

/// Looks until `condition` is true. For conditions with nothing to tell; else see [`wait_until`].
pub fn wait_for(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_until(what, within, || Ok(if condition() { Look::Done(()) } else { Look::NotYet("not yet".to_owned()) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_holds_is_not_waited_for() {
        assert!(wait_for("nothing", Duration::ZERO, || true).is_ok());
    }

    #[test]
    fn the_error_names_the_condition_and_the_last_look() {
        let result: Result<()> = wait_until("the tide", Duration::from_millis(20), || Ok(Look::NotYet("still low".to_owned())));
        let text = result.expect_err("it never comes").to_string();
        assert!(text.contains("the tide") && text.contains("still low"), "{text}");
    }

    #[test]
    fn an_error_ends_the_waiting() {
        let result: Result<()> = wait_until("x", Duration::from_mins(1), || Err(BenchError::Refused("no".to_owned())));
        assert!(matches!(result, Err(BenchError::Refused(_))));
    }
}
