//! One connection: bytes to and from a stream, and whole PDUs for those who want no session.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use iscsi_pdu::{Emit, Framing, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::outbox::{MAX_PIECES, Outbox};
use crate::receiver::{LOGIN_DATA_SEGMENT_BYTES, Piece, Receiver};
use crate::{Error, PeerError};

/// Read at once from the stream, in bytes.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// A stream and what has been read from it but not yet looked at.
#[derive(Debug)]
pub(crate) struct Pipe<S> {
    stream: S,
    pub(crate) receiver: Receiver,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Pipe<S> {
    fn new(stream: S) -> Pipe<S> {
        Pipe {
            stream,
            receiver: Receiver::new(LOGIN_DATA_SEGMENT_BYTES),
            buffer: vec![0; READ_BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            unflushed: false,
        }
    }

    /// The next piece of what has been read; `None` when more must be read.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<'_>>, PeerError> {
        let mut input = &self.buffer[self.start..self.end];
        let before = input.len();
        let piece = self.receiver.next(&mut input)?;
        self.start += before - input.len();
        Ok(piece)
    }

    /// Writes and reads whatever is possible, and waits until that is something. Both at once, so that a target that
    /// will not read before we have read cannot lock us up. To be called when [`next`](Pipe::next) has nothing more.
    pub(crate) async fn turn(&mut self, outbox: &mut Outbox) -> Result<(), Error> {
        poll_fn(|context| self.poll_turn(outbox, context)).await
    }

    fn poll_turn(&mut self, outbox: &mut Outbox, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let wrote = self.poll_write(outbox, context)?;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut space = ReadBuf::new(&mut self.buffer[self.end..]);
        match Pin::new(&mut self.stream).poll_read(context, &mut space) {
            Poll::Ready(Ok(())) if space.filled().is_empty() => Poll::Ready(Err(PeerError::Closed.into())),
            Poll::Ready(Ok(())) => {
                self.end += space.filled().len();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending if wrote => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether anything was written.
    fn poll_write(&mut self, outbox: &mut Outbox, context: &mut Context<'_>) -> io::Result<bool> {
        let mut wrote = false;
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_PIECES];
            let filled = outbox.slices(&mut slices);
            match Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..filled])? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(bytes) => {
                    outbox.written(bytes);
                    (wrote, self.unflushed) = (true, true);
                }
                Poll::Pending => return Ok(wrote),
            }
        }
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
            self.unflushed = false;
        }
        Ok(wrote)
    }

    /// Whether everything has left.
    pub(crate) fn is_flushed(&self, outbox: &Outbox) -> bool {
        outbox.is_empty() && !self.unflushed
    }

    /// Waits for the other end to close; what it still sends is thrown away.
    pub(crate) async fn closed(&mut self) -> io::Result<()> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        self.stream.shutdown().await?;
        while self.stream.read(&mut self.buffer).await? > 0 {}
        Ok(())
    }
}

/// A connection without a session: PDUs as one makes them. Login goes through it, and so do tests that want to see how
/// a target takes what a decent initiator would not send.
#[derive(Debug)]
pub struct Connection<S> {
    pub(crate) pipe: Pipe<S>,
    pub(crate) outbox: Outbox,
    pub(crate) framing: Framing,
    current: Option<(Response, Vec<u8>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection over an open stream, without digests and with the default limit on what is received.
    #[must_use]
    pub fn new(stream: S) -> Connection<S> {
        Connection {
            pipe: Pipe::new(stream),
            outbox: Outbox::default(),
            framing: Framing::default(),
            current: None,
        }
    }

    /// Queues a PDU; it leaves with [`flush`](Connection::flush) or while waiting in [`receive`](Connection::receive).
    pub fn send(&mut self, pdu: &impl Emit, data: impl Into<Bytes>) {
        self.outbox.pdu(self.framing, pdu, data.into());
    }

    /// Queues any bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.outbox.raw(bytes);
    }

    /// Digests of the PDUs to come, in both directions.
    pub fn set_digests(&mut self, header: bool, data: bool) {
        self.framing = Framing {
            header_digest: header,
            data_digest: data,
        };
        self.pipe.receiver.set_digests(header, data);
    }

    /// Waits until all that was queued is written. Bytes that arrive meanwhile are kept.
    pub async fn flush(&mut self) -> Result<(), Error> {
        while !self.pipe.is_flushed(&self.outbox) {
            self.pipe.turn(&mut self.outbox).await?;
        }
        Ok(())
    }

    /// The next PDU from the target with its data segment; [`PeerError::Closed`] when there is none.
    pub async fn receive(&mut self) -> Result<(Response, Vec<u8>), Error> {
        loop {
            match self.pipe.next()? {
                Some(Piece::Header(response)) => self.current = Some((response, Vec::new())),
                Some(Piece::Data(chunk)) => {
                    if let Some((_, data)) = &mut self.current {
                        data.extend_from_slice(chunk);
                    }
                }
                Some(Piece::End) => {
                    if let Some(pdu) = self.current.take() {
                        return Ok(pdu);
                    }
                }
                None => self.pipe.turn(&mut self.outbox).await?,
            }
        }
    }
}
