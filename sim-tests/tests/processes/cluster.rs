//! Four replicas as processes of their own, in a folder of their own, on ports of their own.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const REPLICAS: usize = 4;
/// Nothing here takes a fraction of it; a test that hangs ends.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at what costs nothing to look at.
const POLL: Duration = Duration::from_millis(5);

/// Two clusters at a time, of which one often waits for a time-out: they share the processors with each other.
static TURNS: (Mutex<usize>, Condvar) = (Mutex::new(2), Condvar::new());
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) fn binary() -> PathBuf {
    let path = std::env::var_os("POLDER_BIN").unwrap_or_else(|| {
        panic!("POLDER_BIN is not set: these tests run the real binary, which ./run test builds and names");
    });
    PathBuf::from(path)
}

/// The first of so many ports that nobody listens on.
pub(crate) fn free_ports(count: u16) -> u16 {
    let first = 20_000 + (std::process::id() % 600) as u16 * 16;
    loop {
        let base = first.wrapping_add(NEXT_PORT.fetch_add(count, Ordering::Relaxed)).clamp(20_000, 60_000);
        let free =
            |port: u16| UdpSocket::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + count).all(free) {
            return base;
        }
    }
}

/// Gives the processor away for a while. Nothing depends on how long: what is waited for is polled.
pub(crate) fn pause(duration: Duration) {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}

/// Polls until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "no {what}");
        pause(POLL);
    }
}

/// The right to have a cluster, given back when it is dropped.
struct Turn;

impl Turn {
    fn wait() -> Self {
        let (left, given_back) = &TURNS;
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = given_back.wait_while(left, |left| *left == 0).unwrap_or_else(PoisonError::into_inner);
        *left -= 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (left, given_back) = &TURNS;
        *left.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        given_back.notify_one();
    }
}

pub(crate) struct Cluster {
    pub(crate) folder: PathBuf,
    /// The port of replica 0; each replica has two.
    pub(crate) base_port: u16,
    nodes: Vec<Option<Child>>,
    /// Variables that a replica is started with.
    variables: Vec<Vec<(String, String)>>,
    _turn: Turn,
}

impl Cluster {
    pub(crate) fn start(name: &str) -> Self {
        Self::prepare(name, &[]).started()
    }

    /// A cluster whose checkpoints are so near to each other that a test sees many: a cut every eight slots, images at
    /// every second cut.
    pub(crate) fn with_short_intervals(name: &str) -> Self {
        Self::short_intervals_unstarted(name).started()
    }

    pub(crate) fn short_intervals_unstarted(name: &str) -> Self {
        let cluster = Self::prepare(name, &[]);
        cluster.edit_genesis(&[("window_slots", 32), ("interval_slots", 8), ("turn_cuts", 2)]);
        cluster
    }

    /// The files of a cluster, of which no replica runs yet.
    pub(crate) fn prepare(name: &str, testnet: &[&str]) -> Self {
        let turn = Turn::wait();
        let folder = std::env::temp_dir().join(format!("polder-{name}-{}", std::process::id()));
        let _absent = fs::remove_dir_all(&folder);
        let base_port = free_ports(16);
        succeed(
            Command::new(binary())
                .args(["testnet", "--replicas", "4", "--fault-model", "byzantine"])
                .args(["--base-port", &base_port.to_string(), "--dir"])
                .arg(&folder)
                .args(testnet),
        );
        let nodes = (0..REPLICAS).map(|_| None).collect();
        Self { folder, base_port, nodes, variables: vec![Vec::new(); REPLICAS], _turn: turn }
    }

    /// Sets constants, as long as no replica was started.
    pub(crate) fn edit_genesis(&self, constants: &[(&str, u64)]) {
        let path = self.file();
        let mut text = fs::read_to_string(&path).expect("a cluster file");
        for (key, value) in constants {
            let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).expect("a constant").to_owned();
            text = text.replace(&line, &format!("{key} = {value}"));
        }
        fs::write(path, text).expect("a cluster file");
    }

    /// All replicas started, with a leader.
    pub(crate) fn started(mut self) -> Self {
        (0..REPLICAS).for_each(|replica| self.restart(replica));
        self.wait("a leader", |status| leader(status).is_some());
        self
    }

    /// The cluster's public file.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("cluster.toml")
    }

    pub(crate) fn node_folder(&self, replica: usize) -> PathBuf {
        self.folder.join(format!("node-{replica}"))
    }

    /// Has a replica started with this variable from now on.
    pub(crate) fn set(&mut self, replica: usize, key: &str, value: &Path) {
        let value = value.to_str().expect("a printable path").to_owned();
        self.variables[replica].retain(|(other, _)| other != key);
        self.variables[replica].push((key.to_owned(), value));
    }

    pub(crate) fn restart(&mut self, replica: usize) {
        let mut command = Command::new(binary());
        command.args(["node", "--config"]).arg(self.node_folder(replica).join("node.toml"));
        self.spawn(replica, command);
    }

    /// Starts a replica by the shell, after this: `ulimit`, or `exec` by another program.
    pub(crate) fn restart_after(&mut self, replica: usize, prelude: &str) {
        let mut command = Command::new("sh");
        let config = self.node_folder(replica).join("node.toml");
        command.args(["-c", &format!("{prelude} \"$@\""), "sh"]).arg(binary());
        command.args(["node", "--config"]).arg(config);
        self.spawn(replica, command);
    }

    /// Starts a replica that says all there is to be said, to somebody who never reads it.
    pub(crate) fn restart_unread(&mut self, replica: usize) {
        let mut command = Command::new(binary());
        command.args(["node", "--config"]).arg(self.node_folder(replica).join("node.toml"));
        let child = command.env("POLDER_LOG", "trace").stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        self.nodes[replica] = Some(child.expect("the binary starts"));
    }

    fn spawn(&mut self, replica: usize, mut command: Command) {
        assert!(self.nodes[replica].is_none(), "replica {replica} runs");
        let log = File::options().create(true).append(true).open(self.output_file(replica)).expect("a log file");
        let child = command
            .envs(self.variables[replica].iter().cloned())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.nodes[replica] = Some(child.expect("the binary starts"));
    }

    fn output_file(&self, replica: usize) -> PathBuf {
        self.node_folder(replica).join("output")
    }

    /// What a replica has said in all its lives.
    pub(crate) fn output(&self, replica: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.output_file(replica)).unwrap_or_default()).into_owned()
    }

    /// How many bytes that is: what comes after them is new.
    pub(crate) fn said(&self, replica: usize) -> usize {
        self.output(replica).len()
    }

    pub(crate) fn said_since(&self, replica: usize, bytes: usize) -> String {
        self.output(replica).split_off(bytes)
    }

    pub(crate) fn pid(&self, replica: usize) -> u32 {
        self.nodes[replica].as_ref().expect("a running replica").id()
    }

    pub(crate) fn signal(&self, replica: usize, signal: &str) {
        send_signal(self.pid(replica), signal);
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, replica: usize) {
        let mut child = self.nodes[replica].take().expect("a running replica");
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
    }

    /// SIGTERM: the replica ends, with 0.
    pub(crate) fn stop(&mut self, replica: usize) {
        self.signal(replica, "TERM");
        let status = self.wait_for_end(replica);
        assert_eq!(status.code(), Some(0), "replica {replica}: {status}: {}", self.output(replica));
    }

    /// Whether a replica has ended by itself, and how.
    pub(crate) fn has_ended(&mut self, replica: usize) -> Option<ExitStatus> {
        let child = self.nodes[replica].as_mut()?;
        let status = child.try_wait().expect("it can be waited for")?;
        self.nodes[replica] = None;
        Some(status)
    }

    /// Until a replica has ended by itself.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, replica: usize) -> ExitStatus {
        let mut ended = None;
        wait_until("end of the replica", || {
            ended = self.has_ended(replica);
            ended.is_some()
        });
        ended.expect("it has ended")
    }

    pub(crate) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(binary());
        command.arg(verb).arg("--cluster").arg(self.file());
        command
    }

    /// What every replica says of itself.
    pub(crate) fn status(&self) -> Vec<Value> {
        // With too few replicas the verb may say so by its exit status; what it prints is the same.
        let output = self.command("status").arg("--json").output().expect("the binary starts");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["replicas"].as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let start = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no {what}: {status:?}");
        }
    }

    #[track_caller]
    pub(crate) fn leader(&self) -> usize {
        self.wait("leader", |status| leader(status).is_some());
        leader(&self.status()).unwrap_or(0)
    }

    pub(crate) fn executed(&self) -> u64 {
        self.status().iter().filter_map(|replica| replica["executed"].as_u64()).max().unwrap_or(0)
    }

    /// Until the cluster has executed some slots more: the load goes on.
    #[track_caller]
    pub(crate) fn wait_for_progress(&self) {
        let before = self.executed();
        self.wait("progress", |status| {
            status.iter().filter_map(|replica| replica["executed"].as_u64()).any(|executed| executed > before + 20)
        });
    }

    /// Until a replica that was restarted has executed what the others had then.
    #[track_caller]
    pub(crate) fn wait_for_replica(&self, replica: usize) {
        let goal = self.executed();
        self.wait("replica that caught up", |status| {
            status.iter().any(|row| row["id"] == replica && row["executed"].as_u64().is_some_and(|seq| seq >= goal))
        });
    }

    /// Until all replicas are ready, have executed the same slots, and have certified the same state at the same cut.
    #[track_caller]
    pub(crate) fn wait_for_equal_roots(&self) {
        self.wait("equal roots of all replicas", |status| {
            let facts = |row: &Value| ["executed", "stable_checkpoint", "root"].map(|key| row[key].clone());
            let first = status.first().map(facts);
            let is_equal = |row: &Value| row["ready"] == true && Some(facts(row)) == first;
            status.len() == REPLICAS && status.iter().all(is_equal)
        });
    }

    pub(crate) fn export(&self, arguments: &[&str]) -> Vec<u8> {
        succeed(self.command("export").args(arguments)).stdout
    }

    /// No replica has panicked, and none has seen another sign two statements that exclude each other.
    #[track_caller]
    pub(crate) fn assert_sane(&self) {
        for replica in 0..REPLICAS {
            let output = self.output(replica);
            for words in ["panicked", "exclude each other", "a bug in polder"] {
                assert!(!output.contains(words), "replica {replica} said `{words}`");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            let _ended = child.kill();
            let _status = child.wait();
        }
        if thread::panicking() {
            for replica in 0..REPLICAS {
                let text = self.output(replica);
                let lines: Vec<&str> = text.lines().collect();
                eprintln!("--- node {replica}\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
        }
        let _absent = fs::remove_dir_all(&self.folder);
    }
}

pub(crate) fn send_signal(pid: u32, signal: &str) {
    succeed(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]));
}

pub(crate) fn leader(status: &[Value]) -> Option<usize> {
    let row = status.iter().find(|row| row["role"] == "leader" && row["reachable"] == true)?;
    usize::try_from(row["id"].as_u64()?).ok()
}

#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> Output {
    let output = command.output().expect("the binary starts");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {words}", output.status);
    output
}

/// Says loudly that a test was not made, and why: nobody shall believe that it passed.
pub(crate) fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
}
