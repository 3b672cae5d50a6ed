//! What a decoded message takes in memory, which is what queues of decoded messages are bounded by: small things on the
//! wire are larger here.

use polder_checkpoint::transfer;
use polder_consensus::{Message, ViewChangeBody};
use polder_types::{Blob, Call, Proof, Request};

use crate::replica::PeerMessage;

/// The counts beside a shared slice's bytes.
const SHARED_BYTES: usize = 2 * size_of::<usize>();

/// The bytes that a replica's message takes, to within what the allocator adds.
pub(crate) fn of_peer(message: &PeerMessage) -> usize {
    let beyond = match message {
        PeerMessage::Ordering(message, _) => of_ordering(message),
        PeerMessage::Transfer(message) => of_transfer(message),
        PeerMessage::Checkpoint(..) | PeerMessage::MemoryAsk { .. } | PeerMessage::Memory { .. } => 0,
    };
    size_of::<PeerMessage>() + beyond
}

/// The bytes that a client's request takes beyond the frame that it came in.
pub(crate) fn of_request(request: &Request) -> usize {
    let beyond = match &request.call {
        Call::Commands { commands, .. } => list(commands) + commands.iter().map(blob).sum::<usize>(),
        Call::Open { .. } | Call::Close { .. } => 0,
    };
    size_of::<Request>() + beyond
}

fn of_ordering(message: &Message) -> usize {
    match message {
        Message::Request(request) => blob(&request.body),
        Message::Proposal(_, bytes) | Message::Body(bytes) => blob(bytes),
        Message::Committed(votes, bytes) => proof(votes) + blob(bytes),
        Message::Suspects(suspects) => proof(suspects),
        Message::Stable(certificate) => proof(certificate),
        Message::ViewChange(_, body) => of_view_change(body),
        Message::NewView(_, enclosed) => {
            list(enclosed) + enclosed.iter().map(|(_, body)| of_view_change(body)).sum::<usize>()
        }
        Message::Status(status) => list(&status.slots),
        Message::Vote(_) | Message::Suspect(_) | Message::Abdicate(_) | Message::Fetch(_) => 0,
    }
}

fn of_view_change(body: &ViewChangeBody) -> usize {
    let prepared = body.entries.iter().filter_map(|entry| entry.prepared.as_ref());
    let stable = body.stable.as_ref().map_or(0, proof);
    proof(&body.suspects) + stable + list(&body.entries) + prepared.map(proof).sum::<usize>()
}

fn of_transfer(message: &transfer::Message) -> usize {
    use transfer::Message;
    match message {
        Message::Offer { certificate, digests } => proof(certificate) + list(digests),
        Message::Digests { digests, .. } => list(digests),
        Message::AskPartition { after, .. } => after.as_ref().map_or(0, blob),
        Message::Chunk { after, entries, .. } => {
            let held = entries.iter().map(|(key, entry)| blob(key) + blob(&entry.value));
            after.as_ref().map_or(0, blob) + list(entries) + held.sum::<usize>()
        }
        Message::Ask { .. } | Message::Nothing { .. } | Message::Gone { .. } | Message::AskDigests { .. } => 0,
    }
}

fn proof<S>(proof: &Proof<S>) -> usize {
    list(&proof.signers)
}

fn list<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

fn blob(blob: &Blob) -> usize {
    blob.len() + SHARED_BYTES
}

#[cfg(test)]
pub(crate) mod tests {
    use polder_consensus::{Entry, SlotStatus, StatusMessage, Suspect, ViewChange};
    use polder_types::{
        ClientId, Constants, Digest, Epoch, PartitionId, Position, PublicKey, ReplicaId, Seq, Signature, Signed, View,
        decode, encode,
    };

    use super::*;
    use crate::replica::Mark;

    /// What is decoded takes at most so many times the bytes that it came in, and a little.
    const AMPLIFICATION_MAX: usize = 24;

    fn suspects(signers: usize) -> Proof<Suspect> {
        let statement = Suspect { epoch: Epoch::ZERO, view: View::ZERO };
        Proof { statement, signers: vec![(ReplicaId(0), Signature([0; 64])); signers] }
    }

    /// A STATUS that shows so many slots: small on the wire, larger in memory.
    pub(crate) fn status(slots: usize) -> PeerMessage {
        let slot = SlotStatus { slot: Seq::ZERO, accepted: None, prepares: 0, commits: 0 };
        PeerMessage::Ordering(
            Message::Status(StatusMessage { slots: vec![slot; slots], ..StatusMessage::default() }),
            Mark::default(),
        )
    }

    fn body(entries: usize, signers: usize) -> ViewChangeBody {
        let entry = Entry { slot: Seq::ZERO, view: View::ZERO, digest: Digest::ZERO, prepared: None };
        ViewChangeBody { suspects: suspects(signers), low: Seq::ZERO, stable: None, entries: vec![entry; entries] }
    }

    fn view_change(entries: usize, signers: usize) -> PeerMessage {
        PeerMessage::Ordering(Message::ViewChange(signed(), body(entries, signers)), Mark::default())
    }

    fn signed() -> Signed<ViewChange> {
        let statement = ViewChange { epoch: Epoch::ZERO, view: View::ZERO, body: Digest::ZERO };
        Signed { statement, by: ReplicaId(0), signature: Signature([0; 64]) }
    }

    fn new_view(enclosed: usize, entries: usize) -> PeerMessage {
        let statement = polder_consensus::NewView { epoch: Epoch::ZERO, view: View::ZERO, body: Digest::ZERO };
        let by_leader = Signed { statement, by: ReplicaId(0), signature: Signature([0; 64]) };
        PeerMessage::Ordering(
            Message::NewView(by_leader, vec![(signed(), body(entries, 1)); enclosed]),
            Mark::default(),
        )
    }

    fn chunk(entries: usize) -> PeerMessage {
        let at = Position { slot: Seq::ZERO, index: 0 };
        let entry = polder_executor::Entry { value: Blob::default(), created: at, modified: at, version: 0 };
        PeerMessage::Transfer(transfer::Message::Chunk {
            cut: Seq::ZERO,
            partition: PartitionId(0),
            after: None,
            entries: vec![(Blob::default(), entry); entries],
            last_delete: at,
            done: true,
        })
    }

    fn digests(digests: usize) -> PeerMessage {
        PeerMessage::Transfer(transfer::Message::Digests { cut: Seq::ZERO, digests: vec![Digest::ZERO; digests] })
    }

    /// Each list with as many of the smallest elements as it may have, and with one more.
    #[test]
    fn every_list_is_bounded_while_it_is_decoded_and_weighs_what_it_takes() {
        let (window, replicas) = (Constants::WINDOW_SLOTS_MAX, polder_types::Quorum::REPLICAS_MAX);
        let (partitions, entries) = (Constants::PARTITIONS_MAX, transfer::Message::CHUNK_ENTRIES_MAX);
        let pairs = [
            (status(window), status(window + 1)),
            (view_change(window, 1), view_change(window + 1, 1)),
            (view_change(1, replicas), view_change(1, replicas + 1)),
            (new_view(replicas, 1), new_view(replicas + 1, 1)),
            (chunk(entries), chunk(entries + 1)),
            (digests(partitions), digests(partitions + 1)),
        ];
        for (number, (fits, exceeds)) in pairs.into_iter().enumerate() {
            let bytes = encode(&fits);
            let decoded = decode::<PeerMessage>(&bytes, usize::MAX).expect("as long as may be");
            let weight = of_peer(&decoded);
            assert!(weight >= bytes.len() / 2, "{number}: {weight} for {} bytes", bytes.len());
            assert!(weight <= AMPLIFICATION_MAX * bytes.len(), "{number}: {weight} for {} bytes", bytes.len());
            assert!(decode::<PeerMessage>(&encode(&exceeds), usize::MAX).is_err(), "{number}");
        }
    }

    #[test]
    fn a_request_of_many_empty_commands_weighs_more_than_its_bytes() {
        let commands = vec![Blob::default(); Request::COMMANDS_MAX];
        let call = Call::Commands { session: Default::default(), ack: 0, first: 1, commands };
        let request = Request { client: ClientId(PublicKey([0; 32])), call };
        assert!(of_request(&request) >= 32 * Request::COMMANDS_MAX);
    }
}
