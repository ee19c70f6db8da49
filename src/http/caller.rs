//! Who calls, and which server: credential to principal to server, on every request.

use http::StatusCode;
use http::request::Parts;
use tokio::time::Instant;

use super::app::App;
use super::metadata::metadata_url;
use super::problem::Refusal;
use crate::auth::{AuthError, Principal};
use crate::telemetry::Cause;
use crate::tenant::Admission;

/// An authenticated request to a server.
pub struct Caller {
    /// Who calls.
    pub principal: Principal,
    /// When the credential holds no more, if it has an end.
    pub until: Option<Instant>,
    /// Which server, and how much of it.
    pub admission: Admission,
}

/// The server that a path names: `/servers/{name}/…`; the default one otherwise. Names need no percent-decoding: a
/// name that would is none.
pub fn named_server(path: &str) -> Option<&str> {
    path.strip_prefix("/servers/")?.split('/').next()
}

/// Authenticates a request and finds its server, or refuses the request.
pub async fn caller(app: &App, parts: &Parts) -> Result<Caller, Refusal> {
    let proven = match app.auth.authenticate(&parts.headers, parts.uri.query()).await {
        Ok(proven) => proven,
        Err(error) => return Err(unauthenticated(app, parts, &error)),
    };
    let admission = app
        .directory
        .admit(&proven.principal, named_server(parts.uri.path()))
        .map_err(|refusal| Refusal::no_server(&refusal))?;
    Ok(Caller { until: proven.ends(), principal: proven.principal, admission })
}

fn unauthenticated(app: &App, parts: &Parts, error: &AuthError) -> Refusal {
    app.metrics.auth_failure(error.reason());
    // Whoever has no credential does not write the log. The path is a word of the peer's own: it is left out.
    if Cause::info("a request was refused", error.reason()).is_news(1) {
        tracing::info!(reason = error.reason(), "a request was refused");
    }
    let mut refusal = Refusal::problem(error.status(), &error.to_string());
    let metadata = metadata_url(app, parts);
    let scope = app.jwt.as_ref().map(|jwt| jwt.required_scopes.join(" ")).filter(|scope| !scope.is_empty());
    if let Some(challenge) = error.www_authenticate(metadata.as_deref(), scope.as_deref()) {
        refusal = refusal.with(http::header::WWW_AUTHENTICATE, challenge);
    }
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        refusal = refusal.retry_after(5);
    }
    refusal
}
