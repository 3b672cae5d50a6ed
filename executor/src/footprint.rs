//! What a command says it will touch, before it runs; and the check that it touches nothing else.

/// The keys that a command may read and write, declared before it runs. Schedulers run commands side by side whose
/// footprints do not conflict; so an access that is not declared is refused and the command fails without effects
/// (R28).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// What it may read.
    pub reads: Vec<Span>,
    /// What it may read and write. Empty: the command is read-only, may be run by clients that may only read, and its
    /// reply is not kept (R25).
    pub writes: Vec<Span>,
    /// Whether it never makes the state larger, and so may run when the state is full (R28). A command that says so and
    /// would add bytes fails without effects.
    pub shrinking: bool,
}

impl Footprint {
    /// Reads these, writes nothing.
    #[must_use]
    pub fn reads(reads: Vec<Span>) -> Self {
        Self { reads, ..Self::default() }
    }

    /// Reads and writes these.
    #[must_use]
    pub fn writes(writes: Vec<Span>) -> Self {
        Self { writes, ..Self::default() }
    }

    /// Reads and writes these, and never makes the state larger.
    #[must_use]
    pub fn shrinks(writes: Vec<Span>) -> Self {
        Self { writes, shrinking: true, ..Self::default() }
    }

    /// Whether it declares no write.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }
}

/// A set of keys. Keys are spread over the partitions by hash, so whatever is more than one key touches all of them and
/// conflicts with every write that it overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// One key.
    Key(Vec<u8>),
    /// All keys that start so.
    Prefix(Vec<u8>),
    /// All keys from `from` on, and below `to` where there is one.
    Range {
        /// The first key.
        from: Vec<u8>,
        /// The first key beyond.
        to: Option<Vec<u8>>,
    },
    /// All keys.
    All,
}

/// The first key after all keys that start with `prefix`; none when there is no such key.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

/// Footprints as sorted, disjoint intervals: a check costs the logarithm of their number, so that a command with very
/// many spans slows down nobody.
#[derive(Debug)]
pub(crate) struct Declared {
    reads: Intervals,
    writes: Intervals,
}

impl Declared {
    pub(crate) fn new(footprint: Footprint) -> Self {
        Self { reads: Intervals::new(footprint.reads), writes: Intervals::new(footprint.writes) }
    }

    /// What may be written may be read: a scheduler that orders writes orders those reads too.
    pub(crate) fn may_read(&self, key: &[u8]) -> bool {
        self.writes.holds(key) || self.reads.holds(key)
    }

    pub(crate) fn may_write(&self, key: &[u8]) -> bool {
        self.writes.holds(key)
    }

    pub(crate) fn may_read_range(&self, from: &[u8], to: Option<&[u8]>) -> bool {
        self.reads.hold_range(from, to) || self.writes.hold_range(from, to)
    }
}

#[derive(Debug)]
struct Intervals(Vec<Interval>);

#[derive(Debug)]
struct Interval {
    from: Vec<u8>,
    to: To,
}

/// Where an interval ends. The order of the variants is no order of the ends.
#[derive(Debug)]
enum To {
    /// With its first key.
    Here,
    /// Before this key.
    Before(Vec<u8>),
    /// Nowhere.
    Never,
}

impl From<Span> for Interval {
    fn from(span: Span) -> Self {
        match span {
            Span::Key(from) => Self { from, to: To::Here },
            Span::Prefix(from) => Self { to: prefix_end(&from).map_or(To::Never, To::Before), from },
            Span::Range { from, to } => Self { from, to: to.map_or(To::Never, To::Before) },
            Span::All => Self { from: Vec::new(), to: To::Never },
        }
    }
}

impl Interval {
    fn holds(&self, key: &[u8]) -> bool {
        match &self.to {
            To::Here => key == self.from,
            To::Before(to) => key >= &self.from[..] && key < &to[..],
            To::Never => key >= &self.from[..],
        }
    }

    /// Whether an interval that starts at `from`, not before this one, leaves no key between the two.
    fn reaches(&self, from: &[u8]) -> bool {
        match &self.to {
            // The first key after `k` is `k ‖ 0`.
            To::Here => from == self.from || from.strip_prefix(&self.from[..]) == Some(&[0]),
            To::Before(to) => from <= &to[..],
            To::Never => true,
        }
    }

    /// Whether it ends at `to` or after it.
    fn holds_end(&self, to: Option<&[u8]>) -> bool {
        match (&self.to, to) {
            (To::Here, Some(to)) => to <= &self.from[..] || to.strip_prefix(&self.from[..]) == Some(&[0]),
            (To::Before(own), Some(to)) => to <= &own[..],
            (To::Never, _) => true,
            (To::Here | To::Before(_), None) => false,
        }
    }

    /// The end as the first key beyond.
    fn end(&self) -> Option<Vec<u8>> {
        match &self.to {
            To::Here => Some([&self.from[..], &[0]].concat()),
            To::Before(to) => Some(to.clone()),
            To::Never => None,
        }
    }

    fn absorb(&mut self, later: &Interval) {
        if later.holds_end(self.end().as_deref()) {
            self.to = later.end().map_or(To::Never, To::Before);
        }
    }
}

impl Intervals {
    fn new(spans: Vec<Span>) -> Self {
        let mut intervals: Vec<Interval> = spans.into_iter().map(Interval::from).collect();
        if intervals.len() > 1 {
            intervals.sort_unstable_by(|a, b| a.from.cmp(&b.from));
            intervals.dedup_by(|later, earlier| {
                let joined = earlier.reaches(&later.from);
                if joined {
                    earlier.absorb(later);
                }
                joined
            });
        }
        Self(intervals)
    }

    /// The only interval that can hold `key`: the last one that starts at or before it.
    fn candidate(&self, key: &[u8]) -> Option<&Interval> {
        let after = self.0.partition_point(|interval| interval.from.as_slice() <= key);
        self.0.get(after.checked_sub(1)?)
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.candidate(key).is_some_and(|interval| interval.holds(key))
    }

    fn hold_range(&self, from: &[u8], to: Option<&[u8]>) -> bool {
        self.candidate(from).is_some_and(|interval| interval.holds(from) && interval.holds_end(to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span() -> impl Strategy<Value = Span> {
        let key = || prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0..3);
        prop_oneof![
            key().prop_map(Span::Key),
            key().prop_map(Span::Prefix),
            (key(), prop::option::of(key())).prop_map(|(from, to)| Span::Range { from, to }),
        ]
    }

    fn holds(span: &Span, key: &[u8]) -> bool {
        match span {
            Span::Key(own) => own == key,
            Span::Prefix(prefix) => key.starts_with(prefix),
            Span::Range { from, to } => &from[..] <= key && to.as_deref().is_none_or(|to| key < to),
            Span::All => true,
        }
    }

    /// All keys of up to three bytes out of four values: enough to tell any two of the spans above apart.
    fn keys() -> Vec<Vec<u8>> {
        let bytes = [0u8, 1, 254, 255];
        let mut keys = vec![vec![]];
        for length in 0..3 {
            let longer: Vec<Vec<u8>> = keys
                .iter()
                .filter(|key: &&Vec<u8>| key.len() == length)
                .flat_map(|key| bytes.map(|byte| [&key[..], &[byte]].concat()))
                .collect();
            keys.extend(longer);
        }
        keys.sort();
        keys
    }

    proptest! {
        #[test]
        fn r28_declared_is_exactly_what_some_span_holds(spans in prop::collection::vec(span(), 0..6)) {
            let declared = Declared::new(Footprint::writes(spans.clone()));
            for key in keys() {
                let expected = spans.iter().any(|span| holds(span, &key));
                prop_assert_eq!(declared.may_write(&key), expected, "{:?}", key);
                prop_assert_eq!(declared.may_read(&key), expected);
            }
        }

        #[test]
        fn r28_a_range_is_declared_only_if_all_its_keys_are(
            spans in prop::collection::vec(span(), 0..6),
            from in 0usize..85,
            to in prop::option::of(0usize..85),
        ) {
            let keys = keys();
            let to = to.map(|to| keys[to].clone());
            let declared = Declared::new(Footprint::reads(spans.clone()));
            if declared.may_read_range(&keys[from], to.as_deref()) {
                let range = Span::Range { from: keys[from].clone(), to };
                for key in keys.iter().filter(|key| holds(&range, key)) {
                    prop_assert!(spans.iter().any(|span| holds(span, key)), "{:?}", key);
                }
            }
        }
    }

    #[test]
    fn a_range_over_neighbouring_spans_is_declared() {
        let declared = Declared::new(Footprint::reads(vec![
            Span::Prefix(b"b".to_vec()),
            Span::Range { from: b"a".to_vec(), to: Some(b"b".to_vec()) },
        ]));
        assert!(declared.may_read_range(b"a", Some(b"c")));
        assert!(!declared.may_read_range(b"a", Some(b"c\0")));
        assert!(!declared.may_read_range(b"a", None));
    }

    #[test]
    fn what_is_declared_as_read_may_not_be_written() {
        let declared = Declared::new(Footprint::reads(vec![Span::All]));
        assert!(declared.may_read(b"k") && !declared.may_write(b"k"));
    }

    #[test]
    fn the_end_of_a_prefix() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(prefix_end(&[255]), None);
        assert_eq!(prefix_end(b""), None);
    }
}
