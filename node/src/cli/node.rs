//! `polder node`: one replica.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use polder_consensus::Evidence;
use polder_executor::Service;
use polder_transport::Wiring;
use polder_types::Timestamp;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::log_writer::LogWriter;
use crate::admin::{self, Admin};
use crate::config::{DurabilityMode, LoadedConfig, LogFormat, load, misspelt_variables};
use crate::evidence;
use crate::identity::IdentityFile;
use crate::store::{RocksOptions, RocksStore};
use crate::{Node, NodeConfig, Stores, Threads};

/// Runs one replica
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder node --config net/node-0/node.toml
  polder node --config net/node-0/node.toml --log-format json

Every key of the file can be overridden by an environment variable: POLDER_ and the key in capitals.
SIGTERM and Ctrl-C finish what was taken, and end with 0.")]
pub(super) struct NodeVerb {
    /// The replica's node.toml
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to log, on standard error; instead of what the file says
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// End when standard input does: for a parent that holds the other end of it
    #[arg(long, hide = true)]
    end_with_stdin: bool,
}

impl NodeVerb {
    pub(super) async fn run<S: Service + Default>(self) -> anyhow::Result<ExitCode> {
        // Before anything that takes time: who asks meanwhile is heard.
        let ending = super::Ending::install(self.end_with_stdin)?;
        let config = Arc::new(load(&self.config)?);
        let log = start_log(&config.log, self.log_format.unwrap_or(config.log_format))?;
        let outcome = self.serve::<S>(config, ending).await;
        log.flush();
        outcome
    }

    async fn serve<S: Service + Default>(
        self,
        config: Arc<LoadedConfig>,
        mut ending: super::Ending,
    ) -> anyhow::Result<ExitCode> {
        let identity =
            IdentityFile::open(&config.data_dir, config.genesis.cluster(), config.me, config.signing.public())?;
        identity.check_folders()?;
        warn(&config);
        let wiring = Wiring::real(config.listen).with_context(|| {
            format!("{} cannot be listened on (listen in {})", config.listen, self.config.display())
        })?;
        let admin = Admin::default();
        let serving = match config.admin_listen {
            Some(address) => {
                let listener = admin::bind(address).await.with_context(|| {
                    format!("{address} cannot be listened on (admin_listen in {})", self.config.display())
                })?;
                Some(tokio::spawn(admin::serve(listener, admin.clone())))
            }
            None => None,
        };
        tracing::info!(replica = %config.me, cluster = %config.genesis.cluster(), "recovering");
        // Recovery may take minutes and cannot be interrupted, not by ending the process either, for RocksDB does not bear
        // that while a thread is inside it: meanwhile the admin port and whoever ends this are served.
        let mut starting = tokio::task::spawn_blocking({
            let config = config.clone();
            move || start::<S>(&config, identity, wiring)
        });
        let mut node = tokio::select! {
            biased;
            started = &mut starting => started.context("the start has panicked")??,
            () = ending.asked() => {
                tracing::info!(replica = %config.me, "asked to end while it recovers: it ends when that is done");
                let mut node = starting.await.context("the start has panicked")??;
                node.stop();
                node.ended().await?;
                return Ok(ExitCode::SUCCESS);
            }
        };
        admin.started(&node);
        let keeper = tokio::spawn(keep_evidence(config.clone(), node.evidence()));
        let ended = tokio::select! {
            biased;
            ended = node.ended() => ended,
            () = ending.asked() => {
                tracing::info!(replica = %config.me, "asked to end: finishing what was taken");
                node.stop();
                node.ended().await
            }
        };
        // It ends when the node has.
        keeper.await.context("who keeps evidence has panicked")?;
        ended?;
        serving.inspect(tokio::task::JoinHandle::abort);
        tracing::info!(replica = %config.me, "ended");
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the evidence that a node finds (R41) into its data folder, until the node has ended.
async fn keep_evidence(config: Arc<LoadedConfig>, mut found: watch::Receiver<Vec<Arc<Evidence>>>) {
    let mut seen = 0;
    while found.changed().await.is_ok() {
        let new: Vec<Arc<Evidence>> = found.borrow_and_update().iter().skip(seen).cloned().collect();
        seen += new.len();
        let config = config.clone();
        let kept = tokio::task::spawn_blocking(move || new.iter().for_each(|evidence| keep(&config, evidence)));
        if kept.await.is_err() {
            return;
        }
    }
}

fn keep(config: &LoadedConfig, evidence: &Evidence) {
    // A genesis that was started from is one that can be.
    let Ok(keyring) = config.genesis.check() else { return };
    match evidence.verify(&keyring).map(|misdeed| evidence::keep(&config.data_dir, evidence, &misdeed)) {
        Ok(Ok(path)) => tracing::warn!(culprit = %evidence.culprit(), path = %path.display(), "evidence is kept"),
        Ok(Err(error)) => tracing::error!(culprit = %evidence.culprit(), %error, "evidence cannot be kept"),
        Err(error) => tracing::error!(culprit = %evidence.culprit(), %error, "a bug in polder: this is no evidence"),
    }
}

/// Opens the stores and starts the node from them.
fn start<S: Service + Default>(
    config: &LoadedConfig,
    mut identity: IdentityFile,
    wiring: Wiring,
) -> anyhow::Result<Node> {
    let stores = open_stores(&config.data_dir, identity.may_create(), config.durability)?;
    let start = identity.start(stores.log.as_ref())?;
    let service = Arc::new(S::default());
    let node = Node::start(&node_config(config, start)?, service, wiring, stores, || identity.disarm())?;
    tracing::info!(replica = %config.me, address = %node.address(), ?start, "started");
    Ok(node)
}

fn start_log(filter: &str, format: LogFormat) -> anyhow::Result<LogWriter> {
    let filter =
        EnvFilter::try_new(filter).context("the key `log` is no filter such as `info` or `polder_node=debug`")?;
    let writer = LogWriter::start(std::io::stderr(), format).context("no thread can be started")?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer.clone());
    // When nobody reads standard error any more, saying so there would panic.
    let log = log.log_internal_errors(false);
    let started = match format {
        LogFormat::Human => log.with_ansi(is_terminal).try_init(),
        // Fields of events beside the time and the level: nobody here opens spans.
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(writer)
}

/// What an operator must not overlook.
fn warn(config: &LoadedConfig) {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (variable, meant) in misspelt_variables(variables) {
        tracing::warn!(%variable, %meant, "an environment variable that sets nothing, and one that was probably meant");
    }
    if config.genesis.clients.open {
        tracing::warn!(address = %config.listen, "clients.open = true: anybody who reaches this address may write");
    }
    if config.durability == DurabilityMode::None {
        tracing::warn!(replica = %config.me, "durability = \"none\": a machine that loses power forgets its votes; only for experiments");
    }
}

fn open_stores(data: &Path, create: bool, durability: DurabilityMode) -> anyhow::Result<Stores> {
    let options = RocksOptions { create, sync: durability == DurabilityMode::Sync, ..RocksOptions::default() };
    let open = |folder: &Path| RocksStore::open(folder, options).map_err(|error| anyhow::anyhow!("{error}"));
    Ok(Stores {
        log: Arc::new(open(&IdentityFile::log_folder(data))?),
        state: Arc::new(open(&IdentityFile::state_folder(data))?),
    })
}

fn node_config(config: &LoadedConfig, start: crate::replica::Start) -> anyhow::Result<NodeConfig> {
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce)?;
    Ok(NodeConfig {
        me: config.me,
        cluster: config.cluster.clone(),
        identity: config.identity.clone(),
        signing: config.signing.clone(),
        pipeline_slots: config.pipeline_slots,
        start,
        nonce: u64::from_le_bytes(nonce),
        threads: Threads::Own { verify: config.verify_threads },
        disk_reserve_bytes: config.disk_reserve_bytes,
        wall_clock: Arc::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        }),
    })
}

#[cfg(test)]
mod tests {
    use polder_consensus::Phase;
    use polder_types::{ReplicaId, SigningKey};

    use super::*;
    use crate::evidence::tests::{cluster, two_votes};

    #[tokio::test]
    async fn r41_what_a_node_finds_is_in_its_data_folder_when_it_has_ended() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (key, cluster) = (SigningKey::from_seed(&[9; 32]), cluster(1));
        let config = LoadedConfig {
            me: ReplicaId(0),
            genesis: Arc::new(cluster.genesis()),
            identity: key.clone(),
            signing: key,
            data_dir: folder.path().to_owned(),
            listen: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
            admin_listen: None,
            pipeline_slots: 4,
            verify_threads: 1,
            durability: DurabilityMode::Sync,
            disk_reserve_bytes: 0,
            log: String::new(),
            log_format: LogFormat::Human,
            cluster: cluster.clone(),
        };
        let (found, receiver) = watch::channel(Vec::new());
        let keeper = tokio::spawn(keep_evidence(Arc::new(config), receiver));
        for phase in [Phase::Prepare, Phase::Commit] {
            found.send_modify(|all| all.push(Arc::new(two_votes(&cluster, phase, [1, 2]))));
        }
        // One that proves nothing is not kept.
        found.send_modify(|all| all.push(Arc::new(two_votes(&cluster, Phase::Prepare, [1, 1]))));
        drop(found);
        keeper.await?;
        assert_eq!(evidence::files(folder.path())?.len(), 1);
        Ok(())
    }
}
