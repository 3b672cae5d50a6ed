//! `polder import`: many records, each exactly once, resumable.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use polder_client::Builder;

use crate::common::{ClusterArgs, Format};
use crate::load::{self, State};

/// Stores the records of a file, each exactly once, whatever dies meanwhile
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder import --cluster net/cluster.toml records.tsv
  zcat records.tsv.gz | polder import --cluster net/cluster.toml --state records.state -

An import that was interrupted goes on when the same command is run again: session and place are kept in the state file.
The key of a record is one column, its value the others, tab-joined; a later record of the same key wins.")]
pub(crate) struct Import {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How records are written: one a line, its columns separated by tabs
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Which column is the key, from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    key_column: u64,
    /// Where session and place are kept until all is stored [default: FILE.polder-import]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Accepted for uniformity: the result is JSON anyway
    #[arg(long)]
    json: bool,
    /// The file; - for standard input, which needs --state
    file: PathBuf,
}

impl Import {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Format::Tsv = self.format;
        let start = Instant::now();
        let is_stdin = self.file == Path::new("-");
        let path = match self.state {
            Some(path) => path,
            None if is_stdin => bail!("standard input needs --state FILE, to go on from if this is interrupted"),
            None => load::default_state_path(&self.file),
        };
        let (input, bytes) = open(&self.file, is_stdin)?;
        let builder = self.cluster.builder()?;
        let key_column = usize::try_from(self.key_column)?;
        let known = State::read(&path)?;
        if known.is_some_and(|state| state.key_column() != key_column) {
            bail!("{}: begun with --key-column {}", path.display(), known.map_or(0, |state| state.key_column()));
        }
        let before = known.map_or(0, |state| state.place().records);
        if before > 0 {
            eprintln!("goes on after {before} records that are stored already");
        }
        let bar = bar(bytes);
        let done = run(builder, known, key_column, &path, input, &|place: crate::tsv::Place| {
            bar.set_position(place.bytes);
            bar.set_message(format!("{} records", place.records));
        })
        .await
        .inspect_err(|_| bar.abandon())
        .with_context(|| format!("not all was imported; run the same command again to go on ({})", path.display()))?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        let result = serde_json::json!({
            "records": done.place().records,
            "bytes": done.place().bytes,
            "seconds": seconds,
            "records_before": before,
        });
        println!("{result}");
        Ok(ExitCode::SUCCESS)
    }
}

/// Imports all of `input`, going on from `known`; the state at `path` is gone when all is stored.
///
/// # Errors
///
/// As [`load::load`], and when the session cannot be opened or resumed.
pub(crate) async fn run(
    builder: Builder,
    known: Option<State>,
    key_column: usize,
    path: &Path,
    input: impl BufRead + Send + 'static,
    progress: &(dyn Fn(crate::tsv::Place) + Sync),
) -> anyhow::Result<State> {
    let (client, state) = match known {
        Some(state) => (builder.resume(state.session()).await?, state),
        None => {
            let client = builder.connect_resumable().await?;
            let state = State::new(client.state(), key_column);
            state.store(path)?;
            (client, state)
        }
    };
    let chunks = load::read_ahead(input, state);
    let done = load::load(&client, state, path, chunks, progress).await?;
    client.close().await;
    std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    Ok(done)
}

fn open(file: &Path, is_stdin: bool) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if is_stdin {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let bytes = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(BufReader::with_capacity(1 << 16, opened)), bytes))
}

pub(crate) fn bar(bytes: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {percent}% {msg} {bytes_per_sec} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {bytes_per_sec}"),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    // A template that does not parse is a slip here: the bar is drawn in its default style then.
    ProgressStyle::with_template(template).map_or(bar.clone(), |style| bar.with_style(style))
}
