//! `polder bench`: a load, and how the cluster bore it.

use std::fmt;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use polder_kv::{KvClient, KvError, OPERATIONS_MAX, Operation, Transaction};
use polder_node::cli::{say, tell};
use polder_transport::Limits;
use polder_types::{ClusterFile, SigningKey};
use tokio::task::JoinSet;

use crate::common::ClusterArgs;
use crate::local::{LocalCluster, until_interrupted};
use crate::random::Random;

/// Latencies beyond an hour are counted as one.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// What all keys begin with.
const PREFIX: &str = "bench/";
/// Deletions, each of many keys, that wait for their answers at once.
const DELETIONS_IN_FLIGHT_MAX: usize = 16;
/// Replicas of a cluster that is made for the purpose.
const OWN_REPLICAS: u16 = 4;

/// Loads a cluster and prints throughput and latencies
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder bench --cluster net/cluster.toml --clients 16 --callers 16 --value-bytes 128 --seconds 10
  polder bench --mix put=90,get=10 --json        (a cluster of its own, four replicas, removed afterwards)

Each of C clients has one session, which K callers share; a caller waits for an answer before it asks again.
All keys begin with bench/, and values are printable. Afterwards every key that begins with bench/ is deleted, whoever wrote
it: as far as that goes, since what cannot be deleted is said on standard error and does not fail the run. --keep leaves them.
Few clients use one key. Of more, each has a key made for the run, where the cluster lets every key in.
Replicas, clients and disk share this machine unless the cluster is elsewhere: compare only within one run.")]
pub(crate) struct Bench {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Clients, each with a session of its own
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    clients: u32,
    /// Callers that share a client
    #[arg(long, value_name = "K", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    callers: u32,
    /// Bytes of a value
    #[arg(long, value_name = "B", default_value_t = 128, value_parser = clap::value_parser!(u32).range(0..=(1 << 20)))]
    value_bytes: u32,
    /// Keys, drawn uniformly
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Shares of put, get and delete
    #[arg(long, value_name = "MIX", default_value = "put=50,get=50")]
    mix: Mix,
    /// For how long
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Leave the keys that begin with bench/ where they are
    #[arg(long)]
    keep: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    Get,
    Delete,
}

/// Shares of each kind of command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mix(Vec<(Kind, u64)>);

impl FromStr for Mix {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let shares = text.split(',').map(|part| {
            let (kind, share) =
                part.split_once('=').with_context(|| format!("{part}: a kind and its share, as put=50"))?;
            let kind = match kind {
                "put" => Kind::Put,
                "get" => Kind::Get,
                "delete" => Kind::Delete,
                _ => bail!("{kind}: none of put, get, delete"),
            };
            let share: u32 = share.parse().with_context(|| format!("{part}: the share is no number"))?;
            Ok((kind, u64::from(share)))
        });
        let shares: Vec<(Kind, u64)> = shares.collect::<anyhow::Result<_>>()?;
        if shares.iter().all(|(_, share)| *share == 0) {
            bail!("every share is 0");
        }
        Ok(Self(shares))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, share)) in self.0.iter().enumerate() {
            let kind = match kind {
                Kind::Put => "put",
                Kind::Get => "get",
                Kind::Delete => "delete",
            };
            write!(f, "{}{kind}={share}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Mix {
    fn draw(&self, random: &mut Random) -> Kind {
        let mut drawn = random.below(self.0.iter().map(|(_, share)| share).sum());
        let hit = self.0.iter().find(|(_, share)| {
            let is_hit = drawn < *share;
            drawn = drawn.saturating_sub(*share);
            is_hit
        });
        hit.map_or(Kind::Get, |(kind, _)| *kind)
    }
}

/// Whether one key is enough for so many clients; if not, each is to have its own. An error is why they cannot be: more
/// sessions or connections of a key than the cluster bears would end each other, and measure only that.
fn one_key_serves(clients: u32, cluster: &ClusterFile, names_key: bool) -> anyhow::Result<bool> {
    let limits = Limits::new(&cluster.constants);
    let clients_of_key_max =
        cluster.constants.sessions_per_client_max.min(u32::try_from(limits.client_connections_per_key_max)?);
    let clients_max = cluster.constants.sessions_max.min(u32::try_from(limits.client_connections_max)?);
    if clients <= clients_of_key_max {
        return Ok(true);
    }
    if names_key || !cluster.clients.open {
        bail!(
            "{clients} clients with one key: a replica bears {clients_of_key_max} sessions and connections of a key at once, \
             and the newer ones would end the older. Without --key, and where the cluster file says clients.open = true, each \
             client has a key of its own"
        );
    }
    if clients > clients_max {
        bail!("{clients} clients: a replica bears {clients_max} at once");
    }
    Ok(false)
}

/// What callers saw.
struct Seen {
    latencies_us: Histogram<u64>,
    errors: u64,
    unknown: u64,
}

impl Seen {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { latencies_us: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?, errors: 0, unknown: 0 })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latencies_us.add(&other.latencies_us)?;
        self.errors += other.errors;
        self.unknown += other.unknown;
        Ok(())
    }
}

impl Bench {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let this = Arc::new(self);
        let seen = match this.cluster.is_given() {
            true => this.load(&this.cluster, this.keep).await?,
            false => {
                until_interrupted(async {
                    let own = LocalCluster::start(OWN_REPLICAS).await?;
                    // It goes, with all that is in it.
                    let seen = this.load(&own.args(), true).await?;
                    own.stop().await?;
                    Ok(seen)
                })
                .await?
            }
        };
        say(if this.json { this.json_of(&seen).to_string() } else { this.words_of(&seen) })?;
        Ok(ExitCode::SUCCESS)
    }

    async fn load(self: &Arc<Self>, cluster: &ClusterArgs, keep: bool) -> anyhow::Result<Seen> {
        let mut clients = Vec::new();
        for key in self.keys(cluster)? {
            clients.push(cluster.connect_as(key).await?);
        }
        let seen = self.call(&clients).await?;
        if let Some(client) = clients.first().filter(|_| !keep)
            && let Err(error) = delete_all(client).await
        {
            tell(format_args!("not all keys that begin with {PREFIX} could be deleted: {error:#}"));
        }
        for client in &clients {
            client.close().await;
        }
        Ok(seen)
    }

    /// Each client's key.
    fn keys(&self, cluster: &ClusterArgs) -> anyhow::Result<Vec<SigningKey>> {
        match one_key_serves(self.clients, &cluster.file()?, cluster.names_key())? {
            true => Ok(vec![cluster.signing_key()?; usize::try_from(self.clients)?]),
            false => (0..self.clients)
                .map(|_| {
                    let mut seed = [0; 32];
                    getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
                    Ok(SigningKey::from_seed(&seed))
                })
                .collect(),
        }
    }

    async fn call(self: &Arc<Self>, clients: &[KvClient]) -> anyhow::Result<Seen> {
        let mut callers = JoinSet::new();
        let end = Instant::now() + Duration::from_secs(self.seconds);
        for client in clients {
            for _ in 0..self.callers {
                callers.spawn(Arc::clone(self).call_until(end, client.clone(), Random::new()?));
            }
        }
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(self.seconds) } else { ProgressBar::hidden() };
        let start = Instant::now();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let mut seen = Seen::new()?;
        loop {
            tokio::select! {
                biased;
                done = callers.join_next() => match done {
                    Some(done) => seen.add(&done??)?,
                    None => break,
                },
                _ = second.tick() => bar.set_position(start.elapsed().as_secs().min(self.seconds)),
            }
        }
        bar.finish_and_clear();
        Ok(seen)
    }

    async fn call_until(self: Arc<Self>, end: Instant, kv: KvClient, mut random: Random) -> anyhow::Result<Seen> {
        let mut seen = Seen::new()?;
        let mut value = vec![0; usize::try_from(self.value_bytes)?];
        loop {
            let start = Instant::now();
            if start >= end {
                return Ok(seen);
            }
            let key = format!("{PREFIX}{:010}", random.below(self.keys)).into_bytes();
            let called = match self.mix.draw(&mut random) {
                Kind::Put => {
                    random.fill_printable(&mut value);
                    kv.put(&key, &value).await.map(drop)
                }
                Kind::Get => kv.get(&key).await.map(drop),
                Kind::Delete => kv.delete(&key).await.map(drop),
            };
            match called {
                Ok(()) => seen.latencies_us.saturating_record(u64::try_from(start.elapsed().as_micros())?),
                Err(error) if error.is_outcome_unknown() => seen.unknown += 1,
                Err(_) => seen.errors += 1,
            }
        }
    }

    fn ops_per_s(&self, seen: &Seen) -> f64 {
        seen.latencies_us.len() as f64 / self.seconds as f64
    }

    fn json_of(&self, seen: &Seen) -> serde_json::Value {
        let at = |quantile: f64| seen.latencies_us.value_at_quantile(quantile);
        serde_json::json!({
            "ops_per_s": self.ops_per_s(seen),
            "latency_us": {"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": seen.latencies_us.max()},
            "errors": seen.errors,
            "unknown": seen.unknown,
            "clients": self.clients,
            "callers": self.callers,
            "value_bytes": self.value_bytes,
            "keys": self.keys,
            "mix": self.mix.to_string(),
            "seconds": self.seconds,
        })
    }

    fn words_of(&self, seen: &Seen) -> String {
        let at = |quantile: f64| seen.latencies_us.value_at_quantile(quantile);
        format!(
            "{} clients of {} callers, values of {} bytes, {} keys, {}, {} s\n\
             {:.0} operations a second\n\
             latency in µs: p50 {}, p99 {}, p99.9 {}, max {}\n\
             {} errors, {} of unknown outcome",
            self.clients,
            self.callers,
            self.value_bytes,
            self.keys,
            self.mix,
            self.seconds,
            self.ops_per_s(seen),
            at(0.5),
            at(0.99),
            at(0.999),
            seen.latencies_us.max(),
            seen.errors,
            seen.unknown
        )
    }
}

/// Deletes every key that begins with [`PREFIX`], many at once. The first error ends it.
async fn delete_all(kv: &KvClient) -> anyhow::Result<()> {
    let mut deletions = JoinSet::new();
    let mut from = Some(PREFIX.as_bytes().to_vec());
    while let Some(first) = from.take() {
        let page = kv.prefix_after(PREFIX.as_bytes(), &first, 0).await?;
        let keys: Vec<&[u8]> = page.entries.iter().map(|entry| &*entry.key).collect();
        for deletion in deletions_of(&keys)? {
            if deletions.len() >= DELETIONS_IN_FLIGHT_MAX
                && let Some(done) = deletions.join_next().await
            {
                done??;
            }
            let kv = kv.clone();
            deletions.spawn(async move { kv.transaction(deletion).await.map(drop) });
        }
        from = page.next.map(|next| next.to_vec());
    }
    while let Some(done) = deletions.join_next().await {
        done??;
    }
    Ok(())
}

/// Transactions that delete these keys, each as many as it may.
fn deletions_of(keys: &[&[u8]]) -> Result<Vec<Transaction>, KvError> {
    let deletion = |keys: &[&[u8]]| {
        let then = keys.iter().map(|key| Operation::delete(key)).collect::<Result<_, _>>()?;
        Ok(Transaction { then, ..Transaction::default() })
    };
    keys.chunks(OPERATIONS_MAX).map(deletion).collect()
}

#[cfg(test)]
mod tests {
    use polder_kv::Command;

    use super::*;

    #[test]
    fn more_clients_than_a_key_may_have_are_refused_or_have_keys_of_their_own() -> anyhow::Result<()> {
        let mut cluster = ClusterFile {
            nonce: Default::default(),
            fault_model: polder_types::FaultModel::Byzantine,
            constants: polder_types::Constants::default(),
            clients: polder_types::ClientAccess { open: true, keys: Vec::new() },
            replicas: Vec::new(),
        };
        assert!(one_key_serves(64, &cluster, true)?);
        assert!(!one_key_serves(65, &cluster, false)?);
        let refused = |clients, cluster: &ClusterFile, names_key| {
            one_key_serves(clients, cluster, names_key).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert!(refused(65, &cluster, true).contains("a replica bears 64 sessions and connections of a key"));
        assert!(refused(2_000, &cluster, false).contains("a replica bears 1024 at once"));
        cluster.clients.open = false;
        assert!(refused(65, &cluster, false).contains("clients.open = true"));
        cluster.constants.sessions_per_client_max = 2;
        assert!(refused(3, &cluster, false).contains("bears 2 sessions"));
        Ok(())
    }

    #[test]
    fn keys_are_deleted_as_many_at_once_as_a_transaction_may_hold() -> anyhow::Result<()> {
        let keys: Vec<String> = (0..2 * OPERATIONS_MAX + 1).map(|key| format!("{PREFIX}{key}")).collect();
        let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        let deletions = deletions_of(&keys)?;
        let sizes: Vec<usize> = deletions.iter().map(|deletion| deletion.then.len()).collect();
        assert_eq!(sizes, [OPERATIONS_MAX, OPERATIONS_MAX, 1]);
        for deletion in deletions {
            Command::transaction(deletion)?;
        }
        Ok(())
    }

    #[test]
    fn a_result_says_what_was_run_under_the_names_it_always_had() -> anyhow::Result<()> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            bench: Bench,
        }
        let line = ["bench", "--clients", "2", "--seconds", "5", "--mix", "put=3,get=1"];
        let bench = <Line as clap::Parser>::try_parse_from(line)?.bench;
        let mut seen = Seen::new()?;
        for latency_us in [10, 20] {
            seen.latencies_us.record(latency_us)?;
        }
        let result = bench.json_of(&seen);
        for name in ["ops_per_s", "latency_us", "errors", "unknown", "callers", "value_bytes", "keys"] {
            assert!(!result[name].is_null(), "{name}");
        }
        assert_eq!(
            (&result["mix"], &result["clients"], &result["seconds"]),
            (&"put=3,get=1".into(), &2.into(), &5.into())
        );
        let words = bench.words_of(&seen);
        assert!(words.starts_with("2 clients of 16 callers") && words.contains("put=3,get=1, 5 s\n"), "{words}");
        Ok(())
    }

    #[test]
    fn a_mix_is_read_and_drawn_by_its_shares() -> anyhow::Result<()> {
        let mix: Mix = "put=3,get=1,delete=0".parse()?;
        let mut random = Random::new()?;
        let drawn: Vec<Kind> = (0..1_000).map(|_| mix.draw(&mut random)).collect();
        assert!(!drawn.contains(&Kind::Delete) && drawn.contains(&Kind::Put) && drawn.contains(&Kind::Get));
        for wrong in ["put", "put=x", "fly=1", "put=0", ""] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
        Ok(())
    }
}
