//! What a replica is started with and into: permissions, ports, folders in use, limits of the operating system.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use crate::cluster::{Cluster, binary, free_ports, pause, skipped, wait_until};
use crate::load::Load;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("an own file");
}

fn node(cluster: &Cluster, replica: usize) -> Command {
    let mut command = Command::new(binary());
    command.args(["node", "--config"]).arg(cluster.node_folder(replica).join("node.toml"));
    command
}

#[track_caller]
fn assert_refused(what: &str, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{what}: {}: {said}", output.status);
    for word in words {
        assert!(said.contains(word), "{what}: no `{word}` in: {said}");
    }
    assert!(!said.contains("panicked"), "{what}: {said}");
}

/// What testnet makes is well; each of these is not, and the words hold the command that mends it.
#[test]
fn keys_and_files_with_wrong_permissions_are_refused_with_the_command_that_mends_them() {
    let cluster = Cluster::prepare("permissions", &[]);
    let folder = cluster.node_folder(0);
    let cases: [(PathBuf, u32, &str); 9] = [
        (folder.join("identity.key"), 0o640, "chmod 600"),
        (folder.join("identity.key"), 0o602, "chmod 600"),
        (folder.join("signing.key"), 0o604, "chmod 600"),
        (folder.join("node.toml"), 0o666, "chmod go-w"),
        (folder.join("node.toml"), 0o664, "chmod go-w"),
        (folder.join("../cluster.toml"), 0o646, "chmod go-w"),
        (folder.join("data/identity"), 0o662, "chmod go-w"),
        (folder.join("data"), 0o777, "chmod go-w"),
        (folder.join("data"), 0o703, "chmod go-w"),
    ];
    for (path, wrong, mends) in cases {
        let right = fs::metadata(&path).expect("a file").permissions().mode();
        set_mode(&path, wrong);
        let name = path.to_str().expect("a printable path").to_owned();
        let output = node(&cluster, 0).output().expect("the binary starts");
        assert_refused(&format!("{name} {wrong:o}"), &output, &[&format!("{mends} {name}")]);
        set_mode(&path, right);
    }
    let key = cluster.folder.join("client.key");
    set_mode(&key, 0o644);
    let output = cluster.command("kv").args(["get", "lamp"]).output().expect("the binary starts");
    assert_refused("client.key", &output, &["chmod 600", "client.key"]);
}

/// Who owns a file decides what is in it. Only root can give one away, so the rest of the world is left to a unit test.
#[test]
fn keys_and_files_of_another_user_are_refused_with_the_command_that_mends_them() {
    const SOMEBODY: u32 = 12_345;
    let cluster = Cluster::prepare("owners", &[]);
    let own = fs::metadata(cluster.file()).expect("a file").uid();
    let folder = cluster.node_folder(0);
    for name in ["identity.key", "signing.key", "node.toml", "../cluster.toml", "data/identity", "data"] {
        let path = folder.join(name);
        if let Err(why) = chown(&path, Some(SOMEBODY), None) {
            return skipped("files of another user", &format!("only root may give them away: {why}"));
        }
        let name = path.to_str().expect("a printable path").to_owned();
        let output = node(&cluster, 0).output().expect("the binary starts");
        assert_refused(&name, &output, &["belongs to user 12345", &format!("chown {own} {name}")]);
        chown(&path, Some(own), None).expect("it can be given back");
    }
    chown(cluster.folder.join("client.key"), Some(SOMEBODY), None).expect("an own file");
    let output = cluster.command("kv").args(["get", "lamp"]).output().expect("the binary starts");
    assert_refused("client.key", &output, &["belongs to user 12345", "client.key"]);
}

#[test]
fn ports_and_folders_in_use_are_named() {
    let mut cluster = Cluster::prepare("in-use", &[]);
    cluster.restart(0);
    wait_until("start", || cluster.output(0).contains("started"));
    let output = node(&cluster, 0).output().expect("the binary starts");
    assert_refused("the same port", &output, &["cannot be listened on", "listen"]);

    let port = free_ports(2);
    let mut second = node(&cluster, 0);
    second.env("POLDER_LISTEN", format!("127.0.0.1:{port}"));
    let admin = format!("127.0.0.1:{}", port + 1);
    let output = second.env("POLDER_ADMIN_LISTEN", &admin).output().expect("the binary starts");
    assert_refused("the same folder", &output, &["is in use: another polder process"]);

    let _taken = TcpListener::bind(&admin).expect("a free port");
    let output = node(&cluster, 1).env("POLDER_ADMIN_LISTEN", &admin).output().expect("the binary starts");
    assert_refused("a taken admin port", &output, &[&admin, "admin_listen"]);
    cluster.stop(0);
}

/// Whatever a replica cannot get from the operating system, it ends in words or does without.
#[test]
fn too_few_open_files_are_said_in_words() {
    let mut cluster = Cluster::with_short_intervals("open-files");
    let load = Load::start(&cluster, 7);
    load.wait_for_answers(20);
    let mut refusals = 0;
    for files in [12, 24, 36, 48] {
        cluster.kill(3);
        let said = cluster.said(3);
        cluster.restart_after(3, &format!("ulimit -n {files}; exec"));
        load.wait_for_answers(20);
        pause(Duration::from_millis(300));
        let words = cluster.said_since(3, said);
        if let Some(status) = cluster.has_ended(3) {
            assert_eq!(status.code(), Some(2), "{files} files: {status}: {words}");
            assert!(words.contains("Too many open files"), "{files} files: {words}");
            refusals += 1;
            cluster.restart(3);
        }
    }
    assert!(refusals > 0, "no limit was felt");
    cluster.kill(3);
    cluster.restart(3);
    cluster.wait_for_replica(3);
    load.finish(&cluster);
}

/// Promise 4, of whoever reads the log: with another replica down, nothing is decided without this one.
#[test]
fn a_log_that_nobody_reads_stops_no_vote() {
    let mut cluster = Cluster::start("unread");
    let load = Load::start(&cluster, 11);
    cluster.kill(3);
    cluster.restart_unread(3);
    cluster.wait_for_replica(3);
    cluster.kill(0);
    load.wait_for_answers(300);
    cluster.restart(0);
    load.finish(&cluster);
    cluster.stop(3);
}

/// A replica that gets no memory may end as it likes; what it has promised, it has written.
#[test]
fn too_little_memory_loses_nothing() {
    let mut cluster = Cluster::with_short_intervals("memory");
    let load = Load::start(&cluster, 8);
    load.wait_for_answers(20);
    let mut ends = 0;
    for megabytes in [60, 200, 600] {
        cluster.kill(0);
        cluster.restart_after(0, &format!("ulimit -v {}; exec", megabytes << 10));
        load.wait_for_answers(50);
        pause(Duration::from_millis(300));
        if cluster.has_ended(0).is_some() {
            ends += 1;
            cluster.restart(0);
            cluster.wait_for_replica(0);
        }
    }
    assert!(ends > 0, "no limit was felt");
    cluster.kill(0);
    cluster.restart(0);
    cluster.wait_for_replica(0);
    load.finish(&cluster);
}
