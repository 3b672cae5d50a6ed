//! 200 fixed seeds: nothing fails, and at most one in twenty is void.

use polder_sim_tests::run::{Setup, run_many};

#[test]
fn two_hundred_seeds_find_nothing() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run_many(0..200, &Setup::default(), threads, false, &|_, _| {});
    let failures: Vec<String> = report
        .failures
        .iter()
        .map(|failure| format!("{:?}\n  {}", failure.violation, Setup::default().replay(failure.seed)))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(report.seeds, 200);
    assert!(report.void <= 10, "{} of 200 seeds were void", report.void);
    // The canary of the faults: a simulator that crashes nobody and changes no views tests nothing.
    let counts = report.counts;
    assert!(counts.crashes > 200 && counts.view_changes > 200 && counts.transfers > 5, "{counts:?}");
    assert!(counts.unwanted > 0 && counts.corrupted > 0, "{counts:?}");
    assert!(counts.no_room > 100, "commands that there was no room for (R25): {}", counts.no_room);
    let never: Vec<&str> = counts.fault_kinds().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert!(never.is_empty(), "faults that nobody met: {never:?}");
    // Rare ones are met by more seeds than these.
    let points = counts.points().filter(|(_, count)| *count > 0).count();
    assert!(points >= 25, "crashes at {points} points only: {:?}", counts.points().collect::<Vec<_>>());
    assert!(counts.refused > 5 && counts.halted > 0 && counts.disk_failures > 20, "{counts:?}");
}

/// Seeds beyond those that failed once, and what they showed.
const KEPT: [(u64, &str); 8] = [
    (1_332, "a replica that is cut off is given, long after, what the network had held back: that is not boasting"),
    (1_824, "two that fetch one state ask each other again and again, and never the one that has it and was late once"),
    (880_205, "a source that is dead is given a part of every cut, and each cut passes before it is given up"),
    (2_000_338, "nobody waits for a call that was given up"),
    (2_000_569, "a leader's clock leaps, what it proposes is held, and the client that asked it has gone"),
    (2_010_335, "a second NEW-VIEW that encloses what does not fit is evidence, too"),
    (2_010_585, "one that fetches a state asks those that have not reached the cut, until the cut has passed"),
    (7_000_102, "a full disk keeps nothing of what was written after the write that it refused"),
];

#[test]
fn seeds_that_failed_once_fail_no_more() {
    for (seed, what) in KEPT {
        let report = run_many(seed..seed + 1, &Setup::default(), 1, false, &|_, _| {});
        let violation = report.failures.first().map(|failure| &failure.violation);
        assert!(report.failures.is_empty(), "{seed} ({what}): {violation:?}");
    }
}
