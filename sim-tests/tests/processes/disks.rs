//! Disks that are full, stall, or fail to sync (R19): the replica says so in words and ends, or waits; the others go on;
//! and once the disk is well it is there again, with all that it had promised.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::cluster::{Cluster, skipped};
use crate::disk::{SmallDisk, has};
use crate::load::Load;

/// More than RocksDB has set aside for its logs before the disk was full.
const FILLING_RECORDS: usize = 24;
const FILLING_VALUE_BYTES: usize = 900 << 10;
const DISK_MEGABYTES: u64 = 600;

#[test]
fn r19_a_full_disk_ends_the_leader_in_words_and_it_comes_back_with_space() {
    let mut cluster = Cluster::short_intervals_unstarted("full");
    let disk = match SmallDisk::for_data_of(&mut cluster, 0, DISK_MEGABYTES) {
        Ok(disk) => disk,
        Err(why) => return skipped("a full disk", &why),
    };
    let mut cluster = cluster.started();
    let load = Load::start(&cluster, 4);
    load.wait_for_answers(50);
    disk.fill();
    import_large_values(&cluster);
    let status = cluster.wait_for_end(0);
    let words = cluster.output(0);
    assert_eq!(status.code(), Some(2), "{status}: {words}");
    assert!(is_full(&words) && words.contains("the node stops here"), "{words}");
    load.wait_for_answers(50);

    // It is refused as long as there is none.
    let said = cluster.said(0);
    cluster.restart(0);
    let status = cluster.wait_for_end(0);
    let words = cluster.said_since(0, said);
    assert_eq!(status.code(), Some(2), "{status}: {words}");
    assert!(is_full(&words), "{words}");

    disk.empty();
    cluster.restart(0);
    cluster.wait_for_replica(0);
    load.finish(&cluster);
    cluster.stop(0);
}

/// C10: a leader that has less than its reserve says so, takes no new commands and is replaced; it votes on, certifies and
/// truncates, and takes commands again once there is space, by itself.
#[test]
fn c10_little_space_costs_a_replica_new_commands_until_there_is_more() {
    const RESERVE_BYTES: &str = "134217728";
    let mut cluster = Cluster::short_intervals_unstarted("little");
    let disk = match SmallDisk::for_data_of(&mut cluster, 0, DISK_MEGABYTES) {
        Ok(disk) => disk,
        Err(why) => return skipped("a disk with little space", &why),
    };
    cluster.set(0, "POLDER_DISK_RESERVE_BYTES", Path::new(RESERVE_BYTES));
    let mut cluster = cluster.started();
    let load = Load::start(&cluster, 7);
    load.wait_for_answers(50);
    disk.fill_but(64 << 20);
    cluster.wait("word of little space", |status| {
        let why = status.first().and_then(|row| row["not_ready"].as_str()).unwrap_or_default().to_owned();
        why.contains("disk_reserve_bytes wants 128 MiB") && why.contains("takes no new commands")
    });
    let ready = admin(&cluster, 0, "/readyz?verbose");
    assert!(ready.contains("503") && ready.contains("[-]disk-space failed: "), "{ready}");
    let metrics = admin(&cluster, 0, "/metrics");
    assert!(metrics.contains("polder_disk_space_low{replica=\"0\"} 1"), "{metrics}");
    // Others lead, and this one goes with them: a cut later it has certified the same.
    load.wait_for_answers(100);
    let goal = cluster.status().iter().filter_map(|row| row["stable_checkpoint"].as_u64()).max().unwrap_or(0);
    cluster.wait("a cut that it has certified", |status| {
        status.first().is_some_and(|row| row["stable_checkpoint"].as_u64().is_some_and(|cut| cut > goal))
    });
    disk.empty();
    cluster
        .wait("a replica that takes commands again", |status| status.first().is_some_and(|row| row["ready"] == true));
    assert!(cluster.has_ended(0).is_none());
    let words = cluster.output(0);
    assert!(words.contains("no images are written until there is more"), "{words}");
    assert!(words.contains("new commands are taken again"), "{words}");
    load.finish(&cluster);
    cluster.stop(0);
}

/// What the admin port of a replica answers.
fn admin(cluster: &Cluster, replica: u16, path: &str) -> String {
    let port = cluster.base_port + 2 * replica + 1;
    let mut connection = TcpStream::connect(("127.0.0.1", port)).expect("the admin port");
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("a question");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A write says why it failed; a job in the background may leave no more than its number.
fn is_full(words: &str) -> bool {
    words.contains("No space left on device") || words.contains("background jobs failed")
}

/// Fills what is set aside.
fn import_large_values(cluster: &Cluster) {
    let state = cluster.folder.join("large.state");
    let mut import = cluster
        .command("import")
        .arg("--state")
        .arg(state)
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let mut input = import.stdin.take().expect("a pipe");
    for record in 0..FILLING_RECORDS {
        let value: String = std::iter::repeat_n('x', FILLING_VALUE_BYTES).collect();
        writeln!(input, "large/{record}\t{value}").expect("the import reads all");
    }
    drop(input);
    assert!(import.wait().expect("the import ends").success());
}

#[test]
fn a_disk_that_stalls_stops_its_replica_and_nobody_else() {
    let mut cluster = Cluster::short_intervals_unstarted("stalled");
    let disk = match SmallDisk::for_data_of(&mut cluster, 0, DISK_MEGABYTES) {
        Ok(disk) => disk,
        Err(why) => return skipped("a disk that stalls", &why),
    };
    let cluster = cluster.started();
    let load = Load::start(&cluster, 5);
    load.wait_for_answers(50);
    // A slow disk of the leader first, then one that does nothing for longer than a leader is waited for.
    for (times, stalled, between) in [(6, 300, 100), (1, 5_000, 0)] {
        let mut stalling = match disk.stall(times, Duration::from_millis(stalled), Duration::from_millis(between)) {
            Ok(stalling) => stalling,
            Err(why) => return skipped("a disk that stalls", &why),
        };
        while !stalling.is_over() {
            load.wait_for_answers(1);
        }
        cluster.wait_for_replica(0);
    }
    load.finish(&cluster);
}

/// A sync that fails may have thrown away what it should have written: nothing is retried over it.
#[test]
fn r19_a_sync_that_fails_ends_the_replica_in_words() {
    if !has("strace") {
        return skipped("a sync that fails", "there is no strace (Debian: apt-get install strace)");
    }
    let mut cluster = Cluster::with_short_intervals("sync-fails");
    let load = Load::start(&cluster, 6);
    load.wait_for_answers(50);
    for nth in [1, 9, 40] {
        cluster.kill(1);
        let said = cluster.said(1);
        let fault = format!("fdatasync,fsync:error=EIO:when={nth}+");
        cluster.restart_after(
            1,
            &format!("exec strace -f -qq --seccomp-bpf -o /dev/null -e trace=fdatasync,fsync -e inject={fault}"),
        );
        let status = cluster.wait_for_end(1);
        let words = cluster.said_since(1, said);
        assert_eq!(status.code(), Some(2), "{status}: {words}");
        assert!(words.contains("Input/output error"), "{words}");
        cluster.restart(1);
        cluster.wait_for_replica(1);
    }
    load.finish(&cluster);
}
