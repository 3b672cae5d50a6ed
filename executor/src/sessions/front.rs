//! Decides, in slot order, what executes (R26).

use std::collections::{BTreeMap, BTreeSet};

use polder_types::{ClientAccess, ClientId, Constants, Digest, Failure, Position, Role, Seq, SessionId};

use super::{Meta, Opened, Outcome, Row, Rows};

/// So many OPENs are remembered at most for each session that may be open: of all keys together, and of one key, which
/// may open one after the other and close them.
const OPENS_PER_SESSION: usize = 4;
const OPENS_PER_OWN_SESSION: usize = 32;

/// So many OPENs are forgotten in a slot at most (R24): what is left goes in the next ones.
const FORGOTTEN_MAX: usize = 1_024;

/// Sessions are ended in a slot until this many records of theirs have gone, one at least (R27).
const ENDED_RECORDS_MAX: usize = 1_024;

/// What decides whether a command executes: the sessions with their claims, and the remembered OPENs. A function of the
/// ordered requests alone; what the committer has written by now never enters.
#[derive(Debug)]
pub(crate) struct Front {
    roles: BTreeMap<ClientId, Role>,
    role_of_others: Option<Role>,
    sessions_per_client_max: usize,
    sessions_max: usize,
    expiry_ms: u64,
    window: u64,
    interval_slots: u64,
    fresh_slots: u64,
    opens_per_client_max: usize,
    opens_max: usize,

    sessions: BTreeMap<SessionId, Session>,
    by_client: BTreeMap<ClientId, BTreeSet<SessionId>>,
    /// Every session once, by a use of it ([`Session::noted_ms`]) that was its last when it was noted here.
    by_use: BTreeSet<(u64, SessionId)>,
    opens: BTreeMap<Digest, Opened>,
    opens_by_end: BTreeSet<(Seq, Digest)>,
    opens_by_client: BTreeMap<ClientId, usize>,
    rows: Rows,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientId,
    /// Numbers up to this one are acknowledged.
    pub(crate) ack: u64,
    /// The session clock when it was used last.
    pub(crate) used_ms: u64,
    /// Under which use it is in [`Front::by_use`]: at or before its last one, so that a use costs nothing there.
    noted_ms: u64,
    claims: BTreeMap<u64, Claim>,
    window: u64,
    /// So many numbers above `ack` are its own ([`Rows`]).
    own: u64,
    /// How many of its claims are beyond those.
    shared: u64,
}

/// A number that a command has taken.
#[derive(Clone, Copy, Debug)]
struct Claim {
    command: Digest,
    read_only: bool,
}

/// What the front says of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It does not execute, and takes no number.
    Refused(Failure),
    /// It executes, if the service takes it for a command.
    Fresh,
    /// It is a copy of a read-only one: it is read again, at this place in the order.
    ReadAgain,
    /// It is a copy: answered as the first one was.
    Copy,
}

/// What the front says of an OPEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It opens no session.
    Refused(Failure),
    /// It is a copy of one that opened this session.
    Copy(SessionId),
    /// It opens the session of its position, after the client's longest-unused one is closed if it has too many.
    Opens { evicted: Option<SessionId>, until: Seq },
}

impl Front {
    pub(crate) fn new(constants: &Constants, access: &ClientAccess) -> Self {
        Self {
            // The first line of a key counts, as it does in `ClientAccess::role`.
            roles: access.keys.iter().rev().map(|listed| (ClientId(listed.key), listed.role)).collect(),
            role_of_others: access.open.then_some(Role::Write),
            sessions_per_client_max: constants.sessions_per_client_max as usize,
            sessions_max: constants.sessions_max as usize,
            expiry_ms: constants.session_expiry_ms,
            window: constants.session_window,
            interval_slots: constants.interval_slots.max(1),
            fresh_slots: constants.open_fresh_cuts.saturating_mul(constants.interval_slots),
            opens_per_client_max: (constants.sessions_per_client_max as usize).saturating_mul(OPENS_PER_OWN_SESSION),
            opens_max: (constants.sessions_max as usize).saturating_mul(OPENS_PER_SESSION),
            sessions: BTreeMap::new(),
            by_client: BTreeMap::new(),
            by_use: BTreeSet::new(),
            opens: BTreeMap::new(),
            opens_by_end: BTreeSet::new(),
            opens_by_client: BTreeMap::new(),
            rows: Rows::new(constants),
        }
    }

    /// Takes in a session from the session partitions, as after a restart.
    pub(crate) fn restore_session(&mut self, session: SessionId, meta: &Meta) {
        self.insert(session, meta.client, meta.ack, meta.used_ms);
    }

    /// Takes in what became of a number; false when its session was not taken in before.
    pub(crate) fn restore_row(&mut self, session: SessionId, number: u64, row: &Row) -> bool {
        let Some(session) = self.sessions.get_mut(&session) else { return false };
        session.claim(number, row.command, row.outcome == Outcome::Read, &mut self.rows);
        true
    }

    /// Takes in a remembered OPEN.
    pub(crate) fn restore_open(&mut self, request: Digest, opened: Opened) {
        self.opens.insert(request, opened);
        self.opens_by_end.insert((opened.until, request));
        let of_client = self.opens_by_client.entry(opened.client).or_default();
        *of_client = of_client.saturating_add(1);
    }

    /// Ends the sessions that expire by this session clock (R27), the longest unused first, and returns them with their
    /// clients. Not more in a slot than can be deleted in passing: the others are ended in the next ones, and one that
    /// is used meanwhile goes on.
    pub(crate) fn expire(&mut self, clock_ms: u64) -> Vec<(SessionId, ClientId)> {
        let mut ended = Vec::new();
        let mut records = 0;
        while let Some(&(noted_ms, id)) = self.by_use.first()
            && clock_ms.saturating_sub(noted_ms) > self.expiry_ms
            && records < ENDED_RECORDS_MAX
        {
            let Some(session) = self.sessions.get_mut(&id) else {
                self.by_use.pop_first();
                continue;
            };
            // In order of the last uses, not of those noted: a restored front noted others, and must end the same ones.
            if session.used_ms > noted_ms {
                session.noted_ms = session.used_ms;
                self.by_use.pop_first();
                self.by_use.insert((session.noted_ms, id));
                continue;
            }
            records = session.claims.len().saturating_add(records).saturating_add(1);
            ended.push((id, session.client));
            self.remove(id);
        }
        ended
    }

    /// Forgets OPENs whose copies are stale at this slot (R24), the longest stale first, and returns their digests.
    pub(crate) fn forget_opens(&mut self, slot: Seq) -> Vec<Digest> {
        let mut forgotten = Vec::new();
        while forgotten.len() < FORGOTTEN_MAX
            && let Some(&(until, request)) = self.opens_by_end.first().filter(|(until, _)| *until < slot)
        {
            self.opens_by_end.remove(&(until, request));
            if let Some(opened) = self.opens.remove(&request)
                && let Some(of_client) = self.opens_by_client.get_mut(&opened.client)
            {
                *of_client = of_client.saturating_sub(1);
                if *of_client == 0 {
                    self.opens_by_client.remove(&opened.client);
                }
            }
            forgotten.push(request);
        }
        forgotten
    }

    /// R24: what an OPEN at this position does. The new session is in the table when this returns.
    pub(crate) fn open(&mut self, at: Position, client: ClientId, request: Digest, cut: Seq, clock_ms: u64) -> Opening {
        if let Some(opened) = self.opens.get(&request) {
            return Opening::Copy(opened.session);
        }
        if self.role(client).is_none() {
            return Opening::Refused(Failure::NotPermitted);
        }
        if !self.is_fresh(cut, at.slot) {
            return Opening::Refused(Failure::StaleOpen);
        }
        let own_opens = self.opens_by_client.get(&client).copied().unwrap_or_default();
        if own_opens >= self.opens_per_client_max || self.opens.len() >= self.opens_max {
            return Opening::Refused(Failure::TooManySessions);
        }
        let own = self.by_client.get(&client).filter(|own| own.len() >= self.sessions_per_client_max);
        let longest_unused = |session: &&SessionId| (self.sessions.get(session).map(|own| own.used_ms), **session);
        let evicted = own.and_then(|own| own.iter().min_by_key(longest_unused)).copied();
        match evicted {
            Some(session) => self.remove(session),
            None if self.sessions.len() >= self.sessions_max => return Opening::Refused(Failure::TooManySessions),
            None => {}
        }
        self.insert(SessionId(at), client, 0, clock_ms);
        let until = cut.plus(self.fresh_slots);
        self.restore_open(request, Opened { session: SessionId(at), client, until });
        Opening::Opens { evicted, until }
    }

    /// Ends a session of this client; false when there is none.
    pub(crate) fn close(&mut self, client: ClientId, session: SessionId) -> bool {
        let own = self.session(client, session).is_some();
        if own {
            self.remove(session);
        }
        own
    }

    /// A session of this client, to use it, and what it may take rows from.
    pub(crate) fn session_mut(&mut self, client: ClientId, session: SessionId) -> Option<(&mut Session, &mut Rows)> {
        let session = self.sessions.get_mut(&session).filter(|session| session.client == client)?;
        Some((session, &mut self.rows))
    }

    /// A session of this client.
    pub(crate) fn session(&self, client: ClientId, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session).filter(|session| session.client == client)
    }

    /// A session, whosever it is.
    pub(crate) fn any_session(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// The session that an OPEN has opened.
    pub(crate) fn opened(&self, request: &Digest) -> Option<SessionId> {
        self.opens.get(request).map(|opened| opened.session)
    }

    /// What a client may do; none when it may not even connect.
    pub(crate) fn role(&self, client: ClientId) -> Option<Role> {
        self.roles.get(&client).copied().or(self.role_of_others)
    }

    /// Whether an OPEN that names this cut is fresh at this slot (R24): arithmetic alone.
    pub(crate) fn is_fresh(&self, cut: Seq, slot: Seq) -> bool {
        self.may_be_fresh(cut, slot) && cut < slot
    }

    /// Whether it is fresh at this slot or may be at a later one.
    pub(crate) fn may_be_fresh(&self, cut: Seq, slot: Seq) -> bool {
        cut.0.is_multiple_of(self.interval_slots) && slot <= cut.plus(self.fresh_slots)
    }

    /// Open sessions.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn insert(&mut self, session: SessionId, client: ClientId, ack: u64, used_ms: u64) {
        let (window, own, claims) = (self.window, self.rows.own(), BTreeMap::new());
        let opened = Session { client, ack, used_ms, noted_ms: used_ms, claims, window, own, shared: 0 };
        self.sessions.insert(session, opened);
        self.by_client.entry(client).or_default().insert(session);
        self.by_use.insert((used_ms, session));
    }

    fn remove(&mut self, session: SessionId) {
        let Some(Session { client, noted_ms, shared, .. }) = self.sessions.remove(&session) else { return };
        self.rows.give_back(client, shared);
        self.by_use.remove(&(noted_ms, session));
        if let Some(own) = self.by_client.get_mut(&client) {
            own.remove(&session);
            if own.is_empty() {
                self.by_client.remove(&client);
            }
        }
    }
}

impl Session {
    /// Takes in an acknowledgement (R25); it never goes back.
    pub(crate) fn acknowledge(&mut self, ack: u64, rows: &mut Rows) {
        use std::ops::Bound::{Excluded, Included};
        let (own_before, ack) = (self.own_high(), self.ack.max(ack));
        self.ack = ack;
        let own_now = self.own_high();
        if own_now > own_before {
            let moved = self.claims.range((Excluded(own_before), Included(own_now))).count() as u64;
            self.shared = self.shared.saturating_sub(moved);
            rows.give_back(self.client, moved);
        }
        while self.claims.first_key_value().is_some_and(|(number, _)| *number <= ack) {
            self.claims.pop_first();
        }
    }

    /// The acknowledged number and the highest that would execute now.
    pub(crate) fn window(&self) -> (u64, u64) {
        (self.ack, self.ack.saturating_add(self.window))
    }

    /// The highest number that is its own, whatever others hold.
    fn own_high(&self) -> u64 {
        self.ack.saturating_add(self.own)
    }

    /// Whether there is room for a row of this number (R25).
    pub(crate) fn has_room(&self, number: u64, rows: &Rows) -> bool {
        number <= self.own_high() || rows.has_room(self.client)
    }

    /// R25: what a command under this number is, if there is room for it.
    pub(crate) fn judge(&self, number: u64, command: &Digest) -> Verdict {
        let (ack, high) = self.window();
        match self.claims.get(&number) {
            _ if number <= ack || number > high => Verdict::Refused(Failure::OutsideWindow),
            None => Verdict::Fresh,
            Some(claim) if claim.command != *command => Verdict::Refused(Failure::NumberReused),
            Some(claim) if claim.read_only => Verdict::ReadAgain,
            Some(_) => Verdict::Copy,
        }
    }

    /// Takes a number for a command.
    pub(crate) fn claim(&mut self, number: u64, command: Digest, read_only: bool, rows: &mut Rows) {
        if number > self.own_high() {
            self.shared = self.shared.saturating_add(1);
            rows.take(self.client);
        }
        self.claims.insert(number, Claim { command, read_only });
    }
}
