//! The service that the simulated replicas run: lists of ids under a small key space. What it answers shows clients,
//! and so the checkers, which commands were executed, how often and in which order.

use polder_executor::{Access, Footprint, Service, Span};
use polder_types::{Application, Blob, Timestamp, Wire as _};

use crate::history::{Command, Reply};

/// Lists of ids.
#[derive(Debug, Default)]
pub struct Lists;

impl Application for Lists {
    type Command = Command;
    type Reply = Reply;
}

impl Service for Lists {
    fn footprint(&self, command: &Command) -> Footprint {
        let spans = |keys: &[u64]| keys.iter().map(|key| Span::Key(name(*key))).collect();
        match *command {
            Command::Append { key, .. } => Footprint { reads: spans(&[key]), writes: spans(&[key]), shrinking: false },
            Command::AppendBoth { first, second, .. } => {
                Footprint { reads: spans(&[first, second]), writes: spans(&[first, second]), shrinking: false }
            }
            Command::Read { key } => Footprint { reads: spans(&[key]), writes: Vec::new(), shrinking: false },
            Command::Panic { key } => Footprint { reads: Vec::new(), writes: spans(&[key]), shrinking: false },
            Command::Undeclared { key } => {
                Footprint { reads: Vec::new(), writes: spans(&[key + 1_000]), shrinking: false }
            }
        }
    }

    fn execute(&self, _at: Timestamp, command: &Command, state: &mut Access<'_>) -> Reply {
        match *command {
            Command::Append { key, id } => Reply::Appended(vec![append(state, key, id)]),
            Command::AppendBoth { first, second, id } => {
                let at_first = append(state, first, id);
                let at_second = if first == second { at_first } else { append(state, second, id) };
                Reply::Appended(vec![at_first, at_second])
            }
            Command::Read { key } => Reply::List(list(state, key)),
            Command::Panic { key } => {
                state.put(&name(key), Blob::copy(&[0xff]));
                misbehave()
            }
            Command::Undeclared { key } => {
                state.put(&name(key), Blob::copy(&[0xff]));
                Reply::List(Vec::new())
            }
        }
    }
}

#[allow(clippy::panic, reason = "a service that panics is what this command is for (R28)")]
fn misbehave() -> Reply {
    panic!("asked for by a client")
}

fn name(key: u64) -> Vec<u8> {
    format!("k{key}").into_bytes()
}

fn list(state: &mut Access<'_>, key: u64) -> Vec<u64> {
    state.get(&name(key)).and_then(|entry| Vec::from_wire(&entry.value).ok()).unwrap_or_default()
}

fn append(state: &mut Access<'_>, key: u64, id: u64) -> u64 {
    let mut ids = list(state, key);
    let place = ids.len() as u64;
    ids.push(id);
    state.put(&name(key), Blob::from(ids.to_wire()));
    place
}
