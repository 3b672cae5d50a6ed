//! A look at write-ahead logs and manifests before RocksDB reads them.
//!
//! Its reader does not bear every damage. A flipped bit can make a record look like one of a log that is used again,
//! which is never done here (R19); at such a record, unless it is the first, the reader of RocksDB 11.8 turns in a circle
//! for ever (facebook/rocksdb#13333), and if it is the first it takes the whole log for an old one and forgets it. So
//! such a record is looked for first. All other damage is left to RocksDB, which finds it by its checksums.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// A log is a row of blocks; no record crosses the end of one.
const BLOCK_BYTES: u64 = 32 << 10;

/// A record's checksum (four bytes), its length (two) and its kind (one).
const HEADER_BYTES: usize = 7;

/// The kinds of records of logs that are used again: whole or in parts, sizes of timestamps, the log before.
fn is_of_a_recycled_log(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// Where a record stands that is never written here.
#[derive(Debug)]
pub(super) struct Stray {
    /// The name of the file.
    pub(super) file: String,
    /// The first byte of the record.
    pub(super) at: u64,
}

/// Looks through the logs and the manifests of a folder, as far as their records hold together.
///
/// # Errors
///
/// When one cannot be read.
pub(super) fn stray(folder: &Path) -> io::Result<Option<Stray>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (name.ends_with(".log") || name.starts_with("MANIFEST-"))
            && let Some(at) = stray_in(File::open(entry.path())?)?
        {
            return Ok(Some(Stray { file: name, at }));
        }
    }
    Ok(None)
}

fn stray_in(mut log: impl io::Read) -> io::Result<Option<u64>> {
    let mut block = Vec::new();
    for begin in (0..).step_by(BLOCK_BYTES as usize) {
        block.clear();
        log.by_ref().take(BLOCK_BYTES).read_to_end(&mut block)?;
        let mut at = 0;
        while let Some(([checksum @ .., low, high, kind], rest)) =
            block.get(at..).and_then(|rest| rest.split_first_chunk::<HEADER_BYTES>())
        {
            if is_of_a_recycled_log(*kind) {
                return Ok(Some(begin + at as u64));
            }
            let bytes = usize::from(u16::from_le_bytes([*low, *high]));
            // What does not hold together is RocksDB's to judge, and nothing behind it is a record for certain.
            let Some(body) = rest.get(..bytes).filter(|body| *checksum == masked(crc32c(*kind, body)).to_le_bytes())
            else {
                return Ok(None);
            };
            at += HEADER_BYTES + body.len();
        }
        if (block.len() as u64) < BLOCK_BYTES {
            break;
        }
    }
    Ok(None)
}

/// As it is kept beside what it is of: so that the checksum of a checksum is no trap.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli) of a record: its kind and its bytes.
fn crc32c(kind: u8, body: &[u8]) -> u32 {
    let bytes = std::iter::once(&kind).chain(body);
    !bytes.fold(!0, |crc: u32, byte| {
        let entry = TABLE.get(usize::from(crc.to_le_bytes()[0] ^ byte)).copied().unwrap_or_default();
        (crc >> 8) ^ entry
    })
}

/// What each byte makes of the checksum.
const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_le_bytes();
        [&masked(crc32c(kind, body)).to_le_bytes()[..], &length, &[kind], body].concat()
    }

    /// RFC 3720, B.4: 32 bytes of zero.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(0, &[0; 31]), 0x8a91_36aa);
    }

    #[test]
    fn a_record_of_a_recycled_log_is_found_wherever_it_stands() -> io::Result<()> {
        // The second block begins with the third record.
        let first = record(2, &[1; 1_000]);
        let second = record(4, &vec![2; BLOCK_BYTES as usize - first.len() - HEADER_BYTES]);
        let third = record(1, &[3; 50]);
        let starts = [0, first.len(), first.len() + second.len()];
        let log = [first, second, third].concat();
        assert_eq!(stray_in(&log[..])?, None);
        for start in starts {
            for kind in [5, 6, 7, 8, 11, 131] {
                let mut changed = log.clone();
                changed[start + 6] = kind;
                assert_eq!(stray_in(&changed[..])?, Some(start as u64), "{kind}");
            }
            // Other damage is not judged here, and what is behind it neither.
            let mut changed = log.clone();
            changed[start + HEADER_BYTES] ^= 1;
            changed[starts[2] + 6] = 5;
            assert_eq!(stray_in(&changed[..])?, (start == starts[2]).then_some(starts[2] as u64));
        }
        for cut in [0, 3, 7, 500, log.len() - 1] {
            assert_eq!(stray_in(&log[..cut])?, None);
        }
        Ok(())
    }
}
