//! Asking the replicas how they are.

use bytes::Bytes;
use polder_transport::{Endpoint, Lane, Lanes, Limits};
use polder_types::{ClientFrame, NodeFrame, NodeStatus, ReplicaEntry, ReplicaId, decode, encode};

use crate::{Builder, ConnectError};

impl Builder {
    /// Asks every replica how it is, each for at most [`Builder::connect_timeout`]. No session is opened, and nothing
    /// is believed on more than the one replica's word: it is for operators.
    ///
    /// # Cancel safety
    ///
    /// Nothing is left behind if the future is dropped, but for connections that end by themselves.
    ///
    /// # Errors
    ///
    /// When the cluster file is wrong or no socket can be opened. A replica that does not answer has its reason, in
    /// words, in its place.
    pub async fn statuses(mut self) -> Result<Vec<(ReplicaId, Result<NodeStatus, String>)>, ConnectError> {
        let (_, endpoint) = self.prepare()?;
        let frame_bytes_max = Limits::new(&self.cluster().constants).client_frame_bytes_max;
        let timeout = self.connect_timeout;
        let ask = |replica: ReplicaEntry| {
            let asking = ask(endpoint.clone(), replica, frame_bytes_max);
            tokio::spawn(async move {
                tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
            })
        };
        let asked: Vec<_> = self.cluster().replicas.iter().cloned().map(ask).collect();
        let mut statuses = Vec::new();
        for (replica, answer) in (0..=u8::MAX).zip(asked) {
            let status = answer.await.unwrap_or_else(|error| Err(error.to_string()));
            statuses.push((ReplicaId(replica), status));
        }
        endpoint.close("the question is answered").await;
        Ok(statuses)
    }
}

async fn ask(endpoint: Endpoint, replica: ReplicaEntry, frame_bytes_max: usize) -> Result<NodeStatus, String> {
    let connecting = endpoint.connect(&replica.address, replica.identity, Lanes::CLIENT);
    let (connection, mut inbox) = connecting.await.map_err(|error| error.to_string())?;
    let question = Bytes::from(encode(&ClientFrame::Status));
    connection.send(Lane::Client, question).await.map_err(|error| error.to_string())?;
    while let Some((_, frame)) = inbox.recv().await {
        if let Ok(NodeFrame::Status(status)) = decode(&frame, frame_bytes_max) {
            return Ok(status);
        }
    }
    Err(connection.closed().await.to_string())
}
