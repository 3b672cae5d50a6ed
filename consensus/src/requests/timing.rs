//! The deadlines of waiting requests, and their forwards (R6).

use alloc::vec::Vec;

use polder_types::{Digest, Seq, SignedRequest, Verified};

use super::{LaneId, Requests};
use crate::SessionWindow;
use crate::lane::{Forward, Lane, Waiting};

/// Bytes of forwards a millisecond, in the long run.
const FORWARD_BYTES_PER_MS: u64 = 16 << 10;

/// Bytes of forwards at once, but for the one that goes beyond it: a fraction of the room that the votes need, too.
const FORWARD_BYTES_AT_ONCE: u64 = 1 << 20;

/// What a forward counts at least: about what it costs to send it.
const FORWARD_BYTES_MIN: u64 = 1 << 10;

/// So many `T_max` a request waits for its session to become known.
const UNKNOWN_TIMEOUTS: u64 = 4;

/// How fast requests are forwarded: all that wait, again and again, would leave the votes no room on their way.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Bytes that were sent and that time has not made up for.
    owed: u64,
    at_ms: u64,
}

impl Pace {
    /// Whether so many bytes may be forwarded now; they count if so.
    fn may_forward(&mut self, bytes: u64, now_ms: u64) -> bool {
        let since_ms = now_ms.saturating_sub(self.at_ms);
        self.owed = self.owed.saturating_sub(since_ms.saturating_mul(FORWARD_BYTES_PER_MS));
        self.at_ms = now_ms;
        let may = self.owed < FORWARD_BYTES_AT_ONCE;
        if may {
            self.owed = self.owed.saturating_add(bytes.max(FORWARD_BYTES_MIN));
        }
        may
    }
}

/// What a tick brought to light.
#[derive(Debug, Default)]
pub(crate) struct Ticked {
    /// A request was not decided in time.
    pub(crate) overdue: bool,
    /// Requests to be forwarded to the leader now.
    pub(crate) forward: Vec<Verified<SignedRequest>>,
}

/// What a tick needs to know.
#[derive(Debug)]
pub(crate) struct Tick {
    /// What the deadlines have advanced by; nothing while they pause.
    pub(crate) elapsed_ms: u64,
    /// The logical clock.
    pub(crate) now_ms: u64,
    /// `T`.
    pub(crate) timeout_ms: u64,
    /// The slot after the last decided one.
    pub(crate) next: Seq,
    /// The last slot that is executed here.
    pub(crate) executed: Seq,
    /// Whether this replica forwards: as a backup.
    pub(crate) forwards: bool,
    /// The planted bug of timing what cannot execute, too.
    #[cfg(polder_mutations)]
    pub(crate) time_all: bool,
}

/// A request whose forward is due.
#[derive(Debug)]
struct Due {
    since_ms: u64,
    digest: Digest,
    /// Whether it arms a deadline.
    arms: bool,
}

impl Requests {
    /// The view has started: every deadline starts afresh (R6).
    pub(crate) fn start_afresh(&mut self) {
        let lanes = self.clients.values_mut().flat_map(|client| client.lanes.values_mut());
        lanes.flat_map(|lane| lane.waiting.values_mut()).for_each(|waiting| waiting.left_ms = None);
    }

    /// Whether a request that has just come is to be forwarded at once. Otherwise a tick gives it its turn: time goes on
    /// by ticks alone, and each first lets those go that are due, so none that comes goes ahead of them.
    pub(crate) fn forward_at_once(&mut self, digest: &Digest, now_ms: u64, timeout_ms: u64) -> bool {
        let Some(bytes) = self.waiting_mut(digest).map(|waiting| waiting.bytes) else { return false };
        let may = self.pace.may_forward(bytes, now_ms);
        let forward = if may { Forward::done(now_ms, timeout_ms) } else { Forward::put_off(now_ms) };
        self.waiting_mut(digest).into_iter().for_each(|waiting| waiting.forward = forward);
        if !may {
            self.put_off.insert(*digest);
        }
        may
    }

    /// Advances the deadlines of those that arm one: `T·(1 + w/512)` (R6). A forward is repeated every `T/4`, or as soon
    /// as the pace lets it.
    pub(crate) fn tick(&mut self, tick: &Tick) -> Ticked {
        let mut ticked = Ticked::default();
        let held = u64::from(self.limits.admitted_max).min(self.places.len() as u64);
        let budget_ms = tick.timeout_ms.saturating_add(tick.timeout_ms.saturating_mul(held) / 512);
        let (mut hopeless, mut due) = (Vec::new(), Vec::new());
        for (id, lane) in self.clients.values_mut().flat_map(|client| client.lanes.iter_mut()) {
            let beyond_hope = lane.beyond_hope(tick.next, &self.limits);
            let executable = lane.first_executable(tick.next, &self.limits);
            #[cfg(polder_mutations)]
            let beyond_hope = if tick.time_all { Vec::new() } else { beyond_hope };
            #[cfg(polder_mutations)]
            let executable = executable.or_else(|| lane.waiting.keys().next().filter(|_| tick.time_all).copied());
            hopeless.extend(beyond_hope);
            let unknown = lane.unknown(tick.next, &self.limits);
            let unopened = unopened(*id, lane, &unknown, tick, self.limits.timeout_max_ms);
            #[cfg(polder_mutations)]
            let unopened = if tick.time_all { Vec::new() } else { unopened };
            hopeless.extend(unopened);
            // Also what may execute is forwarded, or it waits here for as long as the leader does not know of it.
            let Some(key) = executable.or_else(|| unknown.first().copied()) else { continue };
            let Some(first) = lane.waiting.get_mut(&key) else { continue };
            let arms = executable.is_some();
            // A leader that was not asked yet has missed nothing. And what its own executor may have answered long ago
            // counts only once it was asked again, which its forward brings about: a tick after that one.
            if arms && (first.forward.is_done || !tick.forwards) {
                let left_ms = first.left_ms.map_or(budget_ms, |left_ms| left_ms.saturating_sub(tick.elapsed_ms));
                first.left_ms = Some(left_ms);
                ticked.overdue |= left_ms == 0 && !first.forward.is_put_off;
            }
            let since_ms = *first.forward.due_ms.get_or_insert(tick.now_ms);
            if since_ms <= tick.now_ms {
                due.push(Due { since_ms, digest: key.1, arms });
            }
        }
        hopeless.iter().for_each(|digest| drop(self.remove(digest)));
        if tick.forwards {
            ticked.forward = self.forward_due(due, tick, budget_ms);
        }
        ticked
    }

    /// Forwards what the pace allows, in the order in which it fell due: the first of each lane, and those behind them
    /// that were put off when they came.
    fn forward_due(&mut self, mut due: Vec<Due>, tick: &Tick, budget_ms: u64) -> Vec<Verified<SignedRequest>> {
        let mut put_off = core::mem::take(&mut self.put_off);
        for digest in put_off.iter().copied() {
            let Some(forward) = self.waiting_mut(&digest).map(|waiting| waiting.forward) else { continue };
            due.push(Due { since_ms: forward.due_ms.unwrap_or(tick.now_ms), digest, arms: false });
        }
        // Stable: the first of a lane stays in front of itself as one that was put off.
        due.sort_by_key(|due| due.since_ms);
        let mut forward = Vec::new();
        let mut may = true;
        for Due { digest, arms, .. } in due {
            let due = |waiting: &&mut Waiting| waiting.forward.due_ms.is_none_or(|due_ms| due_ms <= tick.now_ms);
            let Some(bytes) = self.waiting_mut(&digest).filter(due).map(|waiting| waiting.bytes) else { continue };
            may = may && self.pace.may_forward(bytes, tick.now_ms);
            let Some(waiting) = self.waiting_mut(&digest) else { continue };
            if !may {
                waiting.forward.is_put_off = true;
                continue;
            }
            waiting.forward = Forward::done(tick.now_ms, tick.timeout_ms);
            if arms {
                // What is armed now has run for none of this tick.
                waiting.left_ms.get_or_insert(budget_ms);
            }
            forward.push(waiting.request.clone());
        }
        put_off.retain(|digest| self.waiting_mut(digest).is_some_and(|waiting| !waiting.forward.is_done));
        self.put_off = put_off;
        forward
    }
}

/// Of the requests of a lane whose session is not known, those that wait no more: the slot that its id names was executed
/// and has not opened it, or they waited for long.
fn unopened(id: LaneId, lane: &mut Lane, unknown: &[(u64, Digest)], tick: &Tick, timeout_max_ms: u64) -> Vec<Digest> {
    let has_passed = matches!(id, LaneId::Session(session) if session.0.slot <= tick.executed);
    // Only of a session that was not open when it was asked for; of others nothing was heard, whether open or not.
    let is_unopened = has_passed && matches!(lane.window, Some(SessionWindow { high: 0, .. }));
    let until_ms = timeout_max_ms.saturating_mul(UNKNOWN_TIMEOUTS);
    let mut is_gone = |key: &(u64, Digest)| {
        let Some(waiting) = lane.waiting.get_mut(key) else { return false };
        let since_ms = *waiting.unknown_ms.get_or_insert(tick.now_ms);
        is_unopened || tick.now_ms.saturating_sub(since_ms) >= until_ms
    };
    unknown.iter().filter(|key| is_gone(key)).map(|(_, digest)| *digest).collect()
}
