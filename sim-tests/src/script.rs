//! The language of `testdata/*.txt`: interactions as text, so that a reader sees protocol and not Rust.
//!
//! A script is a list of blocks: commands, a line `----`, and what is printed. `BLESS=1` rewrites what is printed.
//!
//! | command | what it does |
//! | --- | --- |
//! | `cluster byzantine n=4 L=8 I=4` | makes a cluster and starts it; also `crash`, `hybrid r=1`; `T=`, `F=`, `pipeline=`, `idle=`, `sessions=` |
//! | `open` | client 0 opens its session, all messages delivered |
//! | `request append k1` | client 0 sends a command to the leader: `append`, `read`; `request all …`: to all |
//! | `pack 1 2 3` | client 0 lies: it signs its numbers 1 and 2 anew as one request, and sends that to replica 3 |
//! | `deliver 0->1 PREPARE` | delivers what waits between the two, oldest first; `*` for anybody, the kind may be left out |
//! | `drop 0->1 PREPARE` | loses it |
//! | `run` | delivers everything but STATUS until nothing is left; `run without 3`: nothing to or from 3 (it is lost) |
//! | `tick 500` | time passes, 10 ms a tick; `tick 500 1 2`: these replicas notice |
//! | `crash 1`, `start 1` | unsynced writes are lost; it comes back from its disks |
//! | `save 1`, `load 1` | copies its disks; puts them back to that copy while it is down |
//! | `empty 1` | its state is gone from its disk, while it is down; its log is not |
//! | `clock 0 60000` | its wall clock is so many milliseconds ahead, or behind |
//! | `held` | what is on its way |
//! | `status` | one line a replica |
//! | `lists` | what client 0 believes |
//! | `quiet …` | any command, and nothing is printed; to deliver nothing is then no error |

use std::collections::BTreeMap;
use std::fmt::Write as _;

use polder_checkpoint::MemStore;
use polder_types::{Constants, FaultModel, ReplicaId, Wire as _};

use crate::checkers::Verdict;
use crate::hazards::Hazards;
use crate::history::{Command, Reply};
use crate::network::{Copy, Party};
use crate::swarm::{DiskOptions, FaultOptions, LoadOptions, NetworkOptions, Options};
use crate::world::{Parcel, World};

/// Rounds after which `run` gives up.
const ROUNDS_MAX: usize = 200;

/// Said when nothing fits that is to be delivered.
const NOTHING: &str = "nothing of that is on its way";

/// What separates commands from what they print.
const SEPARATOR: &str = "----";

/// A block of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Comments and commands, a line each.
    pub commands: Vec<String>,
    /// What they print.
    pub output: String,
}

/// The blocks of a script.
#[must_use]
pub fn parse(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut block = Block::default();
    let mut in_output = false;
    for line in text.lines().chain([""]) {
        match (line, in_output) {
            (SEPARATOR, false) => in_output = true,
            ("", true) => {
                blocks.push(std::mem::take(&mut block));
                in_output = false;
            }
            (line, true) => {
                block.output.push_str(line);
                block.output.push('\n');
            }
            (line, false) => block.commands.push(line.to_string()),
        }
    }
    blocks
}

/// The text of blocks.
#[must_use]
pub fn print(blocks: &[Block]) -> String {
    let mut text = String::new();
    for block in blocks {
        block.commands.iter().for_each(|command| text.extend([command.as_str(), "\n"]));
        text.extend([SEPARATOR, "\n", &block.output, "\n"]);
    }
    text
}

/// Runs the blocks of a script, and returns them with what they printed.
///
/// # Errors
///
/// In words, when a command is none, or a property does not hold.
pub fn run(blocks: &[Block]) -> Result<Vec<Block>, String> {
    run_with(Script::default(), blocks)
}

/// As [`run`], with a bug planted in every replica.
///
/// # Errors
///
/// As [`run`].
#[cfg(polder_mutations)]
pub fn run_planted(blocks: &[Block], mutation: polder_consensus::Mutation) -> Result<Vec<Block>, String> {
    run_with(Script { mutation: Some(mutation), ..Script::default() }, blocks)
}

fn run_with(mut script: Script, blocks: &[Block]) -> Result<Vec<Block>, String> {
    let mut done = Vec::new();
    for block in blocks {
        let mut output = String::new();
        for line in block.commands.iter().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let printed = script.command(&words).map_err(|why| format!("{line}: {why}"))?;
            output.push_str(&printed);
        }
        done.push(Block { commands: block.commands.clone(), output });
    }
    Ok(done)
}

#[derive(Default)]
struct Script {
    world: Option<World>,
    #[cfg(polder_mutations)]
    mutation: Option<polder_consensus::Mutation>,
    /// Copies of the two disks of a replica.
    saved: BTreeMap<ReplicaId, [MemStore; 2]>,
}

impl Script {
    fn command(&mut self, words: &[&str]) -> Result<String, String> {
        if let ["quiet", rest @ ..] = words {
            return match self.command(rest) {
                Err(why) if why != NOTHING => Err(why),
                _ => Ok(String::new()),
            };
        }
        if let ["cluster", rest @ ..] = words {
            return self.cluster(rest);
        }
        let world = self.world.as_mut().ok_or("there is no cluster yet")?;
        let mut printed = String::new();
        match words {
            ["open"] => {
                for _ in 0..3 {
                    world.ask(0, Vec::new());
                    round_trip(world, None).map_err(|violation| violation.to_string())?;
                }
                drop(world.trace.take());
                let _infallible = writeln!(printed, "session open");
            }
            ["request", "all", rest @ ..] => {
                world.ask(0, vec![request(rest)?]);
                to_all(world);
            }
            ["request", rest @ ..] => world.ask(0, vec![request(rest)?]),
            ["pack", first, last, to] => pack(world, first, last, replica(to)?)?,
            ["deliver", which, kind @ ..] => {
                match deliver(world, which, kind, true) {
                    Ok(done) => done?,
                    // What a script is to show may be just this.
                    Err(violation) => printed = format!("violated {violation}\n"),
                }
            }
            ["drop", which, kind @ ..] => {
                deliver(world, which, kind, false).map_err(|violation| violation.to_string())??;
            }
            ["run"] => round_trip(world, None).map_err(|violation| violation.to_string())?,
            ["run", "without", who] => {
                let who = replica(who)?;
                round_trip(world, Some(who)).map_err(|violation| violation.to_string())?;
            }
            ["tick", ms, who @ ..] => tick(world, ms, who)?,
            ["crash", who] => world.stop(replica(who)?),
            ["start", who] => {
                if let Err(violation) = world.start(replica(who)?) {
                    // What a script is to show may be just this.
                    printed = format!("violated {violation}\n");
                }
            }
            ["clock", who, ms] => {
                let who = replica(who)?;
                let host = world.hosts.get_mut(usize::from(who.0)).ok_or("there is no such replica")?;
                host.skew_ms = ms.parse().map_err(|_| format!("{ms} is no number of milliseconds"))?;
            }
            ["save", who] => {
                let who = replica(who)?;
                let host = world.hosts.get(usize::from(who.0)).ok_or("there is no such replica")?;
                self.saved.insert(who, [host.log.store().snapshot(), host.state.store().snapshot()]);
            }
            ["load", who] => {
                let who = replica(who)?;
                let [log, state] = self.saved.get(&who).ok_or("nothing was saved of it")?;
                let host = world.hosts.get(usize::from(who.0)).filter(|host| !host.is_up());
                let host = host.ok_or("it is not down")?;
                host.log.store().restore(log);
                host.state.store().restore(state);
            }
            ["empty", who] => {
                let host = world.hosts.get(usize::from(replica(who)?.0)).filter(|host| !host.is_up());
                host.ok_or("it is not down")?.state.store().restore(&MemStore::new());
            }
            ["held"] => printed.push_str(&held(world)),
            ["status"] => {
                world.trace_statuses();
            }
            ["lists"] => printed.push_str(&lists(world)),
            _ => return Err("no such command".to_string()),
        }
        Ok(readable(&world.trace.take()) + &printed)
    }

    fn cluster(&mut self, words: &[&str]) -> Result<String, String> {
        let (model, rest) = words.split_first().ok_or("which fault model?")?;
        let mut options = options();
        let mut byzantine = 1;
        for word in rest {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is no NAME=VALUE"))?;
            let value: u64 = value.parse().map_err(|_| format!("{value} is no number"))?;
            match name {
                "n" => options.replicas = value as usize,
                "r" => byzantine = value as u8,
                "L" => options.constants.window_slots = value,
                "I" => options.constants.interval_slots = value,
                "F" => options.constants.fresh_slots_max = value,
                "T" => options.constants.timeout_first_ms = value,
                "idle" => options.constants.idle_ms = value,
                "sessions" => options.constants.sessions_max = value as u32,
                "pipeline" => options.pipeline_slots = value,
                _ => return Err(format!("{name} is nothing that can be set")),
            }
        }
        options.fault_model = match *model {
            "byzantine" => FaultModel::Byzantine,
            "crash" => FaultModel::Crash,
            "hybrid" => FaultModel::Hybrid { byzantine },
            other => return Err(format!("{other} is no fault model")),
        };
        let n = options.replicas;
        let mut world = World::manual(options).map_err(|why| why.to_string())?;
        #[cfg(polder_mutations)]
        {
            world.mutation = self.mutation;
        }
        for id in 0..n {
            world.start(ReplicaId(id as u8)).map_err(|violation| violation.to_string())?;
        }
        round_trip(&mut world, None).map_err(|violation| violation.to_string())?;
        tick(&mut world, "100", &[])?;
        round_trip(&mut world, None).map_err(|violation| violation.to_string())?;
        drop(world.trace.take());
        world.trace_statuses();
        let printed = readable(&world.trace.take());
        self.world = Some(world);
        Ok(printed)
    }
}

/// Options in which nothing fails and nothing happens by itself.
pub(crate) fn options() -> Options {
    let network = NetworkOptions {
        delay_us_min: 0,
        delay_us_mean: 0,
        slow_per_mille: 0,
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        replay_per_mille: 0,
        encoded_per_mille: 0,
        unwanted_per_mille: 0,
        healed_loss_per_mille: 0,
    };
    let disk = DiskOptions { sync_us_min: 10, sync_us_mean: 0, stall_per_mille: 0, stall_us: 0, digest_us_max: 0 };
    let faults = FaultOptions {
        crash_gap_ms: 0,
        down_ms: 0,
        pause_gap_ms: 0,
        pause_ms: 0,
        again_per_mille: 0,
        jump_gap_ms: 0,
        split_gap_ms: 0,
        split_ms: 0,
        skew_ms_max: 0,
        stay_down: false,
        leaves_stray: false,
    };
    let load = LoadOptions {
        clients: 1,
        requests: 0,
        in_flight: 8,
        is_endless: false,
        commands_max: 1,
        keys: 1,
        think_ms: 0,
        read_per_mille: 0,
        mischief_gap_ms: 0,
        panic_per_mille: 0,
        abandon_per_mille: 0,
        unread_per_mille: 0,
        retry_ms: 1_000_000,
    };
    let constants = Constants {
        window_slots: 8,
        interval_slots: 4,
        fresh_slots_max: 4,
        timeout_first_ms: 500,
        timeout_max_ms: 2_000,
        status_period_ms: 100,
        partitions: 2,
        session_partitions: 1,
        turn_cuts: 1,
        idle_ms: 10_000,
        ..Constants::default()
    };
    Options {
        seed: 0,
        replicas: 4,
        fault_model: FaultModel::Byzantine,
        liars: 0,
        lies: Vec::new(),
        is_watched: false,
        constants,
        pipeline_slots: 4,
        tick_ms: 0,
        chaos_ms: 0,
        network,
        disk,
        faults,
        hazards: Hazards::default(),
        load,
    }
}

fn replica(word: &str) -> Result<ReplicaId, String> {
    word.parse().map(ReplicaId).map_err(|_| format!("{word} is no replica"))
}

fn request(words: &[&str]) -> Result<Command, String> {
    let key = |word: &str| word.trim_start_matches('k').parse().map_err(|_| format!("{word} is no key: say k1"));
    match words {
        ["append", name, id] => {
            Ok(Command::Append { key: key(name)?, id: id.parse().map_err(|_| format!("{id} is no number"))? })
        }
        ["read", name] => Ok(Command::Read { key: key(name)? }),
        _ => Err("say append KEY ID or read KEY".to_string()),
    }
}

/// Client 0 signs numbers that it may have used already, as one request.
fn pack(world: &mut World, first: &str, last: &str, to: ReplicaId) -> Result<(), String> {
    let number = |word: &str| word.parse().map_err(|_| format!("{word} is no number"));
    let (first, last): (u64, u64) = (number(first)?, number(last)?);
    let count = last.saturating_sub(first) as usize + 1;
    let packed = world.clients.first().and_then(|client| client.pack(first, count)).ok_or("there is no session yet")?;
    let (at_us, from) = (world.now_us(), Party(world.hosts.len()));
    world.hold(Copy { at_us, from, to: Party(to.0.into()), message: Parcel::Request(packed) });
    Ok(())
}

/// What a client sent to one replica goes to all.
fn to_all(world: &mut World) {
    let newest = world.held().iter().rev().find(|copy| matches!(copy.message, Parcel::Request(_))).cloned();
    if let Some(copy) = newest {
        for to in (0..world.hosts.len()).map(Party).filter(|to| *to != copy.to) {
            world.hold(Copy { to, ..copy.clone() });
        }
    }
}

/// Whether a copy is of this kind; of any kind but STATUS when none is named.
fn is_kind(copy: &Copy<Parcel>, kind: &[&str]) -> bool {
    let text = copy.message.to_string();
    let mut words = text.split(' ');
    match kind {
        [] => words.next() != Some("STATUS"),
        kind => kind.iter().all(|word| words.next() == Some(word)),
    }
}

fn party(world: &World, word: &str) -> Result<Option<Party>, String> {
    match word.strip_prefix('c') {
        _ if word == "*" => Ok(None),
        Some(client) => {
            let client: usize = client.parse().map_err(|_| format!("{word} is no client"))?;
            Ok(Some(Party(world.hosts.len() + client)))
        }
        None => replica(word).map(|replica| Some(Party(replica.0.into()))),
    }
}

/// Delivers or drops what is held now and fits.
fn deliver(
    world: &mut World,
    which: &str,
    kind: &[&str],
    arrives: bool,
) -> Result<Result<(), String>, crate::checkers::Violation> {
    let Some((from, to)) = which.split_once("->") else { return Ok(Err(format!("{which} is no FROM->TO"))) };
    let (from, to) = match (party(world, from), party(world, to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
    };
    let fits = |copy: &Copy<Parcel>| {
        from.is_none_or(|from| from == copy.from) && to.is_none_or(|to| to == copy.to) && is_kind(copy, kind)
    };
    let count = world.held().len();
    let mut index = 0;
    let mut any = false;
    for _ in 0..count {
        match world.held().get(index) {
            Some(copy) if fits(copy) => {
                any = true;
                if let Some(copy) = world.take_held(index)
                    && arrives
                {
                    world.deliver(copy)?;
                }
            }
            Some(_) => index += 1,
            None => break,
        }
    }
    Ok(if any { Ok(()) } else { Err(NOTHING.to_string()) })
}

/// Delivers everything but STATUS, round after round; what one replica sends and gets is lost, if one is left out.
fn round_trip(world: &mut World, without: Option<ReplicaId>) -> Verdict {
    let is_lost = |copy: &Copy<Parcel>| {
        without.is_some_and(|who| copy.from.0 == usize::from(who.0) || copy.to.0 == usize::from(who.0))
    };
    for _ in 0..ROUNDS_MAX {
        let next = world.held().iter().position(|copy| is_kind(copy, &[]));
        if next.is_none() {
            break;
        }
        let mut index = 0;
        for _ in 0..world.held().len() {
            if !world.held().get(index).is_some_and(|copy| is_kind(copy, &[])) {
                index += 1;
            } else if let Some(copy) = world.take_held(index)
                && !is_lost(&copy)
            {
                world.deliver(copy)?;
            }
        }
    }
    Ok(())
}

fn tick(world: &mut World, ms: &str, who: &[&str]) -> Result<(), String> {
    let ms: u64 = ms.parse().map_err(|_| format!("{ms} is no number of milliseconds"))?;
    let named: Result<Vec<ReplicaId>, String> = who.iter().map(|word| replica(word)).collect();
    let all = || world.hosts.iter().map(|host| host.id).collect();
    let replicas = named.map(|named| if named.is_empty() { all() } else { named })?;
    for _ in 0..ms.div_ceil(10) {
        world.tick(10, &replicas).map_err(|violation| violation.to_string())?;
        world.keep_newest_statuses();
    }
    Ok(())
}

fn held(world: &World) -> String {
    let mut text = String::new();
    for copy in world.held().iter().filter(|copy| is_kind(copy, &[])) {
        let _infallible = writeln!(text, "{}->{} {}", world.name(copy.from), world.name(copy.to), copy.message);
    }
    text
}

fn lists(world: &World) -> String {
    let mut text = String::new();
    for operation in &world.history.operations {
        let answer = match &operation.answered {
            None => "?".to_string(),
            Some((_, polder_types::Answer::Done(bytes))) => match Reply::from_wire(bytes) {
                Ok(Reply::List(list)) => format!("{list:?}"),
                Ok(Reply::Appended(places)) => format!("at {places:?}"),
                Err(why) => why.to_string(),
            },
            Some((_, other)) => format!("{other:?}"),
        };
        let _infallible = writeln!(text, "{}: {answer}", operation.command);
    }
    text
}

/// The lines of a trace without their times, and without STATUS, which goes out all the time.
fn readable(trace: &str) -> String {
    let mut text = String::new();
    for line in trace.lines() {
        let line = match line.split_once(' ') {
            Some((time, rest)) if !time.is_empty() && time.bytes().all(|byte| byte.is_ascii_digit()) => rest,
            _ => line,
        };
        if !line.contains("<- STATUS") && !line.ends_with("<- ") {
            text.extend([line.trim_end(), "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_parsed_and_printed_is_the_same() {
        let text = "# a comment\n\ncluster byzantine n=4\nopen\n----\nr0\nr1\n\nstatus\n----\n\n";
        let blocks = parse(text);
        assert_eq!(blocks.len(), 2);
        assert_eq!(print(&blocks), text);
    }

    #[test]
    fn what_is_no_command_is_refused_in_words() {
        for line in ["deliver 0->1", "cluster", "cluster raft n=3", "cluster byzantine n=3", "cluster byzantine n=x"] {
            let block = Block { commands: vec![line.to_string()], output: String::new() };
            assert!(run(&[block]).is_err(), "{line}");
        }
    }
}
