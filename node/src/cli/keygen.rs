//! `polder keygen`: a client's key.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use crate::files::write_key;

/// Makes a client's key
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  polder keygen --out alice.key
  polder testnet --closed --client-key KEY_THAT_IT_PRINTED --dir net
  polder status --cluster net/cluster.toml --key alice.key

With clients.open = true in the cluster file any key may write. Otherwise the printed public key must be in its
[[clients.keys]] before the first start, on all replicas: who may write is fixed then.")]
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
        super::say(key.public().to_hex())?;
        Ok(ExitCode::SUCCESS)
    }
}
