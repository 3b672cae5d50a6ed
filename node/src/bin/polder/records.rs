//! Records, one a line: a key and its value. How a line says them is [`crate::tsv`] or [`crate::jsonl`].

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use polder_types::{Digest, Domain, Hasher};
use serde::{Deserialize, Serialize};

use crate::{jsonl, tsv};

/// A chunk, which becomes one command, is closed at so many records or bytes. Part of what a resumed import relies on.
const CHUNK_RECORDS_MAX: usize = 16;
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// One a line, its columns separated by tabs
    #[default]
    Tsv,
    /// JSON lines: {"key": "lamp", "value": "on"}; bytes that are no text as key_base64, value_base64
    Jsonl,
}

impl Format {
    /// Prints a record as a line that is read back as the same record, with the key in column 1 of TSV.
    pub(crate) fn print(self, out: &mut impl Write, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Tsv => tsv::print(out, key, value),
            Self::Jsonl => jsonl::print(out, key, value),
        }
    }
}

/// What the lines of an input mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    /// Columns, of which one is the key: which, from 1.
    Tsv(usize),
    /// JSON.
    Jsonl,
}

impl Form {
    /// The most bytes of a line that holds a record, its break included.
    fn line_bytes_max(self) -> usize {
        match self {
            Self::Tsv(_) => tsv::LINE_BYTES_MAX,
            Self::Jsonl => jsonl::LINE_BYTES_MAX,
        }
    }

    fn parse(self, line: &[u8]) -> anyhow::Result<Record> {
        let record = match self {
            Self::Tsv(key_column) => tsv::parse(line, key_column),
            Self::Jsonl => jsonl::parse(line),
        }?;
        match (record.key.len(), record.value.len()) {
            (0, _) => bail!("the key is empty"),
            (bytes, _) if bytes > polder_kv::KEY_BYTES_MAX => {
                bail!("a key of {bytes} bytes; at most {} are allowed", polder_kv::KEY_BYTES_MAX)
            }
            (_, bytes) if bytes > polder_kv::VALUE_BYTES_MAX => {
                bail!("a value of {bytes} bytes; at most {} are allowed", polder_kv::VALUE_BYTES_MAX)
            }
            _ => Ok(record),
        }
    }
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
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
    form: Form,
    number: u64,
    at: Place,
}

impl<R: BufRead> Chunks<R> {
    pub(crate) fn new(input: R, form: Form) -> Self {
        Self { input, form, number: 0, at: Place::default() }
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
            let context = || format!("line {number}");
            let line = read_line(&mut self.input, self.form.line_bytes_max()).with_context(context)?;
            let Some(line) = line else { break };
            records.push(self.form.parse(without_newline(&line)).with_context(context)?);
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

/// The next line with its break; none at the end. Never holds more than `bytes_max`, however long the line is.
fn read_line(input: &mut impl BufRead, bytes_max: usize) -> anyhow::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    std::io::Read::take(&mut *input, bytes_max as u64).read_until(b'\n', &mut line)?;
    if line.len() == bytes_max && line.last() != Some(&b'\n') {
        bail!("longer than {bytes_max} bytes: no record is so large");
    }
    Ok((!line.is_empty()).then_some(line))
}

fn without_newline(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(input: &[u8], form: Form) -> anyhow::Result<Vec<Chunk>> {
        let mut chunks = Chunks::new(input, form);
        std::iter::from_fn(|| chunks.next().transpose()).collect()
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        let words = |input: String, form| chunks(input.as_bytes(), form).map_err(|error| format!("{error:#}"));
        let input = format!("{}\tempty\n", "k\tv\n".repeat(20));
        assert_eq!(words(input, Form::Tsv(1)), Err("line 21: the key is empty".into()));
        let input = format!("{}{{}}\n", "{\"key\":\"k\",\"value\":\"\"}\n".repeat(20));
        assert_eq!(words(input, Form::Jsonl), Err("line 21: neither \"key\" nor \"key_base64\"".into()));
    }

    #[test]
    fn a_key_or_a_value_that_is_too_large_is_refused_in_both_formats() {
        let (key, value) = ("k".repeat(polder_kv::KEY_BYTES_MAX), "v".repeat(polder_kv::VALUE_BYTES_MAX));
        for (format, form) in [(Format::Tsv, Form::Tsv(1)), (Format::Jsonl, Form::Jsonl)] {
            let read = |key: &str, value: &str| {
                let mut line = Vec::new();
                format.print(&mut line, key.as_bytes(), value.as_bytes()).and_then(|()| chunks(&line, form))
            };
            assert!(read(&key, &value).is_ok());
            assert!(read(&format!("{key}k"), "").is_err() && read("k", &format!("{value}v")).is_err());
        }
    }

    /// A line without an end must not be held in memory.
    #[test]
    fn a_line_longer_than_any_record_is_refused_before_it_is_read_to_its_end() {
        for (form, bytes_max) in [(Form::Tsv(1), tsv::LINE_BYTES_MAX), (Form::Jsonl, jsonl::LINE_BYTES_MAX)] {
            let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
            let words = read_line(&mut endless, form.line_bytes_max()).map_err(|error| error.to_string());
            assert_eq!(words, Err(format!("longer than {bytes_max} bytes: no record is so large")));
        }
    }

    /// A resumed import relies on it: the same bytes give the same chunks, other bytes another chain.
    #[test]
    fn chunks_depend_on_the_bytes_alone() -> anyhow::Result<()> {
        let input: String = (0..100).map(|i| format!("key{i}\tvalue\n")).collect();
        let cut = |input: &str| chunks(input.as_bytes(), Form::Tsv(1));
        let whole = cut(&input)?;
        assert_eq!(whole.iter().map(|chunk| chunk.records.len()).sum::<usize>(), 100);
        assert_eq!(whole.last().map(|chunk| (chunk.after.records, chunk.after.bytes)), Some((100, input.len() as u64)));
        assert!(whole.iter().zip(1..).all(|(chunk, number)| chunk.number == number));
        assert_eq!(cut(&input)?, whole);
        let other = cut(&input.replacen("key3\t", "key3 \t", 1))?;
        assert!(whole.iter().zip(&other).all(|(one, other)| one.after.chain != other.after.chain));
        Ok(())
    }
}
