//! Reads the paths under which servers are reached.

/// The server that a path names (`/servers/NAME/…`); `None` for the paths of the default server. A server's name has only
/// characters that no client percent-encodes.
pub fn named_server(path: &str) -> Option<&str> {
    path.strip_prefix("/servers/")?.split('/').next()
}

/// The path of the resource (RFC 9728) that a path belongs to: without a slash at its end, and that of the stream for a
/// session's `messages`.
pub fn resource(path: &str) -> String {
    let path = path.trim_end_matches('/');
    path.strip_suffix("/messages").map_or_else(|| path.to_owned(), |base| format!("{base}/sse"))
}
