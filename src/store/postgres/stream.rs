//! A stream whose peer has to say something in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::link::Link;
use super::patience;

/// A stream that fails with `TimedOut` once its peer has been silent for as long as its [`Link`] allows.
///
/// While the connection is being made, what is allowed is for all of that; afterwards it begins anew with every operation
/// and with everything that is read or written. Between operations nobody looks, so nothing expires.
pub(super) struct Watched<S> {
    stream: S,
    link: Arc<Link>,
    /// When the peer's time is up.
    expiry: Pin<Box<Sleep>>,
    /// The operation that `expiry` was set for.
    operation: u64,
    /// Whether `expiry` is that of an interrupt, which nothing postpones.
    is_final: bool,
    /// Whether `expiry` is that of the last look.
    is_last_look: bool,
}

impl<S> Watched<S> {
    /// Watches a stream whose connection is being made. Only within a runtime.
    pub(super) fn new(stream: S, link: Arc<Link>) -> Self {
        let expiry = Box::pin(sleep(link.silence_max()));
        Self { stream, link, expiry, operation: 0, is_final: false, is_last_look: false }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn postpone(&mut self) {
        self.is_last_look = false;
        if !self.is_final {
            self.expiry.as_mut().reset(Instant::now() + self.link.silence_max());
        }
    }

    /// Notices what the link has been told, and fails when it is too late for anything.
    fn look(&mut self) -> io::Result<()> {
        if self.link.is_late() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let operation = self.link.operation();
        if operation != self.operation {
            self.operation = operation;
            self.postpone();
        }
        if self.link.is_interrupted() && !self.is_final {
            self.is_final = true;
            self.expiry.as_mut().reset(Instant::now() + patience::INTERRUPT);
        }
        Ok(())
    }

    /// What is said while the stream itself has to wait: that the peer's time is up, or that somebody will wake us.
    ///
    /// A process that was stopped meanwhile finds the time over before it has looked what came in that time: so it looks once more.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        while self.expiry.as_mut().poll(cx).is_ready() {
            if self.is_last_look {
                self.link.set_late();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.is_last_look = true;
            self.expiry.as_mut().reset(Instant::now() + patience::LAST_LOOK);
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.link.waits(cx.waker());
        this.look()?;
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(read) => {
                if this.operation > 0 {
                    this.postpone();
                }
                Poll::Ready(read)
            }
            Poll::Pending => this.wait(cx),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.look()?;
        this.link.writing();
        match Pin::new(&mut this.stream).poll_write(cx, buf) {
            Poll::Ready(written) => {
                // A peer that takes what is sent is not silent, however long all of it takes.
                if this.operation > 0 {
                    this.postpone();
                }
                Poll::Ready(written)
            }
            Poll::Pending => this.wait(cx),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look()?;
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => this.wait(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.look()?;
        match Pin::new(&mut this.stream).poll_shutdown(cx) {
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => this.wait(cx),
        }
    }
}
