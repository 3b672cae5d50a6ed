//! The encoding of frames, records and bodies: postcard, and nothing that would not re-encode to the same bytes (R2).

use alloc::vec::Vec;
use core::fmt;

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not an encoding of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// More bytes than the caller allows.
    TooLong {
        /// The length received.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Not an encoding of the expected type.
    Malformed,
    /// A complete value, and then more.
    Trailing,
    /// A second encoding of a value that has a shorter one.
    NotCanonical,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "{bytes} bytes, at most {bytes_max} are allowed")
            }
            Self::Malformed => f.write_str("not an encoding of the expected type"),
            Self::Trailing => f.write_str("bytes after the end of the value"),
            Self::NotCanonical => f.write_str("not the canonical encoding of the value"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// Encodes a value. The types that travel can always be encoded; a value that cannot (a map of unknown length, which
/// none of ours has) yields no bytes, which no decoder takes for a value.
#[must_use]
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    // Most of what is encoded is a reply, a record or a vote: large enough at the start, it need not grow.
    postcard::serialize_with_flavor(value, Buffer(Vec::with_capacity(128))).unwrap_or_default()
}

/// Collects what is encoded.
struct Buffer(Vec<u8>);

impl Flavor for Buffer {
    type Output = Vec<u8>;

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Compares what is encoded with what is expected, without keeping it.
struct Expected<'a>(&'a [u8]);

impl Flavor for Expected<'_> {
    /// Whether no more is expected.
    type Output = bool;

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0 = self.0.strip_prefix(data).ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }

    fn finalize(self) -> postcard::Result<bool> {
        Ok(self.0.is_empty())
    }
}

/// Decodes a value from at most `bytes_max` bytes.
///
/// # Errors
///
/// Refuses longer input, trailing bytes, and what does not re-encode to the same bytes (postcard alone accepts
/// `80 00` for 0). Allocation is bounded by the length of the input.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8], bytes_max: usize) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong { bytes: bytes.len(), bytes_max });
    }
    let (value, rest) = postcard::take_from_bytes::<T>(bytes).map_err(|_| DecodeError::Malformed)?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing);
    }
    match postcard::serialize_with_flavor(&value, Expected(bytes)) {
        Ok(true) => Ok(value),
        Ok(false) | Err(_) => Err(DecodeError::NotCanonical),
    }
}

/// What a command or a reply of an application must be: a value with one encoding. Implemented for every type that
/// serde can serialize and deserialize.
pub trait Wire: Sized {
    /// The bytes of this value.
    fn to_wire(&self) -> Vec<u8>;

    /// The value of these bytes.
    ///
    /// # Errors
    ///
    /// As [`decode`].
    fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError>;
}

impl<T: Serialize + DeserializeOwned> Wire for T {
    fn to_wire(&self) -> Vec<u8> {
        encode(self)
    }

    fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes, usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r2_a_longer_encoding_of_the_same_number_is_refused() {
        assert_eq!(decode::<u64>(&[0x80, 0x00], 10), Err(DecodeError::NotCanonical));
        assert_eq!(decode::<u64>(&[0x00], 10), Ok(0));
    }

    #[test]
    fn r2_trailing_and_missing_bytes_are_refused() {
        assert_eq!(decode::<u64>(&[1, 2], 10), Err(DecodeError::Trailing));
        assert_eq!(decode::<u64>(&[0x80], 10), Err(DecodeError::Malformed));
    }

    #[test]
    fn length_is_limited_before_decoding() {
        assert_eq!(decode::<u64>(&[1; 11], 10), Err(DecodeError::TooLong { bytes: 11, bytes_max: 10 }));
    }

    #[test]
    fn a_claimed_length_allocates_nothing_beyond_the_input() {
        // A vector that claims 2^60 elements and has none.
        let mut bytes = encode(&(1u64 << 60));
        bytes.push(0);
        assert_eq!(decode::<Vec<u64>>(&bytes, 100), Err(DecodeError::Malformed));
    }
}
