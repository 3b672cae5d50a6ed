//! The scripts of `testdata/`: each prints what it printed before. `BLESS=1` rewrites them.

use std::path::Path;

use polder_sim_tests::script;

#[test]
fn scripts_print_what_they_printed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let entries = std::fs::read_dir(&folder).expect("testdata is there");
    let mut paths: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() >= 8, "{} scripts", paths.len());
    let mut differences = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).expect("a script can be read");
        let blocks = script::parse(&text);
        let ran = script::run(&blocks).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let printed = script::print(&ran);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &printed).expect("a script can be written");
        } else if printed != text {
            let first = text.lines().zip(printed.lines()).position(|(old, new)| old != new);
            let line = first.unwrap_or_else(|| text.lines().count().min(printed.lines().count()));
            let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_string();
            differences.push(format!("{}:{}\n- {}\n+ {}", path.display(), line + 1, at(&text), at(&printed)));
        }
    }
    assert!(differences.is_empty(), "{}\nBLESS=1 rewrites them", differences.join("\n"));
}
