//! `polder cluster`: all replicas of a testnet, as child processes of this one.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use super::tell;

/// How long a replica that was asked to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Runs all replicas of a testnet as child processes
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  polder testnet --replicas 4 --dir net
  polder cluster --dir net

POLDER_LOG_FORMAT=json makes the replicas log JSON, one object a line.
Runs until Ctrl-C or SIGTERM. If it is killed, its replicas end too. A replica that ends by itself is reported, and not started again.")]
pub(super) struct ClusterVerb {
    /// The folder that testnet made
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

impl ClusterVerb {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut ending = super::Ending::install(false)?;
        let configs = node_configs(&self.dir)?;
        let program = std::env::current_exe().context("the path of this program")?;
        let mut replicas = JoinSet::new();
        let mut pipes: Vec<ChildStdin> = Vec::new();
        for (replica, config) in configs.iter().enumerate() {
            let mut child = spawn(&program, config)?;
            pipes.extend(child.stdin.take());
            let outs = (child.stdout.take(), child.stderr.take());
            replicas.spawn(attend(replica, child, outs));
        }
        tell(format_args!("{} replicas run; clients use {}", configs.len(), self.dir.join("cluster.toml").display()));
        let mut has_failed = false;
        tokio::select! {
            biased;
            () = ending.asked() => {}
            // Goes on until none is left.
            () = report_ends(&mut replicas, &mut has_failed) => bail!("all replicas have ended"),
        }
        // The end of its standard input asks a replica to end.
        drop(pipes);
        let all_ended = tokio::time::timeout(GRACE, report_ends(&mut replicas, &mut has_failed)).await;
        if all_ended.is_err() {
            // Dropping them kills them.
            bail!("some replicas did not end within {} s and were killed", GRACE.as_secs());
        }
        Ok(if has_failed { ExitCode::from(super::ERROR) } else { ExitCode::SUCCESS })
    }
}

/// The node.toml files of a testnet, in order.
fn node_configs(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let config = |replica: usize| dir.join(format!("node-{replica}")).join("node.toml");
    let configs: Vec<PathBuf> = (0..).map(config).take_while(|config| config.exists()).collect();
    if configs.is_empty() {
        let (first, dir, program) = (config(0), dir.display(), super::program());
        bail!("{} does not exist: make a testnet first ({program} testnet --dir {dir})", first.display());
    }
    Ok(configs)
}

fn spawn(program: &Path, config: &Path) -> anyhow::Result<Child> {
    let child = Command::new(program)
        .args(["node", "--end-with-stdin", "--config"])
        .arg(config)
        // Held by this process alone: however it ends, the replica reads the end of it, and ends too.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // In a group of its own, so that Ctrl-C reaches this process alone, which ends the others.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    child.with_context(|| format!("{} cannot be run", program.display()))
}

type Outs = (Option<tokio::process::ChildStdout>, Option<tokio::process::ChildStderr>);

/// Prints what a replica says, and waits for its end.
async fn attend(replica: usize, mut child: Child, (stdout, stderr): Outs) -> (usize, std::io::Result<ExitStatus>) {
    let ((), (), status) = tokio::join!(prefix(replica, stdout), prefix(replica, stderr), child.wait());
    (replica, status)
}

async fn prefix(replica: usize, out: Option<impl AsyncRead + Unpin>) {
    let Some(out) = out else { return };
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tell(prefixed(replica, &line));
    }
}

/// A replica's line with the replica in front of it; a JSON object stays one, and has it as its first field.
fn prefixed(replica: usize, line: &str) -> String {
    match line.strip_prefix('{') {
        Some(fields) if line.ends_with('}') => format!("{{\"node\":{replica},{fields}"),
        _ => format!("{replica} | {line}"),
    }
}

async fn report_ends(replicas: &mut JoinSet<(usize, std::io::Result<ExitStatus>)>, has_failed: &mut bool) {
    while let Some(ended) = replicas.join_next().await {
        match ended {
            Ok((_, Ok(status))) if status.success() => {}
            Ok((replica, Ok(status))) => {
                tell(format_args!("replica {replica} ended ({status})"));
                *has_failed = true;
            }
            Ok((replica, Err(error))) => {
                tell(format_args!("replica {replica} is lost ({error})"));
                *has_failed = true;
            }
            Err(_) => *has_failed = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_which_replica_it_is_of_and_stays_json_if_it_is() -> serde_json::Result<()> {
        assert_eq!(prefixed(2, "recovering {it}"), "2 | recovering {it}");
        let line = prefixed(2, "{\"level\":\"INFO\",\"message\":\"started\"}");
        let fields: serde_json::Value = serde_json::from_str(&line)?;
        assert_eq!((&fields["node"], &fields["message"]), (&2.into(), &"started".into()));
        Ok(())
    }
}
