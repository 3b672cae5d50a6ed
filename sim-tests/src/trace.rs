//! What happened in a run, as lines, and as one hash over them: the same seed twice gives the same hash.

use std::fmt::Write as _;
use std::io::Write as _;

use polder_types::{Digest, Domain, Hasher};

/// Where the lines go, beside into the hash.
#[derive(Debug)]
enum Sink {
    /// Nowhere, and into no hash either.
    Silent,
    /// Nowhere.
    Nowhere,
    /// Into memory.
    Memory(String),
    /// To standard output, as they come: also those before a panic.
    Output(std::io::BufWriter<std::io::Stdout>),
}

/// The trace of a run.
pub struct Trace {
    hasher: Hasher,
    line: String,
    sink: Sink,
}

impl Default for Trace {
    fn default() -> Self {
        Self { hasher: Hasher::new(Domain::Seen), line: String::new(), sink: Sink::Nowhere }
    }
}

impl Trace {
    /// A trace that also prints its lines.
    #[must_use]
    pub fn printing() -> Self {
        Self { sink: Sink::Output(std::io::BufWriter::new(std::io::stdout())), ..Self::default() }
    }

    /// A trace that nobody looks at: its lines are not even made.
    #[must_use]
    pub fn silent() -> Self {
        Self { sink: Sink::Silent, ..Self::default() }
    }

    /// A trace that also keeps its lines.
    #[must_use]
    pub fn keeping() -> Self {
        Self { sink: Sink::Memory(String::new()), ..Self::default() }
    }

    /// Adds a line.
    pub fn line(&mut self, line: std::fmt::Arguments<'_>) {
        if matches!(self.sink, Sink::Silent) {
            return;
        }
        self.line.clear();
        // Writing to a string cannot fail.
        let _infallible = self.line.write_fmt(line);
        self.line.push('\n');
        self.hasher.update(self.line.as_bytes());
        match &mut self.sink {
            Sink::Nowhere | Sink::Silent => {}
            Sink::Memory(text) => text.push_str(&self.line),
            // A reader that has gone away is no reason to stop.
            Sink::Output(output) => drop(output.write_all(self.line.as_bytes())),
        }
    }

    /// The lines kept since they were last taken.
    pub fn take(&mut self) -> String {
        match &mut self.sink {
            Sink::Memory(text) => std::mem::take(text),
            Sink::Nowhere | Sink::Silent | Sink::Output(_) => String::new(),
        }
    }

    /// The hash over all lines so far; none of a silent one.
    #[must_use]
    pub fn hash(&self) -> Option<Digest> {
        (!matches!(self.sink, Sink::Silent)).then(|| self.hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_lines_and_their_order() {
        let hash = |lines: &[&str]| {
            let mut trace = Trace::keeping();
            lines.iter().for_each(|line| trace.line(format_args!("{line}")));
            (trace.hash(), trace.take())
        };
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]).0, hash(&["b", "a"]).0);
        assert_ne!(hash(&["ab"]).0, hash(&["a", "b"]).0);
        assert_eq!(hash(&["a", "b"]).1, "a\nb\n");
    }
}
