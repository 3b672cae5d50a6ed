//! Data folders that are not what a replica left last: older, another's, put together from several, or nothing (R18).
//! Each is refused in words, or what it holds is found to be certified and enough; in no case is there a second vote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::{Cluster, succeed};

/// The replica whose folder is exchanged, and one whose folder is taken for it.
const VICTIM: usize = 2;
const OTHER: usize = 1;

/// Says the replica itself, before it opens a store.
const NO_IDENTITY: &str = "there is no identity file";
const NO_LOG: &str = "its ordering log is gone";
const NO_STATE: &str = "its state is gone";
const FOREIGN: &str = "this data folder belongs to replica 1";
/// Says its log.
const FOREIGN_LOG: &str = "the data folder belongs to r1";
/// Say the others (R18).
const FORGOTTEN: &str = "has heard from this replica when its log had";
/// Says its state: the log has forgotten what leads to it (C10).
const OLD_STATE: &str = "the state is gone or older than the log";

/// Parts of a data folder, and the copies that they are taken from.
type Parts<'a> = &'a [(&'a str, &'a str)];

/// Folders that were copied while their replica was stopped.
struct Copies(PathBuf);

impl Copies {
    fn take(&self, cluster: &Cluster, replica: usize, name: &str) {
        copy(&data(cluster, replica), &self.0.join(name));
    }

    /// Puts a whole folder in the place of the victim's, and then single parts of others over it; no name: nothing.
    fn put(&self, cluster: &Cluster, whole: &str, parts: Parts<'_>) {
        let data = data(cluster, VICTIM);
        fs::remove_dir_all(&data).expect("a folder");
        match whole {
            "" => fs::create_dir(&data).expect("a folder"),
            name => copy(&self.0.join(name), &data),
        }
        for (part, from) in parts {
            let place = data.join(part);
            if place.is_dir() {
                fs::remove_dir_all(&place).expect("a folder");
            } else if place.exists() {
                fs::remove_file(&place).expect("a file");
            }
            match *from {
                "absent" => {}
                "empty" => fs::create_dir(&place).expect("a folder"),
                name => copy(&self.0.join(name).join(part), &place),
            }
        }
    }
}

fn data(cluster: &Cluster, replica: usize) -> PathBuf {
    cluster.node_folder(replica).join("data")
}

fn copy(from: &Path, to: &Path) {
    succeed(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Writes until the log has forgotten what it held before.
fn write(cluster: &Cluster, round: u64) {
    for write in 0..3 {
        succeed(cluster.command("kv").args(["put", &format!("key-{round}-{write}"), "value"]));
    }
    let goal = cluster.executed() + 80;
    while cluster.executed() < goal {
        let rate = ["--seconds", "1", "--clients", "1", "--callers", "1"];
        succeed(cluster.command("bench").args(rate));
    }
}

#[test]
fn r18_a_folder_that_is_not_what_the_replica_left_is_refused_in_words() {
    let cluster = Cluster::short_intervals_unstarted("folders");
    let copies = Copies(cluster.folder.join("copies"));
    fs::create_dir(&copies.0).expect("a folder");
    copies.take(&cluster, VICTIM, "armed");
    let mut cluster = cluster.started();
    // As it was, but for the genesis, which was edited since.
    let identity = fs::read_to_string(data(&cluster, VICTIM).join("identity")).expect("an identity file");
    assert!(identity.contains("armed = false"), "{identity}");
    let armed = copies.0.join("armed/identity");
    fs::write(armed, identity.replace("armed = false", "armed = true")).expect("an identity file");
    write(&cluster, 0);
    cluster.stop(VICTIM);
    copies.take(&cluster, VICTIM, "old");
    cluster.restart(VICTIM);
    cluster.wait_for_replica(VICTIM);
    cluster.stop(OTHER);
    copies.take(&cluster, OTHER, "other");
    cluster.restart(OTHER);
    write(&cluster, 1);
    cluster.wait_for_replica(VICTIM);
    cluster.kill(VICTIM);
    copies.take(&cluster, VICTIM, "last");

    let refused: &[(&str, &str, Parts, &str)] = &[
        ("an older copy", "old", &[], FORGOTTEN),
        ("another replica's", "other", &[], FOREIGN),
        ("nothing", "", &[], NO_IDENTITY),
        ("as it was before the first start", "armed", &[], FORGOTTEN),
        ("an older log", "last", &[("log", "old")], FORGOTTEN),
        ("an older state", "last", &[("state", "old")], OLD_STATE),
        ("another replica's log", "last", &[("log", "other")], FOREIGN_LOG),
        ("no log", "last", &[("log", "absent")], NO_LOG),
        ("an empty log", "last", &[("log", "empty")], NO_LOG),
        ("no state", "last", &[("state", "absent")], NO_STATE),
        ("an empty state", "last", &[("state", "empty")], NO_STATE),
        ("no identity", "last", &[("identity", "absent")], NO_IDENTITY),
        ("another replica's identity", "last", &[("identity", "other")], FOREIGN),
        ("the first identity, and no log", "last", &[("identity", "armed"), ("log", "absent")], FORGOTTEN),
        ("the first identity, and no state", "last", &[("identity", "armed"), ("state", "absent")], OLD_STATE),
        ("the first identity, and an older log", "last", &[("identity", "armed"), ("log", "old")], FORGOTTEN),
        ("the first identity, and another's log", "last", &[("identity", "armed"), ("log", "other")], FOREIGN_LOG),
    ];
    for (what, whole, parts, why) in refused {
        copies.put(&cluster, whole, parts);
        // Twice where nothing but the others knows better: the first refusal must not have made it any better.
        for _ in 0..if *why == FORGOTTEN { 2 } else { 1 } {
            let said = cluster.said(VICTIM);
            cluster.restart(VICTIM);
            let status = cluster.wait_for_end(VICTIM);
            let words = cluster.said_since(VICTIM, said);
            assert_eq!(status.code(), Some(2), "{what}: {status}: {words}");
            assert!(words.contains(why), "{what}: {words}");
        }
    }

    // What is certified is as good as the own, and a log has what the identity file says.
    for (what, parts) in [
        ("the last", &[][..]),
        ("the identity from before the first start", &[("identity", "armed")][..]),
        ("another replica's state", &[("state", "other")][..]),
    ] {
        copies.put(&cluster, "last", parts);
        cluster.restart(VICTIM);
        let is_taken = what != "another replica's state" || !is_refused(&mut cluster, OLD_STATE);
        if is_taken {
            cluster.wait_for_replica(VICTIM);
            cluster.kill(VICTIM);
            let _last = fs::remove_dir_all(copies.0.join("last"));
            copies.take(&cluster, VICTIM, "last");
        }
    }
    copies.put(&cluster, "last", &[]);
    cluster.restart(VICTIM);
    cluster.wait_for_equal_roots();
    cluster.assert_sane();
}

/// Whether the victim ends by itself, for this reason, before it is ready.
fn is_refused(cluster: &mut Cluster, why: &str) -> bool {
    loop {
        if let Some(status) = cluster.has_ended(VICTIM) {
            assert_eq!(status.code(), Some(2), "{status}");
            assert!(cluster.output(VICTIM).contains(why));
            return true;
        }
        if cluster.status()[VICTIM]["ready"] == true {
            return false;
        }
    }
}
