//! Records as lines of tab-separated columns: the key is one column, the value the others, tab-joined.

use std::io::Write;

use anyhow::bail;

use crate::records::Record;

/// The most bytes of a line: a key and a value at their limits, with room for their tab and newline.
pub(crate) const LINE_BYTES_MAX: usize = polder_kv::KEY_BYTES_MAX + polder_kv::VALUE_BYTES_MAX + 2;

/// The record in a line. `key_column` counts from 1.
pub(crate) fn parse(line: &[u8], key_column: usize) -> anyhow::Result<Record> {
    let columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
    let at = key_column.saturating_sub(1);
    let Some(key) = columns.get(at) else {
        bail!("{} columns, and the key should be in column {key_column}", columns.len());
    };
    let others: Vec<&[u8]> = columns.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, column)| *column).collect();
    Ok(Record { key: key.to_vec(), value: others.join(&b'\t') })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Record {
        Record { key: key.into(), value: value.into() }
    }

    #[test]
    fn the_key_is_one_column_and_the_value_the_others() -> anyhow::Result<()> {
        assert_eq!(parse(b"k\ta\tb", 1)?, record("k", "a\tb"));
        assert_eq!(parse(b"a\tk\tb", 2)?, record("k", "a\tb"));
        assert_eq!(parse(b"k", 1)?, record("k", ""));
        assert_eq!(parse(b"k\t", 1)?, record("k", ""));
        assert!(parse(b"k", 2).is_err());
        Ok(())
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
}
