//! The connections of clients: where replies go, packed by connection.
//!
//! A client's key may have several connections, and a session's replies go to the one that waits for them: the one
//! that last sent a request of the session or said [`polder_types::ClientFrame::Attach`]; without either, to the newest of the key's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use polder_transport::{Connection, Lane, SendError};
use polder_types::{Call, ClientId, Digest, NodeFrame, Reply, Request, SessionId, encode};

/// Sessions and OPENs whose connection is remembered, a connection; beyond it the oldest is forgotten, and its replies
/// go to the newest connection of the key.
const ROUTES_PER_CONNECTION_MAX: usize = 1_024;

/// A frame of replies is closed at this size, so that nobody's small reply waits behind many large ones.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// A client for which so many bytes wait, on any of its connections, is given no more work: it reads no answers.
const UNREAD_BYTES_MAX: usize = 4 << 20;

/// What a reply is matched to a connection by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    Session(ClientId, SessionId),
    /// An OPEN has no session yet: its answer carries the digest of the request.
    Open(ClientId, Digest),
}

/// The connections of clients.
#[derive(Default)]
pub(crate) struct Clients {
    connections: BTreeMap<u64, Entry>,
    of_client: BTreeMap<ClientId, BTreeSet<u64>>,
    routes: BTreeMap<Route, u64>,
}

struct Entry {
    client: ClientId,
    connection: Connection,
    routes: VecDeque<Route>,
    /// Replies that wait for the end of the turn.
    replies: Vec<Reply>,
}

impl Clients {
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether this connection is there still.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.connections.contains_key(&id)
    }

    pub(crate) fn add(&mut self, id: u64, client: ClientId, connection: Connection) {
        self.of_client.entry(client).or_default().insert(id);
        self.connections.insert(id, Entry { client, connection, routes: VecDeque::new(), replies: Vec::new() });
    }

    pub(crate) fn remove(&mut self, id: u64) {
        let Some(entry) = self.connections.remove(&id) else { return };
        for route in entry.routes {
            if self.routes.get(&route) == Some(&id) {
                self.routes.remove(&route);
            }
        }
        if let Some(connections) = self.of_client.get_mut(&entry.client) {
            connections.remove(&id);
            if connections.is_empty() {
                self.of_client.remove(&entry.client);
            }
        }
    }

    /// Ends all connections of a client, with the reason in words.
    pub(crate) fn close_all(&mut self, client: ClientId, reason: &str) {
        for id in self.of_client.get(&client).cloned().unwrap_or_default() {
            if let Some(entry) = self.connections.get(&id) {
                entry.connection.close(reason);
            }
            self.remove(id);
        }
    }

    /// Whether this client reads its answers.
    pub(crate) fn reads(&self, client: ClientId) -> bool {
        let ids = self.of_client.get(&client).into_iter().flatten();
        let mut waiting =
            ids.filter_map(|id| self.connections.get(id)).map(|entry| entry.connection.waiting(Lane::Client));
        waiting.all(|bytes| bytes < UNREAD_BYTES_MAX)
    }

    /// The replies to this request go to this connection from now on.
    pub(crate) fn requested(&mut self, id: u64, request: &Request, digest: Digest) {
        let route = match &request.call {
            Call::Open { .. } => Route::Open(request.client, digest),
            Call::Commands { session, .. } | Call::Close { session } => Route::Session(request.client, *session),
        };
        self.route(id, route);
    }

    /// The replies of this session go to this connection from now on.
    pub(crate) fn attached(&mut self, id: u64, session: SessionId) {
        if let Some(client) = self.connections.get(&id).map(|entry| entry.client) {
            self.route(id, Route::Session(client, session));
        }
    }

    fn route(&mut self, id: u64, route: Route) {
        if self.routes.get(&route) == Some(&id) {
            return;
        }
        let Some(entry) = self.connections.get_mut(&id) else { return };
        entry.routes.push_back(route);
        if entry.routes.len() > ROUTES_PER_CONNECTION_MAX
            && let Some(oldest) = entry.routes.pop_front()
            && self.routes.get(&oldest) == Some(&id)
        {
            self.routes.remove(&oldest);
        }
        self.routes.insert(route, id);
    }

    /// Where a reply goes: to one connection, however many the key has, so that it is encoded once.
    fn target(&self, client: ClientId, reply: &Reply) -> Option<u64> {
        let route = match reply.session {
            Some(session) => Route::Session(client, session),
            None => Route::Open(client, reply.command),
        };
        // Ids grow: the last is the newest.
        let newest = || self.of_client.get(&client)?.last();
        self.routes.get(&route).or_else(newest).copied()
    }

    /// Sends a frame to a client at the end of the turn, if it is connected; replies are packed. Returns how many
    /// replies there were.
    pub(crate) fn send(&mut self, client: ClientId, frame: NodeFrame) -> u64 {
        let NodeFrame::Replies(replies) = frame else {
            if let Some(newest) = self.of_client.get(&client).and_then(BTreeSet::last) {
                self.send_to(*newest, &frame);
            }
            return 0;
        };
        let count = replies.len() as u64;
        for reply in replies {
            let target = self.target(client, &reply);
            if let Some(entry) = target.and_then(|id| self.connections.get_mut(&id)) {
                entry.replies.push(reply);
            }
        }
        count
    }

    /// Sends a frame to one connection.
    pub(crate) fn send_to(&self, id: u64, frame: &NodeFrame) {
        if let Some(entry) = self.connections.get(&id) {
            entry.send(Bytes::from(encode(frame)));
        }
    }

    /// Sends the packed replies: the end of the turn.
    pub(crate) fn flush(&mut self) {
        for entry in self.connections.values_mut() {
            if !entry.replies.is_empty() {
                let mut replies = std::mem::take(&mut entry.replies);
                if entry.connection.waiting(Lane::Client) >= UNREAD_BYTES_MAX {
                    // Large ones would be encoded to be dropped.
                    replies.retain(|reply| size(reply) <= FRAME_BYTES_MAX);
                }
                pack(replies).for_each(|frame| entry.send(Bytes::from(encode(&frame))));
            }
        }
    }
}

impl Entry {
    /// A client that does not read loses its replies: it asks again, and is answered from the cache (R23).
    fn send(&self, bytes: Bytes) {
        match self.connection.try_send(Lane::Client, bytes) {
            Ok(()) | Err(SendError::Full | SendError::Disconnected) => {}
            Err(error) => tracing::warn!(client = %self.client, %error, "a frame cannot be sent"),
        }
    }
}

/// Replies in frames of a bounded size; a reply that is larger has a frame of its own.
fn pack(replies: Vec<Reply>) -> impl Iterator<Item = NodeFrame> {
    let mut rest = replies.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut frame = vec![rest.next()?];
        let mut bytes = frame.iter().map(size).sum::<usize>();
        while frame.len() < NodeFrame::REPLIES_MAX
            && let Some(next) = rest.next_if(|next| bytes + size(next) <= FRAME_BYTES_MAX)
        {
            bytes += size(&next);
            frame.push(next);
        }
        Some(NodeFrame::Replies(frame))
    })
}

/// About the bytes of a reply.
fn size(reply: &Reply) -> usize {
    let answer = match &reply.answer {
        polder_types::Answer::Done(blob) => blob.len(),
        _ => 0,
    };
    answer + 80
}

#[cfg(test)]
mod tests {
    use polder_types::{Answer, Blob, Epoch};

    use super::*;

    fn reply(number: u64, bytes: usize) -> Reply {
        let answer = Answer::Done(Blob::from(vec![0; bytes]));
        Reply { epoch: Epoch::ZERO, session: None, number, command: Digest::ZERO, answer }
    }

    #[test]
    fn replies_are_packed_in_order_into_frames_of_a_bounded_size() {
        let replies: Vec<Reply> =
            (0..300).map(|number| reply(number, if number == 150 { 1 << 20 } else { 500 })).collect();
        let frames: Vec<Vec<Reply>> = pack(replies.clone())
            .map(|frame| match frame {
                NodeFrame::Replies(replies) => replies,
                _ => Vec::new(),
            })
            .collect();
        assert!(frames.len() < 10, "{}", frames.len());
        assert!(
            frames.iter().all(|frame| frame.len() == 1 || frame.iter().map(size).sum::<usize>() <= FRAME_BYTES_MAX)
        );
        assert_eq!(frames.concat(), replies);
    }
}
