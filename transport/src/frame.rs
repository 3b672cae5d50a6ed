//! Frames: a length of four bytes, little-endian, and that many bytes. The length is checked before anything is
//! allocated for it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// A frame larger than its lane allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) bytes: usize,
    pub(crate) bytes_max: usize,
}

/// Cuts a stream of bytes into frames. It holds what has arrived of one frame and never more than one read beyond.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    bytes_max: usize,
}

impl Decoder {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), bytes_max }
    }

    /// Adds what was read.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLarge> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let bytes = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
        if bytes > self.bytes_max {
            return Err(TooLarge { bytes, bytes_max: self.bytes_max });
        }
        if rest.len() < bytes {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(bytes).freeze()))
    }
}

/// From this size on a frame's bytes are handed on as they are; smaller ones are copied together.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// How many bytes of frames are taken together into one write: larger writes gain nothing, many small ones cost
/// several times as much.
pub(crate) const WRITE_BYTES: usize = 64 << 10;

/// Joins frames into few chunks.
pub(crate) fn join(frames: &[Bytes]) -> Vec<Bytes> {
    let small = |frame: &&Bytes| frame.len() < SHARED_BYTES_MIN;
    let copied: usize = frames.iter().filter(small).map(Bytes::len).sum();
    let mut buffer = BytesMut::with_capacity(copied + 4 * frames.len());
    let mut chunks = Vec::new();
    for frame in frames {
        // A queue takes no frame above its lane's limit, which is far below 4 GiB.
        buffer.put_u32_le(u32::try_from(frame.len()).unwrap_or(u32::MAX));
        if small(&frame) {
            buffer.extend_from_slice(frame);
        } else {
            chunks.push(buffer.split().freeze());
            chunks.push(frame.clone());
        }
    }
    if !buffer.is_empty() {
        chunks.push(buffer.freeze());
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Bytes> {
        [0, 1, 5, SHARED_BYTES_MIN - 1, SHARED_BYTES_MIN, 3, 100_000, 0]
            .iter()
            .enumerate()
            .map(|(i, len)| Bytes::from(vec![i as u8; *len]))
            .collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let stream: Vec<u8> = join(&frames()).concat();
        for piece in [1, 3, 4, 7, 1_200, 65_536, stream.len()] {
            let mut decoder = Decoder::new(1 << 20);
            let mut out = Vec::new();
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                while let Some(frame) = decoder.next().expect("no frame is too large") {
                    out.push(frame);
                }
            }
            assert_eq!(out, frames(), "in pieces of {piece}");
        }
    }

    #[test]
    fn small_frames_share_a_chunk_and_large_ones_are_not_copied() {
        let large = Bytes::from(vec![1; WRITE_BYTES]);
        let chunks =
            join(&[Bytes::from_static(b"a"), Bytes::from_static(b"b"), large.clone(), Bytes::from_static(b"c")]);
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_frame_too_large_is_refused_at_its_header() {
        let mut decoder = Decoder::new(10);
        decoder.push(&[11, 0, 0]);
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(&[0]);
        assert_eq!(decoder.next(), Err(TooLarge { bytes: 11, bytes_max: 10 }));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut decoder = Decoder::new(4 << 20);
        decoder.push(&(4u32 << 20).to_le_bytes());
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer.capacity() < 1_024);
    }
}
