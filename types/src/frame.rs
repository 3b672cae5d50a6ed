//! What a client and a node say to each other, after the transport has checked version, cluster and key.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Digest, Epoch, ReplicaId, Reply, Seq, SessionId, SignedRequest, View};

/// From a client to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Where are you? Answered by [`NodeFrame::At`]; also sent by the node unasked after the connection is made.
    Where,
    /// A signed request.
    Request(SignedRequest),
    /// Send the replies of this session here: to be said to every replica after a session is opened and after each
    /// reconnection, because a replica that was sent no request of the session cannot know which connection of the
    /// client's key waits for them. Without it replies go to the newest connection of the key.
    Attach(SessionId),
    /// How are you? Answered by [`NodeFrame::Status`].
    Status,
}

/// From a node to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeFrame {
    /// Where the node is: a hint for whom to send to, and the cut that an OPEN names (R24). Unsigned: a client
    /// believes a cut on `r+1` answers at or above it, a view on its own risk.
    At {
        /// The epoch.
        epoch: Epoch,
        /// The view, whose leader is replica `view mod n`.
        view: View,
        /// The last stable cut.
        cut: Seq,
    },
    /// Answers, packed; at most [`NodeFrame::REPLIES_MAX`] as they travel.
    Replies(#[serde(deserialize_with = "crate::at_most::<{ NodeFrame::REPLIES_MAX }, _, _>")] Vec<Reply>),
    /// The request was not taken: send it again after a while.
    Busy {
        /// The digest of the request.
        request: Digest,
        /// After how long.
        retry_after_ms: u32,
    },
    /// How the node is.
    Status(NodeStatus),
}

impl NodeFrame {
    /// The most answers in one frame.
    pub const REPLIES_MAX: usize = 1_024;
}

/// How a node says it is: for `status`, unsigned, believed by operators only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which replica it is.
    pub replica: ReplicaId,
    /// Whether it leads its view.
    pub is_leader: bool,
    /// Why it does not serve, in words; none while it takes part in a quorum and answers clients.
    pub not_ready: Option<String>,
    /// Its view.
    pub view: View,
    /// The last slot executed.
    pub executed: Seq,
    /// The last slot up to which all are committed.
    pub committed: Seq,
    /// The last stable cut at which the node's own state is the certified one; 0 is genesis.
    pub stable: Seq,
    /// The root of its own state there; [`Digest::ZERO`] while that is genesis.
    pub root: Digest,
    /// Bytes that the ordering log takes on its disk.
    pub log_bytes: u64,
    /// Bytes that all data takes on disk.
    pub disk_bytes: u64,
}

impl NodeStatus {
    /// Whether it takes part in a quorum and answers clients.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.not_ready.is_none()
    }
}
