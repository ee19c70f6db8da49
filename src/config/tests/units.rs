//! Durations and sizes.

use std::time::Duration;

use proptest::prelude::*;

use crate::config::units::{parse_bytes, parse_duration, show_bytes, show_duration};

#[test]
fn durations_are_read_by_unit() {
    for (text, milliseconds) in [
        ("0s", 0),
        ("500ms", 500),
        ("15s", 15_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1h1m1s1ms", 3_661_001),
        ("90m", 5_400_000),
    ] {
        assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
    }
}

#[test]
fn what_is_no_duration_is_refused_and_quoted() {
    for text in
        ["", "15", "s", "1.5s", "-1s", "15 s", "15S", "1s1s", "1s1h", "1d", "1h30", "99999999999999999999s", "é", "1é"]
    {
        let error = parse_duration(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("\"{text}\" is not a duration")), "{error}");
    }
    // Larger than can be counted, by multiplication and by addition.
    parse_duration("18446744073709551615h").unwrap_err();
    parse_duration("5124095576030h18446744073709551615ms").unwrap_err();
}

#[test]
fn sizes_are_read_by_unit() {
    for (text, bytes) in [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64KiB", 65_536),
        ("16MiB", 16 << 20),
        ("1GiB", 1 << 30),
        ("1MB", 1_000_000),
    ] {
        assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
    }
    for text in ["", "MiB", "16mib", "16 MiB", "1.5MiB", "-1", "16M", "18446744073709551615KiB", "1é"] {
        let error = parse_bytes(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("\"{text}\" is not a size")), "{error}");
    }
}

proptest! {
    #[test]
    fn what_is_shown_is_read_again(milliseconds in 0..u64::from(u32::MAX) * 1000, bytes: usize) {
        let duration = Duration::from_millis(milliseconds);
        prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
    }

    #[test]
    fn no_text_makes_a_parser_panic(text: String) {
        let _ = (parse_duration(&text), parse_bytes(&text));
    }
}
