//! Somebody who sends what is signed well and can never execute, or not now: it must arm nothing and change nothing
//! (R6: a request that cannot execute must not arm anything, or one client changes views for ever).

use polder_types::{
    Blob, Call, ClientId, ClusterId, Position, Request, Seq, SessionId, SignedRequest, SigningKey, Verified,
};

use crate::random::{Purpose, Random};

/// A client without a session of its own.
#[derive(Debug)]
pub struct Troublemaker {
    key: SigningKey,
    cluster: ClusterId,
    random: Random,
}

impl Troublemaker {
    /// The troublemaker of a run.
    #[must_use]
    pub fn new(seed: u64, cluster: ClusterId) -> Self {
        let mut random = Random::new(seed ^ 0x5eed, Purpose::Workload);
        let key = SigningKey::from_seed(&random.bytes());
        Self { key, cluster, random }
    }

    /// A request: under a session of others, under one that no slot opened yet, an OPEN that comes too late or too
    /// early, the closing of what is not its own. `highest` is the highest slot so far.
    pub fn make(&mut self, sessions: &[SessionId], highest: Seq) -> Option<Verified<SignedRequest>> {
        let random = &mut self.random;
        let foreign = random.pick(sessions).copied().unwrap_or_default();
        let ahead = Position { slot: highest.plus(random.range(1, 1_000_000)), index: 0 };
        let command = Blob::copy(&random.bytes::<8>());
        let commands =
            |session: SessionId| Call::Commands { session, ack: 0, first: 1, commands: vec![command.clone()] };
        let call = match random.range(0, 4) {
            0 => commands(foreign),
            1 => commands(SessionId(ahead)),
            2 => Call::Open { nonce: random.bytes(), cut: Seq(1) },
            3 => Call::Open { nonce: random.bytes(), cut: highest.plus(1_000_000) },
            _ => Call::Close { session: foreign },
        };
        let request = Request { client: ClientId(self.key.public()), call };
        request.sign(self.cluster, &self.key).verify(self.cluster).ok()
    }
}
