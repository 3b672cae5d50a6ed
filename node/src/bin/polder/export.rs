//! `polder export`: all records, sorted by key bytes.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::process::ExitCode;

use indicatif::ProgressBar;
use polder_kv::KvClient;
use polder_node::cli::listed;

use crate::common::ClusterArgs;
use crate::records::Format;

/// Records a page. A page also ends where its reply would grow too large.
const PAGE_RECORDS_MAX: u32 = 4_096;

/// Prints all records, key first, sorted by the bytes of their keys
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder export --cluster net/cluster.toml > records.tsv
  polder export --cluster net/cluster.toml --prefix user/
  polder export --cluster net/cluster.toml --format jsonl | jq -r .key

Pages are read one after the other, each in the order of all commands: exact when nobody writes meanwhile.
A record that TSV cannot hold is an error that names it; JSON lines hold every record.")]
pub(crate) struct Export {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How records are written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Only keys that begin so
    #[arg(long, value_name = "P", default_value = "")]
    prefix: String,
}

impl Export {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let kv = self.cluster.connect().await?;
        let bar = bar();
        let stdout = io::stdout().lock();
        let mut out = BufWriter::with_capacity(1 << 16, stdout);
        let written = write(&kv, self.prefix.as_bytes(), self.format, &mut out, &|records| {
            bar.set_message(format!("{records} records"));
            bar.tick();
        })
        .await;
        bar.finish_and_clear();
        kv.close().await;
        listed(written.map(drop)).map(|()| ExitCode::SUCCESS)
    }
}

/// Writes the records whose keys begin with `prefix`; returns how many.
pub(crate) async fn write(
    kv: &KvClient,
    prefix: &[u8],
    format: Format,
    out: &mut impl Write,
    progress: &dyn Fn(u64),
) -> anyhow::Result<u64> {
    let mut records = 0;
    let mut from = Some(prefix.to_vec());
    while let Some(first) = from.take() {
        let page = kv.prefix_after(prefix, &first, PAGE_RECORDS_MAX).await?;
        for entry in &page.entries {
            format.print(out, &entry.key, &entry.value)?;
        }
        records += page.entries.len() as u64;
        progress(records);
        from = page.next.map(|next| next.to_vec());
    }
    out.flush()?;
    Ok(records)
}

fn bar() -> ProgressBar {
    // Its own output on the same terminal is progress enough.
    if io::stderr().is_terminal() && !io::stdout().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    }
}
