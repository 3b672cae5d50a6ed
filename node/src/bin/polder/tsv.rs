//! Records as lines of tab-separated columns: the key is one column, the value the others, tab-joined.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use polder_types::{Digest, Domain, Hasher};

/// The most bytes of a line: a key and a value at their limits, with room for their tab and newline.
const LINE_BYTES_MAX: usize = polder_kv::KEY_BYTES_MAX + polder_kv::VALUE_BYTES_MAX + 2;
/// A chunk, which becomes one command, is closed at so many records or bytes. Part of what a resumed import relies on.
const CHUNK_RECORDS_MAX: usize = 16;
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// The record in a line. `key_column` counts from 1.
fn parse(line: &[u8], key_column: usize) -> anyhow::Result<Record> {
    let columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
    let at = key_column.saturating_sub(1);
    let Some(key) = columns.get(at) else {
        bail!("{} columns, and the key should be in column {key_column}", columns.len());
    };
    let others: Vec<&[u8]> = columns.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, column)| *column).collect();
    let (key, value) = (key.to_vec(), others.join(&b'\t'));
    match (key.len(), value.len()) {
        (0, _) => bail!("the key is empty"),
        (bytes, _) if bytes > polder_kv::KEY_BYTES_MAX => {
            bail!("a key of {bytes} bytes; at most {} are allowed", polder_kv::KEY_BYTES_MAX)
        }
        (_, bytes) if bytes > polder_kv::VALUE_BYTES_MAX => {
            bail!("a value of {bytes} bytes; at most {} are allowed", polder_kv::VALUE_BYTES_MAX)
        }
        _ => Ok(Record { key, value }),
    }
}

/// Prints a record as a line that [`parse`] reads back with the key in column 1. A key without a value keeps its tab.
pub(crate) fn print(out: &mut impl Write, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
    let breaks = |bytes: &[u8]| bytes.contains(&b'\n');
    if key.is_empty() || key.contains(&b'\t') || breaks(key) || breaks(value) {
        bail!("TSV cannot hold the record of key \"{}\": it has a tab or a line break in it", key.escape_ascii());
    }
    out.write_all(key)?;
    out.write_all(b"\t")?;
    out.write_all(value)?;
    out.write_all(b"\n")?;
    Ok(())
}

/// Some records of an input, and where it stands after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Which chunk of the input, from 1.
    pub(crate) number: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) after: Place,
}

/// A place in an input. Equal chains mean equal bytes before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Records before it.
    pub(crate) records: u64,
    /// Bytes before it.
    pub(crate) bytes: u64,
    /// The chain over the chunks before it.
    pub(crate) chain: Digest,
}

/// Cuts an input into chunks: the same input into the same chunks, whenever it is read.
pub(crate) struct Chunks<R> {
    input: R,
    key_column: usize,
    number: u64,
    at: Place,
}

impl<R: BufRead> Chunks<R> {
    pub(crate) fn new(input: R, key_column: usize) -> Self {
        Self { input, key_column, number: 0, at: Place::default() }
    }

    /// How many chunks were cut.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next chunk; none at the end.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<Chunk>> {
        let mut chain = Hasher::new(Domain::Import).digest(&self.at.chain);
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.len() < CHUNK_RECORDS_MAX && bytes < CHUNK_BYTES_MAX {
            let number = self.at.records + records.len() as u64 + 1;
            let Some(line) = read_line(&mut self.input).with_context(|| format!("line {number}"))? else { break };
            records.push(parse(without_newline(&line), self.key_column).with_context(|| format!("line {number}"))?);
            bytes += line.len();
            chain = chain.sized(&line);
        }
        if records.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        self.at = Place {
            records: self.at.records + records.len() as u64,
            bytes: self.at.bytes + bytes as u64,
            chain: chain.finish(),
        };
        Ok(Some(Chunk { number: self.number, records, after: self.at }))
    }
}

fn read_line(input: &mut impl BufRead) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    std::io::Read::take(&mut *input, LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    if line.len() == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        bail!("longer than {LINE_BYTES_MAX} bytes: no record is so large");
    }
    Ok((!line.is_empty()).then_some(line))
}

fn without_newline(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Record {
        Record { key: key.into(), value: value.into() }
    }

    fn chunks(input: &str) -> anyhow::Result<Vec<Chunk>> {
        let mut chunks = Chunks::new(input.as_bytes(), 1);
        std::iter::from_fn(|| chunks.next().transpose()).collect()
    }

    #[test]
    fn the_key_is_one_column_and_the_value_the_others() -> anyhow::Result<()> {
        assert_eq!(parse(b"k\ta\tb", 1)?, record("k", "a\tb"));
        assert_eq!(parse(b"a\tk\tb", 2)?, record("k", "a\tb"));
        assert_eq!(parse(b"k", 1)?, record("k", ""));
        assert_eq!(parse(b"k\t", 1)?, record("k", ""));
        assert!(parse(b"k", 2).is_err() && parse(b"\tv", 1).is_err() && parse(b"", 1).is_err());
        Ok(())
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let input = format!("{}\tempty\n", "k\tv\n".repeat(20));
        let words = chunks(&input).map_err(|error| format!("{error:#}"));
        assert_eq!(words, Err("line 21: the key is empty".into()));
    }

    #[test]
    fn a_printed_record_is_read_back_and_what_tsv_cannot_hold_is_an_error() -> anyhow::Result<()> {
        let mut out = Vec::new();
        print(&mut out, b"k", b"a\tb")?;
        print(&mut out, b"l", b"")?;
        assert_eq!(out, b"k\ta\tb\nl\t\n");
        assert!(print(&mut out, b"a\tb", b"").is_err() && print(&mut out, b"a", b"b\nc").is_err());
        Ok(())
    }

    /// A resumed import relies on it: the same bytes give the same chunks, other bytes another chain.
    #[test]
    fn chunks_depend_on_the_bytes_alone() -> anyhow::Result<()> {
        let input: String = (0..100).map(|i| format!("key{i}\tvalue\n")).collect();
        let whole = chunks(&input)?;
        assert_eq!(whole.iter().map(|chunk| chunk.records.len()).sum::<usize>(), 100);
        assert_eq!(whole.last().map(|chunk| (chunk.after.records, chunk.after.bytes)), Some((100, input.len() as u64)));
        assert!(whole.iter().zip(1..).all(|(chunk, number)| chunk.number == number));
        assert_eq!(chunks(&input)?, whole);
        let other = chunks(&input.replacen("key3\t", "key3 \t", 1))?;
        assert!(whole.iter().zip(&other).all(|(one, other)| one.after.chain != other.after.chain));
        Ok(())
    }
}
