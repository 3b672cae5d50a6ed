//! Rare branches are marked in the code; for each mark one script reaches it, and every mark has one. Compiled under
//! `--cfg polder_mutations` only: in what is shipped there are no marks.
#![cfg(polder_mutations)]

use std::path::Path;

use polder_consensus::mark::{Mark, hits};
use polder_sim_tests::script;

/// Which script of `testdata` reaches which mark.
const REACHED_BY: &[(Mark, &str)] = &[
    (Mark::HoleIsNoOp, "a_hole_between_batches"),
    (Mark::HigherViewWins, "the_higher_view_wins"),
    (Mark::ViewChangeLeftOut, "clock_ahead"),
    (Mark::NewViewProvesEnd, "new_view_first"),
    (Mark::CarriedCut, "cut_learnt_in_a_view_change"),
    (Mark::ProposalHeld, "clock_ahead"),
    (Mark::ProposalReleased, "clock_a_little_ahead"),
    (Mark::ForcedBodyPulled, "view_change_after_prepare"),
    (Mark::PreparedBodyPulled, "body_pulled_after_votes"),
    (Mark::CommittedBodyPulled, "clock_ahead"),
    (Mark::JoinsSuspects, "split_that_ends_the_view"),
    (Mark::BelievesAbdication, "leader_restarts"),
    (Mark::SkipsViews, "two_views_slept_through"),
    (Mark::AbdicatesAfterRestart, "leader_restarts"),
    (Mark::VotesRestored, "all_restart"),
    (Mark::ProvedByHistory, "proved_by_history"),
    (Mark::FellBehind, "state_transfer"),
    (Mark::GapTimesOut, "batch_not_to_be_had"),
    (Mark::Restored, "state_transfer"),
    (Mark::TruncatedSlotAsked, "truncated_slot_asked"),
    (Mark::EndRelayed, "certificate_of_the_end_relayed"),
    (Mark::NewViewRelayed, "new_view_lost"),
    (Mark::FillerProposed, "session_clock"),
    (Mark::NewViewMissed, "a_view_that_nobody_leads"),
    (Mark::LeaderSilent, "reply_lost"),
    (Mark::FillerMissed, "reply_lost"),
    (Mark::LostMemory, "rolled_back_disk"),
    (Mark::StatementSaidAgain, "statement_said_again"),
    (Mark::SettledWhileWaiting, "numbers_used_twice"),
    (Mark::AnsweredFromCache, "reply_lost"),
];

/// One test, so that no other counts while it does.
#[test]
fn every_mark_is_reached_by_its_script() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    if std::env::var_os("POLDER_MARKS").is_some() {
        return print_all(&folder);
    }
    for &mark in Mark::ALL {
        let named = REACHED_BY.iter().find(|(reached, _)| *reached == mark);
        let Some((_, script)) = named else { panic!("no script reaches {mark:?}: {}", mark.what()) };
        let before = hits(mark);
        run(&folder.join(format!("{script}.txt")));
        assert!(hits(mark) > before, "{script} does not reach {mark:?}: {}", mark.what());
    }
}

fn run(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    script::run(&script::parse(&text)).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
}

/// `POLDER_MARKS=1` prints which script reaches what.
fn print_all(folder: &Path) {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).expect("testdata").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    for path in paths {
        let before: Vec<u64> = Mark::ALL.iter().map(|mark| hits(*mark)).collect();
        run(&path);
        let reached: Vec<&Mark> = Mark::ALL
            .iter()
            .zip(before)
            .filter(|(mark, before)| hits(**mark) > *before)
            .map(|(mark, _)| mark)
            .collect();
        println!("{}: {reached:?}", path.display());
    }
}
