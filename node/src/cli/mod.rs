//! The verbs that every service gets: `testnet`, `node`, `cluster`, `status`, `keygen`. A binary of one's own is
//!
//! ```no_run
//! # use polder_types::{Application, Timestamp};
//! # use polder_executor::{Access, Footprint, Service};
//! # #[derive(Default)] struct Counter;
//! # impl Application for Counter { type Command = u64; type Reply = u64; }
//! # impl Service for Counter {
//! #     fn footprint(&self, _: &u64) -> Footprint { Footprint::default() }
//! #     fn execute(&self, _: Timestamp, add: &u64, _: &mut Access<'_>) -> u64 { *add }
//! # }
//! use polder_node::cli::{ExtraVerbs, run};
//!
//! fn main() -> std::process::ExitCode {
//!     run::<Counter>(ExtraVerbs::none())
//! }
//! ```

mod cluster;
mod keygen;
mod node;
mod status;
mod testnet;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;

use clap::{ArgMatches, Command, FromArgMatches as _, Subcommand};
use polder_executor::Service;

/// Exit status 2: an error.
const ERROR: u8 = 2;

type Running = Pin<Box<dyn Future<Output = anyhow::Result<ExitCode>>>>;
type Start = Box<dyn FnOnce(&ArgMatches) -> anyhow::Result<Running>>;

/// Verbs that a binary adds to the generic ones.
pub struct ExtraVerbs {
    augment: fn(Command) -> Command,
    has: fn(&str) -> bool,
    run: Start,
}

impl ExtraVerbs {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        let run = |_: &ArgMatches| anyhow::bail!("there is no such verb");
        Self { augment: |command| command, has: |_| false, run: Box::new(run) }
    }

    /// The verbs of a clap enum, and how one is run. What it returns is the exit status; an error is printed on standard
    /// error and ends with 2.
    #[must_use]
    pub fn new<V, F>(run: impl FnOnce(V) -> F + 'static) -> Self
    where
        V: Subcommand + 'static,
        F: Future<Output = anyhow::Result<ExitCode>> + 'static,
    {
        let run = |matches: &ArgMatches| {
            let verb = V::from_arg_matches(matches)?;
            Ok(Box::pin(run(verb)) as Running)
        };
        Self { augment: V::augment_subcommands, has: V::has_subcommand, run: Box::new(run) }
    }
}

/// The generic verbs.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes keys and configuration files for a cluster on this machine
    Testnet(testnet::Testnet),
    /// Runs one replica
    Node(node::NodeVerb),
    /// Runs all replicas of a testnet as child processes
    Cluster(cluster::ClusterVerb),
    /// Asks every replica how it is
    Status(status::StatusVerb),
    /// Makes a client's key
    Keygen(keygen::Keygen),
}

/// Runs the command line of a binary that replicates the service `S`, and returns its exit status: 0 success, 1 absent or
/// mismatch, 2 error, 3 outcome unknown.
#[must_use]
pub fn run<S: Service + Default>(extra: ExtraVerbs) -> ExitCode {
    let command = Command::new("polder")
        .about("A replicated state machine that stays right when members crash or lie")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(
            "Examples:\n  polder demo\n  polder testnet --replicas 4 --fault-model byzantine --dir net\n  \
             polder cluster --dir net\n  polder status --cluster net/cluster.toml",
        );
    let command = (extra.augment)(Verb::augment_subcommands(command));
    let matches = command.get_matches();
    let outcome = runtime().and_then(|runtime| runtime.block_on(dispatch::<S>(&matches, extra)));
    outcome.unwrap_or_else(|error| {
        eprintln!("polder: {error:#}");
        ExitCode::from(ERROR)
    })
}

/// Half of the processors: the other half checks signatures. A thread more than there is work for only makes others wait.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let workers = (std::thread::available_parallelism().map_or(1, std::num::NonZero::get) / 2).max(1);
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build()?)
}

async fn dispatch<S: Service + Default>(matches: &ArgMatches, extra: ExtraVerbs) -> anyhow::Result<ExitCode> {
    if matches.subcommand_name().is_some_and(extra.has) {
        return (extra.run)(matches)?.await;
    }
    match Verb::from_arg_matches(matches)? {
        Verb::Testnet(verb) => verb.run(),
        Verb::Node(verb) => verb.run::<S>().await,
        Verb::Cluster(verb) => verb.run().await,
        Verb::Status(verb) => verb.run().await,
        Verb::Keygen(verb) => verb.run(),
    }
}

/// Waits until somebody asks this process to end: Ctrl-C or SIGTERM.
async fn asked_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// 32 random bytes from the operating system, for a key.
fn random_key() -> anyhow::Result<polder_types::SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(polder_types::SigningKey::from_seed(&seed))
}
