//! Lists that are bounded while they are decoded: a few bytes on the wire must not become many in memory.

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// Room that is made for a list before its elements are there.
const RESERVED_BYTES_MAX: usize = 64 << 10;

/// Decodes a list of at most `MAX` elements, for `#[serde(deserialize_with = "…")]`. A longer one is refused when its
/// length is known, or at the element after the last that is allowed, whichever comes first: never more than `MAX` are
/// decoded, and room is made as they come.
///
/// # Errors
///
/// As the elements' decoding, and when there are more than `MAX`.
pub fn at_most<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(AtMost::<MAX, T>(PhantomData))
}

struct AtMost<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for AtMost<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let claimed = seq.size_hint().unwrap_or(0);
        if claimed > MAX {
            return Err(A::Error::invalid_length(claimed, &self));
        }
        let mut list = Vec::with_capacity(claimed.min(RESERVED_BYTES_MAX / size_of::<T>().max(1)));
        while list.len() < MAX {
            match seq.next_element()? {
                Some(element) => list.push(element),
                None => return Ok(shrunk(list)),
            }
        }
        // No element may follow; whatever stands there is not decoded.
        match seq.next_element::<Nothing>() {
            Ok(None) => Ok(shrunk(list)),
            Ok(Some(Nothing)) | Err(_) => Err(A::Error::invalid_length(MAX.saturating_add(1), &self)),
        }
    }
}

/// A list that was larger than was reserved for it takes what it needs, and not up to twice that.
fn shrunk<T>(mut list: Vec<T>) -> Vec<T> {
    list.shrink_to_fit();
    list
}

/// What needs no bytes.
struct Nothing;

impl<'de> Deserialize<'de> for Nothing {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Self)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::thread_local;
    use std::vec;

    use serde::Serialize;

    use super::*;
    use crate::{DecodeError, decode, encode};

    thread_local! {
        static DECODED: Cell<usize> = const { Cell::new(0) };
    }

    #[derive(Debug, PartialEq, Serialize)]
    struct Counted(u8);

    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            DECODED.with(|decoded| decoded.set(decoded.get() + 1));
            u8::deserialize(deserializer).map(Self)
        }
    }

    #[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
    struct Listed(#[serde(deserialize_with = "at_most::<3, _, _>")] Vec<Counted>);

    #[test]
    fn a_longer_list_is_refused_before_it_is_decoded() {
        let three = Listed(vec![Counted(1), Counted(2), Counted(3)]);
        assert_eq!(decode::<Listed>(&encode(&three), 100), Ok(three));
        DECODED.with(|decoded| decoded.set(0));
        let many = encode(&vec![7u8; 50]);
        assert_eq!(decode::<Listed>(&many, 100), Err(DecodeError::Malformed));
        assert_eq!(DECODED.with(Cell::get), 0);
        // A claim beyond the input has no known length: it ends at the bound.
        let mut claim = encode(&1_000_000u64);
        claim.extend_from_slice(&[7; 50]);
        assert_eq!(decode::<Listed>(&claim, 100), Err(DecodeError::Malformed));
        assert!(DECODED.with(Cell::get) <= 3);
    }
}
