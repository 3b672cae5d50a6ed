//! The binary on outputs that are full or closed: an error in words, never a panic.
#![cfg(feature = "bin")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a verb ended with, and what it said on standard error.
fn run(folder: &Path, arguments: &[&str], stdout: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polder"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(stdout).env_remove("POLDER_CLUSTER");
    let done = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_result_that_cannot_be_said_is_an_error_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let testnet = |name| ["testnet", "--dir", name];
    let keygen = |name| ["keygen", "--out", name];
    let ended = [
        run(folder.path(), &testnet("full"), full()),
        run(folder.path(), &testnet("closed"), closed()),
        run(folder.path(), &keygen("full.key"), full()),
        run(folder.path(), &keygen("closed.key"), closed()),
    ];
    for (status, words) in ended {
        assert_eq!(status, Some(2), "{words}");
        assert!(words.starts_with("polder: the result cannot be written on standard output: "), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
    }
}

#[test]
fn a_file_that_is_no_cluster_file_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["testnet", "--dir", "net"], Stdio::null());
    for verb in [&["status"][..], &["kv", "get", "lamp"]] {
        let arguments = [verb, &["--cluster", "net/node-0/node.toml"]].concat();
        let (status, words) = run(folder.path(), &arguments, Stdio::null());
        assert_eq!(status, Some(2), "{words}");
        assert!(words.starts_with("polder: net/node-0/node.toml is no cluster file"), "{words}");
    }
}
