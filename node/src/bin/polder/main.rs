//! `polder`: the key-value service, replicated. The generic verbs come from the library; the ones that know of keys and
//! values are here.

#![warn(clippy::print_stdout)]

mod bench;
mod common;
mod demo;
mod export;
#[cfg(test)]
mod hostile;
mod import;
mod jsonl;
mod kv;
mod leftovers;
mod load;
mod local;
mod random;
mod records;
mod resolve;
mod tsv;

use std::process::ExitCode;

use polder_kv::Kv;
use polder_node::cli::{ExtraVerbs, run};

/// A node allocates on many threads, and frees on others what it has allocated on one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Demo(demo::Demo),
    Kv(kv::KvVerb),
    Import(import::Import),
    Export(export::Export),
    Bench(bench::Bench),
}

impl Verb {
    async fn run(self) -> anyhow::Result<ExitCode> {
        common::outcome(match self {
            Self::Demo(verb) => verb.run().await,
            Self::Kv(verb) => verb.run().await,
            Self::Import(verb) => verb.run().await,
            Self::Export(verb) => verb.run().await,
            Self::Bench(verb) => verb.run().await,
        })
    }
}

fn main() -> ExitCode {
    run::<Kv>(ExtraVerbs::new(Verb::run).examples(&["demo"]))
}
