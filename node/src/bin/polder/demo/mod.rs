//! `polder demo`: a cluster of real processes loads real data, loses its leader to `kill -9`, goes on, takes it back, and
//! proves that nothing acknowledged was lost.

mod workload;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use polder_kv::KvClient;
use polder_node::cli::{say, tell};
use polder_types::NodeStatus;
use serde::Serialize;
use tokio::task::JoinSet;

use self::workload::{Faults, Ledger, Pulse};
use crate::local::{LocalCluster, leader, until_interrupted};
use crate::records::{Form, Format};
use crate::{export, import};

const REPLICAS: u16 = 4;
/// The named characters of Unicode: node/data/README.md says where they come from.
const RECORDS: &[u8] = include_bytes!("../../../../data/unicode.tsv");
/// What their keys begin with, in order.
const PREFIXES: [&[u8]; 2] = [b"#", b"U+"];
const CLIENTS: u64 = 4;
const WRITERS: u64 = 64;
/// The workload runs so long before the leader dies, and after it is back.
const CALM: Duration = Duration::from_secs(5);
/// Without the leader, at least so long.
const WITHOUT_LEADER: Duration = Duration::from_secs(4);

/// Four replica processes load real data, lose their leader to kill -9, take it back, and lose nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder demo
  polder demo --json | tail -n 1

Everything happens in a temporary folder, which is gone afterwards, also after Ctrl-C. The last line of standard output is JSON.
A number that was not measured, because something ended it before, is null there.
Exit status 0 only if every check held; 1 if one did not, 2 if that line could not be printed.")]
pub(crate) struct Demo {
    /// Print the JSON line alone on standard output; the steps go to standard error
    #[arg(long)]
    json: bool,
}

/// What the demo found; none where it did not come so far.
#[derive(Clone, Debug, Default, Serialize)]
struct Report {
    ok: bool,
    replicas: u16,
    records_loaded: Option<u64>,
    commands_acknowledged: Option<u64>,
    acknowledged_lost: Option<u64>,
    executed_twice: Option<u64>,
    view_changes: Option<u64>,
    leader_kill_gap_ms: Option<u64>,
    restart_catch_up_ms: Option<u64>,
    roots_equal: Option<bool>,
    ops_per_s: Option<u64>,
    elapsed_s: f64,
}

impl Report {
    /// Whether every check was made, and held.
    fn holds(&self) -> bool {
        (self.acknowledged_lost, self.executed_twice, self.roots_equal) == (Some(0), Some(0), Some(true))
    }
}

impl Demo {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let start = Instant::now();
        let mut report = Report { replicas: REPLICAS, ..Report::default() };
        let played = until_interrupted(self.play(&mut report)).await;
        report.elapsed_s = start.elapsed().as_secs_f64();
        if let Err(error) = &played {
            tell(format_args!("it did not end well: {error:#}"));
        }
        report.ok = played.is_ok() && report.holds();
        say(serde_json::to_string(&report)?)?;
        Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn play(&self, report: &mut Report) -> anyhow::Result<()> {
        self.say("starting four replicas, of which one may lie");
        let mut cluster = LocalCluster::start(REPLICAS).await?;
        let played = self.play_with(&mut cluster, report).await;
        if played.is_err() {
            cluster.last_words();
        }
        cluster.stop().await?;
        played
    }

    fn say(&self, words: &str) {
        if self.json {
            tell(words);
        } else {
            // What is shown of the steps decides nothing: the demo goes on, and says at its end what it came to.
            say(words).ok();
        }
    }

    async fn play_with(&self, cluster: &mut LocalCluster, report: &mut Report) -> anyhow::Result<()> {
        self.load(cluster, report).await?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(cluster.args().connect().await?);
        }
        let (stop, pulse) = (Arc::new(AtomicBool::new(false)), Arc::new(Pulse::new()));
        self.say(&format!("{WRITERS} callers put, swap, read and count"));
        let work_start = Instant::now();
        let mut writers = start_writers(&clients, &stop, &pulse);
        let survived = tokio::select! {
            biased;
            survived = self.lose_the_leader(cluster, report, &pulse) => survived,
            Some(ended) = writers.join_next() => ended?.and_then(|_| bail!("a caller ended too early")),
        };
        survived?;
        stop.store(true, Ordering::Relaxed);
        let mut ledgers = Vec::new();
        while let Some(ledger) = writers.join_next().await {
            ledgers.push(ledger??);
        }
        let acknowledged = ledgers.iter().map(|ledger| ledger.answered).sum();
        let ops_per_s = (acknowledged as f64 / work_start.elapsed().as_secs_f64()) as u64;
        (report.commands_acknowledged, report.ops_per_s) = (Some(acknowledged), Some(ops_per_s));
        self.say(&format!("{acknowledged} commands acknowledged, {ops_per_s} a second"));
        let client = clients.first().context("a client")?;
        self.verify(client, &ledgers, report).await?;
        for client in &clients {
            client.close().await;
        }
        self.compare_roots(cluster, report).await
    }

    async fn load(&self, cluster: &LocalCluster, report: &mut Report) -> anyhow::Result<()> {
        let start = Instant::now();
        let state = cluster.folder().join("import");
        let bar = import::bar(Some(RECORDS.len() as u64));
        let done = import::run(cluster.args().builder()?, None, Form::Tsv(1), &state, RECORDS, &|place| {
            bar.set_position(place.bytes);
        })
        .await?;
        bar.finish_and_clear();
        let records = done.place().records;
        report.records_loaded = Some(records);
        let rate = records as f64 / start.elapsed().as_secs_f64();
        self.say(&format!(
            "loaded {records} records, {rate:.0} a second: the named characters of Unicode, and their source"
        ));
        Ok(())
    }

    async fn lose_the_leader(
        &self,
        cluster: &mut LocalCluster,
        report: &mut Report,
        pulse: &Pulse,
    ) -> anyhow::Result<()> {
        tokio::time::sleep(CALM).await;
        let leads = leader(&cluster.statuses().await?).context("no replica leads")?;
        self.say(&format!("kill -9 of replica {leads}, the leader"));
        pulse.watch();
        cluster.kill(leads).await?;
        let statuses = cluster.wait("new leader", |statuses| leader(statuses).is_some()).await?;
        tokio::time::sleep(WITHOUT_LEADER).await;
        let gap_ms = ms(pulse.gap());
        report.leader_kill_gap_ms = Some(gap_ms);
        self.say(&format!(
            "replica {} leads; no write was acknowledged for {gap_ms} ms",
            leader(&statuses).context("no replica leads")?
        ));

        let goal = executed(&cluster.statuses().await?);
        let start = Instant::now();
        cluster.spawn(leads)?;
        let back = |statuses: &[Option<NodeStatus>]| {
            statuses.get(leads).and_then(Option::as_ref).is_some_and(|status| status.executed.0 >= goal)
        };
        cluster.wait("replica that caught up", back).await?;
        let catch_up_ms = ms(start.elapsed());
        report.restart_catch_up_ms = Some(catch_up_ms);
        self.say(&format!("replica {leads} is back and had caught up after {catch_up_ms} ms"));
        tokio::time::sleep(CALM).await;
        Ok(())
    }

    async fn verify(&self, kv: &KvClient, ledgers: &[Ledger], report: &mut Report) -> anyhow::Result<()> {
        let mut faults: Faults = workload::verify_counter(ledgers, kv).await?;
        for ledger in ledgers {
            faults += ledger.verify(kv).await?;
        }
        let mut found = Vec::with_capacity(RECORDS.len());
        for prefix in PREFIXES {
            export::write(kv, prefix, Format::Tsv, &mut found, &|_| ()).await?;
        }
        let lines = |bytes: &[u8]| bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
        if found != RECORDS {
            let found: std::collections::BTreeSet<Vec<u8>> = lines(&found).into_iter().collect();
            faults.lost += lines(RECORDS).iter().filter(|line| !found.contains(*line)).count().max(1) as u64;
        }
        (report.acknowledged_lost, report.executed_twice) = (Some(faults.lost), Some(faults.twice));
        self.say(&format!("of all that was acknowledged {} is lost, {} was executed twice", faults.lost, faults.twice));
        Ok(())
    }

    async fn compare_roots(&self, cluster: &mut LocalCluster, report: &mut Report) -> anyhow::Result<()> {
        let statuses = cluster.wait("common checkpoint", is_common).await?;
        let mut roots = statuses.iter().flatten().map(|status| status.root);
        let first = roots.next().context("no replica answers")?;
        let is_one = roots.all(|root| root == first);
        let view_changes = statuses.iter().flatten().map(|status| status.view.0).max().unwrap_or(0);
        (report.roots_equal, report.view_changes) = (Some(is_one), Some(view_changes));
        let verdict = if is_one { "one state root" } else { "different state roots" };
        self.say(&format!("all four have {verdict} at their common checkpoint; {view_changes} view changes"));
        Ok(())
    }
}

fn start_writers(clients: &[KvClient], stop: &Arc<AtomicBool>, pulse: &Arc<Pulse>) -> JoinSet<anyhow::Result<Ledger>> {
    let mut writers = JoinSet::new();
    for (writer, client) in (0..WRITERS).zip(clients.iter().cycle()) {
        let (client, stop, pulse) = (client.clone(), Arc::clone(stop), Arc::clone(pulse));
        writers.spawn(async move { workload::write(writer, client, &stop, &pulse).await });
    }
    writers
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn executed(statuses: &[Option<NodeStatus>]) -> u64 {
    statuses.iter().flatten().map(|status| status.executed.0).max().unwrap_or(0)
}

/// Whether all answer, and show the same executed slot and stable checkpoint.
fn is_common(statuses: &[Option<NodeStatus>]) -> bool {
    let shown: std::collections::BTreeSet<_> =
        statuses.iter().map(|status| status.as_ref().map(|status| (status.executed, status.stable))).collect();
    shown.len() == 1 && !shown.contains(&None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_null_and_no_success() -> anyhow::Result<()> {
        let mut report = Report { replicas: REPLICAS, records_loaded: Some(9), ..Report::default() };
        let words = serde_json::to_value(&report)?;
        assert_eq!((&words["records_loaded"], &words["replicas"]), (&9.into(), &4.into()));
        for name in ["acknowledged_lost", "executed_twice", "roots_equal", "view_changes", "ops_per_s"] {
            assert!(words[name].is_null(), "{name}");
        }
        (report.acknowledged_lost, report.executed_twice) = (Some(0), Some(0));
        assert!(!report.holds());
        report.roots_equal = Some(true);
        assert!(report.holds());
        report.executed_twice = Some(1);
        assert!(!report.holds());
        Ok(())
    }

    /// The words of node/data/README.md: a record is a line, one of them says where the others come from.
    #[test]
    fn the_data_has_as_many_records_as_is_said_of_it() {
        let words = include_str!("../../../../data/README.md");
        assert_eq!(RECORDS.iter().filter(|byte| **byte == b'\n').count(), 34_824);
        assert_eq!(RECORDS.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"U+")).count(), 34_823);
        assert!(words.contains("34 823 named characters") && words.contains("34 824 records"));
    }
}
