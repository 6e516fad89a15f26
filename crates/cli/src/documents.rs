//! What the command line can say of itself: completions for shells, and man pages, also of the services.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use drover_common::lifecycle;

/// What a man page of a service says besides its options.
const SERVICE: &str = "All options but the file's name stand in the configuration file, commented: /etc/drover/drover.toml. \
                       The service tells systemd when it works, and ends within 20 s of SIGTERM; what it had under way is taken up again.";

/// Prints completions of `command` for a shell.
pub(crate) fn completions(mut command: Command, shell: Shell) {
    clap_complete::generate(shell, &mut command, "drover", &mut io::stdout());
}

/// Writes the man pages of `command`, of its subcommands and of the services into `directory`.
pub(crate) fn man_pages(command: Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(command.flatten_help(false), directory)?;
    for command in lifecycle::Arguments::commands() {
        let (name, mut page) = (command.get_name().to_owned(), Vec::new());
        clap_mangen::Man::new(command.after_help(SERVICE)).section("8").render(&mut page)?;
        fs::write(directory.join(format!("{name}.8")), page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_verb_and_every_service_has_a_man_page() {
        let directory = tempfile::tempdir().unwrap();
        man_pages(crate::Arguments::command(), directory.path()).unwrap();
        for (page, says) in [
            ("drover.1", "live migration of libvirt guests"),
            ("drover-migration-list.1", "newest first"),
            ("drover-api.8", "Nova"),
            ("drover-conductor.8", "config\\-file"),
            ("drover-compute.8", "libvirt"),
        ] {
            let text = fs::read_to_string(directory.path().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
            assert!(text.contains(says), "{page}: {text}");
        }
    }
}
