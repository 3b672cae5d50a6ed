//! Records as JSON lines: `{"key": "lamp", "value": "on"}`. Bytes that are no UTF-8 are `key_base64`, `value_base64`, in
//! the standard alphabet with its padding.

use std::io::{self, Write};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::records::Record;

/// The most bytes of a line: a key and a value at their limits, every byte of them escaped as `\u0000`, with room for the
/// names and for some blanks.
pub(crate) const LINE_BYTES_MAX: usize = 6 * (polder_kv::KEY_BYTES_MAX + polder_kv::VALUE_BYTES_MAX) + 1_024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

/// The record in a line.
pub(crate) fn parse(line: &[u8]) -> anyhow::Result<Record> {
    let Line { key, key_base64, value, value_base64 } = serde_json::from_slice(line).map_err(|error| {
        // It knows of this line alone, and calls it line 1.
        let words = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        anyhow::anyhow!("column {}: {}", error.column(), words.strip_suffix(&place).unwrap_or(&words))
    })?;
    Ok(Record { key: bytes("key", key, key_base64)?, value: bytes("value", value, value_base64)? })
}

fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> anyhow::Result<Vec<u8>> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).with_context(|| format!("\"{name}_base64\" is no Base64"))
        }
        (None, None) => bail!("neither \"{name}\" nor \"{name}_base64\""),
        (Some(_), Some(_)) => bail!("both \"{name}\" and \"{name}_base64\""),
    }
}

/// Prints a record as a line that [`parse`] reads back.
pub(crate) fn print(out: &mut impl Write, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
    let (key, key_base64) = text_or_base64(key);
    let (value, value_base64) = text_or_base64(value);
    // So that a reader that is gone can be told from other failures.
    serde_json::to_writer(&mut *out, &Line { key, key_base64, value, value_base64 }).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn record(key: &[u8], value: &[u8]) -> Record {
        Record { key: key.into(), value: value.into() }
    }

    fn printed(record: &Record) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        print(&mut out, &record.key, &record.value)?;
        Ok(out)
    }

    #[test]
    fn text_is_written_as_text_and_other_bytes_in_base64() -> anyhow::Result<()> {
        let text = record("dänisch".as_bytes(), b"a\"b\n\t\0");
        assert_eq!(printed(&text)?, "{\"key\":\"dänisch\",\"value\":\"a\\\"b\\n\\t\\u0000\"}\n".as_bytes());
        let other = record(&[0xff, 0x00], b"");
        assert_eq!(printed(&other)?, b"{\"key_base64\":\"/wA=\",\"value\":\"\"}\n");
        Ok(())
    }

    #[test]
    fn every_record_is_read_back_and_takes_one_line() -> anyhow::Result<()> {
        let mut random = Random::new()?;
        for round in 0..2_000 {
            // Text, bytes near text, and bytes.
            let most = [0x80, 0x800, 0x100][round % 3];
            let mut bytes = |length: u64| -> Vec<u8> {
                let length = random.below(length) + 1;
                let one = |_| match round % 3 {
                    1 => char::from_u32(random.below(most) as u32).unwrap_or('\0').to_string().into_bytes(),
                    _ => vec![random.below(most) as u8],
                };
                (0..length).flat_map(one).collect()
            };
            let record = Record { key: bytes(8), value: bytes(40) };
            let line = printed(&record)?;
            let (end, line) = line.split_last().context("a line")?;
            assert!(*end == b'\n' && !line.contains(&b'\n'), "{record:?}");
            assert_eq!(parse(line)?, record);
        }
        Ok(())
    }

    #[test]
    fn the_largest_record_fits_into_a_line_however_it_is_escaped() -> anyhow::Result<()> {
        let largest = record(&vec![0; polder_kv::KEY_BYTES_MAX], &vec![0; polder_kv::VALUE_BYTES_MAX]);
        let line = printed(&largest)?;
        assert!(line.len() <= LINE_BYTES_MAX && line.len() > LINE_BYTES_MAX - 1_024);
        assert_eq!(parse(&line)?, largest);
        Ok(())
    }

    #[test]
    fn what_is_no_record_is_refused_in_words() {
        for (line, why) in [
            ("", "column 0: EOF"),
            ("[]", "column"),
            ("{\"key\":\"k\"}", "neither \"value\" nor \"value_base64\""),
            ("{\"value\":\"v\"}", "neither \"key\" nor"),
            ("{\"key\":\"k\",\"key_base64\":\"aw==\",\"value\":\"v\"}", "both \"key\" and \"key_base64\""),
            ("{\"key\":\"k\",\"key\":\"l\",\"value\":\"v\"}", "column 16: duplicate field `key`"),
            ("{\"key\":\"k\",\"value\":\"v\",\"revision\":1}", "unknown field `revision`, expected"),
            ("{\"key\":1,\"value\":\"v\"}", "column 8: invalid type: integer `1`, expected a string"),
            ("{\"key_base64\":\"aw\",\"value\":\"v\"}", "\"key_base64\" is no Base64"),
            ("{\"key\":\"\\ud800\",\"value\":\"v\"}", "column"),
            ("{\"key\":\"k\",\"value\":\"v\"} {}", "trailing characters"),
        ] {
            let words = parse(line.as_bytes()).map_err(|error| format!("{error:#}"));
            assert!(words.as_ref().is_err_and(|words| words.contains(why) && !words.contains("line 1")), "{words:?}");
        }
        let nested = format!("{{\"key\":{}", "[".repeat(1 << 20));
        assert!(parse(nested.as_bytes()).is_err());
        assert!(parse(b"{\"key\":\"\xff\",\"value\":\"v\"}").is_err(), "no UTF-8");
    }
}
