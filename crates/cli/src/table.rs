//! Text in columns, and a screen that is drawn again.

use std::io::{IsTerminal, Write, stdout};

use serde_json::Value;

/// Lines it up: a head, and a row for each thing.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// A value of the API's for people: nothing for null, texts without quotes. Control characters become `?`: some of these texts
/// were written by others, and end up on a terminal.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Bytes for people.
pub(crate) fn bytes(value: &Value) -> String {
    const UNITS: [(i64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some(count) = value.as_i64() else { return String::new() };
    match UNITS.iter().find(|(size, _)| count >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}

/// Draws `text` over what was there before; below one another when nobody looks.
pub(crate) fn redraw(text: &str) {
    let mut out = stdout();
    let clear = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    // Nobody reads on: not worth an error.
    let _ = write!(out, "{clear}{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["1".to_owned(), "running".to_owned()], vec!["12".to_owned(), String::new()]];
        assert_eq!(table(&["ID", "STATUS"], &rows), "ID  STATUS\n1   running\n12\n");
    }

    #[test]
    fn values_are_for_people() {
        assert_eq!(shown(&json!(null)), "");
        assert_eq!(shown(&json!("a\u{1b}[2Jb")), "a?[2Jb");
        assert_eq!(shown(&json!(7)), "7");
        assert_eq!(bytes(&json!(1_610_612_736_i64)), "1.5 GiB");
        assert_eq!(bytes(&json!(12)), "12 B");
        assert_eq!(bytes(&json!(null)), "");
    }
}
