//! The binary against replicas that take commands and answer none: the exit status is 3, and the token tells the rest.
#![cfg(feature = "bin")]
#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "shared with the client's own tests")]
#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::process::Stdio;

use fake::{Cluster, Lost, client_key};
use polder_node::files::write_key;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

struct Shell {
    cluster: Cluster,
    folder: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        let shell = Self { cluster: Cluster::start(), folder: tempfile::tempdir().unwrap() };
        std::fs::write(shell.folder.path().join("cluster.toml"), toml::to_string(&shell.cluster.file).unwrap())
            .unwrap();
        write_key(&shell.folder.path().join("client.key"), &client_key()).unwrap();
        shell
    }

    /// `polder kv` with these arguments and this on standard input: its exit status, standard output and standard error.
    async fn kv(&self, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polder"));
        command
            .args(["kv", "--cluster", "cluster.toml", "--timeout", "1"])
            .args(arguments)
            .current_dir(self.folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("POLDER_CLUSTER");
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let done = child.wait_with_output().await.unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_sent_and_not_answered_ends_with_3_and_a_token_that_tells_the_rest() {
    let shell = Shell::new();
    shell.cluster.cut(Some((0, Lost::Request)));
    let (status, out, words) = shell.kv(&["put", "lamp", "on"], "").await;
    assert_eq!((status, out.as_str()), (Some(3), ""), "{words}");
    assert!(words.contains("outcome unknown: no answer in time"), "{words}");
    let token = words.lines().find(|line| line.starts_with("polder1.")).unwrap().to_owned();

    let (status, out, words) = shell.kv(&["--json", "put", "lamp", "on"], "").await;
    assert_eq!(status, Some(3), "{words}");
    let said: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["outcome"], "unknown");
    let other = said["token"].as_str().unwrap().to_owned();
    assert_ne!(token, other);

    let (status, _, words) = shell.kv(&["resolve", &token], "").await;
    assert_eq!(status, Some(3), "{words}");
    assert!(words.contains("still unknown"), "{words}");
    shell.cluster.cut(None);
    for _ in 0..2 {
        let (status, out, words) = shell.kv(&["resolve", &token], "").await;
        assert_eq!((status, out.as_str()), (Some(1), "not executed, and never will be\n"), "{words}");
    }
    let (status, out, words) = shell.kv(&["--json", "resolve", "-"], &format!("{other}\n")).await;
    assert_eq!((status, out.as_str()), (Some(1), "{\"outcome\":\"not_executed\",\"why\":null}\n"), "{words}");
    let (status, _, words) = shell.kv(&["resolve", &token[..token.len() - 1]], "").await;
    assert_eq!(status, Some(2), "{words}");
    assert!(words.contains("a damaged token"), "{words}");
    assert_eq!(shell.cluster.state().executed, 0);
}
