//! Compares the scanner with serde_json, and finds members.
#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

fn whole(text: &str) -> Result<&str, Malformed> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value()?;
    scanner.end().map(|()| value)
}

fn agrees(text: &str) {
    let expected: Result<&RawValue, _> = serde_json::from_str(text);
    let found = whole(text);
    assert_eq!(found.ok(), expected.ok().map(RawValue::get), "{text:?}: {found:?}");
}

#[test]
fn what_is_json_and_what_is_not() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[",
        "]",
        "{}",
        "[]",
        " [ ] ",
        "{ }",
        "[1,]",
        "[,1]",
        "{,}",
        r#"{"a":1,}"#,
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{1:2}"#,
        r#"{"a":1 "b":2}"#,
        "[1 2]",
        "[1}",
        r#"{"a":1]"#,
        "[[[]]",
        "[]]",
        "0",
        "-0",
        "00",
        "01",
        "-",
        "-a",
        "1.",
        "1.e1",
        ".1",
        "1.5e+7",
        "1E-3",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "1e400",
        "NaN",
        "true",
        "tru",
        "truex",
        "false",
        "null",
        "nul",
        r#""""#,
        r#"""#,
        r#""\""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\ud800""#,
        r#""\x""#,
        "\"\n\"",
        "\"\u{7f}\u{2028}é\"",
        "\"1234567\u{1}\"",
        "\u{feff}{}",
        "{}{}",
        "'a'",
        "// a\n1",
        "1 // a",
    ] {
        agrees(text);
    }
}

#[test]
fn nesting_is_counted_and_not_recursed() {
    for depth in [1, 63, 64, 65, 127, 128, 129, 200_000] {
        let (open, close) = ("[{\"a\":".repeat(depth), "}]".repeat(depth));
        assert!(whole(&format!("{open}1{close}")).is_ok());
        assert!(whole(&format!("{open}1{}", close.replacen('}', "]", 1))).is_err());
        assert!(whole(&format!("{open}1{}", &close[1..])).is_err());
    }
}

#[test]
fn a_member_is_found_by_its_whole_name_if_it_is_there_once() {
    let object = r#" {"a":1,"b":{"c":2},"\u0063": [3] ,"d":4,"d":5}"#;
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(|name| member(object, name)),
        [Some("1"), Some(r#"{"c":2}"#), Some("[3]"), None, None]
    );
    assert_eq!([member("[1]", "a"), member("7", "a"), member("", "a")], [None; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_judged_as_by_another_reader(text in r#"[\[\]{},:"\\ untrfalsebE0-9.+\-\n\u{1}é]{0,24}"#) {
        agrees(&text);
    }

    #[test]
    fn any_string_is_judged_as_by_another_reader(text in any::<String>()) {
        agrees(&serde_json::to_string(&text).unwrap());
    }
}
