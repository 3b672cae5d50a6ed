//! `./run fuzz`: gives changed frames, rows and files to everything that decodes, and to the handlers behind, and says
//! what broke, and how to see it again.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use polder_sim_tests::fuzz::counting::Counting;
use polder_sim_tests::fuzz::{Failure, Target, targets};

#[global_allocator]
static COUNTING: Counting = Counting;

const HELP: &str = "\
Gives changed frames, rows and files to everything that decodes, and to the handlers behind.

  ./run fuzz --minutes 10                    all targets, in turns, with fresh seeds
  ./run fuzz peer-frame --iterations 100000  one target
  ./run fuzz peer-frame --seed 17 --iterations 1
                                             one input: what a failure prints

  TARGET...             the targets; otherwise all
  --list                names the targets and what they take
  --iterations N        inputs a target
  --minutes N           for so long; otherwise one minute
  --seed S              the first seed; otherwise it is drawn, and said
  --threads N           threads; otherwise one a core

Exit status: 0 nothing broke, 1 something did, 2 the arguments are wrong.";

/// After so many seconds a run that is not watched says how far it is.
const PROGRESS: Duration = Duration::from_secs(30);

struct Arguments {
    targets: Vec<&'static Target>,
    first: u64,
    iterations: Option<u64>,
    minutes: u64,
    threads: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        say(HELP);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        targets().for_each(|target| say(&format!("{:<15} {}", target.name, target.what)));
        return ExitCode::SUCCESS;
    }
    match parse(&arguments) {
        Ok(arguments) => search(&arguments),
        Err(why) => {
            eprintln!("{why}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parsed = Arguments { targets: Vec::new(), first: fresh(), iterations: None, minutes: 1, threads };
    let mut rest = arguments.iter();
    while let Some(name) = rest.next() {
        let mut number = || -> Result<u64, String> {
            let value = rest.next().ok_or_else(|| format!("{name} needs a number"))?;
            value.parse().map_err(|_| format!("{value} is no number"))
        };
        match name.as_str() {
            "--iterations" => parsed.iterations = Some(number()?),
            "--minutes" => parsed.minutes = number()?,
            "--seed" => parsed.first = number()?,
            "--threads" => parsed.threads = number()?.max(1) as usize,
            name => {
                let target = targets().find(|target| target.name == name);
                parsed.targets.push(target.ok_or_else(|| format!("{name} is no target: --list names them"))?);
            }
        }
    }
    if parsed.targets.is_empty() {
        parsed.targets.extend(targets());
    }
    Ok(parsed)
}

/// A seed that was hardly ever tried.
fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_nanos() as u64 ^ u64::from(std::process::id()) << 40) >> 8
}

/// What all threads share.
struct Search<'a> {
    arguments: &'a Arguments,
    started: Instant,
    next: AtomicU64,
    done: AtomicU64,
    is_over: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Search<'_> {
    /// The next input: targets in turns, but one that is slow is not given more time than the others.
    fn run(&self) {
        let targets = &self.arguments.targets;
        let limit = self.arguments.iterations.map(|iterations| iterations.saturating_mul(targets.len() as u64));
        let until = Duration::from_secs(60 * self.arguments.minutes);
        while !self.is_over.load(Ordering::Relaxed) {
            let ticket = self.next.fetch_add(1, Ordering::Relaxed);
            let is_past = limit.map_or_else(|| self.started.elapsed() >= until, |limit| ticket >= limit);
            let Some(target) = targets.get((ticket % targets.len() as u64) as usize).filter(|_| !is_past) else {
                break;
            };
            let turn = ticket / targets.len() as u64;
            // Without a number of inputs a turn is some, as many as the tests would give for its speed.
            let inputs = if limit.is_some() { 1 } else { target.iterations.div_ceil(16) };
            for input in 0..inputs {
                let seed = self.arguments.first.wrapping_add(turn.wrapping_mul(inputs)).wrapping_add(input);
                if let Err(failure) = target.attempt(seed) {
                    self.is_over.store(true, Ordering::Relaxed);
                    self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(failure);
                    return;
                }
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn progress(&self) {
        let is_watched = std::io::stderr().is_terminal();
        let mut last = Instant::now();
        while !self.is_over.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(500));
            let done = self.done.load(Ordering::Relaxed);
            let elapsed = self.started.elapsed().as_secs();
            if is_watched {
                eprint!("\r{done} inputs in {elapsed} s ");
            } else if last.elapsed() >= PROGRESS {
                last = Instant::now();
                eprintln!("{done} inputs in {elapsed} s");
            }
        }
        if is_watched {
            eprintln!();
        }
    }
}

fn search(arguments: &Arguments) -> ExitCode {
    let search = Search {
        arguments,
        started: Instant::now(),
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    eprintln!("{} targets, first seed {}", arguments.targets.len(), arguments.first);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| search.progress());
        let workers: Vec<_> = (0..arguments.threads).map(|_| scope.spawn(|| search.run())).collect();
        workers.into_iter().for_each(|worker| drop(worker.join()));
        search.is_over.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
    });
    let done = search.done.load(Ordering::Relaxed);
    let elapsed = search.started.elapsed().as_secs_f64();
    let failure = search.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    match failure {
        Some(failure) => {
            say(&failure.to_string());
            ExitCode::FAILURE
        }
        None => {
            say(&format!("{done} inputs in {elapsed:.1} s, nothing broke"));
            ExitCode::SUCCESS
        }
    }
}

/// A reader that has gone away is no reason to fail.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
