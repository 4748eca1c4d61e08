//! A stream that knows where messages begin and refuses those that are too long, before a decoder waits for them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Of messages before the startup has ended: its parameters.
const STARTUP_BYTES_MAX: usize = 10_000;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;

/// Follows the framing of what a client sends.
#[derive(Debug)]
struct Frames {
    /// After the startup message, messages begin with a type.
    typed: bool,
    header: [u8; 8],
    header_len: usize,
    body_left: usize,
    message_bytes_max: usize,
}

impl Frames {
    fn observe(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let skipped = self.body_left.min(bytes.len());
            self.body_left -= skipped;
            bytes = &bytes[skipped..];
            // Type and length, or length and code.
            let header_len_wanted = if self.typed { 5 } else { 8 };
            while self.header_len < header_len_wanted && !bytes.is_empty() {
                self.header[self.header_len] = bytes[0];
                self.header_len += 1;
                bytes = &bytes[1..];
            }
            if self.header_len == header_len_wanted {
                self.header_len = 0;
                self.begin_message()?;
            }
        }
        Ok(())
    }

    fn begin_message(&mut self) -> io::Result<()> {
        let word = |at: usize| {
            u32::from_be_bytes([self.header[at], self.header[at + 1], self.header[at + 2], self.header[at + 3]])
        };
        let (length, header_bytes, length_max) =
            if self.typed { (word(1), 4, self.message_bytes_max) } else { (word(0), 8, STARTUP_BYTES_MAX) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < header_bytes || length > length_max {
            let message = format!("a message of {length} bytes is outside {header_bytes} to {length_max}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        if !self.typed && ![SSL_REQUEST, GSS_REQUEST].contains(&word(4)) {
            self.typed = true;
        }
        self.body_left = length - header_bytes;
        Ok(())
    }
}

/// A client's stream with bounded messages.
#[derive(Debug)]
pub(crate) struct Framing<S> {
    stream: S,
    frames: Frames,
}

impl<S> Framing<S> {
    /// At the beginning of a connection.
    pub(crate) fn new(stream: S, message_bytes_max: usize) -> Framing<S> {
        let frames = Frames { typed: false, header: [0; 8], header_len: 0, body_left: 0, message_bytes_max };
        Framing { stream, frames }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n_filled = buf.filled().len();
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => Poll::Ready(this.frames.observe(&buf.filled()[n_filled..])),
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn frames() -> Frames {
        Frames { typed: false, header: [0; 8], header_len: 0, body_left: 0, message_bytes_max: 100 }
    }

    fn startup() -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 8, 4, 210, 22, 47];
        bytes.extend([0, 0, 0, 9, 0, 3, 0, 0, 0]);
        bytes
    }

    #[test]
    fn messages_in_any_pieces_are_followed() {
        let mut bytes = startup();
        bytes.extend([b'Q', 0, 0, 0, 6, b'x', 0, b'S', 0, 0, 0, 4, b'Q', 0, 0, 0, 101]);
        for piece in 1..bytes.len() {
            let mut frames = frames();
            let (good, bad) = bytes.split_at(bytes.len() - 5);
            for chunk in good.chunks(piece) {
                frames.observe(chunk).unwrap();
            }
            assert!(frames.typed);
            assert!(frames.observe(bad).unwrap_err().to_string().contains("101 bytes"));
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        assert!(frames().observe(&[0xff; 8]).is_err());
        assert!(frames().observe(&[0; 8]).is_err());
        assert!(frames().observe(b"GET / HTTP/1.1\r\n").is_err());
        let mut typed = frames();
        typed.observe(&startup()).unwrap();
        assert!(typed.observe(&[b'Q', 0, 0, 0, 3]).is_err());
    }
}
