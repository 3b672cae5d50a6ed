//! `polder keygen`: a client's key.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use crate::files::write_key;

/// Makes a client's key
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  polder keygen --out alice.key
  polder kv --cluster net/cluster.toml --key alice.key get lamp

The printed public key goes into [[clients.keys]] of the cluster file, unless that file says clients.open = true.")]
pub(super) struct Keygen {
    /// Where to write the secret key; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        if self.out.exists() {
            bail!("{} exists: a key is never overwritten", self.out.display());
        }
        let key = super::random_key()?;
        write_key(&self.out, &key)?;
        println!("{}", key.public().to_hex());
        Ok(ExitCode::SUCCESS)
    }
}
