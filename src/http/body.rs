//! Reads a request's body, within a size and a time.

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::problem::Refusal;
use crate::config::Http;

/// The whole body, or the error response: 413 when it is too large, 408 when it is too slow.
pub async fn read(body: Body, http: &Http) -> Result<Bytes, Refusal> {
    let too_large = || {
        let text = format!("the body is larger than {} bytes (http.max_body)", http.max_body);
        Refusal::problem(StatusCode::PAYLOAD_TOO_LARGE, &text)
    };
    if body.size_hint().lower() > http.max_body as u64 {
        return Err(too_large());
    }
    match timeout(http.body_timeout, Limited::new(body, http.max_body).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::problem(StatusCode::BAD_REQUEST, "the body broke off before its end")),
        Err(_) => {
            let text = format!("the body did not arrive within {:?} (http.body_timeout)", http.body_timeout);
            Err(Refusal::problem(StatusCode::REQUEST_TIMEOUT, &text))
        }
    }
}
