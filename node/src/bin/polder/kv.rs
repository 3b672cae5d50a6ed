//! `polder kv`: the key-value service from the shell.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use polder_kv::{KeyValue, KvClient, Revision, Versioned};
use serde_json::{Value, json};

use crate::common::ClusterArgs;
use crate::tsv;

/// Reads and writes single keys, and prints ranges
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder kv --cluster net/cluster.toml put lamp on
  polder kv --cluster net/cluster.toml get lamp
  polder kv --cluster net/cluster.toml cas lamp on off
  polder kv --cluster net/cluster.toml range --prefix la --limit 10

Values are raw bytes; a newline is added on a terminal only.
Exit status: 0 success, 1 absent or mismatch, 2 error, 3 outcome unknown.")]
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
    Get {
        /// The key
        key: OsString,
    },
    /// Writes a key
    Put {
        /// The key
        key: OsString,
        /// Its new value
        value: OsString,
    },
    /// Deletes a key; exit status 1 when it was absent
    Delete {
        /// The key
        key: OsString,
    },
    /// Writes a key if it has a certain value; exit status 1 when it has not
    Cas {
        /// The key
        key: OsString,
        /// The value that it must have
        old: OsString,
        /// Its new value
        new: OsString,
    },
    /// Prints keys with their values, in order, a tab between them
    Range {
        /// Only keys that begin so
        #[arg(long, value_name = "P", default_value = "")]
        prefix: OsString,
        /// At most so many; without it, all
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
}

impl KvVerb {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let kv = self.cluster.connect().await?;
        let done = run(&kv, &self.verb, self.json).await;
        kv.close().await;
        done.map(|found| if found { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// Returns whether what was asked for was there.
async fn run(kv: &KvClient, verb: &Verb, is_json: bool) -> anyhow::Result<bool> {
    match verb {
        Verb::Get { key } => {
            let found = kv.get(key.as_bytes()).await?;
            match &found {
                Some(found) if is_json => println!("{}", versioned(key, found)),
                Some(found) => raw(&found.value)?,
                None if is_json => println!("{}", json!({"key": printable(key.as_bytes()), "value": null})),
                None => {}
            }
            Ok(found.is_some())
        }
        Verb::Put { key, value } => {
            let written = kv.put(key.as_bytes(), value.as_bytes()).await?;
            if is_json {
                println!("{}", json!({"revision": revision(&written)}));
            }
            Ok(true)
        }
        Verb::Delete { key } => {
            let deleted = kv.delete(key.as_bytes()).await?;
            if is_json {
                println!("{}", json!({"deleted": deleted.is_some()}));
            }
            Ok(deleted.is_some())
        }
        Verb::Cas { key, old, new } => {
            let swapped = kv.compare_and_swap(key.as_bytes(), Some(old.as_bytes()), new.as_bytes()).await?;
            if is_json {
                println!("{}", json!({"swapped": swapped.is_ok()}));
            }
            Ok(swapped.is_ok())
        }
        Verb::Range { prefix, limit } => range(kv, prefix, limit.unwrap_or(u64::MAX), is_json).await.map(|()| true),
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
fn printable(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()}),
    }
}

fn revision(revision: &Revision) -> Value {
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

fn key_value(entry: &KeyValue) -> Value {
    json!({
        "key": printable(&entry.key),
        "value": printable(&entry.value),
        "revision": revision(&entry.revision),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_printed_as_digits() {
        assert_eq!(printable("dänisch".as_bytes()), json!("dänisch"));
        assert_eq!(printable(&[0xff, 0x00]), json!({"hex": "ff00"}));
    }
}
