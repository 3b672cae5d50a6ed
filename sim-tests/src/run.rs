//! Running seeds: one, or many over the cores; and what came of them.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;

use polder_types::Digest;

use crate::checkers::Violation;
use crate::shrink::Without;
use crate::swarm::{Model, Options};
use crate::trace::Trace;
use crate::world::{Counts, World};

/// What is asked of a run beside its seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The fault model; drawn by the seed if none is asked for.
    pub model: Option<Model>,
    /// What of all that the seed draws is switched off.
    pub without: Without,
    /// The bug to plant.
    #[cfg(polder_mutations)]
    pub mutation: Option<polder_consensus::Mutation>,
}

impl Setup {
    /// The options that this seed draws.
    #[must_use]
    pub fn options(&self, seed: u64) -> Options {
        let mut options = Options::draw(seed, self.model);
        #[cfg(polder_mutations)]
        if let Some(mutation) = self.mutation {
            crate::bias::bias(&mut options, mutation, self.model);
        }
        self.without.apply(&mut options);
        options
    }

    /// The command that replays a seed.
    #[must_use]
    pub fn replay(&self, seed: u64) -> String {
        let model = self.model.map(|model| format!(" --fault-model {}", model.name())).unwrap_or_default();
        let names = self.without.names();
        let without = if names.is_empty() { names } else { format!(" --without {names}") };
        format!("./run sim --seed {seed} --trace{model}{without}{}", self.planted())
    }

    #[cfg(polder_mutations)]
    fn planted(&self) -> String {
        self.mutation.map(|mutation| format!(" --mutation {}", mutation.name())).unwrap_or_default()
    }

    #[cfg(not(polder_mutations))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    fn planted(&self) -> String {
        String::new()
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Whether too little happened for the run to mean anything.
    pub is_void: bool,
    /// What was counted.
    pub counts: Counts,
    /// Simulated time, in microseconds.
    pub simulated_us: u64,
    /// The hash of the trace; none after a panic, and of a silent one.
    pub trace: Option<Digest>,
}

/// Runs one seed. A panic is a violation of `invariant`.
#[must_use]
pub fn run(seed: u64, setup: &Setup, trace: Trace) -> Outcome {
    caught(|| run_world(seed, setup, trace)).unwrap_or_else(|sentence| {
        let violation = Violation { checker: "invariant", sentence };
        let counts = Counts::default();
        Outcome { seed, violation: Some(violation), is_void: false, counts, simulated_us: 0, trace: None }
    })
}

/// Runs this with a panic as an error: what it said and where.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    quiet_panics();
    let before = IS_SIMULATING.replace(true);
    let ran = catch_unwind(AssertUnwindSafe(run));
    IS_SIMULATING.set(before);
    ran.map_err(|_| LAST_PANIC.with(|last| last.take()))
}

fn run_world(seed: u64, setup: &Setup, trace: Trace) -> Outcome {
    let mut world = match World::new(setup.options(seed)) {
        Ok(world) => world,
        Err(why) => {
            let violation = Violation { checker: "swarm", sentence: why.to_string() };
            let counts = Counts::default();
            return Outcome { seed, violation: Some(violation), is_void: false, counts, simulated_us: 0, trace: None };
        }
    };
    world.trace = trace;
    #[cfg(polder_mutations)]
    {
        world.mutation = setup.mutation;
    }
    let violation = world.run().err();
    if let Some(violation) = &violation {
        world.trace.line(format_args!("{} {violation}", world.now_us()));
        world.trace_statuses();
    }
    Outcome {
        seed,
        is_void: violation.is_none() && world.is_void(),
        violation,
        counts: world.counts,
        simulated_us: world.now_us(),
        trace: world.trace.hash(),
    }
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that ran.
    pub seeds: u64,
    /// How many were void.
    pub void: u64,
    /// Those that failed, in order of seed.
    pub failures: Vec<Outcome>,
    /// Events given to replicas.
    pub steps: u64,
    /// Simulated seconds.
    pub simulated_s: f64,
    /// Seconds that it took.
    pub wall_s: f64,
    /// Seconds of one core that it took.
    pub core_s: f64,
    /// Totals.
    pub counts: Counts,
}

impl Report {
    /// The report of one seed.
    #[must_use]
    pub fn of(outcome: Outcome) -> Self {
        let mut report = Self::default();
        report.add(outcome);
        report
    }

    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.void += u64::from(outcome.is_void);
        self.steps += outcome.counts.steps;
        self.simulated_s += outcome.simulated_us as f64 / 1e6;
        self.counts.add(&outcome.counts);
        if outcome.violation.is_some() {
            self.failures.push(outcome);
        }
    }
}

/// When a search begins no more seeds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// After a failure.
    pub stops_at_first: bool,
    /// After this time.
    pub until: Option<Instant>,
}

/// Runs seeds over `threads` threads, each seed on one; `progress` is told how many are done and how many failed.
/// With `stop_at_first` no more are begun after a failure.
#[must_use]
pub fn run_many(
    seeds: std::ops::Range<u64>,
    setup: &Setup,
    threads: usize,
    stop_at_first: bool,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Report {
    run_within(seeds, setup, threads, Limits { stops_at_first: stop_at_first, until: None }, progress)
}

/// As [`run_many`], within limits.
#[must_use]
pub fn run_within(
    seeds: std::ops::Range<u64>,
    setup: &Setup,
    threads: usize,
    limits: Limits,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Report {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let is_over = AtomicBool::new(false);
    let report: Mutex<Report> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let (begun, begun_core_s) = (Instant::now(), core_s());
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let is_late = limits.until.is_some_and(|until| Instant::now() >= until);
                    if seed >= seeds.end || is_late || is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let outcome = run(seed, setup, Trace::silent());
                    if outcome.violation.is_some() && limits.stops_at_first {
                        is_over.store(true, Ordering::Relaxed);
                    }
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.add(outcome);
                    progress(report.seeds, report.failures.len() as u64);
                }
                let of_core_s = core_s().zip(begun_core_s).map(|(now, before)| now - before);
                let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                report.core_s += of_core_s.unwrap_or_else(|| begun.elapsed().as_secs_f64());
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort_by_key(|outcome| outcome.seed);
    report.wall_s = started.elapsed().as_secs_f64();
    report
}

/// Seconds that this thread has spent on a core, where the system says so: others may be busy on the machine.
fn core_s() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let ns: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(ns as f64 / 1e9)
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
}

/// Panics of replicas are findings, and those of services are part of the load: what they say is kept, not
/// printed, while a simulation runs on their thread.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_SIMULATING.get() {
                before(info);
                return;
            }
            let payload = info.payload();
            let said = payload.downcast_ref::<&str>().map(ToString::to_string);
            let said = said.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
            let at = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            LAST_PANIC.with(|last| last.replace(format!("{said}{at}")));
        }));
    });
}
