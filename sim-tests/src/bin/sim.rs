//! `./run sim`: runs seeds of the core simulator and says what failed, and how to see it again. `./run soak`: searches with
//! fresh seeds for as long as it is told.

use std::io::{IsTerminal as _, Write as _};
use std::ops::Range;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use polder_sim_tests::run::{Limits, Outcome, Report, Setup, run, run_many, run_within};
use polder_sim_tests::shrink::{Without, shrink};
use polder_sim_tests::swarm::Model;
use polder_sim_tests::trace::Trace;
use serde_json::json;

const HELP: &str = "\
Runs the core simulator: real replicas under a hostile scheduler, everything from a seed.

  ./run sim --seeds 0..200                   runs these seeds
  ./run sim --seed 17 --trace                runs one and prints all that happens
  ./run sim --seeds 0..500 --mutation NAME   plants a bug, and stops when it is caught

  --seeds A..B          seeds from A to B, B left out
  --seed S              one seed
  --trace               prints every event and what the replica did (one seed only)
  --without A,B         switches off what the seeds draw: liars, loss, crashes, ... (a wrong name prints all)
  --fault-model M       byzantine, crash or hybrid; otherwise each seed draws its own
  --mutation NAME       plants a bug (a build with --cfg polder_mutations; ./run sim makes it)
  --list-mutations      prints the names of the bugs that can be planted
  --threads N           threads; otherwise one a core
  --json                prints one JSON object

  ./run soak --minutes 10                    fresh seeds on all cores until one fails, then shrinks that

  --minutes N           how long; otherwise 10
  --seeds-from S        the first seed; otherwise drawn from the clock, and printed
  --threads N, --fault-model M, --without A,B, --mutation NAME   as above

A run in which too little happened is void: counted, and no success.
Exit status: 0 no seed failed, 1 one did, 2 the arguments are wrong.";

struct Arguments {
    seeds: Range<u64>,
    setup: Setup,
    threads: usize,
    with_trace: bool,
    as_json: bool,
    stops_at_first: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        say(HELP);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list-mutations") {
        mutations().iter().for_each(|name| say(name));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|argument| argument == "soak") {
        return match parse_soak(&arguments[1..]) {
            Ok((arguments, minutes)) => soak(&arguments, minutes),
            Err(why) => wrong(&why),
        };
    }
    match parse(&arguments) {
        Ok(arguments) if arguments.with_trace => trace(&arguments),
        Ok(arguments) => search(&arguments),
        Err(why) => wrong(&why),
    }
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("{why}\n\n{HELP}");
    ExitCode::from(2)
}

/// The arguments of a soak: those of a search, but for how long and from which seed.
fn parse_soak(arguments: &[String]) -> Result<(Arguments, f64), String> {
    let (mut minutes, mut first, mut others) = (10.0, None, Vec::new());
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--minutes" => {
                let text = value()?;
                let parsed = text.parse().ok().filter(|minutes| (0.0..1e6).contains(minutes));
                minutes = parsed.ok_or_else(|| format!("{text} is no number of minutes"))?;
            }
            "--seeds-from" => first = Some(number(value()?)?),
            "--seed" | "--seeds" | "--trace" | "--json" => return Err(format!("{name} is no option of soak")),
            _ => others.extend([name.clone()]),
        }
        if matches!(name.as_str(), "--threads" | "--fault-model" | "--without" | "--mutation") {
            others.push(value()?.clone());
        }
    }
    let first = first.unwrap_or_else(fresh_seed).min(u64::MAX / 2);
    others.extend(["--seeds".to_string(), format!("{first}..{}", u64::MAX)]);
    parse(&others).map(|arguments| (arguments, minutes))
}

/// A seed that nobody has tried yet, from the clock: twenty digits would be a nuisance to copy, so it is cut to twelve.
fn fresh_seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64 % 1_000_000_000_000)
}

/// Searches until the time is up or something fails; what fails is shrunk to what it needs.
fn soak(arguments: &Arguments, minutes: f64) -> ExitCode {
    let started = Instant::now();
    let until = started.checked_add(Duration::from_secs_f64(60.0 * minutes));
    say(&format!("seeds from {} on, for {minutes} minutes, on {} cores", arguments.seeds.start, arguments.threads));
    let is_watched = std::io::stderr().is_terminal();
    let last_line = Mutex::new(started);
    let progress = |done: u64, failed: u64| {
        let mut last_line = last_line.lock().unwrap_or_else(PoisonError::into_inner);
        let period = if is_watched { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if last_line.elapsed() >= period {
            *last_line = Instant::now();
            let share = started.elapsed().as_secs_f64() / (60.0 * minutes).max(1e-9);
            report_progress(is_watched, share.min(1.0), done, failed);
        }
    };
    let limits = Limits { stops_at_first: true, until };
    let report = run_within(arguments.seeds.clone(), &arguments.setup, arguments.threads, limits, &progress);
    if is_watched {
        eprintln!();
    }
    for failure in &report.failures {
        say(&sentence(arguments, failure));
        let Some(violation) = &failure.violation else { continue };
        say("shrinking it: each of what the seed draws is switched off, and stays off if it fails all the same");
        let setup = shrink(failure.seed, &arguments.setup, violation, &mut |switch, is_needed| {
            if is_watched {
                eprint!("\r{} {}            ", if is_needed { "needs" } else { "does without" }, switch.name());
            }
        });
        if is_watched {
            eprintln!();
        }
        say(&format!("the smallest that fails:\n  {}", setup.replay(failure.seed)));
    }
    say(&summary(&report));
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A bar on a terminal, otherwise a line.
fn report_progress(is_watched: bool, share: f64, done: u64, failed: u64) {
    if is_watched {
        let filled = (share * 30.0) as usize;
        eprint!("\r[{}{}] {done} seeds, {failed} failed ", "#".repeat(filled), ".".repeat(30 - filled));
        drop(std::io::stderr().flush());
    } else {
        say(&format!("{:.0} %: {done} seeds, {failed} failed", 100.0 * share));
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parsed = Arguments {
        seeds: 0..0,
        setup: Setup::default(),
        threads: cores,
        with_trace: false,
        as_json: false,
        stops_at_first: false,
    };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seeds" => parsed.seeds = range(value()?)?,
            "--seed" => {
                let seed = number(value()?)?;
                parsed.seeds = seed..seed.saturating_add(1);
            }
            "--threads" => parsed.threads = number(value()?)? as usize,
            "--fault-model" => {
                let name = value()?;
                let model = Model::of(name).ok_or_else(|| format!("{name} is not byzantine, crash or hybrid"))?;
                parsed.setup.model = Some(model);
            }
            "--without" => parsed.setup.without = Without::of(value()?)?,
            "--mutation" => {
                plant(&mut parsed.setup, value()?)?;
                parsed.stops_at_first = true;
            }
            "--trace" => parsed.with_trace = true,
            "--json" => parsed.as_json = true,
            other => return Err(format!("{other} is no option")),
        }
    }
    if parsed.seeds.is_empty() {
        return Err("no seeds: say --seeds A..B or --seed S".to_string());
    }
    if parsed.with_trace && parsed.seeds.end - parsed.seeds.start != 1 {
        return Err("--trace is for one seed: say --seed S".to_string());
    }
    Ok(parsed)
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("{text} is no range: say A..B"))?;
    Ok(number(from)?..number(to)?)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

#[cfg(polder_mutations)]
fn plant(setup: &mut Setup, name: &str) -> Result<(), String> {
    let mutation = polder_consensus::Mutation::from_name(name);
    setup.mutation = Some(mutation.ok_or_else(|| format!("{name} is no mutation: --list-mutations names them"))?);
    Ok(())
}

#[cfg(not(polder_mutations))]
fn plant(_: &mut Setup, _: &str) -> Result<(), String> {
    Err("this build holds no bugs: compile it with --cfg polder_mutations, as ./run sim --mutation does".to_string())
}

#[cfg(polder_mutations)]
fn mutations() -> Vec<&'static str> {
    polder_consensus::Mutation::ALL.iter().map(|mutation| mutation.name()).collect()
}

#[cfg(not(polder_mutations))]
fn mutations() -> Vec<&'static str> {
    Vec::new()
}

fn trace(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let outcome = run(arguments.seeds.start, &arguments.setup, Trace::printing());
    let mut report = Report::of(outcome.clone());
    report.wall_s = started.elapsed().as_secs_f64();
    report.core_s = report.wall_s;
    let hash = outcome.trace.map_or_else(String::new, |hash| format!("trace {hash}, "));
    let counts = outcome.counts;
    let ms = outcome.simulated_us / 1_000;
    say(&format!("{hash}{} steps, {ms} ms simulated, {counts:?}", counts.steps));
    finish(arguments, &report)
}

fn search(arguments: &Arguments) -> ExitCode {
    let seeds = arguments.seeds.end - arguments.seeds.start;
    let is_watched = std::io::stderr().is_terminal();
    let progress = |done: u64, failed: u64| {
        if is_watched {
            eprint!("\r{done}/{seeds} seeds, {failed} failed ");
            drop(std::io::stderr().flush());
        }
    };
    let report =
        run_many(arguments.seeds.clone(), &arguments.setup, arguments.threads, arguments.stops_at_first, &progress);
    if is_watched {
        eprintln!();
    }
    finish(arguments, &report)
}

fn finish(arguments: &Arguments, report: &Report) -> ExitCode {
    if arguments.as_json {
        say(&describe(arguments, report).to_string());
    } else {
        report.failures.iter().for_each(|failure| say(&sentence(arguments, failure)));
        let summary = summary(report);
        // Wall time is no part of a trace: the same seed prints the same bytes.
        if arguments.with_trace {
            eprintln!("{summary}")
        } else {
            say(&summary)
        }
        let counts = &report.counts;
        say(&format!(
            "{} crashes, {} view changes, {} state transfers, {} commands without room",
            counts.crashes, counts.view_changes, counts.transfers, counts.no_room
        ));
        say(&format!("faults: {}", list(counts.fault_kinds())));
        say(&format!("crashed at: {}", list(counts.points())));
        say(&format!(
            "damaged folders: {}; {} starts refused, {} replicas halted; {} processes ended by their disk; \
             {} frames corrupted, {} dropped by who was too slow",
            list(counts.damage_kinds()),
            counts.refused,
            counts.halted,
            counts.disk_failures,
            counts.corrupted,
            counts.overflown
        ));
    }
    if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn summary(report: &Report) -> String {
    format!(
        "{} seeds, {} failed, {} void; {} steps, {:.0} s simulated in {:.1} s; {:.0} steps/s of one core",
        report.seeds,
        report.failures.len(),
        report.void,
        report.steps,
        report.simulated_s,
        report.wall_s,
        report.steps as f64 / report.core_s.max(1e-9)
    )
}

/// What happened how often; what did not happen is shown too.
fn list(counts: impl Iterator<Item = (impl std::fmt::Display, u64)>) -> String {
    counts.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn sentence(arguments: &Arguments, failure: &Outcome) -> String {
    let what = failure.violation.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("seed {} failed: {what}\n  {}", failure.seed, arguments.setup.replay(failure.seed))
}

fn describe(arguments: &Arguments, report: &Report) -> serde_json::Value {
    let failures: Vec<serde_json::Value> = report
        .failures
        .iter()
        .map(|failure| {
            let checker = failure.violation.as_ref().map_or("", |violation| violation.checker);
            json!({ "seed": failure.seed, "checker": checker, "replay": arguments.setup.replay(failure.seed) })
        })
        .collect();
    json!({
        "seeds": report.seeds,
        "void": report.void,
        "failures": failures,
        "steps": report.steps,
        "simulated_s": report.simulated_s,
        "wall_s": report.wall_s,
    })
}

/// A reader that has gone away is no reason to fail.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
