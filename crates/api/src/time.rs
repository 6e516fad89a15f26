//! Points in time as the API writes and reads them. The two written forms must not be mixed up: clients parse each strictly.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, Utc};

/// With microseconds and without a zone: migrations, services, actions, `OS-SRV-USG:*`.
pub(crate) fn ts(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

/// With whole seconds and `Z`: `created`, `updated` and `fault.created` of servers.
pub(crate) fn tsz(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads ISO 8601, with or without a zone (none means UTC), as `changes-since` and `changes-before` may be written.
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    // Four digits of year: what PostgreSQL and chrono agree on, and no sign.
    if !text.is_ascii() || text.len() < 8 || !text.as_bytes()[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    for date_only in ["%Y-%m-%d", "%Y%m%d"] {
        if let Ok(date) = NaiveDate::parse_from_str(text, date_only) {
            return Some(date.and_hms_opt(0, 0, 0)?.and_utc());
        }
    }
    let text = text.replacen(' ', "T", 1);
    let text = text.strip_suffix('Z').map_or(text.clone(), |naive| format!("{naive}+0000"));
    for time in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y%m%dT%H%M%S%.f"] {
        if let Ok(naive) = NaiveDateTime::parse_from_str(&text, time) {
            return Some(naive.and_utc());
        }
        if let Ok(zoned) = DateTime::<FixedOffset>::parse_from_str(&text, &format!("{time}%#z")) {
            return Some(zoned.with_timezone(&Utc));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_two_forms() {
        let time = parse("2026-11-22T18:00:42.583416").unwrap();
        assert_eq!(ts(time), "2026-11-22T18:00:42.583416");
        assert_eq!(tsz(time), "2026-11-22T18:00:42Z");
    }

    #[test]
    fn times_are_read_in_many() {
        for (text, expected) in [
            ("2026-11-22", "2026-11-22T00:00:00.000000"),
            ("2026-11-22T18:00", "2026-11-22T18:00:00.000000"),
            ("2026-11-22 18:00:42", "2026-11-22T18:00:42.000000"),
            ("2026-11-22T18:00:42Z", "2026-11-22T18:00:42.000000"),
            ("2026-11-22T18:00:42.5Z", "2026-11-22T18:00:42.500000"),
            ("2026-11-22T18:00:42+02:00", "2026-11-22T16:00:42.000000"),
            ("2026-11-22T18:00:42-0530", "2026-11-22T23:30:42.000000"),
            ("2026-11-22T18:00:42+02", "2026-11-22T16:00:42.000000"),
            ("20261122T180042", "2026-11-22T18:00:42.000000"),
        ] {
            assert_eq!(parse(text).map(ts).as_deref(), Some(expected), "{text}");
        }
        for bad in
            ["", "foo", "2026", "2026-13-01", "2026-11-22T25:00:00", "+12026-11-22", "99999-01-01", "2026-11-22T18:00:42 02:00"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
