//! `polder kv`: the key-value service from the shell.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use anyhow::Context as _;
use polder_client::Token;
use polder_kv::{CallError, KeyValue, KvClient, Revision, Versioned};
use polder_node::cli::{listed, say};
use serde_json::{Value, json};

use crate::common::ClusterArgs;
use crate::{resolve, tsv};

/// Reads and writes single keys, and prints ranges
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder kv --cluster net/cluster.toml put lamp on
  polder kv --cluster net/cluster.toml get lamp
  polder kv --cluster net/cluster.toml cas lamp on off
  polder kv --cluster net/cluster.toml range --prefix la --limit 10

Values are raw bytes; a newline is added on a terminal only.
Exit status: 0 success, 1 absent or mismatch, 2 error, 3 outcome unknown: then a token is printed, for `kv resolve`.")]
pub(crate) struct KvVerb {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Prints the value of a key; exit status 1 when it is absent
    #[command(after_help = "Examples:
  polder kv get --cluster net/cluster.toml lamp
  polder kv get --cluster net/cluster.toml --json lamp")]
    Get {
        /// The key
        key: OsString,
    },
    /// Writes a key
    #[command(after_help = "Examples:
  polder kv put --cluster net/cluster.toml lamp on
  polder kv put --cluster net/cluster.toml --json lamp on      (prints the new revision)

Exit status 3: it was sent, and nobody knows yet whether it was executed. A token is printed (with --json as \"token\" on
standard output, else on standard error) with which `kv resolve` finds out.")]
    Put {
        /// The key
        key: OsString,
        /// Its new value
        value: OsString,
    },
    /// Deletes a key; exit status 1 when it was absent
    #[command(after_help = "Example:
  polder kv delete --cluster net/cluster.toml lamp")]
    Delete {
        /// The key
        key: OsString,
    },
    /// Writes a key if it has a certain value; exit status 1 when it has not
    #[command(after_help = "Examples:
  polder kv cas --cluster net/cluster.toml lamp on off
  polder kv cas --cluster net/cluster.toml --json lamp on off  (on a mismatch it prints what was found, null if nothing)")]
    Cas {
        /// The key
        key: OsString,
        /// The value that it must have
        old: OsString,
        /// Its new value
        new: OsString,
    },
    /// Prints keys with their values, in order, a tab between them
    #[command(after_help = "Examples:
  polder kv range --cluster net/cluster.toml --prefix la --limit 10
  polder kv range --cluster net/cluster.toml --json            (one JSON object a line)")]
    Range {
        /// Only keys that begin so
        #[arg(long, value_name = "P", default_value = "")]
        prefix: OsString,
        /// At most so many; without it, all
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Tells what became of a command whose outcome was unknown; 1 when it was not executed and never will be
    #[command(after_help = "Examples:
  polder kv resolve --cluster net/cluster.toml polder1.AAAA...
  polder kv put --json --cluster net/cluster.toml lamp on > put.json || jq -r .token put.json | polder kv resolve -

It asks without executing anything, with the same key, as often as you like; afterwards a command that was not executed
never will be. A token holds its command, and is good while its session is open: an hour, unless the cluster says otherwise.
Exit status: 0 it was executed, 1 it was not and never will be, 2 error, 3 still unknown (ask again), or forgotten.")]
    Resolve {
        /// The token, in text; - for standard input
        token: String,
    },
}

impl KvVerb {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if let Verb::Resolve { token } = &self.verb {
            return resolve::run(self.cluster.builder()?, token, self.json).await;
        }
        let kv = self.cluster.connect().await?;
        let done = run(&kv, &self.verb, self.json).await;
        if let Err(error) = &done
            && let Some(token) = token_of(error)
        {
            // The session stays open: with it would be forgotten what became of the command.
            resolve::print_token(token, &error.to_string(), self.json)?;
            return done.map(|_| ExitCode::SUCCESS);
        }
        kv.close().await;
        done.map(|found| if found { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// The token of an outcome that is unknown.
fn token_of(error: &anyhow::Error) -> Option<&Token> {
    error.downcast_ref().and_then(CallError::token)
}

/// Returns whether what was asked for was there.
async fn run(kv: &KvClient, verb: &Verb, is_json: bool) -> anyhow::Result<bool> {
    match verb {
        Verb::Get { key } => {
            let found = kv.get(key.as_bytes()).await?;
            match &found {
                Some(found) if is_json => say(versioned(key, found))?,
                Some(found) => raw(&found.value).context("the value cannot be written on standard output")?,
                None if is_json => say(json!({"key": printable(key.as_bytes()), "value": null}))?,
                None => {}
            }
            Ok(found.is_some())
        }
        Verb::Put { key, value } => {
            let written = kv.put(key.as_bytes(), value.as_bytes()).await?;
            if is_json {
                say(json!({"revision": revision(&written)})).context("it is written")?;
            }
            Ok(true)
        }
        Verb::Delete { key } => {
            let deleted = kv.delete(key.as_bytes()).await?;
            if is_json {
                say(json!({"deleted": deleted.is_some()})).context("it is deleted")?;
            }
            Ok(deleted.is_some())
        }
        Verb::Cas { key, old, new } => {
            let swapped = kv.compare_and_swap(key.as_bytes(), Some(old.as_bytes()), new.as_bytes()).await?;
            if is_json {
                say(swap(key, &swapped))?;
            }
            Ok(swapped.is_ok())
        }
        Verb::Range { prefix, limit } => {
            listed(range(kv, prefix, limit.unwrap_or(u64::MAX), is_json).await).map(|()| true)
        }
        // It needs no session.
        Verb::Resolve { .. } => Ok(true),
    }
}

async fn range(kv: &KvClient, prefix: &OsStr, limit: u64, is_json: bool) -> anyhow::Result<()> {
    let mut left = limit;
    let mut from = prefix.as_bytes().to_vec();
    let mut out = io::BufWriter::new(io::stdout().lock());
    while left > 0 {
        let page = kv.prefix_after(prefix.as_bytes(), &from, u32::try_from(left).unwrap_or(0)).await?;
        for entry in &page.entries {
            if is_json {
                writeln!(out, "{}", key_value(entry))?;
            } else {
                tsv::print(&mut out, &entry.key, &entry.value)?;
            }
        }
        left = left.saturating_sub(page.entries.len() as u64);
        let Some(next) = page.next else { break };
        from = next.to_vec();
    }
    Ok(out.flush()?)
}

fn raw(value: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(value)?;
    if out.is_terminal() {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Bytes in JSON: text where they are text, else an object with their hexadecimal digits.
pub(crate) fn printable(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}

pub(crate) fn revision(revision: &Revision) -> Value {
    json!({
        "created": revision.created.to_string(),
        "modified": revision.modified.to_string(),
        "version": revision.version,
    })
}

fn versioned(key: &OsStr, found: &Versioned) -> Value {
    json!({
        "key": printable(key.as_bytes()),
        "value": printable(&found.value),
        "revision": revision(&found.revision),
    })
}

/// What a compare-and-swap came to; on a mismatch with what was found.
fn swap(key: &OsStr, swapped: &Result<Revision, Option<Versioned>>) -> Value {
    match swapped {
        Ok(_) => json!({"swapped": true}),
        Err(found) => json!({"swapped": false, "found": found.as_ref().map(|found| versioned(key, found))}),
    }
}

pub(crate) fn key_value(entry: &KeyValue) -> Value {
    json!({
        "key": printable(&entry.key),
        "value": printable(&entry.value),
        "revision": revision(&entry.revision),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use polder_types::{Blob, Position};

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        kv: KvVerb,
    }

    #[test]
    fn the_cluster_may_be_named_before_the_verb_or_after_it() -> anyhow::Result<()> {
        for line in [["kv", "--cluster", "c", "get", "lamp"], ["kv", "get", "lamp", "--cluster", "c"]] {
            assert!(Line::try_parse_from(line)?.kv.cluster.is_given());
        }
        let timeout = |line: &[&str]| Line::try_parse_from(line).map(|line| format!("{:?}", line.kv.cluster));
        let after = timeout(&["kv", "get", "lamp", "--timeout", "3"])?;
        assert!(after == timeout(&["kv", "--timeout", "3", "get", "lamp"])? && after.contains("timeout: 3"));
        Ok(())
    }

    #[test]
    fn each_verb_has_examples_and_names_the_cluster_in_its_help() {
        for verb in ["get", "put", "delete", "cas", "range", "resolve"] {
            let help = Line::try_parse_from(["kv", verb, "--help"]).map(drop).map_err(|help| help.to_string());
            let help = help.err().unwrap_or_default();
            assert!(help.contains("Example") && help.contains("--cluster <FILE>"), "{verb}: {help}");
        }
    }

    #[test]
    fn a_swap_that_fails_says_what_it_found() {
        let at = |slot| Position { slot: polder_types::Seq(slot), index: 0 };
        let revision = Revision { created: at(1), modified: at(2), version: 2 };
        let found = Versioned { value: Blob::from(b"off".to_vec()), revision };
        let words = swap(OsStr::new("lamp"), &Err(Some(found)));
        assert_eq!((&words["swapped"], &words["found"]["value"]), (&json!(false), &json!("off")));
        assert_eq!(words["found"]["key"], json!("lamp"));
        assert_eq!(swap(OsStr::new("lamp"), &Err(None)), json!({"swapped": false, "found": null}));
        assert_eq!(swap(OsStr::new("lamp"), &Ok(revision)), json!({"swapped": true}));
    }

    #[test]
    fn bytes_that_are_no_text_are_printed_as_digits() {
        assert_eq!(printable("dänisch".as_bytes()), json!("dänisch"));
        assert_eq!(printable(&[0xff, 0x00]), json!({"hex": "ff00"}));
    }
}
