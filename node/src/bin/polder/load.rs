//! The engine of `import`: chunks of records in, each executed once.
//!
//! Chunk `i` is the command with number `i` of one session. A state holds that session and a place before which all is
//! acknowledged. Whoever goes on from there sends the same commands under the same numbers, so that each is executed
//! once, whatever was lost in between. Two chunks that share a key are never in flight together: a later record wins.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use polder_client::{ResumableClient, SessionState};
use polder_kv::{Command, Kv, KvError, Operation, Reply, Transaction};
use polder_node::files::{Readers, write_durably};
use polder_types::Digest;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::records::{Chunk, Chunks, Form, Place, Record};

/// Chunks that wait for their answers at once.
const CHUNKS_IN_FLIGHT_MAX: usize = 128;
/// Chunks that are read ahead.
const CHUNKS_READ_AHEAD: usize = 64;
/// The state is stored so often while something is acknowledged.
const STORE_EVERY: Duration = Duration::from_millis(500);
/// A chunk without an answer for so long ends the import; it can go on later.
const PATIENCE: Duration = Duration::from_secs(600);

/// What an import needs to go on: its session, and the place before which all is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    session: SessionState,
    form: Form,
    records: u64,
    bytes: u64,
    chain: Digest,
}

impl State {
    /// At the start of an input, in a session of which no number was used.
    pub(crate) fn new(session: SessionState, form: Form) -> Self {
        Self { session, form, records: 0, bytes: 0, chain: Digest::ZERO }
    }

    /// The state in a file; none when there is no file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let words = || format!("{}: no state of an import; remove it to import from the start", path.display());
                Ok(Some(serde_json::from_slice(&bytes).with_context(words)?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Stores the state durably.
    pub(crate) fn store(&self, path: &Path) -> anyhow::Result<()> {
        Ok(write_durably(path, &serde_json::to_vec(self)?, Readers::Owner)?)
    }

    /// The session to resume.
    pub(crate) fn session(&self) -> SessionState {
        self.session
    }

    /// What the lines of the input mean: part of what the numbers mean.
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// The place before which all is acknowledged.
    pub(crate) fn place(&self) -> Place {
        Place { records: self.records, bytes: self.bytes, chain: self.chain }
    }

    fn advanced(mut self, number: u64, place: Place) -> Self {
        self.session.acknowledged = number;
        Self { records: place.records, bytes: place.bytes, chain: place.chain, ..self }
    }
}

/// Another input than the one that an import was begun with.
#[derive(Debug, thiserror::Error)]
#[error("the input is not the one that was begun: {0}")]
pub(crate) struct OtherInput(String);

/// Reads an input on a thread of its own, from its start; passes over what `known` has acknowledged, and checks that it
/// is the same.
pub(crate) fn read_ahead(
    input: impl BufRead + Send + 'static,
    form: Form,
    known: Option<State>,
) -> mpsc::Receiver<anyhow::Result<Chunk>> {
    let (done, place) = known.map_or((0, Place::default()), |state| (state.session.acknowledged, state.place()));
    let (sender, receiver) = mpsc::channel(CHUNKS_READ_AHEAD);
    std::thread::spawn(move || {
        let mut chunks = Chunks::new(input, form);
        // A receiver that is gone wants no more.
        while let Some(next) = next_after(&mut chunks, done, place).transpose() {
            let failed = next.is_err();
            if sender.blocking_send(next).is_err() || failed {
                break;
            }
        }
    });
    receiver
}

/// The next chunk after the first `done`, which end at `place`.
fn next_after(chunks: &mut Chunks<impl BufRead>, done: u64, place: Place) -> anyhow::Result<Option<Chunk>> {
    while let Some(chunk) = chunks.next()? {
        if chunk.number == done && chunk.after != place {
            return Err(OtherInput(format!("its first {} records differ", place.records)).into());
        }
        if chunk.number > done {
            return Ok(Some(chunk));
        }
    }
    if chunks.number() < done {
        return Err(OtherInput(format!("it has less than the {} records imported before", place.records)).into());
    }
    Ok(None)
}

/// The chunks under way.
struct Flight {
    calls: JoinSet<anyhow::Result<Chunk>>,
    keys: BTreeSet<Vec<u8>>,
    /// What is answered beyond the first that is not, and the place after it.
    answered: BTreeMap<u64, Place>,
    /// All up to this one is answered.
    settled: (u64, Place),
}

impl Flight {
    fn admits(&self, chunk: &Chunk) -> bool {
        self.calls.len() < CHUNKS_IN_FLIGHT_MAX && chunk.records.iter().all(|record| !self.keys.contains(&record.key))
    }

    fn start(&mut self, client: &ResumableClient<Kv>, chunk: Chunk) {
        self.keys.extend(chunk.records.iter().map(|record| record.key.clone()));
        let client = client.clone();
        self.calls.spawn(async move {
            let start = Instant::now();
            let command = command(&chunk.records)?;
            loop {
                match client.call(chunk.number, &command).await {
                    Ok(Reply::Refused(error)) => return Err(error.into()),
                    Ok(_) => return Ok(chunk),
                    // The number makes it safe to ask again.
                    Err(error) if error.is_timeout() && start.elapsed() < PATIENCE => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
    }

    fn finish(&mut self, chunk: &Chunk) {
        for record in &chunk.records {
            self.keys.remove(&record.key);
        }
        self.answered.insert(chunk.number, chunk.after);
        while let Some(place) = self.answered.remove(&(self.settled.0 + 1)) {
            self.settled = (self.settled.0 + 1, place);
        }
    }
}

fn command(records: &[Record]) -> Result<Command, KvError> {
    let puts = records.iter().map(|record| Operation::put(&record.key, &record.value));
    Command::transaction(Transaction { then: puts.collect::<Result<_, _>>()?, ..Transaction::default() })
}

/// Has the chunk `first` and all after it executed, storing the state at `path` as it goes and telling `progress` of every place reached.
///
/// # Errors
///
/// When the input is bad, a command is rejected, or its outcome stays unknown. What was answered by then is stored: the
/// same import goes on from there.
pub(crate) async fn load(
    client: &ResumableClient<Kv>,
    mut state: State,
    path: &Path,
    first: Option<Chunk>,
    mut chunks: mpsc::Receiver<anyhow::Result<Chunk>>,
    progress: &(dyn Fn(Place) + Sync),
) -> anyhow::Result<State> {
    let mut flight = Flight {
        calls: JoinSet::new(),
        keys: BTreeSet::new(),
        answered: BTreeMap::new(),
        settled: (state.session.acknowledged, state.place()),
    };
    let (mut next, mut failure, mut ended) = (first, None::<anyhow::Error>, false);
    let mut stored_at = Instant::now();
    loop {
        let window = state.session.acknowledged + client.window();
        if failure.is_some() {
            next = None;
        }
        if let Some(chunk) = next.take_if(|chunk| chunk.number <= window && flight.admits(chunk)) {
            flight.start(client, chunk);
            continue;
        }
        let is_over = ended && next.is_none() && flight.calls.is_empty();
        let is_blocked = next.as_ref().is_some_and(|chunk| chunk.number > window);
        let has_news = flight.settled.0 > state.session.acknowledged;
        if has_news && (is_over || is_blocked || stored_at.elapsed() >= STORE_EVERY) {
            state = state.advanced(flight.settled.0, flight.settled.1);
            state.store(path)?;
            client.acknowledge(state.session.acknowledged);
            stored_at = Instant::now();
            continue;
        }
        if is_over {
            return failure.map_or(Ok(state), Err);
        }
        tokio::select! {
            biased;
            Some(call) = flight.calls.join_next() => match call? {
                Ok(chunk) => {
                    flight.finish(&chunk);
                    progress(flight.settled.1);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                    ended = true;
                }
            },
            chunk = chunks.recv(), if next.is_none() && !ended => match chunk {
                Some(Ok(chunk)) => next = Some(chunk),
                Some(Err(error)) => {
                    failure.get_or_insert(error);
                    ended = true;
                }
                None => ended = true,
            },
            () = tokio::time::sleep(STORE_EVERY), if has_news => {}
        }
    }
}

/// Where the state of an import is kept unless told: beside its input.
pub(crate) fn default_state_path(input: &Path) -> PathBuf {
    let mut path = input.as_os_str().to_owned();
    path.push(".polder-import");
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use polder_types::{ClientId, ClusterId, PublicKey, SessionId};

    use super::*;

    fn state() -> State {
        let (cluster, client) = (ClusterId(Digest::ZERO), ClientId(PublicKey([7; 32])));
        State::new(SessionState { cluster, client, session: SessionId::default(), acknowledged: 0 }, Form::Tsv(1))
    }

    fn records(range: std::ops::Range<u32>) -> String {
        range.map(|number| format!("key{number}\tvalue\n")).collect()
    }

    fn chunks_after(input: &str, state: &State) -> anyhow::Result<Vec<Chunk>> {
        let mut chunks = Chunks::new(input.as_bytes(), state.form);
        std::iter::from_fn(|| next_after(&mut chunks, state.session.acknowledged, state.place()).transpose()).collect()
    }

    fn flight() -> Flight {
        Flight {
            calls: JoinSet::new(),
            keys: BTreeSet::new(),
            answered: BTreeMap::new(),
            settled: (0, Place::default()),
        }
    }

    #[test]
    fn a_resumed_import_sends_the_rest_under_the_same_numbers() -> anyhow::Result<()> {
        let input = records(0..100);
        let all = chunks_after(&input, &state())?;
        let done = all.get(2).map(|chunk| state().advanced(chunk.number, chunk.after)).context("three chunks")?;
        assert_eq!(chunks_after(&input, &done)?, all[3..]);
        Ok(())
    }

    #[test]
    fn another_input_or_a_shorter_one_is_refused() -> anyhow::Result<()> {
        let all = chunks_after(&records(0..100), &state())?;
        let done = all.get(2).map(|chunk| state().advanced(chunk.number, chunk.after)).context("three chunks")?;
        for other in [records(1..101), records(0..20), String::new()] {
            let error = chunks_after(&other, &done).map_err(|error| error.to_string());
            assert!(error.is_err_and(|words| words.starts_with("the input is not the one that was begun")));
        }
        Ok(())
    }

    /// Else two records of one key could be ordered the wrong way round.
    #[test]
    fn chunks_that_share_a_key_are_not_in_flight_together() -> anyhow::Result<()> {
        let mut flight = flight();
        let chunks = chunks_after(&format!("{}key3\tlater\n", records(0..16)), &state())?;
        let [first, second] = &chunks[..] else { bail!("{} chunks", chunks.len()) };
        assert!(flight.admits(first));
        flight.keys.extend(first.records.iter().map(|record| record.key.clone()));
        assert!(!flight.admits(second));
        flight.finish(first);
        assert!(flight.admits(second));
        Ok(())
    }

    /// What is stored as acknowledged has no gap in it, whatever the order of the answers.
    #[test]
    fn only_an_unbroken_run_of_answers_is_settled() -> anyhow::Result<()> {
        let mut flight = flight();
        let chunks = chunks_after(&records(0..64), &state())?;
        for (at, settled) in [(1, 0), (3, 0), (0, 2), (2, 4)] {
            flight.finish(&chunks[at]);
            assert_eq!(flight.settled.0, settled);
        }
        assert_eq!(flight.settled.1.records, 64);
        Ok(())
    }

    #[test]
    fn a_stored_state_is_read_back_and_anything_else_is_refused() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = default_state_path(&folder.path().join("records.tsv"));
        assert_eq!(State::read(&path)?, None);
        state().store(&path)?;
        assert_eq!(State::read(&path)?, Some(state()));
        std::fs::write(&path, "{}")?;
        assert!(State::read(&path).is_err());
        Ok(())
    }
}
