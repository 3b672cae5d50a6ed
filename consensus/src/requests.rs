//! The requests that wait for a decision: admitted, packed in turns, timed, and dropped once decided (R6, R20).
//! Their deadlines and forwards are in [`timing`].
//!
//! Waiting requests stand in *lanes*: one a session, in order of their numbers, and one for each OPEN. Of a lane only
//! the first counts against the leader, and only while it could execute: *a request that cannot execute must not arm
//! anything, or one client changes views for ever*.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use polder_types::{Batch, Call, ClientId, Constants, Digest, Request, Seq, SessionId, SignedRequest, Verified};

use crate::lane::{Ask, Chance, Forward, Lane, Waiting, Way, Weight};
use crate::{Ignored, SessionWindow};

mod timing;

use timing::Pace;
pub(crate) use timing::Tick;
#[cfg(test)]
use timing::Ticked;

/// Rows outside the caps that one backup may have forwarded, and their bytes; and their bytes of one client, beyond the
/// first.
const FORWARDED_ROWS_MAX: u32 = 1_024;
const FORWARDED_BYTES_MAX: u64 = 16 << 20;
const FORWARDED_BYTES_PER_CLIENT_MAX: u64 = 2 << 20;

/// Where requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LaneId {
    /// An OPEN, by its digest.
    Open(Digest),
    /// The requests of a session.
    Session(SessionId),
}

/// What became of a request that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It waits now.
    Taken,
    /// It waited already.
    Again,
    /// There is no room for it.
    Busy,
    /// It is decided, or can never execute.
    Settled,
}

/// Rows outside the caps, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Spares {
    rows: u32,
    bytes: u64,
}

impl Spares {
    /// Adds an unproposed row of so many bytes, or takes it out.
    fn change(all: &mut BTreeMap<Way, Self>, way: Way, bytes: u64, adds: bool) {
        let spares = all.entry(way).or_default();
        if adds {
            *spares = Self { rows: spares.rows.saturating_add(1), bytes: spares.bytes.saturating_add(bytes) };
            return;
        }
        *spares = Self { rows: spares.rows.saturating_sub(1), bytes: spares.bytes.saturating_sub(bytes) };
        if spares.rows == 0 {
            all.remove(&way);
        }
    }
}

#[derive(Debug, Default)]
struct Client {
    lanes: BTreeMap<LaneId, Lane>,
    /// The lane that was served last: the next one comes next.
    served: Option<LaneId>,
    /// Admitted, unproposed requests, rows outside the caps apart; and their bytes.
    unproposed: u32,
    bytes: u64,
    /// Unproposed rows outside the caps (R6), by the way on which they came: only so many are admitted at a time, but
    /// proposed ones come back with a new view.
    spares: BTreeMap<Way, Spares>,
}

/// The waiting requests.
#[derive(Debug)]
pub(crate) struct Requests {
    clients: BTreeMap<ClientId, Client>,
    places: BTreeMap<Digest, (ClientId, LaneId, u64)>,
    /// Requests that are decided but not executed yet: a copy that comes now must not wait.
    decided: BTreeMap<Digest, Seq>,
    served: Option<ClientId>,
    unproposed: u32,
    bytes: u64,
    spares: BTreeMap<Way, Spares>,
    /// Nothing that waits could be proposed when last asked, and nothing has changed since.
    exhausted: bool,
    /// How fast requests are forwarded.
    pace: Pace,
    /// Requests that have come in this view and that the pace did not let be forwarded at once.
    put_off: BTreeSet<Digest>,
    limits: Constants,
    /// Planted: what cannot execute yet is kept all the same.
    #[cfg(polder_mutations)]
    pub(crate) keeps_later: bool,
}

impl Requests {
    pub(crate) fn new(constants: &Constants) -> Self {
        Self {
            clients: BTreeMap::new(),
            places: BTreeMap::new(),
            decided: BTreeMap::new(),
            served: None,
            unproposed: 0,
            bytes: 0,
            spares: BTreeMap::new(),
            exhausted: false,
            pace: Pace::default(),
            put_off: BTreeSet::new(),
            #[cfg(polder_mutations)]
            keeps_later: false,
            limits: constants.clone(),
        }
    }

    /// How many wait and are not proposed, and their bytes.
    pub(crate) fn unproposed(&self) -> (usize, u64) {
        let rows = self.spares.values().fold(self.unproposed, |sum, spares| sum.saturating_add(spares.rows));
        let bytes = self.spares.values().fold(self.bytes, |sum, spares| sum.saturating_add(spares.bytes));
        (rows as usize, bytes)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.places.len()
    }

    /// Whether any waits that would arm a deadline in slot `next`, the one after the last decided one.
    pub(crate) fn has_executable(&self, next: Seq) -> bool {
        let mut lanes = self.clients.values().flat_map(|client| client.lanes.values());
        lanes.any(|lane| lane.first_executable(next, &self.limits).is_some())
    }

    /// Whether a request of this digest would be news.
    pub(crate) fn is_known(&self, digest: &Digest) -> bool {
        self.places.contains_key(digest) || self.decided.contains_key(digest)
    }

    /// Whether a request of this digest waits.
    pub(crate) fn is_waiting(&self, digest: &Digest) -> bool {
        self.places.contains_key(digest)
    }

    /// Takes a request that came on this way, if there is room for it. `window` is its session's, as far as it is known; `next` is the slot
    /// after the last decided one, `high` the high watermark.
    pub(crate) fn admit(
        &mut self,
        request: Verified<SignedRequest>,
        way: Way,
        window: Option<SessionWindow>,
        next: Seq,
        high: Seq,
    ) -> Admission {
        self.exhausted = false;
        let digest = request.digest();
        if self.decided.contains_key(&digest) {
            return Admission::Settled;
        }
        // Signed bodies are requests; that is part of what was verified.
        let Ok(Request { client: id, call }) = request.request() else { return Admission::Settled };
        let (lane_id, ask) = match call {
            Call::Open { cut, .. } => (LaneId::Open(digest), Ask::Open { cut }),
            Call::Commands { session, ack, first, commands } => {
                let last = first.saturating_add(commands.len() as u64 - 1);
                (LaneId::Session(session), Ask::Commands { ack, first, last })
            }
            Call::Close { session } => (LaneId::Session(session), Ask::Close),
        };
        if self.places.contains_key(&digest) {
            let known = self.clients.get_mut(&id).and_then(|client| client.lanes.get_mut(&lane_id));
            known.into_iter().for_each(|lane| lane.learn(window));
            return Admission::Again;
        }
        let mut waiting = Waiting::new(request, ask);
        let lane = self.clients.get(&id).and_then(|client| client.lanes.get(&lane_id));
        let window = window.or_else(|| lane.and_then(|lane| lane.window));
        let chance = ask.chance(window, next, &self.limits);
        if chance == Chance::Never {
            return Admission::Settled;
        }
        // What cannot execute yet is not kept: an honest client asks for what its window allows, and rows for the far
        // future would fill the table for ever. A replica that lags behind that client says Busy; others take it.
        #[cfg(polder_mutations)]
        let chance = if self.keeps_later && chance == Chance::Later { Chance::Unknown } else { chance };
        if chance == Chance::Later {
            return Admission::Busy;
        }
        // Nor what names a session that no slot of the window opens: ids are positions. That is no proof that it never
        // opens, for this replica may be far behind.
        let is_far = matches!(lane_id, LaneId::Session(session) if session.0.slot > high);
        if chance == Chance::Unknown && is_far {
            return Admission::Busy;
        }
        if !self.has_room(id, waiting.bytes) {
            let is_first = lane.is_none_or(|lane| {
                lane.would_be_first(ask.order(), next, &self.limits) && (way == Way::Direct || !lane.has_spare(way))
            });
            // What a backup forwards it has armed, or might: of its session nothing need be known here.
            let may_execute = chance == Chance::Now || (chance == Chance::Unknown && way != Way::Direct);
            if !(may_execute && is_first && self.has_spare_room(id, way, waiting.bytes)) {
                return Admission::Busy;
            }
            waiting.spare = Some(way);
        }
        self.insert(id, lane_id, digest, waiting, window);
        Admission::Taken
    }

    fn has_room(&self, id: ClientId, bytes: u64) -> bool {
        let limits = &self.limits;
        let (own, own_bytes) = self.clients.get(&id).map_or((0, 0), |client| (client.unproposed, client.bytes));
        own < limits.admitted_per_client_max
            && own_bytes.saturating_add(bytes) <= limits.admitted_bytes_per_client_max
            && self.unproposed < limits.admitted_max
            && self.bytes.saturating_add(bytes) <= limits.admitted_bytes_max
    }

    /// R6: exactly the first of a session is taken regardless of the caps: of what a client sends itself, one; of what a
    /// backup forwards, one a session, for *else the client's own stream keeps out what the backups have armed, and changes
    /// views*. These rows have bounds of their own: unlike in the rule, the row holds the request whole, not its digest.
    fn has_spare_room(&self, id: ClientId, way: Way, bytes: u64) -> bool {
        let own = self.clients.get(&id).and_then(|client| client.spares.get(&way)).copied().unwrap_or_default();
        let all = self.spares.get(&way).copied().unwrap_or_default();
        let (own_rows_max, rows_max, bytes_max) = match way {
            Way::Direct => (1, self.limits.admitted_max, self.limits.admitted_bytes_max),
            Way::Forwarded(_) => (self.limits.sessions_per_client_max, FORWARDED_ROWS_MAX, FORWARDED_BYTES_MAX),
        };
        own.rows < own_rows_max
            && (own.rows == 0 || own.bytes.saturating_add(bytes) <= FORWARDED_BYTES_PER_CLIENT_MAX)
            && all.rows < rows_max
            && all.bytes.saturating_add(bytes) <= bytes_max
    }

    fn insert(
        &mut self,
        id: ClientId,
        lane_id: LaneId,
        digest: Digest,
        waiting: Waiting,
        window: Option<SessionWindow>,
    ) {
        let order = waiting.ask.order();
        self.count(id, waiting.weight(), true);
        self.places.insert(digest, (id, lane_id, order));
        let lane = self.clients.entry(id).or_default().lanes.entry(lane_id).or_default();
        lane.learn(window);
        lane.waiting.insert((order, digest), waiting);
    }

    /// Adds an unproposed request to the counts, or takes it out.
    fn count(&mut self, id: ClientId, weight: Weight, adds: bool) {
        let change = |count: u32| if adds { count.saturating_add(1) } else { count.saturating_sub(1) };
        let change_bytes = |sum: u64| {
            if adds { sum.saturating_add(weight.bytes) } else { sum.saturating_sub(weight.bytes) }
        };
        let client = self.clients.entry(id).or_default();
        if let Some(way) = weight.spare {
            Spares::change(&mut client.spares, way, weight.bytes, adds);
            Spares::change(&mut self.spares, way, weight.bytes, adds);
        } else {
            client.unproposed = change(client.unproposed);
            client.bytes = change_bytes(client.bytes);
            self.unproposed = change(self.unproposed);
            self.bytes = change_bytes(self.bytes);
        }
    }

    fn remove(&mut self, digest: &Digest) -> Option<Waiting> {
        let (id, lane_id, order) = self.places.remove(digest)?;
        let client = self.clients.get_mut(&id)?;
        let lane = client.lanes.get_mut(&lane_id)?;
        let waiting = lane.waiting.remove(&(order, *digest))?;
        if lane.waiting.is_empty() {
            client.lanes.remove(&lane_id);
        }
        if !waiting.proposed {
            self.count(id, waiting.weight(), false);
        }
        if self.clients.get(&id).is_some_and(|client| client.lanes.is_empty()) {
            self.clients.remove(&id);
        }
        Some(waiting)
    }

    /// The executor has answered a request, or says that it can never execute: it arms and is forwarded no more.
    pub(crate) fn settle(&mut self, digest: &Digest) -> Result<(), Ignored> {
        self.exhausted = false;
        self.remove(digest).map(drop).ok_or(Ignored::Unasked)
    }

    /// The requests of the next batch: one a client in turn, of each client one a lane in turn, until the batch is
    /// full. `next` is the slot that the batch is for.
    pub(crate) fn take(&mut self, next: Seq, batch_bytes_max: usize) -> Vec<SignedRequest> {
        // What the batch needs beside its requests: its time and their number.
        let mut room = (batch_bytes_max as u64).saturating_sub(32);
        let mut taken = Vec::new();
        while (self.unproposed > 0 || !self.spares.is_empty()) && !self.exhausted {
            let before = taken.len();
            let after_served = self.served.map_or(0, |served| self.clients.range(..=served).count());
            let mut turn: Vec<ClientId> = self.clients.keys().copied().collect();
            let split = after_served.min(turn.len());
            turn.rotate_left(split);
            for id in turn {
                let Some(digest) = self.next_of(id, next) else { continue };
                let Some(waiting) = self.waiting_mut(&digest) else { continue };
                if waiting.bytes > room {
                    return taken;
                }
                room -= waiting.bytes;
                taken.push(SignedRequest::clone(&waiting.request));
                self.served = Some(id);
                self.mark_proposed(&[digest]);
            }
            self.exhausted = taken.len() == before;
        }
        taken
    }

    /// The next request of a client to be proposed.
    fn next_of(&mut self, id: ClientId, next: Seq) -> Option<Digest> {
        let client = self.clients.get_mut(&id)?;
        if client.unproposed == 0 && client.spares.is_empty() {
            return None;
        }
        let limits = &self.limits;
        let ready = |(lane_id, lane): (&LaneId, &Lane)| Some((*lane_id, lane.next_unproposed(next, limits)?));
        let after = client.served.and_then(|served| {
            use core::ops::Bound::{Excluded, Unbounded};
            client.lanes.range((Excluded(served), Unbounded)).find_map(ready)
        });
        let (lane_id, digest) = after.or_else(|| client.lanes.iter().find_map(ready))?;
        client.served = Some(lane_id);
        Some(digest)
    }

    fn waiting_mut(&mut self, digest: &Digest) -> Option<&mut Waiting> {
        let (id, lane_id, order) = self.places.get(digest)?;
        self.clients.get_mut(id)?.lanes.get_mut(lane_id)?.waiting.get_mut(&(*order, *digest))
    }

    /// These are in a proposal of the current view.
    pub(crate) fn mark_proposed(&mut self, digests: &[Digest]) {
        for digest in digests {
            let Some((id, ..)) = self.places.get(digest).copied() else { continue };
            let Some(waiting) = self.waiting_mut(digest) else { continue };
            if !core::mem::replace(&mut waiting.proposed, true) {
                let weight = waiting.weight();
                self.count(id, weight, false);
            }
        }
    }

    /// A slot is decided: what it answers waits no more.
    pub(crate) fn decide(&mut self, slot: Seq, batch: &Batch, digests: &[Digest]) {
        self.exhausted = false;
        for digest in digests {
            self.remove(digest);
            self.decided.insert(*digest, slot);
        }
        if self.places.is_empty() {
            return;
        }
        // Numbers that another request has used up never execute: else a client that packs its commands twice, once
        // for the leader and once for the backups, would change views for ever.
        for request in &batch.requests {
            let Ok(Request { client, call: Call::Commands { session, first, commands, .. } }) = request.request()
            else {
                continue;
            };
            let last = first.saturating_add(commands.len() as u64 - 1);
            let lane = self.clients.get_mut(&client).and_then(|c| c.lanes.get_mut(&LaneId::Session(session)));
            let settled = lane.map(|lane| lane.decide(first, last)).unwrap_or_default();
            settled.iter().for_each(|digest| drop(self.remove(digest)));
        }
    }

    /// The executor has executed up to a slot: its copies are answered from the cache from now on.
    pub(crate) fn execute(&mut self, slot: Seq, windows: Vec<(ClientId, SessionId, Option<SessionWindow>)>) {
        self.exhausted = false;
        self.decided.retain(|_, decided| *decided > slot);
        for (client, session, window) in windows {
            let Some(client) = self.clients.get_mut(&client) else { continue };
            let Some(lane) = client.lanes.get_mut(&LaneId::Session(session)) else { continue };
            let settled: Vec<Digest> = match window {
                None => lane.waiting.keys().map(|(_, digest)| *digest).collect(),
                Some(window) => {
                    lane.learn(Some(window));
                    lane.beyond_hope(slot.next(), &self.limits)
                }
            };
            settled.iter().for_each(|digest| drop(self.remove(digest)));
        }
    }

    /// The state was replaced by that of a newer cut: which of the waiting requests it has executed is not known, and one
    /// that it has would arm for ever. Their clients ask again, as after a restart. What is decided above the cut is
    /// remembered: a copy of it that comes before it is executed would otherwise wait, and be executed elsewhere.
    pub(crate) fn forget_waiting(&mut self, cut: Seq) {
        let mut decided = core::mem::take(&mut self.decided);
        decided.retain(|_, slot| *slot > cut);
        *self = Self { decided, ..Self::new(&self.limits) };
    }

    /// A view was entered: nothing is proposed in it yet.
    pub(crate) fn enter_view(&mut self) {
        self.exhausted = false;
        self.put_off.clear();
        let proposed: Vec<(Digest, ClientId)> = self.places.iter().map(|(digest, (id, ..))| (*digest, *id)).collect();
        for (digest, id) in proposed {
            let Some(waiting) = self.waiting_mut(&digest) else { continue };
            let was_proposed = core::mem::replace(&mut waiting.proposed, false);
            waiting.forward = Forward::default();
            waiting.left_ms = None;
            let weight = waiting.weight();
            if was_proposed {
                self.count(id, weight, true);
            }
        }
    }

    /// Asserts that deadlines run only in a view that has started, and that none runs for longer than the rules say (R6).
    pub(crate) fn check_deadlines(&self, has_started: bool, now_ms: u64, timeout_ms: u64) {
        let longest_ms = self.limits.timeout_max_ms.max(timeout_ms);
        let budget_ms = longest_ms.saturating_add(longest_ms.saturating_mul(self.limits.admitted_max.into()) / 512);
        let again_ms = now_ms.saturating_add(longest_ms / 4);
        let lanes = self.clients.values().flat_map(|client| client.lanes.values());
        for row in lanes.flat_map(|lane| lane.waiting.values()) {
            assert!(row.left_ms.is_none_or(|left_ms| has_started && left_ms <= budget_ms), "a deadline is bounded");
            assert!(row.forward.due_ms.is_none_or(|due_ms| due_ms <= again_ms), "a forward is repeated");
        }
    }

    /// Asserts that the counts are those of the rows, and within their bounds (R42).
    pub(crate) fn check(&self) {
        let rows =
            || self.clients.values().flat_map(|client| client.lanes.values()).flat_map(|lane| lane.waiting.values());
        assert_eq!(rows().count(), self.places.len(), "each waiting request has one place");
        let unproposed = rows().filter(|row| !row.proposed && row.spare.is_none()).count();
        assert_eq!(unproposed, self.unproposed as usize, "unproposed requests are counted");
        let counted = self.spares.iter().map(|(way, spares)| (*way, (spares.rows, spares.bytes)));
        let mut spares = BTreeMap::new();
        for row in rows().filter(|row| !row.proposed) {
            let Some(way) = row.spare else { continue };
            let (rows, bytes): &mut (u32, u64) = spares.entry(way).or_default();
            (*rows, *bytes) = (*rows + 1, *bytes + row.bytes);
        }
        assert_eq!(spares, counted.collect(), "rows outside the caps are counted");
    }
}

#[cfg(test)]
mod tests;
