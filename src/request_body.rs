//! Reads the bodies of requests within bounds.

use std::future::poll_fn;
use std::pin::pin;

use bytes::BufMut as _;
use http::StatusCode;
use http_body::Body;

/// Returns the whole body, or the status of the error: 413 if it is longer than `limit` bytes or announces that, 400 if
/// it is incomplete, 408 if it has not arrived when `timeout` ends.
pub(crate) async fn read<B: Body>(
    body: B,
    limit: usize,
    timeout: impl Future<Output = ()>,
) -> Result<Vec<u8>, StatusCode> {
    tokio::select! {
        biased;
        read = read_all(body, limit) => read,
        () = timeout => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

async fn read_all<B: Body>(body: B, limit: usize) -> Result<Vec<u8>, StatusCode> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    if body.size_hint().lower() > most {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let mut body = pin!(body);
    let mut read = Vec::new();
    // Frames may be empty, so their number is bounded too. With a body that is always ready, the timeout would never
    // fire.
    for _ in 0..=most {
        let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await else { return Ok(read) };
        // Trailers are ignored.
        let Ok(data) = frame.map_err(|_| StatusCode::BAD_REQUEST)?.into_data() else { continue };
        if bytes::Buf::remaining(&data) > limit.saturating_sub(read.len()) {
            break;
        }
        read.put(data);
    }
    Err(StatusCode::PAYLOAD_TOO_LARGE)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Frame, SizeHint};

    use super::*;

    /// Frames without an announced length.
    struct Frames(Vec<Result<Frame<Bytes>, &'static str>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.pop())
        }
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[tokio::test]
    async fn a_body_is_joined_from_its_frames_up_to_the_limit() {
        let trailers = || Ok(Frame::trailers(http::HeaderMap::new()));
        let frames = || Frames(vec![trailers(), data("cde"), data(""), data("ab")]);
        assert_eq!(read_all(frames(), 5).await.unwrap(), b"abcde");
        assert_eq!(read_all(frames(), 4).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(read_all(Frames(vec![Err("gone"), data("ab")]), 5).await, Err(StatusCode::BAD_REQUEST));
    }

    /// A body that is always ready and never ends.
    struct Endless;

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
        }
    }

    #[tokio::test]
    async fn a_body_of_empty_frames_ends() {
        assert_eq!(read_all(Endless, 100).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }

    /// A body that announces its length.
    struct Announced(u64);

    impl Body for Announced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("the body must not be read")
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0)
        }
    }

    #[tokio::test]
    async fn a_body_announced_as_too_large_is_not_read() {
        assert_eq!(read_all(Announced(6), 5).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
