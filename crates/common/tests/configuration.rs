//! `docs/configuration.md`, which is the commented default file as an operator reads it. Renew it with
//! `INSTA_UPDATE=always cargo test --workspace --test configuration`.

use std::fmt::Write;
use std::path::Path;

use drover_common::config::DEFAULTS;

const HEAD: &str = "# Configuration

Written from [deploy/config/drover.toml](../deploy/config/drover.toml) by a test that fails when the two differ; change it there.

";

/// What stands before an option that has no default, in the file.
const UNSET: &str = "# ";

/// An option, or a line of several that share their text.
#[derive(Default)]
struct Group {
    /// The comment above.
    text: Vec<String>,
    /// Names and defaults, in Markdown.
    options: Vec<(String, String)>,
}

/// The file's comment about itself, then each section with its groups.
fn read(file: &str) -> (Vec<String>, Vec<(String, Vec<Group>)>) {
    let (mut about, mut sections) = (Vec::new(), Vec::<(String, Vec<Group>)>::new());
    let mut lines = file.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            sections.push((name.to_owned(), vec![Group::default()]));
            continue;
        }
        let Some((_, groups)) = sections.last_mut() else {
            about.push(line.trim_start_matches('#').trim().to_owned());
            continue;
        };
        let complete = groups.last().is_none_or(|group| !group.options.is_empty());
        if let Some((name, value)) = option(line) {
            let group = groups.last_mut().expect("each section begins with a group");
            let (value, remark) = value.split_once(" # ").unwrap_or((value, ""));
            let default = if line.starts_with(UNSET) {
                format!("none; for instance `{value}`")
            } else if value == "[" {
                let items: Vec<&str> = lines.by_ref().take_while(|line| *line != "]").map(str::trim).collect();
                format!("`[{}]`", items.join(" ").trim_end_matches(','))
            } else {
                format!("`{value}`")
            };
            let remark = if remark.is_empty() { String::new() } else { format!("; {}", escaped(remark)) };
            group.options.push((format!("`{name}`"), default + &remark));
            continue;
        }
        if complete {
            groups.push(Group::default());
        }
        if let Some(text) = line.strip_prefix(UNSET) {
            groups.last_mut().expect("each section begins with a group").text.push(text.to_owned());
        } else {
            assert_eq!(line, "", "neither option nor comment");
        }
    }
    for (_, groups) in &mut sections {
        groups.retain(|group| !group.options.is_empty());
    }
    (about, sections)
}

/// `name = value`, also behind a `#`.
fn option(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix(UNSET).unwrap_or(line).split_once(" = ")?;
    name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_').then_some((name, value))
}

/// Text of the file in which Markdown shall see none but its own code spans.
fn escaped(text: &str) -> String {
    let mut code = false;
    text.chars().fold(String::new(), |mut escaped, c| {
        code ^= c == '`';
        if c == '|' || (!code && matches!(c, '<' | '*' | '\\')) {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

fn document() -> String {
    let (about, sections) = read(DEFAULTS);
    let mut document = HEAD.to_owned();
    for line in &about {
        writeln!(document, "{}", escaped(line)).unwrap();
    }
    for (section, groups) in sections {
        let separator = if document.ends_with("\n\n") { "" } else { "\n" };
        write!(document, "{separator}## [{section}]\n\n| option | default | |\n| --- | --- | --- |\n").unwrap();
        for Group { text, options } in groups {
            let (names, defaults): (Vec<_>, Vec<_>) = options.into_iter().unzip();
            writeln!(document, "| {} | {} | {} |", names.join("<br>"), defaults.join("<br>"), escaped(&text.join(" "))).unwrap();
        }
    }
    document
}

#[test]
fn the_document_says_what_the_default_file_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let wanted = document();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = wanted.lines().zip(found.lines().chain(std::iter::repeat(""))).find(|(wanted, found)| wanted != found);
    assert!(wanted == found, "docs/configuration.md is stale (renew it: this test's first lines). First difference: {differs:?}");
}

#[test]
fn no_option_is_left_out_and_none_is_without_a_text() {
    let options = DEFAULTS.lines().filter(|line| option(line).is_some()).count();
    let (_, sections) = read(DEFAULTS);
    let groups = || sections.iter().flat_map(|(_, groups)| groups);
    assert_eq!(groups().map(|group| group.options.len()).sum::<usize>(), options);
    for group in groups() {
        assert!(!group.text.is_empty(), "{:?}", group.options);
    }
}
