//! The temporary folders of local clusters whose program was killed with -9: the next one removes them.
//!
//! A folder holds a mark that names the process that made it. It is removed only if it is this user's own, has such a
//! mark, and that process is gone for certain: in this boot, in this namespace of process ids, nobody has its id and its
//! time of start. Anything else in the folder of temporary files is left alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the names of these folders begin with.
pub(crate) const PREFIX: &str = "polder-";
/// The file in a folder that names its maker.
const MARK: &str = "made-by.json";

/// A process: two that have the same id, one after the other, differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Maker {
    id: u32,
    /// When it was started, in ticks since the boot.
    started_ticks: u64,
    boot: String,
    namespace: String,
}

impl Maker {
    /// The living process with this id; none if there is none, or the system does not tell.
    fn living(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in brackets, may hold anything. What follows it is the state, which is the third field.
        let (_, after_name) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let is_dead = matches!(fields.first(), None | Some(&"Z" | &"X"));
        let started_ticks = fields.get(19)?.parse().ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        (!is_dead).then_some(Self { id, started_ticks, boot, namespace })
    }

    /// Whether it is gone for certain, as `own`, a living process, sees it.
    fn is_gone(&self, own: &Self) -> bool {
        (&self.boot, &self.namespace) == (&own.boot, &own.namespace) && Self::living(self.id).as_ref() != Some(self)
    }
}

/// Marks a folder as made by this process, and removes those of processes that are gone from the folder that it is in.
/// Returns how many.
///
/// # Errors
///
/// When the folder cannot be marked. One that cannot be removed is left.
pub(crate) fn mark_and_tidy(folder: &Path) -> io::Result<usize> {
    // Where the system does not tell who lives, nothing is marked or removed.
    let Some(own) = Maker::living(std::process::id()) else { return Ok(0) };
    fs::write(folder.join(MARK), serde_json::to_vec(&own)?)?;
    let user = fs::metadata(folder)?.uid();
    let beside = folder.parent().map(fs::read_dir).transpose()?;
    let old = beside.into_iter().flatten().flatten().filter(|entry| is_old(&entry.path(), user, &own));
    Ok(old.filter(|entry| remove(&entry.path()).is_ok()).count())
}

fn is_old(folder: &Path, user: u32, own: &Maker) -> bool {
    let is_named_so = folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    // Of a link, its own: who may write to the folder of temporary files must not make us remove another one.
    let is_own = || fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == user);
    let maker = || serde_json::from_slice::<Maker>(&fs::read(folder.join(MARK)).ok()?).ok();
    is_named_so && is_own() && maker().is_some_and(|maker| maker.is_gone(own))
}

/// Removes a folder, the mark last: what could not be removed whole is still known.
fn remove(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != MARK {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_file(folder.join(MARK))?;
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn made_by(temporary: &Path, name: &str, maker: Option<&Maker>) -> anyhow::Result<()> {
        fs::create_dir_all(temporary.join(name).join("node-0"))?;
        fs::write(temporary.join(name).join("node-0/log"), "x")?;
        if let Some(maker) = maker {
            fs::write(temporary.join(name).join(MARK), serde_json::to_vec(maker)?)?;
        }
        Ok(())
    }

    #[test]
    fn only_what_a_process_that_is_gone_has_made_is_removed() -> anyhow::Result<()> {
        let temporary = tempfile::tempdir()?;
        let own = Maker::living(std::process::id()).context("this process lives")?;
        // Nobody was started before the boot.
        let gone = Maker { started_ticks: 0, ..own.clone() };
        let make = |name: &str, maker: Option<&Maker>| made_by(temporary.path(), name, maker);
        make("polder-gone", Some(&gone))?;
        make("polder-lives", Some(&own))?;
        make("polder-without-a-mark", None)?;
        make("polder-elsewhere", Some(&Maker { namespace: "pid:[1]".to_owned(), ..gone.clone() }))?;
        make("polder-before-the-boot", Some(&Maker { boot: "another".to_owned(), ..gone.clone() }))?;
        make("other-gone", Some(&gone))?;
        make("other-linked", Some(&gone))?;
        std::os::unix::fs::symlink(temporary.path().join("other-linked"), temporary.path().join("polder-link"))?;
        let new = temporary.path().join("polder-new");
        fs::create_dir(&new)?;

        assert_eq!(mark_and_tidy(&new)?, 1);
        let left: std::collections::BTreeSet<String> = fs::read_dir(temporary.path())?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<_>>()?;
        let expected = [
            "other-gone",
            "other-linked",
            "polder-before-the-boot",
            "polder-elsewhere",
            "polder-link",
            "polder-lives",
            "polder-new",
            "polder-without-a-mark",
        ];
        assert_eq!(left, expected.map(str::to_owned).into());
        assert!(temporary.path().join("other-linked/node-0/log").exists());
        assert_eq!(serde_json::from_slice::<Maker>(&fs::read(new.join(MARK))?)?, own);
        Ok(())
    }

    #[test]
    fn a_process_that_has_ended_is_gone() -> anyhow::Result<()> {
        let own = Maker::living(std::process::id()).context("this process lives")?;
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn()?;
        let maker = Maker::living(child.id()).context("it lives")?;
        assert!(!maker.is_gone(&own) && !own.is_gone(&own));
        drop(child.stdin.take());
        child.wait()?;
        assert!(maker.is_gone(&own));
        Ok(())
    }
}
