//! `polder import`: many records, each exactly once, resumable.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use polder_client::{Builder, CallError, ConnectError, Unknown};
use polder_node::cli::{say, tell};

use crate::common::ClusterArgs;
use crate::load::{self, OtherInput, State};
use crate::records::{Form, Format, Place};

/// Stores the records of a file, each exactly once, whatever dies meanwhile
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder import --cluster net/cluster.toml records.tsv
  polder import --cluster net/cluster.toml --format jsonl records.jsonl
  zcat records.tsv.gz | polder import --cluster net/cluster.toml --state records.state -

An import that was interrupted goes on when the same command is run again: session and place are kept in the state file.
The key of a TSV record is one column, its value the others, tab-joined. A JSON line is {\"key\": \"lamp\", \"value\": \"on\"},
with key_base64 or value_base64 for bytes that are no text. A later record of the same key wins.")]
pub(crate) struct Import {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How records are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Which column of TSV is the key, from 1 [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    key_column: Option<u64>,
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
        let start = Instant::now();
        let form = form(self.format, self.key_column)?;
        let is_stdin = self.file == Path::new("-");
        let path = match self.state {
            Some(path) => path,
            None if is_stdin => bail!("standard input needs --state FILE, to go on from if this is interrupted"),
            None => load::default_state_path(&self.file),
        };
        let (input, bytes) = open(&self.file, is_stdin)?;
        let builder = self.cluster.builder()?;
        let known = State::read(&path)?;
        if let Some(begun) = known.map(|state| state.form()).filter(|begun| *begun != form) {
            let begun = match begun {
                Form::Tsv(key_column) => format!("--format tsv --key-column {key_column}"),
                Form::Jsonl => "--format jsonl".to_owned(),
            };
            bail!("this import was begun with {begun}: use that, or {}", from_the_start(&path));
        }
        let before = known.map_or(0, |state| state.place().records);
        if before > 0 {
            tell(format_args!("goes on after {before} records that are stored already"));
        }
        let bar = bar(bytes);
        let done = run(builder, known, form, &path, input, &|place: Place| {
            bar.set_position(place.bytes);
            bar.set_message(format!("{} records", place.records));
        })
        .await
        .inspect_err(|_| bar.abandon())
        .map_err(|error| {
            let advice = advice(&error, &path);
            error.context(advice)
        })?;
        bar.finish_and_clear();
        let seconds = start.elapsed().as_secs_f64();
        let result = serde_json::json!({
            "records": done.place().records,
            "bytes": done.place().bytes,
            "seconds": seconds,
            "records_before": before,
        });
        say(result).context("all is imported")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What the lines of the input mean.
fn form(format: Format, key_column: Option<u64>) -> anyhow::Result<Form> {
    match (format, key_column) {
        (Format::Tsv, key_column) => Ok(Form::Tsv(usize::try_from(key_column.unwrap_or(1))?)),
        (Format::Jsonl, None) => Ok(Form::Jsonl),
        (Format::Jsonl, Some(_)) => bail!("--key-column goes with --format tsv: a JSON line names its key"),
    }
}

/// How an import is begun anew, and what that means.
fn from_the_start(state: &Path) -> String {
    format!("remove {} to import from the start (what is stored stays, or is written again)", state.display())
}

/// What to do about an import that ended early. Only what time may mend is mended by running it again.
fn advice(error: &anyhow::Error, state: &Path) -> String {
    let is_passing = error.chain().any(|cause| {
        let of_call: Option<&CallError> = cause.downcast_ref();
        of_call.is_some_and(|error| error.is_timeout() || is_closed(error))
            || matches!(cause.downcast_ref(), Some(ConnectError::TimedOut(_)))
    });
    let is_other_session = error.chain().any(|cause| {
        matches!(cause.downcast_ref(), Some(ConnectError::WrongState(_)))
            || cause.downcast_ref().is_some_and(CallError::is_outcome_unknown)
    });
    if is_passing {
        format!("not all was imported; run the same command again to go on ({})", state.display())
    } else if error.chain().any(|cause| cause.is::<OtherInput>()) {
        format!("nothing more was imported; give the input that was begun, or {}", from_the_start(state))
    } else if is_other_session {
        format!(
            "not all was imported; the session that {} names is no good: {}",
            state.display(),
            from_the_start(state)
        )
    } else if state.exists() {
        format!("not all was imported; this must be mended first, then the same command goes on ({})", state.display())
    } else {
        "nothing was imported".to_owned()
    }
}

/// Whether the client was closed while the command was under way.
fn is_closed(error: &CallError) -> bool {
    matches!(error, CallError::OutcomeUnknown { why: Unknown::Closed, .. })
}

/// Imports all of `input`, going on from `known`; the state at `path` is gone when all is stored.
///
/// # Errors
///
/// As [`load::load`], and when the session cannot be opened or resumed. An input that cannot be read, or is bad in what
/// would be sent first, is found before anything is sent or stored.
pub(crate) async fn run(
    builder: Builder,
    known: Option<State>,
    form: Form,
    path: &Path,
    input: impl BufRead + Send + 'static,
    progress: &(dyn Fn(Place) + Sync),
) -> anyhow::Result<State> {
    let mut chunks = load::read_ahead(input, form, known);
    let first = chunks.recv().await.transpose()?;
    let (client, state) = match known {
        Some(state) => (builder.resume(state.session()).await?, state),
        None => {
            let client = builder.connect_resumable().await?;
            let state = State::new(client.state(), form);
            state.store(path)?;
            (client, state)
        }
    };
    let done = load::load(&client, state, path, first, chunks, progress).await?;
    client.close().await;
    std::fs::remove_file(path).with_context(|| path.display().to_string())?;
    Ok(done)
}

fn open(file: &Path, is_stdin: bool) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if is_stdin {
        return Ok((Box::new(BufReader::new(std::io::stdin())), None));
    }
    let opened = File::open(file).with_context(|| file.display().to_string())?;
    let metadata = opened.metadata().with_context(|| file.display().to_string())?;
    if metadata.is_dir() {
        bail!("{} is a folder: records come from a file", file.display());
    }
    let bytes = metadata.is_file().then_some(metadata.len());
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

#[cfg(test)]
mod tests {
    use polder_client::SessionState;
    use polder_types::{
        ClientAccess, ClientId, ClusterFile, ClusterId, Constants, Digest, FaultModel, SessionId, SigningKey,
    };

    use super::*;

    /// A client of a cluster without replicas: it would fail, in other words, if it were asked to connect.
    fn nobody() -> Builder {
        let cluster = ClusterFile {
            nonce: Default::default(),
            fault_model: FaultModel::Byzantine,
            constants: Constants::default(),
            clients: ClientAccess { open: true, keys: Vec::new() },
            replicas: Vec::new(),
        };
        Builder::new(cluster, SigningKey::from_seed(&[1; 32]))
    }

    async fn failed(known: Option<State>, form: Form, path: &Path, input: &'static str) -> String {
        let done = run(nobody(), known, form, path, input.as_bytes(), &|_| ()).await;
        let error = done.err().unwrap_or_else(|| anyhow::anyhow!("it did not fail"));
        let advice = advice(&error, path);
        format!("{:#}", error.context(advice))
    }

    #[tokio::test]
    async fn a_bad_input_is_found_before_a_state_is_kept() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        for (input, form, why) in [
            ("\tv\n", Form::Tsv(1), "line 1: the key is empty"),
            ("k\tv\n\n", Form::Tsv(1), "line 2: the key is empty"),
            ("k\tv\n", Form::Tsv(3), "line 1: 2 columns"),
            ("{\"key\":\"k\",\"value\":\"v\"}\nk\tv\n", Form::Jsonl, "line 2: column 1: expected value"),
        ] {
            let words = failed(None, form, &path, input).await;
            assert!(words.starts_with("nothing was imported: ") && words.contains(why), "{words}");
            assert!(!path.exists());
        }
        assert!(open(folder.path(), false).is_err_and(|error| error.to_string().contains("is a folder")));
        Ok(())
    }

    #[tokio::test]
    async fn another_input_than_the_one_begun_says_what_to_do() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        let session = SessionState {
            cluster: ClusterId(Digest::ZERO),
            client: ClientId(SigningKey::from_seed(&[1; 32]).public()),
            session: SessionId::default(),
            acknowledged: 1,
        };
        let words = failed(Some(State::new(session, Form::Tsv(1))), Form::Tsv(1), &path, "k\tv\n").await;
        assert!(
            words.contains("give the input that was begun, or remove") && !words.contains("again to go on"),
            "{words}"
        );
        Ok(())
    }

    #[test]
    fn a_key_column_is_for_columns() {
        assert!(matches!(form(Format::Tsv, None), Ok(Form::Tsv(1))));
        assert!(matches!(form(Format::Tsv, Some(2)), Ok(Form::Tsv(2))));
        assert!(matches!(form(Format::Jsonl, None), Ok(Form::Jsonl)));
        assert!(form(Format::Jsonl, Some(1)).is_err());
    }

    #[test]
    fn only_what_time_may_mend_is_to_be_run_again() {
        let path = Path::new("/nowhere/state");
        let goes_on = |error: anyhow::Error| advice(&error, path).contains("run the same command again to go on");
        assert!(goes_on(ConnectError::TimedOut(Vec::new()).into()));
        let unknown = |why| CallError::OutcomeUnknown { why, token: None };
        assert!(goes_on(unknown(Unknown::TimedOut).into()));
        assert!(!goes_on(ConnectError::WrongState("cluster").into()));
        assert!(!goes_on(unknown(Unknown::SessionGone).into()));
        assert!(!goes_on(CallError::Rejected(polder_types::Failure::StateFull).into()));
        let gone = advice(&unknown(Unknown::SessionGone).into(), path);
        assert!(gone.contains("remove /nowhere/state"), "{gone}");
    }
}
