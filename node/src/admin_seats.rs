//! Who asks the admin port gets one of few seats, and for a short while: connections that are held open take no file
//! handles from the disks (promise 4).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections at a time; others wait in the operating system's queue.
const SEATS: usize = 32;
/// How long one lasts. Who scrapes metrics less often than this connects anew each time.
const SEAT_MAX: Duration = Duration::from_secs(10);

/// A listener with so many seats.
pub(crate) struct Seats {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl Seats {
    /// All seats of a bound port, free.
    pub(crate) fn of(listener: TcpListener) -> Self {
        Self { listener, free: Arc::new(Semaphore::new(SEATS)) }
    }
}

impl Listener for Seats {
    type Io = Seated;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Seated, SocketAddr) {
        // Nobody closes it, so there is a permit sooner or later.
        let seat = self.free.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Seated { stream, until: Box::pin(tokio::time::sleep(SEAT_MAX)), _seat: seat }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that has a seat, until its time is over: then it reads as ended and takes nothing more.
pub(crate) struct Seated {
    stream: TcpStream,
    until: Pin<Box<Sleep>>,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Seated {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.until.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Seated {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_when_all_seats_are_taken_waits_for_one() -> io::Result<()> {
        let mut seats = Seats::of(TcpListener::bind("127.0.0.1:0").await?);
        let address = seats.local_addr()?;
        let mut asking = Vec::new();
        let mut seated = Vec::new();
        for _ in 0..SEATS {
            asking.push(TcpStream::connect(address).await?);
            seated.push(seats.accept().await);
        }
        asking.push(TcpStream::connect(address).await?);
        let is_accepted = tokio::select! {
            biased;
            _ = seats.accept() => true,
            () = tokio::task::yield_now() => false,
        };
        assert!(!is_accepted);
        seated.pop();
        seats.accept().await;
        Ok(())
    }
}
