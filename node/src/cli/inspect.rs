//! `polder inspect`: what files of evidence prove, without a running node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use polder_consensus::{Misdeed, NotEvidence};
use polder_types::Keyring;
use serde_json::{Value, json};

use crate::evidence;

/// Judges evidence that a replica has lied (R41), from its bytes alone
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  polder inspect --cluster net/cluster.toml net/node-0/data
  polder inspect --cluster net/cluster.toml --json replica-3-epoch-0-votes.evidence

A node keeps what it finds in the folder evidence of its data folder; no node needs to run. A file proves what it says to
everybody who has the cluster's public file, wherever it comes from.
Exit status: 0 all that is there holds, also when nothing is there; 1 something proves nothing, 2 error.")]
pub(super) struct Inspect {
    /// The cluster's public file
    #[arg(long, value_name = "FILE", env = "POLDER_CLUSTER")]
    cluster: PathBuf,
    /// Print one JSON object a file
    #[arg(long)]
    json: bool,
    /// Data folders of nodes, or files of evidence
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

type Verdict = Result<Misdeed, NotEvidence>;

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let keyring = super::cluster_file(&self.cluster)?.genesis().check()?;
        let found = judged(&keyring, &self.paths)?;
        if found.is_empty() && !self.json {
            super::say_list("no evidence")?;
        }
        for (path, verdict) in &found {
            let (words, json) = (words(path, verdict), to_json(path, verdict));
            if self.json { super::say_list(json)? } else { super::say_list(words)? }
        }
        let all_hold = found.iter().all(|(_, verdict)| verdict.is_ok());
        Ok(if all_hold { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// All evidence at these paths, with what it proves.
fn judged(keyring: &Keyring, paths: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Verdict)>> {
    let mut found = Vec::new();
    for path in paths {
        let files = if path.is_dir() { evidence::files(path)? } else { vec![path.clone()] };
        for file in files {
            let verdict = evidence::judge(keyring, &file)?;
            found.push((file, verdict));
        }
    }
    Ok(found)
}

fn words(path: &Path, verdict: &Verdict) -> String {
    match verdict {
        Ok(misdeed) => format!("{}: holds: {misdeed}", path.display()),
        Err(why) => format!("{}: proves nothing: {why}", path.display()),
    }
}

fn to_json(path: &Path, verdict: &Verdict) -> Value {
    let file = path.to_string_lossy();
    match verdict {
        Ok(misdeed) => json!({
            "file": file,
            "holds": true,
            "replica": misdeed.culprit.0,
            "kind": evidence::word(misdeed.kind),
            "epoch": misdeed.epoch.0,
            "view": misdeed.view.0,
            "slot": misdeed.slot.map(|slot| slot.0),
            "why": misdeed.to_string(),
        }),
        Err(why) => json!({
            "file": file, "holds": false, "replica": null, "kind": null, "epoch": null, "view": null, "slot": null,
            "why": why.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use polder_consensus::Phase;

    use super::*;
    use crate::evidence::tests::{cluster, two_votes};

    #[test]
    fn r41_a_file_is_said_to_hold_against_whom_and_why_or_to_prove_nothing() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let cluster = cluster(1);
        let keyring = cluster.genesis().check()?;
        let evidence = two_votes(&cluster, Phase::Prepare, [1, 2]);
        let path = evidence::keep(folder.path(), &evidence, &evidence.verify(&keyring)?)?;
        let same = folder.path().join("same");
        std::fs::write(&same, two_votes(&cluster, Phase::Prepare, [1, 1]).to_bytes())?;
        let found = judged(&keyring, &[folder.path().to_owned(), same.clone()])?;
        let [holds, not] = &found[..] else { anyhow::bail!("{found:?}") };
        let expected = "replica-2-epoch-0-votes.evidence: holds: r2 signed two votes of one phase for one slot of one \
                        view: epoch 0, v3, s7";
        assert!(words(&holds.0, &holds.1).ends_with(expected), "{}", words(&holds.0, &holds.1));
        let json = to_json(&holds.0, &holds.1);
        assert_eq!((&json["replica"], &json["kind"], &json["slot"]), (&json!(2), &json!("votes"), &json!(7)));
        assert_eq!((&holds.0, to_json(&not.0, &not.1)["holds"].clone()), (&path, json!(false)));
        assert!(
            words(&not.0, &not.1).ends_with("same: proves nothing: a correct replica may have signed both statements")
        );
        assert!(judged(&keyring, &[folder.path().join("absent")]).is_err());
        Ok(())
    }
}
