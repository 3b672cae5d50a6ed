//! The binary on outputs that are full or closed: an error in words, never a panic.
#![cfg(feature = "bin")]
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

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

#[test]
fn a_log_in_json_is_one_object_a_line_with_the_values_in_fields() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["testnet", "--dir", "net"], Stdio::null());
    let mut command = Command::new(env!("CARGO_BIN_EXE_polder"));
    command.args(["node", "--config", "net/node-0/node.toml", "--log-format", "json", "--end-with-stdin"]);
    command.current_dir(folder.path()).env("POLDER_DATADIR", "x").stdin(Stdio::piped()).stderr(Stdio::piped());
    // Nobody holds the other end of its standard input: it starts, and ends.
    let done = command.spawn().unwrap().wait_with_output().unwrap();
    let words = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(0), "{words}");
    let lines: Vec<serde_json::Value> = words.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() > 2, "{words}");
    for line in &lines {
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "{field}: {line}");
        }
    }
    let said = |word: &str| lines.iter().find(|line| line["message"].as_str().is_some_and(|said| said.contains(word)));
    assert_eq!(said("recovering").unwrap()["replica"], "r0");
    assert_eq!(said("sets nothing").unwrap()["meant"], "POLDER_DATA_DIR");
}

#[test]
fn inspect_says_what_evidence_proves() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &["testnet", "--dir", "net"], Stdio::null());
    let inspect = |paths: &[&str]| {
        let arguments = [&["inspect", "--cluster", "net/cluster.toml"], paths].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_polder"));
        let done = command.args(arguments).current_dir(folder.path()).output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap())
    };
    assert_eq!(inspect(&["net/node-0/data"]), (Some(0), "no evidence\n".to_owned()));
    std::fs::write(folder.path().join("x.evidence"), "nothing").unwrap();
    let words = "x.evidence: proves nothing: these bytes are no evidence\n".to_owned();
    assert_eq!(inspect(&["net/node-0/data", "x.evidence"]), (Some(1), words));
    assert_eq!(inspect(&["absent"]).0, Some(2));
}

/// The first line that begins so.
fn line(of: impl Read, beginning: &str) -> String {
    let mut lines = BufReader::new(of).lines().map(|line| line.unwrap());
    lines.find(|line| line.starts_with(beginning)).unwrap()
}

/// Whether a process was started with this path in its arguments.
fn is_used(path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    let commands =
        std::fs::read_dir("/proc").unwrap().flatten().map(|entry| std::fs::read(entry.path().join("cmdline")));
    commands.flatten().any(|command| command.windows(path.len()).any(|part| part == path))
}

#[test]
fn a_demo_removes_what_one_that_was_killed_has_left() {
    let temporary = tempfile::tempdir().unwrap();
    let demo = || -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polder"));
        command
            .arg("demo")
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let folders = || std::fs::read_dir(temporary.path()).unwrap().count();
    let mut killed = demo();
    line(killed.stdout.take().unwrap(), "loaded");
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(folders(), 1);
    // Its replicas end by themselves, and write to the end.
    while is_used(temporary.path()) {
        std::thread::yield_now();
    }
    let mut next = demo();
    line(next.stderr.take().unwrap(), "removed the folders of 1 ");
    next.kill().unwrap();
    next.wait().unwrap();
    assert_eq!(folders(), 1);
}
