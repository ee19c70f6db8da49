//! Reads server names and resource paths from the paths of requests.

/// The last segment of the path of a server's endpoint: `/servers/NAME/ENDPOINT`, or `/ENDPOINT` for the default server. A slash
/// at the end is left out.
pub fn endpoint(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    match path.strip_prefix("/servers/") {
        Some(named) => named.split_once('/').filter(|(name, _)| !name.is_empty()).map(|(_, endpoint)| endpoint),
        None => path.strip_prefix('/'),
    }
}

/// The server name in a path (`/servers/NAME/…`). `None` for the paths of the default server. A server name contains only
/// characters that no client percent-encodes.
pub fn named_server(path: &str) -> Option<&str> {
    path.strip_prefix("/servers/")?.split('/').next()
}

/// The path of the resource (RFC 9728) that a request path belongs to: without a trailing slash, and with a session's
/// `messages` path mapped to the path of its stream.
pub fn resource(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.strip_suffix("/messages").map_or_else(|| path.to_owned(), |base| format!("{base}/sse"))
}
