//! Real processes on the loopback interface: four replicas killed with -9 under load and restarted, and an import
//! compared with its export, byte for byte. Needs the binary: `./run test` builds it and sets `POLDER_BIN`.
#![allow(clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

const REPLICAS: usize = 4;
/// Nothing here takes a fraction of it; a test that hangs ends.
const PATIENCE: Duration = Duration::from_secs(180);

/// One cluster at a time: they share the processors with each other.
static TURN: Mutex<()> = Mutex::new(());
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

fn binary() -> PathBuf {
    let path = std::env::var_os("POLDER_BIN").unwrap_or_else(|| {
        panic!("POLDER_BIN is not set: these tests run the real binary, which ./run test builds and names");
    });
    PathBuf::from(path)
}

/// The first of sixteen ports that nobody listens on.
fn free_ports() -> u16 {
    let first = 20_000 + (std::process::id() % 1_000) as u16 * 16;
    loop {
        let base = first.wrapping_add(NEXT_PORT.fetch_add(16, Ordering::Relaxed)).clamp(20_000, 60_000);
        let free =
            |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + 16).all(free) {
            return base;
        }
    }
}

struct Cluster {
    folder: PathBuf,
    nodes: Vec<Option<Child>>,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    fn start(name: &str) -> Self {
        let mut cluster = Self::prepare(name, &[]);
        (0..REPLICAS).for_each(|replica| cluster.restart(replica));
        cluster.wait("a leader", |status| leader(status).is_some());
        cluster
    }

    /// The files of a cluster, of which no replica runs yet.
    fn prepare(name: &str, testnet: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = std::env::temp_dir().join(format!("polder-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&folder);
        let port = free_ports().to_string();
        let folder_argument = folder.to_str().expect("a printable temporary folder");
        succeed(
            Command::new(binary())
                .args(["testnet", "--replicas", "4", "--fault-model", "byzantine"])
                .args(["--dir", folder_argument, "--base-port", &port])
                .args(testnet),
        );
        Self { folder, nodes: (0..REPLICAS).map(|_| None).collect(), _turn: turn }
    }

    fn restart(&mut self, replica: usize) {
        let node = self.folder.join(format!("node-{replica}"));
        let log = File::options().create(true).append(true).open(node.join("output")).expect("a log file");
        let child = Command::new(binary())
            .args(["node", "--config"])
            .arg(node.join("node.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.nodes[replica] = Some(child.expect("the binary starts"));
    }

    /// SIGKILL.
    fn kill(&mut self, replica: usize) {
        let mut child = self.nodes[replica].take().expect("a running replica");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(binary());
        command.arg(verb).arg("--cluster").arg(self.folder.join("cluster.toml"));
        command
    }

    fn status(&self) -> Vec<Value> {
        // With too few replicas the verb may say so by its exit status; what it prints is the same.
        let output = self.command("status").arg("--json").output().expect("the binary starts");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["replicas"].as_array().cloned().unwrap_or_default()
    }

    fn wait(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let start = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no {what}: {status:?}");
        }
    }

    fn leader(&self) -> usize {
        self.wait("leader", |status| leader(status).is_some());
        leader(&self.status()).unwrap_or(0)
    }

    fn executed(&self) -> u64 {
        self.status().iter().filter_map(|replica| replica["executed"].as_u64()).max().unwrap_or(0)
    }

    /// Until the cluster has executed some slots more: the load goes on.
    fn wait_for_progress(&self) {
        let before = self.executed();
        self.wait("progress", |status| {
            status.iter().filter_map(|replica| replica["executed"].as_u64()).any(|executed| executed > before + 20)
        });
    }

    /// Until a replica that was restarted has executed what the others had then.
    fn wait_for_replica(&self, replica: usize) {
        let goal = self.executed();
        self.wait("replica that caught up", |status| {
            status.iter().any(|row| row["id"] == replica && row["executed"].as_u64().is_some_and(|seq| seq >= goal))
        });
    }

    fn export(&self, arguments: &[&str]) -> Vec<u8> {
        succeed(self.command("export").args(arguments)).stdout
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ended = child.kill();
            let _status = child.wait();
        }
        if std::thread::panicking() {
            for replica in 0..REPLICAS {
                let path = self.folder.join(format!("node-{replica}/output"));
                let text = fs::read_to_string(path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- node {replica}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
        }
        let _absent = fs::remove_dir_all(&self.folder);
    }
}

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

fn terminate(pid: u32) {
    succeed(Command::new("kill").args(["-TERM", &pid.to_string()]));
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        std::thread::yield_now();
    }
}

fn leader(status: &[Value]) -> Option<usize> {
    let row = status.iter().find(|row| row["role"] == "leader" && row["reachable"] == true)?;
    usize::try_from(row["id"].as_u64()?).ok()
}

#[track_caller]
fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the binary starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {words}", output.status);
    output
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
fn feed(mut input: ChildStdin, stop: std::sync::Arc<std::sync::atomic::AtomicBool>) -> JoinHandle<io::Result<u64>> {
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
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let feeder = feed(import.stdin.take().expect("a pipe"), std::sync::Arc::clone(&stop));
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
            terminate(parent.process.id());
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
    let output = cluster.folder.join("node-0/output");
    wait_until("start", || fs::read_to_string(&output).is_ok_and(|text| text.contains("recovering")));
    let mut node = cluster.nodes[0].take().expect("a running replica");
    terminate(node.id());
    assert_eq!(node.wait().expect("it can be waited for").code(), Some(0));
}

#[test]
fn who_may_write_is_edited_before_the_first_start_and_fixed_after_it() {
    let mut cluster = Cluster::prepare("edited", &[]);
    let file = cluster.folder.join("cluster.toml");
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
