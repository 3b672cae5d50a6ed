//! Everything that a stranger can make a process hold, as numbers.

use std::time::Duration;

use polder_types::Constants;

/// Bounds of an endpoint. All are local; the defaults fit the default [`Constants`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most bytes of a frame between replicas. A NEW-VIEW may take a little over 4 MiB (R13), a batch 2 MiB.
    pub replica_frame_bytes_max: usize,
    /// The most bytes of a frame between a client and a replica: a request, or a reply, and a little.
    pub client_frame_bytes_max: usize,
    /// The most bytes that wait to be sent on one lane of one connection. One frame always fits into an empty queue.
    pub send_queue_bytes_max: usize,
    /// The most bytes that wait to be sent on all connections from clients together. When there are more, of
    /// the key for which most of them wait the connection with the most is closed: its client is the slowest.
    pub client_send_bytes_max: usize,
    /// The most bytes received on all connections from clients together and not yet read, beginnings of frames
    /// included. When there are more, of the key that sent most of them the connection with the most is closed: frames
    /// that never end, or more than its share.
    pub client_receive_bytes_max: usize,
    /// The most bytes received and not yet read on one lane of one connection; from a client never more than
    /// [`Limits::client_frame_bytes_max`]. One frame always fits.
    pub receive_queue_bytes_max: usize,
    /// The most frames in any one queue.
    pub queue_frames_max: usize,
    /// The most connections from clients at once. When so many are open, the key with the most of them loses its
    /// oldest one to a key that has at least two fewer; otherwise no more are taken.
    pub client_connections_max: usize,
    /// The most connections from one client's key at once, at least 1: one more closes the key's oldest.
    pub client_connections_per_key_max: usize,
    /// The most connections from one replica's key at once, at least 1: one more closes the key's oldest. A correct
    /// replica has one, and for a moment after it restarted or lost its way another that is dead.
    pub replica_connections_per_key_max: usize,
    /// The most handshakes under way at once, connections accepted and not yet taken included. When a quarter is
    /// used, a stranger's address must be proved before anything is computed for it.
    pub handshakes_max: usize,
    /// How long connecting may take, hello included, for each address tried.
    pub connect_timeout: Duration,
    /// After how long without a sign of life a connection is dead.
    pub idle_timeout: Duration,
    /// How often an idle connection gives a sign of life.
    pub keep_alive: Duration,
    /// The first wait between two attempts of a [`crate::Link`]; it doubles.
    pub back_off_first: Duration,
    /// The longest wait between two attempts of a [`crate::Link`].
    pub back_off_max: Duration,
}

impl Limits {
    /// The limits that fit the constants of an epoch.
    #[must_use]
    pub fn new(constants: &Constants) -> Self {
        // What a frame adds to what it carries: tags, lengths, signatures, a short list of other things.
        const SLACK_BYTES: usize = 64 << 10;
        let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX / 4);
        let client_frame_bytes_max = size(constants.request_bytes_max.max(constants.reply_bytes_max)) + SLACK_BYTES;
        Self {
            replica_frame_bytes_max: (9 << 19).max(2 * size(constants.batch_bytes_max) + SLACK_BYTES),
            client_frame_bytes_max,
            send_queue_bytes_max: 8 << 20,
            client_send_bytes_max: 256 << 20,
            client_receive_bytes_max: 256 << 20,
            receive_queue_bytes_max: client_frame_bytes_max.max(4 << 20),
            queue_frames_max: 4_096,
            client_connections_max: 1_024,
            // A connection for each session that a key may have.
            client_connections_per_key_max: size(constants.sessions_per_client_max),
            replica_connections_per_key_max: 2,
            handshakes_max: 128,
            connect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_millis(750),
            back_off_first: Duration::from_millis(50),
            back_off_max: Duration::from_secs(2),
        }
    }

    /// The most bytes of a frame on a lane.
    #[must_use]
    pub fn frame_bytes_max(&self, lane: crate::Lane) -> usize {
        match lane {
            crate::Lane::Ordering | crate::Lane::Transfer => self.replica_frame_bytes_max,
            crate::Lane::Client => self.client_frame_bytes_max,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&Constants::default())
    }
}
