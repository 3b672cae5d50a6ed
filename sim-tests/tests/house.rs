//! The house rules as a test: who may import whom, what may be named where, how long a file may be, that nothing is
//! dead or dangling. Each rule is a function from the files to what breaks it; each is shown to ring.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Who may import whom, and nothing else: the arrows of ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("consensus", &["types"]),
    ("executor", &["types"]),
    ("checkpoint", &["executor", "types"]),
    ("transport", &["types"]),
    ("client", &["transport", "types"]),
    ("kv", &["client", "executor", "types"]),
    ("node", &["checkpoint", "consensus", "executor", "transport", "types"]),
    ("sim-tests", &["checkpoint", "client", "consensus", "executor", "kv", "node", "transport", "types"]),
];
/// What node's binary may import besides, behind the feature `bin`.
const ARROWS_OF_THE_BINARY: &[&str] = &["client", "kv"];

/// Lines of a file before its tests, and with them.
const LINES_MAX: usize = 600;
const LINES_WITH_TESTS_MAX: usize = 1_000;
/// Files that are longer for now, with their length. This list may only shrink.
const OVERLONG: &[(&str, usize)] = &[];

/// A word of code, the paths (by prefix) that may name it, and why nobody else may.
const NAMED_ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("rocksdb", &["node/src/store/rocks.rs"], "one file names RocksDB"),
    ("quinn", &["transport/", "sim-tests/"], "one room names quinn"),
    ("polder_kv", &["node/src/bin/polder/", "kv/", "sim-tests/"], "node's library serves any service"),
    ("turmoil", &["sim-tests/"], "no simulation in the product"),
    (
        "polder_mutations",
        &["consensus/", "node/src/replica/", "node/src/node.rs", "executor/", "checkpoint/", "sim-tests/"],
        "planted bugs live in pure rooms",
    ),
    ("thread::spawn", &["executor/src/pool.rs", "node/src/", "sim-tests/"], "threads have a home"),
    ("thread::Builder", &["executor/src/pool.rs", "node/src/", "sim-tests/"], "threads have a home"),
    ("thread::sleep", &[], "nothing waits by sleeping"),
    ("unbounded", &[], "every queue has a bound"),
    ("unbounded_channel", &[], "every queue has a bound"),
    ("new_for_test", &[], "tests own keys and sign"),
];
/// Rooms that decide what all replicas must decide alike: no clock, thread, async or unordered map.
const PURE: &[&str] = &["types/src/", "consensus/src/", "executor/src/", "checkpoint/src/", "node/src/replica/"];
const IMPURE: &[&str] =
    &["HashMap", "HashSet", "Instant", "SystemTime", "async", "await", "tokio", "getrandom", "thread_rng"];

struct Source {
    path: String,
    text: String,
}

impl Source {
    fn lines_before_tests(&self) -> usize {
        if self.path.contains("/tests/") {
            return 0;
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let start = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
        start.unwrap_or(lines.len())
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_in(&self, prefixes: &[&str]) -> bool {
        prefixes.iter().any(|prefix| self.path.starts_with(prefix))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace around this crate").to_path_buf()
}

/// All text files of the project, by path.
fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if [".rs", ".md", ".toml", ".yml", ".yaml", ".json", ".txt"].iter().any(|end| name.ends_with(end))
                && let Ok(text) = fs::read_to_string(&path)
            {
                let path = path.strip_prefix(&root).expect("a path below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(found.len() > 50, "the walk found only {} files", found.len());
    found
}

/// A line without its comment and without what stands in string literals.
fn code(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(char) = chars.next() {
        match char {
            '\\' if quoted => {
                chars.next();
            }
            '"' => quoted = !quoted,
            '/' if !quoted && chars.peek() == Some(&'/') => break,
            '\'' if !quoted && chars.clone().nth(1) == Some('\'') => {
                chars.next();
                chars.next();
            }
            _ if quoted => {}
            _ => out.push(char),
        }
    }
    out
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Whether `code` names `word`, as a whole word.
fn names(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_word)
            && !code[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

fn named(source: &Source, words: &[&str], from_line: usize) -> Vec<String> {
    let numbered = source.text.lines().enumerate().skip(from_line);
    numbered
        .flat_map(|(number, line)| {
            let code = code(line);
            let hits = words.iter().filter(move |word| names(&code, word));
            hits.map(move |word| format!("{}:{}: {word}", source.path, number + 1))
        })
        .collect()
}

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn arrows_broken(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut broken = Vec::new();
    for package in list(metadata, "packages") {
        let room = text(package, "name").trim_start_matches("polder-");
        let Some(may) = allowed.get(room) else {
            broken.push(format!("{room} has no row in the table of arrows"));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let Some(to) = text(dependency, "name").strip_prefix("polder-") else { continue };
            let optional = dependency["optional"].as_bool().unwrap_or(false);
            let of_the_binary = room == "node" && optional && ARROWS_OF_THE_BINARY.contains(&to);
            if !may.contains(&to) && !of_the_binary {
                broken.push(format!("{room} may not import {to}"));
            }
        }
    }
    broken
}

fn walls_missing(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for path in ["types/src/lib.rs", "consensus/src/lib.rs"] {
        let text = sources.iter().find(|source| source.path == path).map_or("", |source| &source.text);
        let lines: Vec<&str> = text.lines().collect();
        if !lines.contains(&"#![no_std]") {
            broken.push(format!("{path}: no #![no_std]"));
        }
        let open = lines.windows(2).any(|pair| pair[1] == "extern crate std;" && pair[0] != "#[cfg(test)]");
        if open {
            broken.push(format!("{path}: std outside tests"));
        }
    }
    broken
}

fn overlong(sources: &[Source], excused: &[(&str, usize)]) -> Vec<String> {
    let excused: BTreeMap<&str, usize> = excused.iter().copied().collect();
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let (before, all) = (source.lines_before_tests(), source.text.lines().count());
        let long = before > LINES_MAX || all > LINES_WITH_TESTS_MAX;
        match excused.get(source.path.as_str()) {
            Some(_) if !long => broken.push(format!("{}: no longer overlong: take it off the list", source.path)),
            Some(lines) if all > *lines => broken.push(format!("{}: grew from {lines} to {all} lines", source.path)),
            None if long => broken.push(format!("{}: {before} lines before its tests, {all} in all", source.path)),
            _ => {}
        }
    }
    broken
}

/// Files that no `mod` leads to. `roots` are the targets that cargo knows.
fn dead(sources: &[Source], roots: &BTreeSet<String>) -> Vec<String> {
    let by_path: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.path.as_str(), source)).collect();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut todo: Vec<(String, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    while let Some((path, is_root)) = todo.pop() {
        let Some(source) = by_path.get(path.as_str()) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        let folder = match path.rsplit_once('/') {
            Some((folder, file)) if is_root || file == "mod.rs" => folder.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        let mut named: Option<String> = None;
        for line in source.text.lines().map(str::trim) {
            if let Some(path) = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]")) {
                named = Some(path.to_owned());
                continue;
            }
            let declared = code(line);
            let Some(name) = declared.trim().strip_suffix(';').and_then(|rest| rest.rsplit_once("mod ")) else {
                continue;
            };
            let beside = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            match named.take() {
                Some(given) => todo.push((format!("{beside}/{given}"), false)),
                None => {
                    todo.push((format!("{folder}/{}.rs", name.1), false));
                    todo.push((format!("{folder}/{}/mod.rs", name.1), false));
                }
            }
        }
    }
    let rust = sources.iter().filter(|source| source.is_rust() && !reached.contains(&source.path));
    rust.map(|source| format!("{}: no module leads to it", source.path)).collect()
}

fn targets(metadata: &Value) -> BTreeSet<String> {
    let root = root();
    let packages = list(metadata, "packages").iter();
    let paths = packages.flat_map(|package| list(package, "targets")).map(|target| text(target, "src_path"));
    paths
        .filter_map(|path| Path::new(path).strip_prefix(&root).ok().map(|path| path.to_string_lossy().into_owned()))
        .collect()
}

fn dangling(sources: &[Source], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, _) in source.text.match_indices("](") {
            let Some((target, _)) = source.text[at + 2..].split_once(')') else { continue };
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
            if !exists(&path) {
                broken.push(format!("{}: {target}", source.path));
            }
        }
    }
    broken
}

/// Documents that are named in words, without a link, and are not there.
fn unknown_documents(sources: &[Source], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| !source.path.ends_with("house.rs")) {
        for (at, _) in source.text.match_indices(".md") {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let before = source.text[..at].rsplit(|c| !is_name(c)).next().unwrap_or_default();
            let name = before.rsplit('/').next().unwrap_or_default();
            let is_document = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase());
            if is_document && !exists(&format!("{name}.md")) && !exists(&format!("{before}.md")) {
                broken.push(format!("{}: {name}.md", source.path));
            }
        }
    }
    broken
}

fn misplaced(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (word, homes, why) in NAMED_ONLY_IN {
            if !source.is_in(homes) {
                broken.extend(named(source, &[word], 0).into_iter().map(|hit| format!("{hit}: {why}")));
            }
        }
    }
    broken
}

fn impure(sources: &[Source]) -> Vec<String> {
    let pure = sources.iter().filter(|source| source.is_rust() && source.is_in(PURE));
    pure.filter(|source| source.path != "executor/src/pool.rs").flat_map(|source| named(source, IMPURE, 0)).collect()
}

fn unfinished(sources: &[Source]) -> Vec<String> {
    let words = ["todo!", "unimplemented!", "dbg!"];
    let marks = [concat!("FIX", "ME"), concat!("XX", "X"), concat!("#[", "ignore")];
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (number, line) in source.text.lines().enumerate() {
            let code = code(line);
            let hit = words.iter().any(|word| code.contains(word)) || marks.iter().any(|mark| line.contains(mark));
            if hit {
                broken.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    broken
}

/// Tests that wait by the clock.
fn sleeping(sources: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        broken.extend(named(source, &["sleep"], source.lines_before_tests()));
    }
    broken
}

/// Rules that the pages define: `**R8 `, `**C3 `, and those that the protocol's page says stand on the other.
fn rules(pages: &[&str]) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for page in pages {
        for (at, _) in page.match_indices("**") {
            let name: String = page[at + 2..].chars().take_while(|char| char.is_ascii_alphanumeric()).collect();
            rules.insert(name);
        }
        if let Some(line) = page.lines().find(|line| line.starts_with("(R") && line.contains("checkpoints.md")) {
            rules.extend(cited(line));
        }
    }
    rules
}

/// The rules that a text cites: an R or a C, and a number.
fn cited(text: &str) -> Vec<String> {
    let words = text.split(|char: char| !is_word(char));
    let is_rule = |word: &&str| {
        let number = word.strip_prefix(['R', 'C']).unwrap_or_default();
        !number.is_empty() && number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    words.filter(is_rule).map(str::to_owned).collect()
}

fn unknown_rules(sources: &[Source], rules: &BTreeSet<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for (number, line) in source.text.lines().enumerate() {
            let Some((_, comment)) = line.split_once("//") else { continue };
            let unknown = cited(comment).into_iter().filter(|rule| !rules.contains(rule));
            broken.extend(unknown.map(|rule| format!("{}:{}: {rule}", source.path, number + 1)));
        }
    }
    broken
}

#[track_caller]
fn none(what: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{what}:\n  {}", broken.join("\n  "));
}

#[test]
fn rooms_import_only_what_they_may() {
    none("arrows that are not allowed", &arrows_broken(&metadata()));
}

#[test]
fn pure_rooms_are_pure() {
    let sources = sources();
    none("walls", &walls_missing(&sources));
    none("clocks, chance, async or unordered maps in pure rooms", &impure(&sources));
}

#[test]
fn names_stay_at_home() {
    none("named outside its home", &misplaced(&sources()));
}

#[test]
fn files_are_short() {
    let sources = sources();
    none("too long", &overlong(&sources, OVERLONG));
    let page = sources.iter().find(|source| source.path == "ARCHITECTURE.md").expect("ARCHITECTURE.md");
    assert!(page.text.lines().count() <= 200, "ARCHITECTURE.md is for strangers: at most 200 lines");
}

#[test]
fn no_file_is_dead() {
    none("dead files", &dead(&sources(), &targets(&metadata())));
}

#[test]
fn no_document_is_named_that_is_not_there() {
    let root = root();
    none("unknown documents", &unknown_documents(&sources(), &|path| root.join(path).exists()));
}

#[test]
fn no_link_dangles() {
    let root = root();
    none("dangling links", &dangling(&sources(), &|path| root.join(path).exists()));
}

#[test]
fn nothing_is_left_unfinished() {
    let sources = sources();
    none("unfinished", &unfinished(&sources));
    none("tests that sleep", &sleeping(&sources));
}

#[test]
fn cited_rules_exist() {
    let sources = sources();
    let page = |path: &str| sources.iter().find(|source| source.path == path).map_or("", |source| &source.text);
    let rules = rules(&[page("docs/protocol.md"), page("docs/checkpoints.md")]);
    assert!(rules.contains("R1") && rules.contains("R42") && rules.contains("R37") && rules.contains("C14"));
    none("rules that no page has", &unknown_rules(&sources, &rules));
}

#[test]
fn decisions_are_listed() {
    let sources = sources();
    let list = sources.iter().find(|source| source.path == "docs/decisions/README.md").expect("a list of decisions");
    let pages = sources.iter().filter_map(|source| source.path.strip_prefix("docs/decisions/0"));
    let missing: Vec<String> = pages.filter(|page| !list.text.contains(*page)).map(str::to_owned).collect();
    none("decisions that the list lacks", &missing);
}

#[test]
fn every_room_inherits_the_lints() {
    let manifests = sources().into_iter().filter(|source| source.path.ends_with("/Cargo.toml"));
    let without = manifests.filter(|source| !source.text.contains("[lints]\nworkspace = true"));
    none("manifests without the workspace's lints", &without.map(|source| source.path).collect::<Vec<_>>());
}

/// Each rule rings on a planted breach, and keeps silent on what is allowed.
#[test]
fn the_alarms_ring() {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.into() };
    let one = |path: &str, text: &str| [source(path, text)];

    let package = |name: &str, to: &str, optional: bool| serde_json::json!({"packages": [{"name": name, "dependencies": [{"name": to, "optional": optional}]}]});
    assert!(!arrows_broken(&package("polder-consensus", "polder-executor", false)).is_empty());
    assert!(!arrows_broken(&package("polder-node", "polder-kv", false)).is_empty());
    assert!(!arrows_broken(&package("polder-cellar", "polder-types", false)).is_empty());
    assert!(arrows_broken(&package("polder-node", "polder-kv", true)).is_empty());
    assert!(arrows_broken(&package("polder-consensus", "serde", false)).is_empty());

    assert_eq!(walls_missing(&one("types/src/lib.rs", "#![no_std]\nextern crate std;\n")).len(), 2);
    assert!(!impure(&one("consensus/src/core.rs", "let m: HashMap<u8, u8>;")).is_empty());
    assert!(impure(&one("consensus/src/core.rs", "// no HashMap, no \"Instant\"\nlet x = \"HashMap\";")).is_empty());
    assert!(!misplaced(&one("node/src/event_loop.rs", "use rocksdb::DB;")).is_empty());
    assert!(misplaced(&one("node/src/store/rocks.rs", "use rocksdb::DB;")).is_empty());
    assert!(!misplaced(&one("client/src/lib.rs", "let (tx, rx) = mpsc::unbounded_channel();")).is_empty());

    let long = "line\n".repeat(LINES_MAX + 1);
    assert!(!overlong(&one("a.rs", &long), &[]).is_empty());
    assert!(overlong(&one("a.rs", &long), &[("a.rs", LINES_MAX + 1)]).is_empty());
    assert!(!overlong(&one("a.rs", &long), &[("a.rs", LINES_MAX)]).is_empty());
    assert!(!overlong(&one("a.rs", "short"), &[("a.rs", 700)]).is_empty());
    let tested = format!("line\n#[cfg(test)]\nmod tests {{\n{}", "line\n".repeat(LINES_MAX));
    assert!(overlong(&one("a.rs", &tested), &[]).is_empty());

    let tree = [
        source("x/src/lib.rs", "mod one;\npub(crate) mod two;\n"),
        source("x/src/one.rs", "mod inner;"),
        source("x/src/one/inner.rs", ""),
        source("x/src/two/mod.rs", ""),
        source("x/src/three.rs", ""),
    ];
    let dead_files = dead(&tree, &BTreeSet::from(["x/src/lib.rs".to_owned()]));
    assert_eq!(dead_files, ["x/src/three.rs: no module leads to it"]);

    let links = one("docs/a.md", "[b](b.md#part) [web](https://example.org) [here](#top) [up](../c.md)");
    assert_eq!(dangling(&links, &|path| path == "docs/b.md"), ["docs/a.md: ../c.md"]);

    let words = one("a.rs", "//! See PLAN.md, docs/b.md and ROADMAP.md.");
    assert_eq!(unknown_documents(&words, &|path| path == "ROADMAP.md"), ["a.rs: PLAN.md"]);

    assert!(!unfinished(&one("a.rs", "    todo!()")).is_empty());
    assert!(!sleeping(&one("x/tests/a.rs", "tokio::time::sleep(second).await;")).is_empty());
    assert!(sleeping(&one("x/src/a.rs", "tokio::time::sleep(second).await;")).is_empty());

    let rules = rules(&["- **R8 Durable before sent**", "- **C3 The image**"]);
    assert_eq!(
        unknown_rules(&one("a.rs", concat!("vote(); /", "/ R8, C3, not R99 nor R2D2")), &rules),
        ["a.rs:1: R99"]
    );
}
