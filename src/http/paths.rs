//! Reads server names and resource paths from the paths of requests.

/// The part of a path behind the server: `ENDPOINT` in `/servers/NAME/ENDPOINT`, or in `/ENDPOINT` for the default
/// server. One slash at the end is left out. `None` for `/servers/` without a name or without an endpoint.
pub fn endpoint(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match path.strip_prefix("/servers/") {
        Some(named) => named.split_once('/').filter(|(name, _)| !name.is_empty()).map(|(_, endpoint)| endpoint),
        None => path.strip_prefix('/'),
    }
}

/// The server name in a path (`/servers/NAME/…`), which may be empty. `None` for the paths of the default server.
/// Server names need no percent-decoding.
pub fn named_server(path: &str) -> Option<&str> {
    path.strip_prefix("/servers/")?.split('/').next()
}

/// The path of the resource (RFC 9728) that a request path belongs to: without slashes at the end, and with `sse` in
/// the place of `messages`.
pub fn resource(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.strip_suffix("/messages").map_or_else(|| path.to_owned(), |base| format!("{base}/sse"))
}
