//! Hostile bytes for what only the binary reads: rows of an import, and the state file of one. Structure-aware: rows are
//! printed from records and then changed, so that most of what comes out is still rows. `POLDER_FUZZ_TIMES` makes it as
//! many times as many; the rest of what decodes is fuzzed by `./run fuzz`.

use std::io::BufReader;

use polder_client::SessionState;
use polder_types::{ClientId, ClusterId, Digest, Position, Seq, SessionId, SigningKey};

use crate::load::State;
use crate::random::Random;
use crate::records::{Chunk, Chunks, Form, Format, Record};

type Outcome = anyhow::Result<()>;

/// Inputs of a test.
fn inputs(count: u64) -> u64 {
    let times = std::env::var("POLDER_FUZZ_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    count * times
}

/// Bytes that mean something to a parser of rows or of JSON, and some that mean nothing.
const SEEDS: [&[u8]; 16] = [
    b"\t",
    b"\n",
    b"\r\n",
    b"\0",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[[[[",
    b":",
    b",",
    b"\xff",
    "ä".as_bytes(),
    b"18446744073709551616",
];

/// Changes bytes at one place.
fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len() as u64 + 1) as usize;
    let end = (at + random.below(9) as usize).min(bytes.len());
    match random.below(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes.extend_from_within(at..end),
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        _ => {
            let seed = SEEDS.get(random.below(SEEDS.len() as u64) as usize).copied().unwrap_or_default();
            bytes.splice(at..end, seed.iter().copied());
        }
    }
}

/// Some bytes: text, nearly text, or any; now and then as many as may be, or one more.
fn some(random: &mut Random, bytes_max: usize) -> Vec<u8> {
    let length = match random.below(60) {
        0 => bytes_max as u64 + random.below(2),
        _ => 1 + random.below(12),
    };
    let most = [0x60, 0x80, 0x100].get(random.below(3) as usize).copied().unwrap_or(0x80);
    (0..length).map(|_| random.below(most) as u8).collect()
}

fn record(random: &mut Random) -> Record {
    Record { key: some(random, polder_kv::KEY_BYTES_MAX), value: some(random, 2_000) }
}

fn printed(format: Format, records: &[Record]) -> Vec<u8> {
    // What TSV cannot hold is refused when it is printed; half a line of it may be there then.
    let lines = records.iter().filter_map(|record| {
        let mut line = Vec::new();
        format.print(&mut line, &record.key, &record.value).is_ok().then_some(line)
    });
    lines.flatten().collect()
}

/// All chunks of an input that is read in pieces of so many bytes.
fn read(input: &[u8], form: Form, piece: usize) -> anyhow::Result<Vec<Chunk>> {
    let mut chunks = Chunks::new(BufReader::with_capacity(piece, input), form);
    std::iter::from_fn(|| chunks.next().transpose()).collect()
}

fn rows(format: Format, form: Form) -> Outcome {
    let mut random = Random::new()?;
    let mut taken = 0;
    for _ in 0..inputs(4_000) {
        let records: Vec<Record> = (0..random.below(40)).map(|_| record(&mut random)).collect();
        let mut input = printed(format, &records);
        (0..random.below(4)).for_each(|_| change(&mut input, &mut random));
        let whole = read(&input, form, 1 << 16).map_err(|error| format!("{error:#}"));
        let pieces = read(&input, form, 1 + random.below(70) as usize).map_err(|error| format!("{error:#}"));
        assert_eq!(whole, pieces, "what is read depends on how: {}", input.escape_ascii());
        let chunks = match whole {
            Ok(chunks) => chunks,
            Err(words) => {
                assert!(words.starts_with("line ") && words.len() > 12, "{words}");
                continue;
            }
        };
        taken += 1;
        let read: Vec<Record> = chunks.iter().flat_map(|chunk| chunk.records.clone()).collect();
        let fits = |record: &Record| {
            (1..=polder_kv::KEY_BYTES_MAX).contains(&record.key.len())
                && record.value.len() <= polder_kv::VALUE_BYTES_MAX
        };
        assert!(read.iter().all(fits), "{}", input.escape_ascii());
        let last = chunks.last().map(|chunk| chunk.after).unwrap_or_default();
        assert_eq!((last.records, last.bytes), (read.len() as u64, input.len() as u64), "{}", input.escape_ascii());
        // What was read is printed as what is read again as the same.
        let again = self::read(&printed(format, &read), form, 1 << 16)?;
        assert_eq!(again.into_iter().flat_map(|chunk| chunk.records).collect::<Vec<_>>(), read);
    }
    assert!(taken > 500, "only {taken} inputs were rows");
    Ok(())
}

#[test]
fn rows_of_tsv_are_read_as_they_are_or_refused_by_their_line() -> Outcome {
    rows(Format::Tsv, Form::Tsv(1))
}

#[test]
fn rows_of_json_are_read_as_they_are_or_refused_by_their_line() -> Outcome {
    rows(Format::Jsonl, Form::Jsonl)
}

/// A line that never ends takes as much memory as the longest that may be, whatever follows.
#[test]
fn a_line_without_an_end_is_refused_at_its_bound() {
    struct Endless(u64);
    impl std::io::Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            into.fill(b'x');
            self.0 += into.len() as u64;
            Ok(into.len())
        }
    }
    for form in [Form::Tsv(1), Form::Tsv(9), Form::Jsonl] {
        let mut endless = Endless(0);
        let words = Chunks::new(BufReader::new(&mut endless), form).next().map_err(|error| format!("{error:#}"));
        assert!(words.is_err_and(|words| words.contains("line 1: longer than")));
        assert!(endless.0 < 8 << 20, "{} bytes were read", endless.0);
    }
}

#[test]
fn the_state_of_an_import_is_read_as_it_was_or_refused_in_words() -> Outcome {
    let mut random = Random::new()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("records.polder-import");
    assert!(State::read(&path)?.is_none());
    let mut refused = 0;
    for _ in 0..inputs(1_000) {
        let session = SessionState {
            cluster: ClusterId(Digest([random.below(256) as u8; 32])),
            client: ClientId(SigningKey::from_seed(&[1; 32]).public()),
            session: SessionId(Position { slot: Seq(random.next()), index: random.below(9) as u32 }),
            acknowledged: random.next() >> random.below(64),
        };
        let form = if random.below(2) == 0 { Form::Jsonl } else { Form::Tsv(1 + random.below(9) as usize) };
        let state = State::new(session, form);
        let mut bytes = serde_json::to_vec(&state)?;
        let changes = random.below(3);
        (0..changes).for_each(|_| change(&mut bytes, &mut random));
        std::fs::write(&path, &bytes)?;
        match State::read(&path) {
            Ok(read) => {
                let read = read.unwrap_or(state);
                assert!(changes > 0 || (read.session(), read.form(), read.place()) == (session, form, state.place()));
                let again = serde_json::to_vec(&read)?;
                std::fs::write(&path, &again)?;
                let twice = State::read(&path)?.map(|read| serde_json::to_vec(&read)).transpose()?;
                assert_eq!(twice, Some(again));
            }
            Err(error) => {
                refused += 1;
                let words = format!("{error:#}");
                assert!(changes > 0, "the state that was written is refused: {words}");
                assert!(words.contains("records.polder-import: no state of an import; remove it to"), "{words}");
            }
        }
    }
    assert!(refused > 100, "only {refused} were refused");
    Ok(())
}
