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

    /// What a decoder makes of a stream in such pieces: frames, and how it ended. It never holds more than what was given to
    /// it and not taken out, but for what a buffer grows by.
    fn cut(stream: &[u8], bytes_max: usize, mut piece: impl FnMut() -> usize) -> (Vec<Bytes>, Option<TooLarge>) {
        let (mut decoder, mut frames, mut taken) = (Decoder::new(bytes_max), Vec::new(), 0);
        let mut given = 0;
        while given < stream.len() {
            let end = stream.len().min(given + piece().max(1));
            decoder.push(&stream[given..end]);
            given = end;
            loop {
                match decoder.next() {
                    Ok(Some(frame)) => {
                        taken += 4 + frame.len();
                        frames.push(frame);
                    }
                    Ok(None) => break,
                    Err(too_large) => return (frames, Some(too_large)),
                }
            }
            assert_eq!(decoder.buffer.len(), given - taken, "it holds what was given and not taken out");
            let most = 2 * (bytes_max + 4) + stream.len() + 64;
            assert!(decoder.buffer.capacity() <= most, "{} for {}", decoder.buffer.capacity(), stream.len());
        }
        (frames, None)
    }

    /// Streams with bytes changed, also in the lengths: the pieces make no difference, and nothing is made of more than
    /// was given. `POLDER_FUZZ_TIMES` makes it as many times as many.
    #[test]
    fn a_hostile_stream_is_cut_alike_whatever_the_pieces() {
        const BYTES_MAX: usize = 3_000;
        let times = std::env::var("POLDER_FUZZ_TIMES").ok().and_then(|times| times.parse::<u64>().ok()).unwrap_or(1);
        let random = crate::random::Random::new(Some([9; 32])).expect("a seed");
        let (mut whole, mut refused) = (0, 0);
        for _ in 0..3_000 * times {
            let lengths = [0, 1, 3, 4, 5, 200, BYTES_MAX as u64 - 1, BYTES_MAX as u64];
            let frames: Vec<Bytes> = (0..random.between(0, 7))
                .map(|_| {
                    let length = lengths[random.between(0, 7) as usize];
                    Bytes::from(vec![random.between(0, 255) as u8; length as usize])
                })
                .collect();
            let mut stream = join(&frames).concat();
            for _ in 0..random.between(0, 2) {
                let at = random.between(0, stream.len() as u64) as usize;
                match random.between(0, 3) {
                    0 => stream.truncate(at),
                    1 => drop(stream.splice(at..at, random.array::<4>())),
                    2 => drop(stream.splice(at..at, (BYTES_MAX as u32 + 1).to_le_bytes())),
                    _ => {
                        if let Some(byte) = stream.get_mut(at) {
                            *byte ^= 1 << random.between(0, 7);
                        }
                    }
                }
            }
            let at_once = cut(&stream, BYTES_MAX, || stream.len());
            let most = random.between(1, 2_000);
            assert_eq!(cut(&stream, BYTES_MAX, || random.between(1, most) as usize), at_once);
            let (frames, error) = at_once;
            assert!(frames.iter().all(|frame| frame.len() <= BYTES_MAX));
            match error {
                Some(error) => {
                    assert!(error.bytes > BYTES_MAX && error.bytes_max == BYTES_MAX);
                    refused += 1;
                }
                // What was cut is what was given, but for a frame that has not ended.
                None => {
                    let joined = join(&frames).concat();
                    assert!(stream.starts_with(&joined) && stream.len() - joined.len() < BYTES_MAX + 4);
                    whole += 1;
                }
            }
        }
        assert!(whole > 500 && refused > 500, "{whole} {refused}");
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut decoder = Decoder::new(4 << 20);
        decoder.push(&(4u32 << 20).to_le_bytes());
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer.capacity() < 1_024);
    }
}
