//! Checks that imports form no cycle, not even inside a module.
//!
//! An import is an edge from the file that contains it to the file that *defines* what it names, through all
//! re-exports: `use crate::client::Poll` is an import of `client/poll.rs`, because `client.rs` says `pub use
//! poll::Poll`. The name of a module alone is not an edge; a path through it is.
//!
//! There is one exception: a module may import from the modules inside it, at any depth, and they may import from it. A
//! module and its children are one unit with the parent as its interface; `client/poll.rs` cannot exist without
//! `client.rs`.
//!
//! Every other import counts between the two modules at which the paths of the files diverge: an import in
//! `client/builder/tokens.rs` from `client/fapi.rs` makes `client::builder` import `client::fapi`. This graph has no
//! cycle. It follows that the graph of the files has none.

use std::collections::{BTreeMap, BTreeSet};

use crate::resolve::Named;
use crate::source::{ModulePath, Source};

pub type Graph = BTreeMap<ModulePath, BTreeMap<ModulePath, BTreeSet<String>>>;

#[test]
fn no_imports_form_a_cycle() {
    let graph = between_siblings(&imports(Source::read()));
    let cycles = cycles(&graph);
    let report: Vec<_> = cycles.iter().map(|cycle| described(&graph, cycle)).collect();
    assert!(cycles.is_empty(), "\n{}", report.join("\n"));
}

/// From the module of each file to the modules of the files that it imports from, with the imports as written.
pub fn imports(source: &Source) -> Graph {
    let mut graph = Graph::new();
    for file in &source.files {
        let edges = graph.entry(file.module.clone()).or_default();
        for import in &file.imports {
            let is_glob = import.path.last().is_some_and(|last| last == "*");
            let path = if is_glob { &import.path[..import.path.len() - 1] } else { &import.path[..] };
            let module = match source.named(&import.place, path) {
                Some(Named::ItemOf(module)) => module,
                Some(Named::Module(module)) if is_glob => module,
                _ => continue,
            };
            if let Some(target) = source.file_of(&module).map(|index| &source.files[index])
                && target.module != file.module
            {
                let written = format!("{}:{}: `{}`", file.name, import.line, import.path.join("::"));
                edges.entry(target.module.clone()).or_default().insert(written);
            }
        }
    }
    graph
}

/// Returns each import as one between the modules at which the paths of the files diverge.
fn between_siblings(files: &Graph) -> Graph {
    let mut graph = Graph::new();
    for (from, edges) in files {
        for (to, imports) in edges {
            if from.starts_with(to) || to.starts_with(from) {
                continue;
            }
            let part = from.iter().zip(to).take_while(|(from, to)| from == to).count();
            let [from, to] = [from, to].map(|module| module[..=part].to_vec());
            graph.entry(from).or_default().entry(to).or_default().extend(imports.iter().cloned());
        }
    }
    graph
}

/// The sets of modules in which each module reaches every other.
fn cycles(graph: &Graph) -> Vec<BTreeSet<ModulePath>> {
    let reached: BTreeMap<_, _> = graph.keys().map(|module| (module, reached_from(graph, module))).collect();
    let mut cycles: Vec<BTreeSet<ModulePath>> = Vec::new();
    for (module, others) in &reached {
        let cycle: BTreeSet<_> = others
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*module)))
            .cloned()
            .collect();
        if !cycle.is_empty() && !cycles.contains(&cycle) {
            cycles.push(cycle);
        }
    }
    cycles
}

fn reached_from(graph: &Graph, module: &ModulePath) -> BTreeSet<ModulePath> {
    let mut reached = BTreeSet::new();
    let mut open = vec![module];
    while let Some(next) = open.pop() {
        for target in graph.get(next).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(target.clone()) {
                open.push(target);
            }
        }
    }
    reached
}

/// Describes the members of a cycle and the imports that form it.
fn described(graph: &Graph, cycle: &BTreeSet<ModulePath>) -> String {
    let mut lines = vec![format!("{} modules import each other in a cycle:", cycle.len())];
    for from in cycle {
        for (to, imports) in graph.get(from).into_iter().flatten().filter(|(to, _)| cycle.contains(*to)) {
            lines.push(format!("  {} imports {}:", from.join("::"), to.join("::")));
            lines.extend(imports.iter().map(|import| format!("    {import}")));
        }
    }
    lines.join("\n")
}

/// Tests of the checker itself.
mod checker {
    use super::*;
    use crate::source::File;

    fn of(files: &[(&str, &str)]) -> Graph {
        let files = files.iter().map(|(name, code)| {
            let module = name.split('/').filter(|part| *part != "lib").map(str::to_owned).collect();
            File::of(&format!("src/{name}.rs"), module, code)
        });
        imports(&Source::of(files.collect()))
    }

    fn edges(graph: &Graph) -> Vec<(String, String)> {
        let edges = graph.iter().flat_map(|(from, to)| to.keys().map(|to| (from.join("/"), to.join("/"))));
        edges.collect()
    }

    #[test]
    fn an_import_resolves_to_the_file_that_defines_the_name() {
        const FILES: [(&str, &str); 4] = [
            ("lib", "mod a; mod b;"),
            ("a", "mod c; mod d; pub use c::{X, Y as Z, m}; pub use d::*; use d::Hidden; pub struct Own;"),
            ("a/c", "pub struct X; pub struct Y; macro_rules! m { () => {} } pub(crate) use m;"),
            ("a/d", "pub struct W; pub struct Hidden; pub mod inner { pub struct V; }"),
        ];
        for (code, target) in [
            ("use crate::a::X;", "a/c"),
            ("use crate::a::Z;", "a/c"),
            ("use crate::a::{m};", "a/c"),
            ("use crate::a::W;", "a/d"),
            ("use crate::a::inner::V;", "a/d"),
            ("use crate::a::*;", "a"),
            ("use crate::a::Own;", "a"),
            ("use crate::a; fn f(x: a::X) {}", "a/c"),
            ("use crate::a::{self as other}; fn f() { assert!(other::X::new()); }", "a/c"),
            ("fn f() { super::a::c::go(); }", "a/c"),
            ("pub use super::a::X as A; pub use A as B; fn f() { B::new(); }", "a/c"),
        ] {
            let graph = of(&[&FILES[..], &[("b", code)]].concat());
            let from_b: Vec<_> = edges(&graph).into_iter().filter(|(from, _)| from == "b").collect();
            assert_eq!(from_b, [("b".to_owned(), target.to_owned())], "{code}");
        }
        for code in
            ["use crate::a;", "use std::fmt::Debug; fn f() { Debug::fmt(); }", "pub use serde::X; fn f(x: X) {}"]
        {
            let graph = of(&[&FILES[..], &[("b", code)]].concat());
            assert!(!edges(&graph).iter().any(|(from, _)| from == "b"), "{code}");
        }
    }

    #[test]
    fn a_cycle_is_found_through_re_exports_and_inside_children() {
        let cycles_of = |files: &[(&str, &str)]| cycles(&between_siblings(&of(files)));
        let parent = ("a", "mod b; mod c; mod d; pub use b::B; pub use c::C;");
        let direct =
            [("lib", "mod a;"), parent, ("a/b", "use super::C; pub struct B;"), ("a/c", "use super::B; pub struct C;")];
        assert_eq!(cycles_of(&direct).len(), 1);
        let through_a_child = [
            ("lib", "mod a;"),
            parent,
            ("a/b", "mod inner; pub struct B;"),
            ("a/b/inner", "use crate::a::C;"),
            ("a/c", "use super::d::D; pub struct C;"),
            ("a/d", "use super::B; pub struct D;"),
        ];
        let found = cycles_of(&through_a_child);
        assert_eq!(found.iter().map(BTreeSet::len).collect::<Vec<_>>(), [3]);
        let description = described(&between_siblings(&of(&through_a_child)), &found[0]);
        assert!(description.contains("  a::b imports a::c:\n    src/a/b/inner.rs:1: `crate::a::C`"), "{description}");
        // A parent with its children is exempt, and so are tests.
        let exempt = [
            ("lib", "mod a;"),
            ("a", "mod b; mod c; pub use b::B; pub use c::C; pub struct A;"),
            ("a/b", "use super::{A, C}; pub struct B;"),
            ("a/c", "use super::A; pub struct C; #[cfg(test)] mod tests { use super::super::B; }"),
        ];
        assert_eq!(cycles_of(&exempt), []);
    }
}
