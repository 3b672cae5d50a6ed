//! Every list that travels is bounded while it is decoded: one that is as long as may be is taken, one that is an element
//! longer is refused. Nobody names the lists here: all that stand in the samples are found, so one that is added, or that
//! loses its bound, is too.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use polder_checkpoint::transfer;
use polder_consensus::{Evidence, Record};
use polder_kv::{Command, OPERATIONS_MAX};
use polder_node::replica::PeerMessage;
use polder_types::{Batch, ClientFrame, Constants, NodeFrame, Quorum, Request, decode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Target, Verdict, decoders, holds, samples, tree::Tree};
use crate::random::Random;

/// How long the lists that travel may be. Not among them are a reply's, which its reader bounds by the frame alone (it is
/// believed only when `r + 1` replicas say the same), and the genesis', which a file says.
pub const BOUNDS: [usize; 7] = [
    Quorum::REPLICAS_MAX,
    OPERATIONS_MAX,
    Request::COMMANDS_MAX,
    Constants::PARTITIONS_MAX,
    transfer::Message::CHUNK_ENTRIES_MAX,
    Constants::WINDOW_SLOTS_MAX,
    Batch::REQUESTS_MAX,
];

/// The targets.
pub const TARGETS: &[Target] = &[Target {
    name: "lists",
    what: "every list in the samples, as long as may be and one longer: the one is taken, the other refused",
    iterations: 60,
    run: |random| list(random),
}];

/// A list that stands in something that travels.
#[derive(Clone, Debug)]
pub struct Place {
    /// Something that holds it.
    pub tree: Tree,
    /// Where it is.
    pub index: usize,
    /// Whether such bytes are taken.
    pub is_taken: fn(&[u8]) -> bool,
}

impl Place {
    /// Its bound; none when a list of any length is taken, or when it depends on something else.
    #[must_use]
    pub fn bound(&self) -> Option<usize> {
        let takes = |count| (self.is_taken)(&self.tree.with_list_of(self.index, count).encode());
        let mut bounds = BOUNDS;
        bounds.sort_unstable();
        // The first at which one more is refused; up to there all must be taken.
        bounds.into_iter().find(|bound| !takes(bound + 1)).filter(|bound| takes(*bound))
    }
}

/// All lists in the samples, by what they stand in and where.
pub fn places() -> &'static BTreeMap<String, Place> {
    static PLACES: OnceLock<BTreeMap<String, Place>> = OnceLock::new();
    PLACES.get_or_init(|| {
        let (samples, mut all) = (samples::get(), BTreeMap::new());
        add::<PeerMessage, _>(&mut all, "peer", samples.peers.iter());
        add::<ClientFrame, _>(&mut all, "client", samples.clients.iter());
        add::<NodeFrame, _>(&mut all, "node", samples.nodes.iter());
        add::<Request, _>(&mut all, "request", samples.bodies.iter());
        add::<Batch, _>(&mut all, "batch", samples.batches.iter());
        add::<Record, _>(&mut all, "record", decoders::records().iter());
        add::<Evidence, _>(&mut all, "evidence", decoders::evidences().iter());
        add::<Command, _>(&mut all, "command", decoders::commands().iter());
        all
    })
}

fn add<'a, T: Serialize + DeserializeOwned + 'a, I: Iterator<Item = &'a T>>(
    all: &mut BTreeMap<String, Place>,
    kind: &str,
    values: I,
) {
    for tree in values.filter_map(Tree::of) {
        for (index, name) in tree.lists() {
            let is_taken = |bytes: &[u8]| decode::<T>(bytes, usize::MAX).is_ok();
            all.entry(format!("{kind}{name}")).or_insert_with(|| Place { tree: tree.clone(), index, is_taken });
        }
    }
}

fn list(random: &mut Random) -> Verdict {
    let names: Vec<&String> = places().keys().collect();
    let Some((name, place)) = random.pick(&names).and_then(|name| places().get_key_value(*name)) else {
        return Err("there are no lists among the samples".to_owned());
    };
    holds(place.bound().is_some(), || format!("the list {name} has no bound: {:?}", place.tree))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Each list that travels, and each bound there is: a list that is in no sample would be judged by nobody.
    #[test]
    fn every_bound_is_met_by_a_list_in_the_samples_and_every_list_has_one() {
        let bounds: BTreeMap<&String, Option<usize>> =
            places().iter().map(|(name, place)| (name, place.bound())).collect();
        let without: Vec<_> = bounds.iter().filter(|(_, bound)| bound.is_none()).collect();
        assert!(without.is_empty(), "{without:?}");
        let met: BTreeSet<usize> = bounds.values().flatten().copied().collect();
        assert_eq!(met, BOUNDS.into(), "{bounds:?}");
        assert!(bounds.len() >= 16, "{bounds:?}");
    }

    #[test]
    fn the_alarm_rings_for_a_list_without_a_bound_and_for_one_that_ends_too_early() {
        #[derive(Serialize, serde::Deserialize)]
        struct Free(Vec<u16>);
        #[derive(Serialize, serde::Deserialize)]
        struct Early(#[serde(deserialize_with = "polder_types::at_most::<99, _, _>")] Vec<u16>);
        #[derive(Serialize, serde::Deserialize)]
        struct Right(#[serde(deserialize_with = "polder_types::at_most::<128, _, _>")] Vec<u16>);
        let mut all = BTreeMap::new();
        add::<Free, _>(&mut all, "free", [Free(vec![7])].iter());
        add::<Early, _>(&mut all, "early", [Early(vec![7])].iter());
        add::<Right, _>(&mut all, "right", [Right(vec![7, 8])].iter());
        let bounds: Vec<Option<usize>> = all.values().map(Place::bound).collect();
        assert_eq!(bounds, [None, None, Some(128)], "early, free, right");
    }
}
