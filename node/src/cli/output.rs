//! What a verb says, on outputs that may be closed or full: `println!` would panic.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Context as _;

/// What an error of [`say`] begins with.
const UNSAID: &str = "the result cannot be written on standard output";

/// Prints words and a line break on standard output.
///
/// # Errors
///
/// When they cannot be written, also because nobody reads any more: whoever asked has not got the result.
pub fn say(words: impl Display) -> anyhow::Result<()> {
    print(&mut io::stdout().lock(), words).context(UNSAID)
}

/// As [`say`], for a list: a reader that is gone has seen enough of it.
///
/// # Errors
///
/// When the words cannot be written, except because nobody reads any more.
pub fn say_list(words: impl Display) -> anyhow::Result<()> {
    listed(print(&mut io::stdout().lock(), words).map_err(Into::into))
}

/// What the writing of a list came to: nothing bad if its reader is gone, which has seen enough.
///
/// # Errors
///
/// Those of `written`, except that nobody reads any more.
pub fn listed(written: anyhow::Result<()>) -> anyhow::Result<()> {
    match written.as_ref().err().and_then(|error| error.downcast_ref()).map(io::Error::kind) {
        Some(io::ErrorKind::BrokenPipe) => Ok(()),
        Some(_) => written.context(UNSAID),
        None => written,
    }
}

/// Prints words and a line break on standard error, if that can be: there is nowhere else to say that it cannot.
pub fn tell(words: impl Display) {
    print(&mut io::stderr().lock(), words).ok();
}

fn print(out: &mut impl Write, words: impl Display) -> io::Result<()> {
    writeln!(out, "{words}")?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An output that fails so.
    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_list_may_end_early_and_any_other_failure_is_an_error_in_words() {
        let written = |kind| print(&mut Failing(kind), "x").map_err(anyhow::Error::from);
        assert!(written(io::ErrorKind::BrokenPipe).is_err());
        assert!(listed(written(io::ErrorKind::BrokenPipe)).is_ok());
        let full = listed(written(io::ErrorKind::StorageFull)).map_err(|error| format!("{error:#}"));
        assert!(full.is_err_and(|words| words.starts_with(UNSAID)));
        let other = listed(Err(anyhow::anyhow!("no quorum"))).map_err(|error| format!("{error:#}"));
        assert_eq!(other, Err("no quorum".to_owned()));
    }
}
