//! A key as the map holds it.

use std::borrow::Borrow;
use std::cmp::Ordering;

use polder_types::Blob;

/// A key, inside the map's node where it is short: a search compares keys without leaving the node, and copying a node
/// counts no references for its keys.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Short { length: u8, bytes: [u8; Key::SHORT_BYTES_MAX] },
    Long(Blob),
}

impl Key {
    /// What makes a `Key` four words.
    const SHORT_BYTES_MAX: usize = 30;

    pub(super) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; Self::SHORT_BYTES_MAX];
        match bytes.get_mut(..key.len()) {
            Some(start) => {
                start.copy_from_slice(key);
                Self::Short { length: key.len() as u8, bytes }
            }
            None => Self::Long(Blob::copy(key)),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_are_their_bytes_and_in_the_bytes_order() {
        assert_eq!(size_of::<Key>(), 32);
        let all: Vec<Vec<u8>> =
            (0..70).map(|length| vec![0; length]).chain([vec![1], vec![0, 1], vec![1; 40]]).collect();
        for one in &all {
            assert_eq!(Key::new(one).bytes(), one);
            for other in &all {
                assert_eq!(Key::new(one).cmp(&Key::new(other)), one.cmp(other));
            }
        }
    }
}
