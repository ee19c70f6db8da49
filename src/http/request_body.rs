//! Reads the body of a request within a bound of bytes and of time.

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;

use super::problem::Refusal;
use crate::config::Http;

/// The body of a request: a stream of frames from the peer.
pub trait RequestBody: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static {}

impl<B: HttpBody<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static> RequestBody for B {}

/// Reads the whole body within `http.max_body` and `http.body_timeout`, or refuses the request: status 413 for too many
/// bytes, 408 for too much time, 400 for a body that breaks off.
pub async fn read<B: RequestBody>(body: &mut B, http: &Http) -> Result<Bytes, Refusal> {
    let too_large = || {
        let text = format!("the body is larger than {} bytes (http.max_body)", http.max_body);
        Refusal::problem(StatusCode::PAYLOAD_TOO_LARGE, &text)
    };
    if body.size_hint().lower() > http.max_body as u64 {
        return Err(too_large());
    }
    match timeout(http.body_timeout, collect(Limited::new(body, http.max_body))).await {
        Ok(Ok(collected)) => Ok(collected),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::problem(StatusCode::BAD_REQUEST, "the body broke off before its end")),
        Err(_) => {
            let text = format!("the body did not arrive within {:?} (http.body_timeout)", http.body_timeout);
            Err(Refusal::problem(StatusCode::REQUEST_TIMEOUT, &text))
        }
    }
}

/// Copies the data of all frames into one buffer, so that a body of many small frames takes no more memory than a body
/// of few. The data of the only frame is returned without a copy.
async fn collect<B: RequestBody>(mut body: Limited<&mut B>) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            let rest = usize::try_from(body.size_hint().lower()).unwrap_or_default();
            all.reserve(first.len() + data.len() + rest);
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
