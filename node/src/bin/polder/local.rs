//! A cluster of real processes on this machine, in a temporary folder, gone when it is dropped; or, if this program is
//! killed, when the next one is made.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use polder_node::cli::tell;
use polder_types::NodeStatus;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::common::ClusterArgs;
use crate::leftovers;
use crate::random::Random;

/// Ports a replica takes, at most: one for peers and clients, one for its admin.
const PORTS_PER_REPLICA: u16 = 2;
/// Nothing on one machine takes so long, unless it is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of each log that are shown when something failed.
const LAST_LINES: usize = 8;
/// Between two looks at the replicas.
const POLL: Duration = Duration::from_millis(50);

/// Replicas as child processes. They are in process groups of their own: Ctrl-C reaches the parent alone, which ends them.
pub(crate) struct LocalCluster {
    binary: PathBuf,
    // Dropped in this order: first the processes end, then their files go.
    nodes: Vec<Option<Child>>,
    folder: TempDir,
}

impl LocalCluster {
    /// Makes keys and files for `replicas` Byzantine replicas, starts them, and waits until they have a leader.
    pub(crate) async fn start(replicas: u16) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix(leftovers::PREFIX).tempdir().context("a temporary folder")?;
        let binary = std::env::current_exe().context("the path of this program")?;
        let base_port = free_ports(replicas * PORTS_PER_REPLICA)?;
        let made = Command::new(&binary)
            .args(["testnet", "--fault-model", "byzantine", "--replicas", &replicas.to_string()])
            .args(["--base-port", &base_port.to_string(), "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .output()
            .await?;
        if !made.status.success() {
            bail!("no files for a cluster: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        // Not before: a testnet is made in an empty folder.
        let removed = leftovers::mark_and_tidy(folder.path()).context("a temporary folder")?;
        if removed > 0 {
            tell(format_args!("removed the folders of {removed} local clusters that were killed"));
        }
        let nodes = (0..replicas).map(|_| None).collect();
        let mut cluster = Self { binary, nodes, folder };
        for replica in 0..usize::from(replicas) {
            cluster.spawn(replica)?;
        }
        cluster.wait("leader", |statuses| leader(statuses).is_some()).await?;
        Ok(cluster)
    }

    /// The file by which clients know it.
    pub(crate) fn cluster_file(&self) -> PathBuf {
        self.folder.path().join("cluster.toml")
    }

    /// A client's arguments for it.
    pub(crate) fn args(&self) -> ClusterArgs {
        ClusterArgs::of(self.cluster_file())
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a replica that does not run.
    pub(crate) fn spawn(&mut self, replica: usize) -> anyhow::Result<()> {
        let node = self.folder.path().join(format!("node-{replica}"));
        let log = File::options().create(true).append(true).open(node.join("log"))?;
        let child = Command::new(&self.binary)
            .args(["node", "--end-with-stdin", "--config"])
            .arg(node.join("node.toml"))
            // Held by this process alone: however it ends, the replica reads the end of it, and ends too.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        if let Some(slot) = self.nodes.get_mut(replica) {
            *slot = Some(child);
        }
        Ok(())
    }

    /// Kills a replica with SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&mut self, replica: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.nodes.get_mut(replica).and_then(Option::take) {
            child.kill().await?;
        }
        Ok(())
    }

    /// Ends all replicas and removes the folder. Dropping does the same, without waiting for the processes to be gone.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for replica in 0..self.nodes.len() {
            self.kill(replica).await?;
        }
        Ok(self.folder.close()?)
    }

    /// How each replica says it is; none for one that does not answer.
    pub(crate) async fn statuses(&self) -> anyhow::Result<Vec<Option<NodeStatus>>> {
        ClusterArgs::impatient(self.cluster_file()).statuses().await
    }

    /// Waits until the replicas' statuses satisfy `holds`, and returns them.
    pub(crate) async fn wait(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&[Option<NodeStatus>]) -> bool,
    ) -> anyhow::Result<Vec<Option<NodeStatus>>> {
        let start = Instant::now();
        loop {
            let statuses = self.statuses().await?;
            if holds(&statuses) {
                return Ok(statuses);
            }
            self.check()?;
            if start.elapsed() > PATIENCE {
                bail!("no {what} within {} s: {statuses:?}", PATIENCE.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// A replica that ended by itself is an error.
    fn check(&mut self) -> anyhow::Result<()> {
        for (replica, node) in self.nodes.iter_mut().enumerate() {
            if let Some(status) = node.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("replica {replica} ended by itself ({status})");
            }
        }
        Ok(())
    }

    /// Prints the ends of the replicas' logs on standard error.
    pub(crate) fn last_words(&self) {
        for replica in 0..self.nodes.len() {
            let log =
                std::fs::read_to_string(self.folder.path().join(format!("node-{replica}/log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            tell(format_args!("the last lines of replica {replica}:"));
            lines.iter().skip(lines.len().saturating_sub(LAST_LINES)).for_each(|line| tell(format_args!("  {line}")));
        }
    }
}

/// Runs `work` unless a signal asks this program to end first: then `work` is dropped, and with it what it started.
///
/// # Errors
///
/// Those of `work`, and when it was interrupted.
pub(crate) async fn until_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        biased;
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("asked to end"),
        _ = hang_up.recv() => bail!("the terminal is gone"),
        done = work => done,
    }
}

/// The replica that leads the highest view shown.
pub(crate) fn leader(statuses: &[Option<NodeStatus>]) -> Option<usize> {
    let leaders = statuses.iter().flatten().filter(|status| status.is_leader);
    leaders.max_by_key(|status| status.view).map(|status| usize::from(status.replica.0))
}

/// The first of `count` ports of the loopback interface that nobody listens on.
fn free_ports(count: u16) -> anyhow::Result<u16> {
    let mut random = Random::new()?;
    let is_free =
        |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
    // Below the range from which the system draws the ports of clients.
    let bases = std::iter::repeat_with(|| 10_000 + u16::try_from(random.below(20_000)).unwrap_or(0));
    let found = bases.take(1_000).find(|base| (*base..base.saturating_add(count)).all(is_free));
    found.context("no free ports on the loopback interface")
}
