//! What a client and a node say to each other, after the transport has checked version, cluster and key.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Digest, Epoch, Reply, Seq, SignedRequest, View};

/// From a client to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// Where are you? Answered by [`NodeFrame::At`]; also sent by the node unasked after the connection is made.
    Where,
    /// A signed request.
    Request(SignedRequest),
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
    /// Answers, packed.
    Replies(Vec<Reply>),
    /// The request was not taken: send it again after a while.
    Busy {
        /// The digest of the request.
        request: Digest,
        /// After how long.
        retry_after_ms: u32,
    },
}
