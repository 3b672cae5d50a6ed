//! The verbs that every service gets: `testnet`, `node`, `cluster`, `status`, `inspect`, `keygen`. A binary of one's own is
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

#![warn(clippy::print_stdout)]

mod cluster;
mod inspect;
mod keygen;
mod log_writer;
mod node;
mod output;
mod status;
mod testnet;

use std::ffi::OsString;
use std::future::Future;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgMatches, Command, FromArgMatches as _, Subcommand};
use polder_executor::Service;
use polder_types::ClusterFile;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub use output::{listed, say, say_list, tell};

use crate::files::{FileError, read_cluster};

/// Exit status 2: an error.
const ERROR: u8 = 2;
/// How long work that cannot be interrupted (a recovery, a read of standard input) may hold up the end of the process.
const BLOCKING_MAX: Duration = Duration::from_secs(1);
/// What the verbs' help calls the program; [`speak_as`] puts its own name there.
const NAME: &str = "polder";

type Running = Pin<Box<dyn Future<Output = anyhow::Result<ExitCode>>>>;
type Start = Box<dyn FnOnce(&ArgMatches) -> anyhow::Result<Running>>;

/// Verbs that a binary adds to the generic ones.
pub struct ExtraVerbs {
    augment: fn(Command) -> Command,
    has: fn(&str) -> bool,
    run: Start,
    examples: &'static [&'static str],
}

impl ExtraVerbs {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        let run = |_: &ArgMatches| anyhow::bail!("there is no such verb");
        Self { augment: |command| command, has: |_| false, run: Box::new(run), examples: &[] }
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
        Self { augment: V::augment_subcommands, has: V::has_subcommand, run: Box::new(run), examples: &[] }
    }

    /// Adds examples to the binary's help, before the generic ones: what is typed after its name.
    #[must_use]
    pub fn examples(mut self, examples: &'static [&'static str]) -> Self {
        self.examples = examples;
        self
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
    /// Judges evidence that a replica has lied
    Inspect(inspect::Inspect),
    /// Makes a client's key
    Keygen(keygen::Keygen),
}

/// Runs the command line of a binary that replicates the service `S`, and returns its exit status: 0 success, 1 absent or
/// mismatch, 2 error, 3 outcome unknown.
#[must_use]
pub fn run<S: Service + Default>(extra: ExtraVerbs) -> ExitCode {
    let name = program();
    let matches = command(&name, &extra).get_matches();
    let outcome = runtime().and_then(|runtime| {
        let outcome = runtime.block_on(dispatch::<S>(&matches, extra));
        runtime.shutdown_timeout(BLOCKING_MAX);
        outcome
    });
    outcome.unwrap_or_else(|error| {
        tell(format_args!("{name}: {error:#}"));
        ExitCode::from(ERROR)
    })
}

/// The name by which this program was called.
fn program() -> String {
    name_of(std::env::args_os().next())
}

fn name_of(called: Option<OsString>) -> String {
    let name = called.as_deref().map(Path::new).and_then(Path::file_stem).and_then(|name| name.to_str());
    name.filter(|name| !name.is_empty()).unwrap_or(NAME).to_owned()
}

/// The command line of a program with this name.
fn command(name: &str, extra: &ExtraVerbs) -> Command {
    let generic = ["testnet --replicas 4 --fault-model byzantine --dir net", "cluster --dir net"];
    let generic = generic.into_iter().chain(["status --cluster net/cluster.toml"]);
    let examples: String =
        extra.examples.iter().copied().chain(generic).map(|example| format!("\n  {name} {example}")).collect();
    let command = speak_as(name, Verb::augment_subcommands(Command::new(NAME)));
    (extra.augment)(command)
        .display_name(name)
        .bin_name(name)
        // After the verbs, whose enums have words of their own.
        .about("A replicated state machine that stays right when members crash or lie")
        .long_about(None)
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(format!("Examples:{examples}"))
}

/// Puts the program's name into the help of the generic verbs.
fn speak_as(name: &str, command: Command) -> Command {
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    verbs.into_iter().fold(command, |command, verb| {
        command.mut_subcommand(verb, |verb| {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            verb.after_help(help.replace(&format!("{NAME} "), &format!("{name} ")))
        })
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
        Verb::Inspect(verb) => verb.run(),
        Verb::Keygen(verb) => verb.run(),
    }
}

/// What asks this process to end: Ctrl-C, SIGTERM, and the end of a parent that holds the other end of standard input.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
    parent: Option<pipe::Receiver>,
}

impl Ending {
    /// From here on nothing of it ends the process by itself, and nothing is missed.
    fn install(with_parent: bool) -> anyhow::Result<Self> {
        let parent = with_parent.then(|| -> std::io::Result<_> {
            pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)
        });
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            parent: parent.transpose().context("standard input is no pipe that can be waited for")?,
        })
    }

    /// Waits until somebody asks. Cancel safe.
    async fn asked(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = end_of(self.parent.as_mut()) => {}
        }
    }
}

/// Reads a pipe to its end; none never ends.
async fn end_of(pipe: Option<&mut pipe::Receiver>) {
    let Some(pipe) = pipe else { return std::future::pending().await };
    let mut said = [0; 64];
    // A pipe that cannot be read has no writer that could be waited for.
    while pipe.read(&mut said).await.is_ok_and(|bytes| bytes > 0) {}
}

/// The cluster's public file, for a client.
///
/// # Errors
///
/// When it cannot be read, or is something else: a replica's `node.toml`, for example.
pub fn cluster_file(path: &std::path::Path) -> anyhow::Result<ClusterFile> {
    let words = || format!("{} is no cluster file; a testnet has one as cluster.toml", path.display());
    match read_cluster(path) {
        Err(error @ FileError::Content { .. }) => Err(error).with_context(words),
        read => Ok(read?),
    }
}

/// 32 random bytes from the operating system, for a key.
fn random_key() -> anyhow::Result<polder_types::SigningKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    Ok(polder_types::SigningKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{Readers, write_durably};

    #[test]
    fn the_help_speaks_of_the_program_by_its_own_name() {
        let mut command = command("counter", &ExtraVerbs::none().examples(&["count"]));
        let mut texts = vec![command.render_long_help().to_string(), command.render_version()];
        assert!(
            texts.iter().all(|text| text.starts_with("A replicated state machine") || text.starts_with("counter "))
        );
        assert!(texts.iter().any(|text| text.contains("  counter count\n  counter testnet ")));
        command.build();
        texts.extend(command.get_subcommands_mut().map(|verb| verb.render_long_help().to_string()));
        for text in texts {
            assert!(!text.contains("polder "), "{text}");
        }
    }

    #[test]
    fn the_name_is_that_of_the_file_that_was_called() {
        assert_eq!(name_of(Some("target/release/counter".into())), "counter");
        assert_eq!(name_of(None), "polder");
    }

    #[tokio::test]
    async fn the_end_of_the_parent_is_heard() -> std::io::Result<()> {
        let (parent, mut child) = pipe::pipe()?;
        drop(parent);
        end_of(Some(&mut child)).await;
        Ok(())
    }

    #[test]
    fn a_file_of_another_kind_is_said_to_be_no_cluster_file() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("node.toml");
        write_durably(&path, b"replica = 0\ncluster_file = \"../cluster.toml\"\n", Readers::All)?;
        let words = cluster_file(&path).map(drop).map_err(|error| format!("{error:#}"));
        assert!(words.is_err_and(|words| words.contains("node.toml is no cluster file")));
        let words = cluster_file(&folder.path().join("absent")).map(drop).map_err(|error| format!("{error:#}"));
        assert!(words.is_err_and(|words| !words.contains("no cluster file")));
        Ok(())
    }
}
