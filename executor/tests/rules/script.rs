//! A service whose commands say what they do, misbehaviour included.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use polder_executor::{Access, Footprint, Service, Span};
use polder_types::{Application, Blob, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Declares {
    Reads,
    Writes,
    Shrinks,
    /// So many keys.
    Keys(u32),
}

/// What a command does, one after the other, with the span that it declares: all keys that start with `prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) declares: Declares,
    pub(crate) prefix: Vec<u8>,
    pub(crate) does: Vec<Does>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Does {
    Get(Vec<u8>),
    Put(Vec<u8>, Blob),
    Append(Vec<u8>, Blob),
    Delete(Vec<u8>),
    Range {
        from: Vec<u8>,
        to: Option<Vec<u8>>,
        entries_max: u32,
        bytes_max: u32,
    },
    Now,
    Panic,
    /// Reads the key for ever.
    ReadForEver(Vec<u8>),
    /// Does this and catches what comes of it.
    Catch(Box<Does>),
    /// Answers so many bytes.
    Answer(u32),
}

/// What each step saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Saw {
    Value(Option<Blob>),
    Version(u64),
    Keys(Vec<Blob>, Option<Blob>),
    Time(Timestamp),
    Bytes(Blob),
    Caught,
}

#[derive(Debug)]
pub(crate) struct Scripted;

impl Application for Scripted {
    type Command = Script;
    type Reply = Vec<Saw>;
}

impl Service for Scripted {
    fn footprint(&self, script: &Script) -> Footprint {
        let spans = vec![Span::Prefix(script.prefix.clone())];
        match script.declares {
            Declares::Reads => Footprint::reads(spans),
            Declares::Writes => Footprint::writes(spans),
            Declares::Shrinks => Footprint::shrinks(spans),
            Declares::Keys(keys) => {
                Footprint::writes((0..keys).map(|key| Span::Key(key.to_be_bytes().to_vec())).collect())
            }
        }
    }

    fn execute(&self, at: Timestamp, script: &Script, state: &mut Access<'_>) -> Vec<Saw> {
        assert_eq!(at, state.at());
        script.does.iter().map(|does| step(does, state)).collect()
    }
}

fn step(does: &Does, state: &mut Access<'_>) -> Saw {
    match does {
        Does::Get(key) => Saw::Value(state.get(key).map(|entry| entry.value)),
        Does::Put(key, value) => Saw::Version(state.put(key, value.clone()).version),
        Does::Append(key, more) => {
            let before = state.get(key).map(|entry| entry.value).unwrap_or_default();
            Saw::Version(state.put(key, Blob::from([&before[..], &more[..]].concat())).version)
        }
        Does::Delete(key) => Saw::Value(state.delete(key).map(|entry| entry.value)),
        Does::Range { from, to, entries_max, bytes_max } => {
            let page = state.range(from, to.as_deref(), *entries_max as usize, *bytes_max as usize);
            Saw::Keys(page.entries.into_iter().map(|(key, _)| key).collect(), page.next)
        }
        Does::Now => Saw::Time(state.at()),
        // As a panic, but without its lines in the tests' output.
        Does::Panic => resume_unwind(Box::new("as the script says")),
        Does::ReadForEver(key) => loop {
            state.get(key);
        },
        Does::Catch(does) => match catch_unwind(AssertUnwindSafe(|| step(does, state))) {
            Ok(saw) => saw,
            Err(_) => Saw::Caught,
        },
        Does::Answer(bytes) => Saw::Bytes(Blob::from(vec![7; *bytes as usize])),
    }
}

pub(crate) fn writes(does: Vec<Does>) -> Script {
    Script { declares: Declares::Writes, prefix: vec![], does }
}

pub(crate) fn reads(does: Vec<Does>) -> Script {
    Script { declares: Declares::Reads, prefix: vec![], does }
}

pub(crate) fn shrinks(does: Vec<Does>) -> Script {
    Script { declares: Declares::Shrinks, prefix: vec![], does }
}

pub(crate) fn get(key: &str) -> Does {
    Does::Get(key.as_bytes().to_vec())
}

pub(crate) fn put(key: &str, value: &str) -> Does {
    Does::Put(key.as_bytes().to_vec(), Blob::copy(value.as_bytes()))
}

pub(crate) fn append(key: &str, more: &str) -> Does {
    Does::Append(key.as_bytes().to_vec(), Blob::copy(more.as_bytes()))
}

pub(crate) fn delete(key: &str) -> Does {
    Does::Delete(key.as_bytes().to_vec())
}
