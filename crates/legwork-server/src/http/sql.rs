//! `POST /v1/sql`: one statement, its rows as a stream.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use legwork_query::QueryError;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::HttpState;
use super::formats::Encoder;
use super::negotiate::Format;
use super::problem::Problem;

/// Header with what a client must know beside the rows; only there when there is something.
pub const NOTICES: HeaderName = HeaderName::from_static("legwork-notices");
/// JSON around and within the SQL: escapes may double it.
const BODY_SLACK: usize = 4 * 1024;
/// For a body to arrive.
const BODY_MAX: Duration = Duration::from_secs(30);
/// For a client to take the next piece; then the query is given up.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Pieces that wait for the client.
const PIECES_MAX: usize = 4;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
    /// What `legwork_now()` is for this statement, RFC 3339.
    as_of: Option<String>,
}

pub(crate) async fn query(State(state): State<Arc<HttpState>>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let accept = parts.headers.get(header::ACCEPT).map(|accept| accept.to_str().unwrap_or("none"));
    let Some(format) = Format::accepted(accept) else {
        let known: Vec<&str> = Format::ALL.iter().map(|format| format.media_type()).collect();
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, format!("results come as {}", known.join(", "))));
    };
    let question = read_question(&parts.headers, body, state.sql_bytes_max).await?;
    let session = state.engine.session();
    if let Some(as_of) = question.as_of {
        session.query(&format!("SET legwork.as_of = '{}'", as_of.replace('\'', "''"))).await?;
    }
    let result = session.query(&question.sql).await?;
    let mut batches = result.batches.fuse();
    // The first batch before the status: most errors are known by then.
    let first = batches.next().await.transpose()?;
    let mut encoder = Encoder::new(format, &result.schema, &result.notices).map_err(not_this_format)?;
    let first = first.map(|batch| encoder.write(&batch)).transpose().map_err(not_this_format)?;
    let begun = stream::iter(first.filter(|piece| !piece.is_empty()).map(|piece| Ok(Bytes::from(piece))));
    let pieces = begun.chain(pieces(encoder, batches.boxed())).boxed();
    let content_type = HeaderValue::from_static(format.content_type());
    let mut response = ([(header::CONTENT_TYPE, content_type)], Body::from_stream(pumped(pieces))).into_response();
    if !result.notices.is_empty() {
        response.headers_mut().insert(NOTICES, header_of(&result.notices));
    }
    Ok(response)
}

/// Texts as a JSON array in ASCII, which a header can hold.
fn header_of(texts: &[String]) -> HeaderValue {
    let mut ascii = String::new();
    for c in serde_json::json!(texts).to_string().chars() {
        match c {
            ' '..='~' => ascii.push(c),
            other => other.encode_utf16(&mut [0; 2]).iter().for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    HeaderValue::from_str(&ascii).unwrap_or(HeaderValue::from_static("[]"))
}

fn not_this_format(error: ArrowError) -> Problem {
    Problem::new(StatusCode::NOT_ACCEPTABLE, format!("this result cannot be written in the format asked for: {error}"))
}

async fn read_question(headers: &HeaderMap, body: Body, sql_bytes_max: usize) -> Result<Question, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send {\"sql\": \"...\"} as application/json"));
    }
    let body_bytes_max = sql_bytes_max.saturating_mul(2).saturating_add(BODY_SLACK);
    let read = tokio::time::timeout(BODY_MAX, axum::body::to_bytes(body, body_bytes_max)).await;
    let bytes = match read {
        Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        Ok(Err(error)) => {
            let detail = format!("the body cannot be read, or has more than {body_bytes_max} bytes: {error}");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        Ok(Ok(bytes)) => bytes,
    };
    let question: Question = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("expected {{\"sql\": \"...\"}}: {error}")))?;
    if question.sql.len() > sql_bytes_max {
        let detail = format!("the statement has {} bytes, the limit is {sql_bytes_max}", question.sql.len());
        return Err(Problem { sqlstate: Some("54000"), ..Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail) });
    }
    Ok(question)
}

/// Bytes until the end of the result, or until an error, which ends the body before its time.
fn pieces(
    encoder: Encoder,
    batches: BoxStream<'static, Result<RecordBatch, QueryError>>,
) -> BoxStream<'static, io::Result<Bytes>> {
    stream::unfold(Some((encoder, batches)), |open| async move {
        let (mut encoder, mut batches) = open?;
        loop {
            let piece = match batches.next().await {
                Some(Ok(batch)) => encoder.write(&batch),
                Some(Err(error)) => {
                    tracing::info!(sqlstate = error.sqlstate, message = %error.message, "a query failed in the middle of its result");
                    return Some((Err(io::Error::other(error)), None));
                }
                None => return Some((encoder.finish().map(Bytes::from).map_err(io::Error::other), None)),
            };
            match piece {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some((Ok(Bytes::from(piece)), Some((encoder, batches)))),
                Err(error) => return Some((Err(io::Error::other(error)), None)),
            }
        }
    })
    .boxed()
}

/// Through a bounded queue that a task fills: a client that stops reading does not keep its query, and its place, for ever.
fn pumped(mut pieces: BoxStream<'static, io::Result<Bytes>>) -> BoxStream<'static, io::Result<Bytes>> {
    let (send, receive) = mpsc::channel(PIECES_MAX);
    tokio::spawn(async move {
        while let Some(piece) = pieces.next().await {
            if send.send_timeout(Some(piece), STALL_MAX).await.is_err() {
                return;
            }
        }
        // Without this word the end is not the end.
        let _ = send.send_timeout(None, STALL_MAX).await;
    });
    stream::unfold(Some(receive), |receive| async move {
        let mut receive = receive?;
        match receive.recv().await {
            Some(Some(Ok(piece))) => Some((Ok(piece), Some(receive))),
            Some(Some(Err(error))) => Some((Err(error), None)),
            Some(None) => None,
            None => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not read its answer")), None)),
        }
    })
    .boxed()
}
