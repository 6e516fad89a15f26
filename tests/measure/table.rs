//! Tables in Markdown, and figures in them.

use crate::statistics::{Interval, Summary};

/// A table; each row has as many cells as the head.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = vec!["---".to_owned(); head.len()];
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{rows}", line(&head), line(&rule))
}

/// Milliseconds; a tenth is about what a run can tell.
pub(crate) fn ms(value: f64) -> String {
    format!("{value:.1} ms")
}

/// Both bounds in milliseconds.
pub(crate) fn ms_interval(Interval { low, high }: Interval) -> String {
    format!("{low:.1} to {high:.1} ms")
}

/// A row of a set of milliseconds: name, median, interval, p95.
pub(crate) fn ms_row(name: &str, values: &[f64]) -> Vec<String> {
    let summary = Summary::of(values);
    vec![name.to_owned(), ms(summary.median), ms_interval(summary.interval), ms(summary.p95)]
}

/// The same of ratios.
pub(crate) fn ratio_row(name: &str, values: &[f64]) -> Vec<String> {
    let Summary { median, interval, p95 } = Summary::of(values);
    vec![name.to_owned(), format!("{median:.3}"), format!("{:.3} to {:.3}", interval.low, interval.high), format!("{p95:.3}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["b".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["what", "how much"], &rows), "| what | how much |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n");
    }

    #[test]
    fn rows_say_median_interval_and_p95() {
        assert_eq!(ms_row("x", &[2.0, 2.0, 2.0]), ["x", "2.0 ms", "2.0 to 2.0 ms", "2.0 ms"]);
        assert_eq!(ratio_row("y", &[1.25]), ["y", "1.250", "1.250 to 1.250", "1.250"]);
    }
}
