//! docs/SECURITY.md names the tests that hold its promises, and each of these tests is there.

use std::path::Path;

/// The chapters whose every point is a promise.
const CHAPTERS: [&str; 2] = ["## What holds them apart", "## JWTs"];

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SECURITY.md")).unwrap()
}

/// The words between backticks.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of tests in a text: between backticks, small letters and two colons.
fn tests(text: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        let is_word =
            |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase()) && !part.contains([':', ' ', '/', '.']);
        word.contains("::") && word.split("::").all(is_word)
    };
    words(text).filter(is_name).collect()
}

/// Whether a test of this name is in the source: `attack::topic::name` in tests/it/attack/topic.rs, `name` of a unit
/// test in the file of its module below src, or in the tests of that module.
fn exists(name: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (modules, function) = name.rsplit_once("::").unwrap();
    let folder = modules.replace("::", "/");
    let module = folder.trim_end_matches("/tests");
    let ends = [".rs", "/mod.rs", "/tests.rs", "/tests/mod.rs", "_tests.rs"];
    let candidates =
        ["tests/it", "src"].into_iter().flat_map(|top| ends.map(|end| root.join(top).join(format!("{module}{end}"))));
    candidates.into_iter().any(|file| std::fs::read_to_string(file).is_ok_and(|text| has_test(&text, function)))
}

/// Whether a source has a function of this name that is a test: its attributes stand right above it.
fn has_test(source: &str, function: &str) -> bool {
    let wanted = format!("fn {function}(");
    let starts = source.match_indices(&wanted).map(|(start, _)| start);
    starts.into_iter().any(|start| {
        let line = source[..start].rfind('\n').unwrap_or(0);
        let above = source[..line].split('\n').rev();
        let mut attributes = above.map(str::trim).take_while(|line| !line.is_empty() && *line != "}");
        attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

#[test]
fn a_function_is_a_test_by_its_attribute() {
    let source = "fn helper() {}\n\n#[test]\nfn one() {\n}\n#[tokio::test(start_paused = true)]\n// Why.\n    async fn two() {}\n\nfn three(\n";
    let found = ["helper", "one", "two", "three", "four"].map(|name| has_test(source, name));
    assert_eq!(found, [false, true, true, false, false]);
}

/// The points of a list in a chapter, each with its continuation lines.
fn points(document: &str, chapter: &str) -> Vec<String> {
    let start = document.find(chapter).unwrap_or_else(|| panic!("docs/SECURITY.md has no chapter {chapter}"));
    let body = &document[start + chapter.len()..];
    let body = &body[..body.find("\n## ").unwrap_or(body.len())];
    body.split("\n- ").skip(1).map(|point| point.split("\n\n").next().unwrap().to_owned()).collect()
}

#[test]
fn each_test_that_the_document_names_is_there() {
    let document = document();
    let named = tests(&document);
    assert!(named.len() > 20, "it names only {named:?}");
    let missing: Vec<&str> = named.into_iter().filter(|name| !exists(name)).collect();
    assert!(missing.is_empty(), "docs/SECURITY.md names tests that are not there: {missing:#?}");
}

/// So that none is left unchecked.
#[test]
fn each_test_is_named_with_its_module() {
    let document = document();
    let keys = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sluice.toml")).unwrap();
    let is_sentence = |word: &&str| {
        let is_plain = word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        is_plain && word.matches('_').count() > 2 && !keys.contains(*word)
    };
    let bare: Vec<&str> = words(&document).filter(is_sentence).collect();
    assert!(bare.is_empty(), "docs/SECURITY.md names tests without their modules: {bare:#?}");
}

#[test]
fn each_promise_names_a_test() {
    let document = document();
    let all: Vec<String> = CHAPTERS.into_iter().flat_map(|chapter| points(&document, chapter)).collect();
    assert!(all.len() > 10, "only {} promises were found", all.len());
    let bare: Vec<&String> = all.iter().filter(|point| tests(point).is_empty()).collect();
    assert!(bare.is_empty(), "promises of docs/SECURITY.md that name no test: {bare:#?}");
}
