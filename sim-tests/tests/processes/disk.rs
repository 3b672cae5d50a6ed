//! A small file system of its own for one replica: to be filled, and to be stalled.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use crate::cluster::{Cluster, succeed};

/// A file system in a file, mounted below the cluster's folder.
pub(crate) struct SmallDisk {
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// Makes one and moves a replica's data there.
    ///
    /// # Errors
    ///
    /// Why this machine does not let a test mount it.
    pub(crate) fn for_data_of(cluster: &mut Cluster, replica: usize, megabytes: u64) -> Result<Self, String> {
        let image = cluster.folder.join("disk.image");
        let mounted_at = cluster.folder.join("disk");
        let file = File::create(&image).expect("a file");
        file.set_len(megabytes << 20).expect("a sparse file");
        fs::create_dir(&mounted_at).expect("a folder");
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted_at))?;
        let data = mounted_at.join("data");
        succeed(Command::new("cp").arg("-a").arg(cluster.node_folder(replica).join("data")).arg(&data));
        cluster.set(replica, "POLDER_DATA_DIR", &data);
        Ok(Self { mounted_at })
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) {
        self.fill_but(1 << 20);
        let mut file = File::options().append(true).open(self.filler()).expect("the filler");
        // In ever smaller pieces, for a large one is refused while there is still room for a small one.
        for bytes in [1 << 16, 1 << 12, 1] {
            let piece = vec![0xaa; bytes];
            let refused = loop {
                if let Err(error) = file.write_all(&piece).and_then(|()| file.sync_data()) {
                    break error;
                }
            };
            assert_eq!(refused.kind(), ErrorKind::StorageFull, "{refused}");
        }
    }

    /// Takes all but so much of it.
    pub(crate) fn fill_but(&self, left_bytes: u64) {
        let most = self.free_bytes().saturating_sub(left_bytes);
        succeed(Command::new("fallocate").args(["--length", &most.to_string()]).arg(self.filler()));
    }

    fn free_bytes(&self) -> u64 {
        let free = succeed(Command::new("df").args(["--block-size=1", "--output=avail"]).arg(&self.mounted_at)).stdout;
        let free = String::from_utf8_lossy(&free).lines().last().and_then(|line| line.trim().parse::<u64>().ok());
        free.expect("a number")
    }

    /// Gives it back.
    pub(crate) fn empty(&self) {
        fs::remove_file(self.filler()).expect("the filler");
    }

    fn filler(&self) -> PathBuf {
        self.mounted_at.join("filler")
    }

    /// Stalls every write for so long, then lets them go on for a moment, so many times. A process of its own does it:
    /// however the test ends, the file system does not stay frozen.
    ///
    /// # Errors
    ///
    /// Why this machine does not let a test freeze it.
    pub(crate) fn stall(&self, times: u32, stalled: Duration, between: Duration) -> Result<Stalling, String> {
        let at = self.mounted_at.display();
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.mounted_at))?;
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.mounted_at))?;
        let (stalled, between) = (stalled.as_secs_f64(), between.as_secs_f64());
        let script = format!(
            "for i in $(seq {times}); do fsfreeze -f {at}; sleep {stalled}; fsfreeze -u {at}; sleep {between}; done"
        );
        Ok(Stalling(Command::new("sh").args(["-c", &script]).spawn().expect("a shell")))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: who has it open when a test fails ends later.
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.mounted_at).status();
    }
}

/// A disk that is being stalled.
pub(crate) struct Stalling(Child);

impl Stalling {
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("it can be waited for").is_some()
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        let _ended = self.0.wait();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let words = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{}: {}", command.get_program().display(), words.trim())) }
}

/// Whether this program can be run here.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
