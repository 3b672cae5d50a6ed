//! A socket that falls silent: so many bytes of packets leave it, then none, or a packet now and then. What is left at the
//! other end is a handshake half done, a frame that never ends, a connection that only costs.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use polder_transport::Wiring;
use polder_transport::seam::{AsyncUdpSocket, RecvMeta, Transmit, UdpPoller};

/// See the module.
#[derive(Debug)]
pub struct Silent {
    socket: Arc<dyn AsyncUdpSocket>,
    /// Bytes that still leave.
    left: AtomicUsize,
    /// Of the packets after them, one in so many leaves; 0 for none.
    trickle: usize,
    packets: AtomicUsize,
}

impl Silent {
    /// Makes a wiring fall silent after so many bytes.
    #[must_use]
    pub fn after(mut wiring: Wiring, bytes: usize, trickle: usize) -> Wiring {
        let (left, packets) = (AtomicUsize::new(bytes), AtomicUsize::new(0));
        wiring.socket = Arc::new(Self { socket: wiring.socket, left, trickle, packets });
        wiring
    }

    fn leaves(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return true;
        }
        self.left.store(0, Ordering::Relaxed);
        let packet = self.packets.fetch_add(1, Ordering::Relaxed);
        self.trickle > 0 && packet.is_multiple_of(self.trickle)
    }
}

impl AsyncUdpSocket for Silent {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.leaves(transmit.contents.len()) { self.socket.try_send(transmit) } else { Ok(()) }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    // One packet at a time, so that they can be counted.
    fn max_transmit_segments(&self) -> usize {
        1
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
}
