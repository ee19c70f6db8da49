//! Decides whether a URI is a sub-resource of a subscribed URI.

/// Whether `uri` equals the `subscribed` URI, or names a sub-resource of it (2025-06-18, "Resources", which does not
/// define sub-resources).
///
/// A sub-resource is below the subscribed URI in the hierarchy of its path, or is a fragment of it (RFC 3986, sections
/// 3.3 and 3.5), under the same scheme and authority. A URI with another query is no sub-resource: it may be another
/// session's view. In doubt the answer is no: a missed update can be read again, a leaked one cannot be taken back.
pub fn is_part_of(uri: &str, subscribed: &str) -> bool {
    let Some(rest) = uri.strip_prefix(subscribed) else { return false };
    if rest.is_empty() {
        return true;
    }
    // A URI with a query has fragments as its only sub-resources, and one with a fragment has none.
    if rest.starts_with('#') {
        return !subscribed.contains('#');
    }
    let below = rest.strip_prefix('/').or_else(|| subscribed.ends_with('/').then_some(rest));
    let is_below = below.is_some_and(|below| !below.starts_with('?'));
    let has_path = !subscribed.contains(['?', '#']) && path_of(subscribed) == path_of(uri);
    is_below && has_path && !climbs(rest)
}

/// The position at which the path of a URI begins, behind scheme and authority.
fn path_of(uri: &str) -> usize {
    let scheme = uri.find(':').map_or(0, |colon| colon + 1);
    let rest = uri.get(scheme..).unwrap_or_default();
    match rest.strip_prefix("//") {
        Some(authority) => scheme + 2 + authority.find(['/', '?', '#']).unwrap_or(authority.len()),
        None => scheme,
    }
}

/// Whether a path has a segment `..`, also in percent-encoding.
fn climbs(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.split('/').any(|segment| segment.to_ascii_lowercase().replace("%2e", ".") == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_below_it_or_a_fragment_of_it() {
        for (subscribed, uri) in [
            ("file:///a", "file:///a"),
            ("file:///a", "file:///a/b"),
            ("file:///a", "file:///a/b/c.txt?x#y"),
            ("file:///a/", "file:///a/b"),
            ("file:///a", "file:///a/"),
            ("file:///", "file:///a"),
            ("fixture://note", "fixture://note#part"),
            ("fixture://note", "fixture://note/part"),
            ("fixture://note/", "fixture://note/part"),
            // What a template such as x://users/{id} makes, and what is below that.
            ("x://users", "x://users/7"),
            ("x://users/7", "x://users/7/name"),
            ("x://a?b", "x://a?b#c"),
            ("urn:a:b", "urn:a:b/c"),
            ("file:///a", "file:///a/b..c"),
            ("no uri", "no uri"),
        ] {
            assert!(is_part_of(uri, subscribed), "{uri} is a part of {subscribed}");
        }
    }

    #[test]
    fn what_only_begins_alike_is_another_resource() {
        for (subscribed, uri) in [
            ("file:///a", "file:///ab"),
            ("file:///a/b", "file:///a"),
            ("file:///a/", "file:///a"),
            ("file:///a", "file:///a.txt"),
            ("file:///a", "file:///A/b"),
            // A query is no part: it may be somebody's own view.
            ("x://a", "x://a?b"),
            ("x://search", "x://search?q=what+acme+buys"),
            ("x://a/", "x://a/?b"),
            ("x://a", "x://a/?b"),
            ("x://a?b", "x://a?b/c"),
            ("x://a?b=/", "x://a?b=/c"),
            ("x://a#b", "x://a#b/c"),
            ("x://a#b", "x://a#b#c"),
            // Half of a scheme or an authority is nothing to be below of.
            ("fixture:", "fixture://note"),
            ("fixture:/", "fixture://note"),
            ("fixture://", "fixture://note"),
            ("fixture://no", "fixture://note"),
            ("urn:a:b", "urn:a:bc"),
            // Whatever it begins with, it is somewhere else.
            ("file:///a", "file:///a/../b"),
            ("file:///a", "file:///a/%2E%2e/b"),
            ("file:///a", "file:///a/b/.%2e"),
            ("", "file:///a"),
            ("/", "//a"),
        ] {
            assert!(!is_part_of(uri, subscribed), "{uri} is no part of {subscribed}");
        }
    }
}
