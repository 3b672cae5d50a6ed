//! `polder status`: how every replica says it is.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use polder_client::Builder;
use polder_types::{NodeStatus, ReplicaId};
use serde_json::{Value, json};

use crate::admin::hex;
use crate::files::read_key;

/// Asks every replica how it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder status --cluster net/cluster.toml
  polder status --cluster net/cluster.toml --json

Exit status: 0 when every replica is ready, 1 when one is not, 2 on an error.")]
pub(super) struct StatusVerb {
    /// The cluster's public file
    #[arg(long, value_name = "FILE", env = "POLDER_CLUSTER")]
    cluster: PathBuf,
    /// The client's key [default: client.key beside the cluster's file]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StatusVerb {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let cluster = super::cluster_file(&self.cluster)?;
        let key = self.key.unwrap_or_else(|| self.cluster.with_file_name("client.key"));
        let patience = Duration::from_secs(3);
        let builder = Builder::new(cluster, read_key(&key)?).call_timeout(patience).connect_timeout(patience);
        let statuses = builder.statuses().await?;
        let is_well = statuses.iter().all(|(_, status)| status.as_ref().is_ok_and(NodeStatus::is_ready));
        let rows = statuses.into_iter().map(|(replica, status)| (replica, status.map_err(|error| error.to_string())));
        let rows: Vec<Row> = rows.collect();
        if self.json {
            super::say_list(json!({ "replicas": rows.iter().map(to_json).collect::<Vec<_>>() }))?;
        } else {
            let is_colored = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            super::say_list(table(&rows, is_colored)?)?;
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

type Row = (ReplicaId, Result<NodeStatus, String>);

fn role(status: &NodeStatus) -> &'static str {
    if status.is_leader { "leader" } else { "backup" }
}

fn to_json((replica, status): &Row) -> Value {
    match status {
        Ok(status) => json!({
            "id": replica.0,
            "reachable": true,
            "ready": status.is_ready(),
            "not_ready": status.not_ready,
            "role": role(status),
            "view": status.view.0,
            "executed": status.executed.0,
            "committed": status.committed.0,
            "stable_checkpoint": status.stable.0,
            "root": hex(&status.root.0),
            "log_bytes": status.log_bytes,
            "disk_bytes": status.disk_bytes,
        }),
        Err(why) => json!({
            "id": replica.0, "reachable": false, "ready": false, "not_ready": null, "role": null, "view": null, "executed": null,
            "committed": null, "stable_checkpoint": null, "root": null, "log_bytes": null, "disk_bytes": null,
            "error": why,
        }),
    }
}

fn table(rows: &[Row], is_colored: bool) -> Result<String, fmt::Error> {
    let heads = ["replica", "role", "ready", "view", "executed", "committed", "checkpoint", "root", "log", "disk"];
    let mut out = String::new();
    write!(
        out,
        "{:<8} {:<7} {:<6} {:>5} {:>10} {:>10} {:>10} {:<9} {:>9} {:>9}",
        heads[0], heads[1], heads[2], heads[3], heads[4], heads[5], heads[6], heads[7], heads[8], heads[9]
    )?;
    for (replica, status) in rows {
        match status {
            Ok(status) => write!(
                out,
                "\n{:<8} {:<7} {} {:>5} {:>10} {:>10} {:>10} {:<9} {:>9} {:>9}",
                replica.0,
                role(status),
                ready(status.is_ready(), is_colored),
                status.view.0,
                status.executed.0,
                status.committed.0,
                status.stable.0,
                status.root.to_string(),
                indicatif::HumanBytes(status.log_bytes).to_string(),
                indicatif::HumanBytes(status.disk_bytes).to_string(),
            )?,
            Err(why) => write!(out, "\n{:<8} unreachable: {why}", replica.0)?,
        }
    }
    for (replica, status) in rows {
        if let Some(why) = status.as_ref().ok().and_then(|status| status.not_ready.as_ref()) {
            // A replica's own words: it may be one that lies, and the terminal obeys control characters.
            let why: String = why.chars().filter(|character| !character.is_control()).collect();
            write!(out, "\nreplica {} is not ready: {why}", replica.0)?;
        }
    }
    Ok(out)
}

fn ready(is_ready: bool, is_colored: bool) -> String {
    let (word, color) = if is_ready { ("yes   ", "32") } else { ("no    ", "31") };
    if is_colored { format!("\u{1b}[{color}m{word}\u{1b}[0m") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use polder_types::{Digest, Seq, View};

    use super::*;

    #[test]
    fn who_is_not_ready_says_why_and_no_replica_commands_the_terminal() -> Result<(), fmt::Error> {
        let status = |replica: u8, not_ready: Option<&str>| NodeStatus {
            replica: ReplicaId(replica),
            is_leader: false,
            not_ready: not_ready.map(str::to_owned),
            view: View(3),
            executed: Seq(9),
            committed: Seq(9),
            stable: Seq(0),
            root: Digest::ZERO,
            log_bytes: 1,
            disk_bytes: 2,
        };
        let rows =
            [(ReplicaId(0), Ok(status(0, None))), (ReplicaId(1), Ok(status(1, Some("it fell\u{1b}[2J behind"))))];
        let table = table(&rows, false)?;
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.get(3..), Some(&["replica 1 is not ready: it fell[2J behind"][..]));
        let json = to_json(&rows[1]);
        assert_eq!((&json["ready"], &json["not_ready"]), (&json!(false), &json!("it fell\u{1b}[2J behind")));
        Ok(())
    }
}
