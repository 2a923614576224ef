//! Checks `ARCHITECTURE.md`: its graph of the modules is generated from the code, and its tables name every module and
//! every part of `client`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::cycles::imports;
use crate::modules::{BASE, FRONT_PAGES, MODULES};
use crate::source::Source;

const PAGE: &str = "ARCHITECTURE.md";
const START: &str = "<!-- The graph is made from the code: UPDATE_ARCHITECTURE=1 cargo test --test architecture -->\n";
const END: &str = "<!-- The end of the graph. -->";

#[test]
fn the_module_graph_in_the_documentation_matches_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(START).expect("the page has the line that stands before the graph");
    let (drawn, after) = rest.split_once(END).expect("the page has the line that stands behind the graph");
    let graph = format!("\n```mermaid\n{}```\n\n", mermaid(&module_graph(Source::read())));
    if std::env::var_os("UPDATE_ARCHITECTURE").is_some() {
        fs::write(path, [before, START, &graph, END, after].concat()).unwrap();
    } else {
        assert_eq!(drawn, graph, "run `UPDATE_ARCHITECTURE=1 cargo test --test architecture` to draw it anew");
    }
}

#[test]
fn the_architecture_page_names_every_module() {
    let rows = rows("## The modules");
    let named: BTreeSet<_> = rows.iter().flat_map(|cells| quoted(&cells[0])).collect();
    let modules: BTreeSet<_> = Source::read().modules.iter().cloned().collect();
    assert_eq!(named, modules, "the table of the modules in {PAGE} and src/lib.rs differ");
}

/// The table lists the layers of `client`, the lowest at the bottom.
#[test]
fn inside_client_nothing_imports_upward() {
    let rows = rows("## Inside `client`");
    let layers: BTreeMap<_, _> = rows
        .iter()
        .enumerate()
        .flat_map(|(layer, cells)| quoted(&cells[1]).into_iter().map(move |part| (part, layer)))
        .collect();
    let source = Source::read();
    let parts = &source.scopes[&vec!["client".to_owned()]].children;
    assert_eq!(layers.keys().collect::<Vec<_>>(), parts.iter().collect::<Vec<_>>(), "{PAGE} and src/client.rs differ");
    for (from, edges) in imports(source) {
        for (to, written) in edges {
            let ([client, from, ..], [target, to, ..]) = (&from[..], &to[..]) else { continue };
            if client == "client" && target == "client" {
                assert!(layers[from] <= layers[to], "`{from}` is in a layer below `{to}`: {written:?}");
            }
        }
    }
}

/// The imports of each module except front pages, without those of the base.
fn module_graph(source: &Source) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, edges) in imports(source) {
        if from.first().is_some_and(|from| FRONT_PAGES.contains(&from.as_str())) {
            continue;
        }
        for to in edges.keys() {
            if from[0] != to[0] && !BASE.contains(&to[0].as_str()) {
                graph.entry(from[0].clone()).or_default().insert(to[0].clone());
            }
        }
    }
    graph
}

/// The graph without redundant edges, the highest module first.
fn mermaid(graph: &BTreeMap<String, BTreeSet<String>>) -> String {
    let mut drawn = "graph TD\n".to_owned();
    for (from, _) in MODULES.iter().rev() {
        let Some(targets) = graph.get(*from) else { continue };
        let behind: BTreeSet<_> = targets.iter().flat_map(|target| reached_from(graph, target)).collect();
        for target in targets.iter().filter(|target| !behind.contains(*target)) {
            drawn += &format!("    {from} --> {target}\n");
        }
    }
    drawn
}

fn reached_from(graph: &BTreeMap<String, BTreeSet<String>>, module: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    for target in graph.get(module).into_iter().flatten() {
        reached.insert(target.clone());
        reached.extend(reached_from(graph, target));
    }
    reached
}

/// The cells of the first table below a heading.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let (_, section) = page.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("{PAGE} has no {heading}"));
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    lines.skip(2).map(cells).collect()
}

/// The texts between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
