//! What the verbs share: which cluster, as whom, in which format.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use polder_client::{Builder, ResolveError};
use polder_kv::KvClient;
use polder_node::cli::{cluster_file, tell};
use polder_node::files::read_key;
use polder_types::{ClusterFile, NodeStatus, SigningKey};

/// Exit status 3: nobody knows whether a command was executed.
pub(crate) const OUTCOME_UNKNOWN: u8 = 3;

/// The exit status of an outcome; an error of which the outcome is known is passed on.
pub(crate) fn outcome(outcome: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match outcome {
        Err(error) if is_outcome_unknown(&error) => {
            tell(format_args!("polder: {error:#}"));
            Ok(ExitCode::from(OUTCOME_UNKNOWN))
        }
        outcome => outcome,
    }
}

fn is_outcome_unknown(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_kv = cause.downcast_ref().is_some_and(polder_kv::CallError::is_outcome_unknown);
        let is_open = matches!(cause.downcast_ref(), Some(ResolveError::StillUnknown));
        of_kv || is_open || cause.downcast_ref().is_some_and(polder_client::CallError::is_outcome_unknown)
    })
}

/// Which cluster, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// The cluster's public file
    #[arg(long, value_name = "FILE", env = "POLDER_CLUSTER", global = true)]
    cluster: Option<PathBuf>,
    /// The client's key [default: client.key beside the cluster's file]
    // Its name is not that of the argument of `kv get KEY`, which is another.
    #[arg(id = "key_file", long = "key", value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// Seconds that a call may take, and connecting
    #[arg(long, value_name = "SECONDS", default_value_t = 30, global = true, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl ClusterArgs {
    /// The cluster of a file, as the client whose key is beside it.
    pub(crate) fn of(cluster: PathBuf) -> Self {
        Self { cluster: Some(cluster), key: None, timeout: 30 }
    }

    /// As [`ClusterArgs::of`], for who asks again anyway.
    pub(crate) fn impatient(cluster: PathBuf) -> Self {
        Self { timeout: 1, ..Self::of(cluster) }
    }

    /// Whether a cluster was named.
    pub(crate) fn is_given(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether a key was named.
    pub(crate) fn names_key(&self) -> bool {
        self.key.is_some()
    }

    fn path(&self) -> anyhow::Result<&Path> {
        self.cluster.as_deref().context("which cluster? --cluster FILE names its public file")
    }

    /// The cluster's public file.
    pub(crate) fn file(&self) -> anyhow::Result<ClusterFile> {
        cluster_file(self.path()?)
    }

    /// The client's key.
    pub(crate) fn signing_key(&self) -> anyhow::Result<SigningKey> {
        let beside =
            || Ok::<_, anyhow::Error>(self.path()?.parent().unwrap_or_else(|| Path::new("")).join("client.key"));
        let path = self.key.clone().map_or_else(beside, Ok)?;
        Ok(read_key(&path)?)
    }

    /// A client's builder.
    pub(crate) fn builder(&self) -> anyhow::Result<Builder> {
        // The cluster's file first: beside another file there is no key to be missed.
        self.builder_of(self.file()?, self.signing_key()?)
    }

    /// A builder of a client of this cluster, with this key.
    fn builder_of(&self, cluster: ClusterFile, key: SigningKey) -> anyhow::Result<Builder> {
        let timeout = Duration::from_secs(self.timeout);
        Ok(Builder::new(cluster, key).call_timeout(timeout).connect_timeout(timeout))
    }

    /// How each replica says it is; none for one that does not answer.
    pub(crate) async fn statuses(&self) -> anyhow::Result<Vec<Option<NodeStatus>>> {
        let statuses = self.builder()?.statuses().await?;
        Ok(statuses.into_iter().map(|(_, status)| status.ok()).collect())
    }

    /// A client of its key-value service, with a session.
    pub(crate) async fn connect(&self) -> anyhow::Result<KvClient> {
        Ok(KvClient::new(self.builder()?.connect().await?))
    }

    /// As [`ClusterArgs::connect`], with this key.
    pub(crate) async fn connect_as(&self, key: SigningKey) -> anyhow::Result<KvClient> {
        Ok(KvClient::new(self.builder_of(self.file()?, key)?.connect().await?))
    }
}

#[cfg(test)]
mod tests {
    use polder_client::{CallError, Unknown};
    use polder_node::files::{Readers, write_durably};

    use super::*;

    #[test]
    fn an_unknown_outcome_has_its_exit_status_below_any_words() {
        let failed = |error: CallError| Err::<ExitCode, _>(error).context("not all was imported").context("import");
        let status = |outcome: anyhow::Result<ExitCode>| outcome.map(|code| format!("{code:?}")).ok();
        let unknown = Some(format!("{:?}", ExitCode::from(3)));
        // A put that was sent, and not answered in time.
        assert_eq!(status(outcome(failed(CallError::OutcomeUnknown { why: Unknown::TimedOut, token: None }))), unknown);
        assert_eq!(status(outcome(Err(ResolveError::StillUnknown.into()))), unknown);
        assert!(outcome(failed(CallError::NotSent("time ran out"))).is_err());
        assert!(outcome(failed(CallError::Rejected(polder_types::Failure::StateFull))).is_err());
        let of_kv = polder_kv::CallError::Client(CallError::OutcomeUnknown { why: Unknown::SessionGone, token: None });
        assert_eq!(status(outcome(Err(of_kv.into()))), unknown);
    }

    #[test]
    fn a_file_of_another_kind_is_named_before_the_key_that_is_not_beside_it() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.toml");
        write_durably(&path, b"replica = 0\n", Readers::All)?;
        let words = ClusterArgs::of(path).builder().map(drop).map_err(|error| format!("{error:#}"));
        assert!(words.is_err_and(|words| words.contains("no cluster file") && !words.contains("client.key")));
        Ok(())
    }
}
