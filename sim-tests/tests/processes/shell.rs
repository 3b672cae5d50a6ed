//! What the shell sees: imports compared with their exports, byte for byte, exit statuses, and how processes end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::cluster::{Cluster, REPLICAS, binary, leader, send_signal, succeed, wait_until};

/// `cluster`: one process, whose children the replicas are.
struct Parent {
    cluster: Cluster,
    process: Child,
}

impl Parent {
    fn start(name: &str, testnet: &[&str]) -> Self {
        let cluster = Cluster::prepare(name, testnet);
        let log = File::create(cluster.folder.join("node-0/output")).expect("a log file");
        let process = Command::new(binary())
            .args(["cluster", "--dir"])
            .arg(&cluster.folder)
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Self { cluster, process }
    }

    fn children(&self) -> Vec<u32> {
        let parent = self.process.id().to_string();
        let processes =
            fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let pids = processes.filter_map(|name| name.parse().ok());
        pids.filter(|pid| field(*pid, "PPid:").is_some_and(|found| found == parent)).collect()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _status = self.process.wait();
    }
}

/// A field of a process's status; none when the process is gone.
fn field(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next().map(str::to_owned)
}

/// Whether a process still runs; one that nobody has reaped does not.
fn runs(pid: u32) -> bool {
    field(pid, "State:").is_some_and(|state| state != "Z")
}

/// Record `number` of a load: keys come back now and then with another value, and are not sorted.
fn record(number: u64) -> (String, String) {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = if number % 10 == 9 { mixed % 64 } else { mixed };
    (format!("key-{key:020}"), format!("value {number}\t{mixed:x}"))
}

/// What an export prints after the first `count` records.
fn expected(count: u64) -> Vec<u8> {
    let records: BTreeMap<String, String> = (0..count).map(record).collect();
    records.into_iter().flat_map(|(key, value)| format!("{key}\t{value}\n").into_bytes()).collect()
}

/// Feeds an import from standard input until it is told to stop; returns how many records it wrote.
fn feed(mut input: ChildStdin, stop: Arc<AtomicBool>) -> JoinHandle<io::Result<u64>> {
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let (key, value) = record(count);
            input.write_all(format!("{key}\t{value}\n").as_bytes())?;
            count += 1;
        }
        Ok(count)
    })
}

/// Runs an import for as long as `trouble` lasts, and compares what was acknowledged with what is there.
fn import_through(name: &str, trouble: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::start(name);
    let state = cluster.folder.join("state");
    let mut import = cluster
        .command("import")
        .arg("--state")
        .arg(&state)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the binary starts");
    let stop = Arc::new(AtomicBool::new(false));
    let feeder = feed(import.stdin.take().expect("a pipe"), Arc::clone(&stop));
    cluster.wait_for_progress();
    trouble(&mut cluster);
    stop.store(true, Ordering::Relaxed);
    let count = feeder.join().expect("the feeder ends").expect("the import reads all");
    let output = import.wait_with_output().expect("the import ends");
    assert!(output.status.success(), "the import ended with {}", output.status);
    let result: Value = serde_json::from_slice(&output.stdout).expect("the import prints JSON");
    assert_eq!(result["records"], count);
    assert!(count > 1_000, "too little load: {count} records");
    assert_same(&cluster.export(&[]), &expected(count));
}

#[track_caller]
fn assert_same(found: &[u8], wanted: &[u8]) {
    let lines = |bytes: &[u8]| -> Vec<String> { String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect() };
    if found != wanted {
        let (found, wanted) = (lines(found), lines(wanted));
        let first = found.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
        let at = first.unwrap_or(found.len().min(wanted.len()));
        panic!(
            "{} lines instead of {}; line {at}: {:?} instead of {:?}",
            found.len(),
            wanted.len(),
            found.get(at),
            wanted.get(at)
        );
    }
}

#[test]
fn leader_and_backup_are_killed_under_load_and_come_back() {
    import_through("killed", |cluster| {
        let leader = cluster.leader();
        cluster.kill(leader);
        cluster.wait_for_progress();
        cluster.restart(leader);
        cluster.wait_for_replica(leader);
        let backup = (cluster.leader() + 1) % REPLICAS;
        cluster.kill(backup);
        cluster.wait_for_progress();
        cluster.restart(backup);
        cluster.wait_for_replica(backup);
    });
}

#[test]
fn all_four_are_killed_and_restarted_under_load() {
    import_through("all-killed", |cluster| {
        (0..REPLICAS).for_each(|replica| cluster.kill(replica));
        (0..REPLICAS).for_each(|replica| cluster.restart(replica));
        cluster.wait("a leader", |status| leader(status).is_some());
        cluster.wait_for_progress();
    });
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let cluster = Cluster::start("resumed");
    let count = 60_000;
    let file = cluster.folder.join("records.tsv");
    write_records(&file, count).expect("a file of records");
    let mut killed = 0;
    loop {
        let mut import = cluster.command("import").arg(&file).stdout(Stdio::null()).spawn().expect("the binary starts");
        if killed < 3 {
            cluster.wait_for_progress();
            import.kill().expect("it can be killed");
        }
        let status = import.wait().expect("it can be waited for");
        if status.success() {
            break;
        }
        killed += 1;
        assert!(killed <= 3, "the import that nobody killed ended with {status}");
    }
    assert!(killed > 0, "the import was over before it could be killed");
    assert_same(&cluster.export(&[]), &expected(count));
}

fn write_records(path: &Path, count: u64) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    for (key, value) in (0..count).map(record) {
        writeln!(file, "{key}\t{value}")?;
    }
    file.flush()
}

#[test]
fn an_export_is_the_sorted_import() {
    let cluster = Cluster::start("export");
    let file = cluster.folder.join("records.tsv");
    let import = |text: &str, arguments: &[&str]| {
        fs::write(&file, text).expect("a file of records");
        cluster.command("import").args(arguments).arg(&file).output().expect("the binary starts")
    };
    assert!(import("pear\tgreen\tlong\nfig\nzebra\tstripes\npear\tyellow\tround\nä\tumlaut\n", &[]).status.success());
    assert_same(&cluster.export(&[]), "fig\t\npear\tyellow\tround\nzebra\tstripes\nä\tumlaut\n".as_bytes());
    assert_same(&cluster.export(&["--prefix", "pe"]), b"pear\tyellow\tround\n");

    assert!(import("one\tpear\ttwo\n", &["--key-column", "2"]).status.success());
    assert_same(&cluster.export(&["--prefix", "pear"]), b"pear\tone\ttwo\n");

    let refused = import("plum\tblue\n\tnothing\n", &[]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2));
    assert!(words.contains("line 2"), "{words}");

    succeed(cluster.command("kv").args(["put", "odd", "two\nlines"]));
    let unprintable = cluster.command("export").output().expect("the binary starts");
    let words = String::from_utf8_lossy(&unprintable.stderr).into_owned();
    assert_eq!(unprintable.status.code(), Some(2));
    assert!(words.contains("odd"), "{words}");
}

#[test]
fn the_shell_sees_exit_statuses() {
    let cluster = Cluster::start("shell");
    let kv = |arguments: &[&str]| {
        let output = cluster.command("kv").args(arguments).output().expect("the binary starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(kv(&["get", "tide"]), (Some(1), String::new()));
    assert_eq!(kv(&["put", "tide", "low"]).0, Some(0));
    assert_eq!(kv(&["get", "tide"]), (Some(0), "low".into()));
    assert_eq!(kv(&["cas", "tide", "high", "low"]).0, Some(1));
    assert_eq!(kv(&["cas", "tide", "low", "high"]).0, Some(0));
    assert_eq!(kv(&["range", "--prefix", "ti", "--limit", "1"]), (Some(0), "tide\thigh\n".into()));
    assert_eq!(kv(&["delete", "tide"]).0, Some(0));
    assert_eq!(kv(&["delete", "tide"]).0, Some(1));
    assert_eq!(kv(&["frobnicate"]).0, Some(2));
}

#[test]
fn replicas_end_with_their_parent_however_it_ends() {
    for is_killed in [true, false] {
        let mut parent = Parent::start("orphans", &[]);
        parent.cluster.wait("a leader", |status| leader(status).is_some());
        let replicas = parent.children();
        assert_eq!(replicas.len(), REPLICAS);
        if is_killed {
            parent.process.kill().expect("it can be killed");
        } else {
            send_signal(parent.process.id(), "TERM");
        }
        let status = parent.process.wait().expect("it can be waited for");
        assert_eq!(status.code(), if is_killed { None } else { Some(0) });
        wait_until("end of the replicas", || !replicas.iter().copied().any(runs));
    }
}

#[test]
fn a_replica_that_is_asked_to_end_while_it_starts_ends_well() {
    let mut cluster = Cluster::prepare("asked", &[]);
    cluster.restart(0);
    wait_until("start", || cluster.output(0).contains("recovering"));
    cluster.stop(0);
}

#[test]
fn who_may_write_is_edited_before_the_first_start_and_fixed_after_it() {
    let mut cluster = Cluster::prepare("edited", &[]);
    let file = cluster.file();
    let open = fs::read_to_string(&file).expect("a cluster file");
    let alice = cluster.folder.join("alice.key");
    let key = succeed(Command::new(binary()).args(["keygen", "--out"]).arg(&alice)).stdout;
    let key = String::from_utf8(key).expect("hexadecimal digits");
    let listed = format!("open = false\n\n[[clients.keys]]\nkey = \"{}\"\nrole = \"write\"\n", key.trim());
    let edited = open.replace("open = true\n", &listed).replace("keys = []\n", "");
    assert_ne!(edited, open);
    fs::write(&file, edited).expect("a cluster file");

    (0..REPLICAS).for_each(|replica| cluster.restart(replica));
    let put = |arguments: &[&str]| cluster.command("kv").args(arguments).args(["put", "lamp", "on"]).output();
    let put = |arguments: &[&str]| put(arguments).expect("the binary starts").status.code();
    assert_eq!(put(&["--key", alice.to_str().expect("a printable path")]), Some(0));
    assert_eq!(put(&[]), Some(2), "client.key is not listed");

    cluster.kill(0);
    fs::write(&file, open).expect("a cluster file");
    let node = cluster.folder.join("node-0/node.toml");
    let refused = Command::new(binary()).args(["node", "--config"]).arg(node).output().expect("the binary starts");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{words}");
    assert!(words.contains("changed after the first start"), "{words}");
}
