//! Running other programs, with errors that show the command line and what it said. No shell is ever involved.

use std::process::{Command, Stdio};

use crate::error::{BenchError, Result};

/// A command from a program and its arguments.
pub(crate) fn command<I, S>(program: &str, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs the command to its end and returns its standard output; a failure carries what it wrote on standard error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(BenchError::io(format!("run `{}`; is the package installed? (deploy/dev/install-packages)", line(command))))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        stdout.trim().clone_into(&mut said);
    }
    Err(BenchError::Command { command: line(command), status: output.status.to_string(), output: said })
}

/// The command as a person would type it (for messages only).
fn line(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_command_and_its_words() {
        let error = run(&mut command("ls", ["/does/not/exist"])).expect_err("ls fails");
        let text = error.to_string();
        assert!(text.contains("ls /does/not/exist") && text.contains("No such file"), "{text}");
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(run(&mut command("echo", ["a", "b"])).expect("echo works"), "a b\n");
    }
}
