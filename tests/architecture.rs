//! The rooms of `src/` and what each may import, so that no cycle can appear.
//!
//! A room is a module of the crate root: `src/<room>.rs` with `src/<room>/`. Every `use` in any form, every path
//! beginning with `crate`, `self` or `super` in expressions, types, attributes and macros, is resolved to the room that
//! it names. Code under `cfg(test)` or `cfg(fuzzing)` may import anything, and `src/lib.rs` is the door and no room.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// Rooms that every other one may import. They may import each other.
const BASE: [&str; 7] = ["error", "secret", "clock", "random", "task", "text", "json"];

/// The rooms above the base in the order of the house, each with what it may import besides the base.
const ROOMS: [(&str, &[&str]); 14] = [
    ("jose", &[]),
    ("id_token", &["jose"]),
    ("dpop", &["jose"]),
    ("keyring", &["jose"]),
    ("transport", &["jose"]),
    ("endpoint", &["jose", "dpop", "transport"]),
    ("provider", &["jose", "transport", "endpoint"]),
    ("pending", &["jose", "id_token", "dpop", "keyring"]),
    ("client", &["jose", "id_token", "dpop", "keyring", "transport", "endpoint", "provider", "pending"]),
    ("store", &[]),
    ("poller", &["client", "pending", "keyring", "store"]),
    ("ping", &["client", "keyring", "poller"]),
    ("testing", &["transport"]),
    ("measured", &["jose", "id_token", "dpop"]),
];

/// Crates that belong to one room, or to two.
const CRATES: [(&str, &[&str]); 10] = [
    ("josekit", &["jose"]),
    ("ed25519_dalek", &["jose"]),
    // PostgreSQL's TLS takes a connector of it.
    ("openssl", &["jose", "store"]),
    ("aws_lc_rs", &["testing"]),
    ("jsonwebtoken", &["testing"]),
    ("metrics", &["poller"]),
    ("rusqlite", &["store"]),
    ("deadpool", &["store"]),
    ("postgres_openssl", &["store"]),
    ("tokio_postgres", &["store"]),
];

const LINES_PER_FILE: usize = 700;

#[test]
fn rooms_import_only_what_their_row_lists() {
    let house = House::read();
    let findings: Vec<_> = house.checked.values().flat_map(|file| &file.findings).map(ToString::to_string).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn every_room_has_a_row_and_was_looked_at() {
    let house = House::read();
    for room in &house.rooms {
        assert!(is_room(room), "src/lib.rs declares `{room}`, which has no row in tests/architecture.rs");
        let files = house.checked.values().filter(|file| file.module.first() == Some(room)).count();
        assert!(files > 0, "no file of the room `{room}` was looked at");
    }
    for file in house.checked.values() {
        let room = file.module.first().map_or("", String::as_str);
        assert!(house.rooms.contains(room), "{} belongs to no module that src/lib.rs declares", file.name);
    }
    // The checker is not blind: this crate does import across rooms.
    assert!(house.checked.values().map(|file| file.imports).sum::<usize>() > 0);
}

#[test]
fn a_row_lists_only_rooms_above_it_so_there_is_no_cycle() {
    let mut above = BTreeSet::new();
    for (room, imports) in ROOMS {
        assert!(imports.iter().all(|import| above.contains(import)), "{room}");
        assert!(above.insert(room) && !BASE.contains(&room), "{room} stands twice");
    }
}

#[test]
fn no_file_is_too_long_and_none_is_called_mod_rs() {
    for path in rust_files(&source()) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_PER_FILE, "{} has {lines} lines, more than {LINES_PER_FILE}", path.display());
        assert!(!path.ends_with("mod.rs"), "{}: write `room.rs` beside `room/`", path.display());
    }
}

/// All files of `src/` but `lib.rs` and those that exist for tests only.
struct House {
    /// The modules that `lib.rs` declares.
    rooms: BTreeSet<String>,
    checked: BTreeMap<PathBuf, Checked>,
}

impl House {
    fn read() -> Self {
        let source = source();
        let door = syn::parse_file(&fs::read_to_string(source.join("lib.rs")).unwrap()).unwrap();
        let mut house = Self { rooms: BTreeSet::new(), checked: BTreeMap::new() };
        let mut for_tests = Vec::new();
        for item in door.items {
            match item {
                syn::Item::Mod(module) if is_for_tests(&module.attrs) => for_tests.push(vec![module.ident.to_string()]),
                syn::Item::Mod(module) => drop(house.rooms.insert(module.ident.to_string())),
                _ => {}
            }
        }
        for path in rust_files(&source) {
            let module = module_of(path.strip_prefix(&source).unwrap());
            if module != ["lib"] {
                let name = format!("src/{}", path.strip_prefix(&source).unwrap().display());
                let checked = Checked::of(&name, module, &fs::read_to_string(&path).unwrap());
                for_tests.extend(checked.modules_for_tests.clone());
                house.checked.insert(path, checked);
            }
        }
        house.checked.retain(|_, file| !for_tests.iter().any(|module| file.module.starts_with(module)));
        house
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// `dpop/proof.rs` is `["dpop", "proof"]`.
fn module_of(path: &Path) -> Vec<String> {
    path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect()
}

fn is_room(name: &str) -> bool {
    BASE.contains(&name) || ROOMS.iter().any(|(room, _)| *room == name)
}

fn may_import(from: &str, to: &str) -> bool {
    from == to || BASE.contains(&to) || ROOMS.iter().any(|(room, imports)| *room == from && imports.contains(&to))
}

/// What was found in one file.
struct Checked {
    name: String,
    /// Where the visitor is: the module of the file and the inline modules inside it.
    module: Vec<String>,
    findings: Vec<Finding>,
    /// How many imports of other rooms there are, allowed or not.
    imports: usize,
    /// Modules that are declared under `cfg(test)` and lie in files of their own.
    modules_for_tests: Vec<Vec<String>>,
}

struct Finding {
    file: String,
    line: usize,
    import: String,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: `{}`: {}", self.file, self.line, self.import, self.rule)
    }
}

impl Checked {
    fn of(name: &str, module: Vec<String>, code: &str) -> Self {
        let file = syn::parse_file(code).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut checked =
            Self { name: name.to_owned(), module, findings: vec![], imports: 0, modules_for_tests: vec![] };
        if is_for_tests(&file.attrs) {
            checked.modules_for_tests.push(checked.module.clone());
        } else {
            checked.visit_file(&file);
        }
        checked
    }

    fn room(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    /// Judges one path as it is written.
    fn judge(&mut self, path: &[String], span: Span) {
        let Some(target) = self.resolve(path) else {
            let owner = CRATES.iter().find(|(name, _)| path.first().is_some_and(|first| first == name));
            if let Some((name, owners)) = owner.filter(|(_, owners)| !owners.contains(&self.room())) {
                let owners = owners.join("`, `");
                self.report(path, span, format!("only the room `{owners}` may use the crate `{name}`"));
            }
            return;
        };
        match target.first().map(String::as_str) {
            Some(to) if is_room(to) => {
                self.imports += usize::from(to != self.room());
                if !may_import(self.room(), to) {
                    self.report(path, span, format!("the room `{}` may not import `{to}`", self.room()));
                }
            }
            Some("*") | None => {
                self.report(path, span, "names the crate root; write `crate::room::Item`".to_owned());
            }
            Some(item) => {
                let rule = format!("`{item}` is no room: inside src/ write `crate::room::{item}`, not the re-export");
                self.report(path, span, rule);
            }
        }
    }

    /// The path from the crate root; `None` for what does not begin with `crate`, `self` or `super`.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, mut rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => vec![],
            "self" => self.module.clone(),
            "super" => self.module[..self.module.len().saturating_sub(1)].to_vec(),
            _ => return None,
        };
        while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
            base.pop();
            rest = after;
        }
        Some([base, rest.to_vec()].concat())
    }

    fn report(&mut self, path: &[String], span: Span, rule: String) {
        let (file, line) = (self.name.clone(), span.start().line);
        self.findings.push(Finding { file, line, import: path.join("::"), rule });
    }

    fn judge_use(&mut self, tree: &syn::UseTree, mut path: Vec<String>) {
        match tree {
            syn::UseTree::Path(part) => {
                path.push(name(&part.ident));
                self.judge_use(&part.tree, path);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.judge_use(tree, path.clone()));
            }
            syn::UseTree::Name(syn::UseName { ident, .. }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                if ident != "self" || path.is_empty() {
                    path.push(name(ident));
                }
                self.judge(&path, ident.span());
            }
            syn::UseTree::Glob(glob) => {
                path.push("*".to_owned());
                self.judge(&path, glob.span());
            }
        }
    }

    /// Finds paths in what is not parsed: the arguments of macros and attributes and the bodies of `macro_rules!`.
    fn judge_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match token {
                TokenTree::Group(group) => self.judge_tokens(group.stream()),
                TokenTree::Literal(literal) => self.judge_quoted(&literal.to_string(), literal.span()),
                TokenTree::Ident(first) => rest = self.judge_path_of_macro(first, after),
                TokenTree::Punct(_) => {}
            }
        }
    }

    /// Follows a path and returns what stands behind it.
    fn judge_path_of_macro<'t>(&mut self, first: &Ident, mut rest: &'t [TokenTree]) -> &'t [TokenTree] {
        let mut path = vec![name(first)];
        while let [TokenTree::Punct(one), TokenTree::Punct(two), next, after @ ..] = rest
            && (one.as_char(), two.as_char()) == (':', ':')
        {
            match next {
                TokenTree::Ident(part) => path.push(name(part)),
                // `crate::*`, or `crate::$room`: what that names shows only where the macro is used.
                TokenTree::Punct(punct) if "*$".contains(punct.as_char()) => path.push(punct.as_char().to_string()),
                TokenTree::Group(group) => {
                    self.judge_group_of_macro(group.stream(), &path);
                    return after;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => break,
            }
            rest = after;
        }
        if path.len() > 1 {
            self.judge(&path, first.span());
        }
        rest
    }

    /// `use crate::{a::A, b};` inside a macro.
    fn judge_group_of_macro(&mut self, group: TokenStream, path: &[String]) {
        let parser = syn::punctuated::Punctuated::<syn::UseTree, syn::Token![,]>::parse_terminated;
        for tree in syn::parse::Parser::parse2(parser, group).into_iter().flatten() {
            self.judge_use(&tree, path.to_vec());
        }
    }

    /// `#[serde(with = "crate::text")]`
    fn judge_quoted(&mut self, literal: &str, span: Span) {
        if let Ok(path) = syn::parse_str::<syn::Path>(literal.trim_matches('"'))
            && path.segments.len() > 1
        {
            self.judge(&written(&path), span);
        }
    }
}

impl<'ast> Visit<'ast> for Checked {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !attributes_of_item(item).is_some_and(is_for_tests) {
            if let syn::Item::Verbatim(tokens) = item {
                self.judge_tokens(tokens.clone());
            }
            visit::visit_item(self, item);
        } else if let syn::Item::Mod(module) = item {
            self.modules_for_tests.push([self.module.clone(), vec![module.ident.to_string()]].concat());
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => return visit::visit_impl_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if let Some(attribute) = module.attrs.iter().find(|attribute| attribute.path().is_ident("path")) {
            self.report(&["path".to_owned()], attribute.span(), "a module lies where its name says".to_owned());
        }
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.judge_use(&item.tree, vec![]);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let name = item.ident.to_string();
        let path = if name == "self" { vec!["crate".to_owned()] } else { vec![name] };
        self.judge(&path, item.ident.span());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // One segment names a local, and `crate` alone stands in `pub(crate)`.
        if path.segments.len() > 1 {
            self.judge(&written(path), path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if item.path.segments.last().is_some_and(|name| name.ident == "include") {
            self.report(&written(&item.path), item.path.span(), "code lies in modules".to_owned());
        }
        self.judge_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.judge_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}

fn written(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| name(&segment.ident)).collect()
}

/// An identifier without `r#`.
fn name(ident: &Ident) -> String {
    ident.unraw().to_string()
}

fn attributes_of_item(item: &syn::Item) -> Option<&[syn::Attribute]> {
    macro_rules! attributes {
        ($($kind:ident)*) => {
            match item { $(syn::Item::$kind(item) => Some(&item.attrs),)* _ => None }
        };
    }
    attributes!(Const Enum ExternCrate Fn ForeignMod Impl Macro Mod Static Struct Trait TraitAlias Type Union Use)
}

/// Whether something is compiled for tests only: `cfg(test)`, `cfg(all(test, …))`, or for the fuzzer, which looks behind
/// every door: `cfg(any(fuzzing, test))`. It is in no application.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    fn needs_test(meta: &syn::Meta) -> bool {
        let parts = |list: &syn::MetaList| {
            let parser = syn::punctuated::Punctuated::<syn::Meta, syn::Token![,]>::parse_terminated;
            list.parse_args_with(parser).into_iter().flatten().collect::<Vec<_>>()
        };
        match meta {
            syn::Meta::Path(path) => path.is_ident("test") || path.is_ident("fuzzing"),
            syn::Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(needs_test),
            syn::Meta::List(list) if list.path.is_ident("any") => {
                let parts = parts(list);
                !parts.is_empty() && parts.iter().all(needs_test)
            }
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args().is_ok_and(|meta: syn::Meta| needs_test(&meta))
    })
}

/// The checker itself, on code in the file `src/dpop/proof.rs`: `dpop` may import `jose` and the base.
mod checker {
    use super::*;

    fn checked(code: &str) -> Checked {
        Checked::of("src/dpop/proof.rs", vec!["dpop".to_owned(), "proof".to_owned()], code)
    }

    fn findings(code: &str) -> Vec<String> {
        checked(code).findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_import_of_another_room_is_found_in_every_form() {
        for code in [
            "use crate::client;",
            "use crate::client::Client;",
            "use crate::client::{Client, ClientBuilder as Builder};",
            "use crate::client::*;",
            "use crate::client as jose;",
            "use crate::{error::Error, client::{Client}};",
            "use {crate::client::Client};",
            "use crate::r#client::Client;",
            "use super::super::client::Client;",
            "use self::super::super::client::Client;",
            "mod inner { use super::super::super::client::Client; }",
            "pub use crate::client::Client;",
            "pub(crate) use crate::client::Client;",
            "fn f() { use crate::client::Client; }",
            "fn f() { crate::client::start(); }",
            "fn f() { let x = crate::client::LIMIT; }",
            "fn f(x: &crate::client::Client) {}",
            "fn f() -> Result<Vec<crate::client::Client>, ()> { todo!() }",
            "impl crate::client::Step for X {}",
            "impl X { fn f() { crate::client::start(); } }",
            "trait X: crate::client::Step { fn f() { super::super::client::start(); } }",
            "fn f(x: Y) { match x { crate::client::Y::A => {} } }",
            "fn f() { crate::client::log!(); }",
            "fn f() { println!(\"{}\", crate::client::LIMIT); }",
            "fn f() { vec![(1, [super::super::client::LIMIT])]; }",
            "macro_rules! m { () => { use crate::client::Client; } }",
            "macro_rules! m { () => { use crate::{error::Error, client::Client}; } }",
            "macro_rules! m { () => { use $crate::client::Client; } }",
            "macro_rules! m { () => { pub(crate) fn f(x: $crate::client::Client) {} } }",
            "macro_rules! m { () => { fn f(x: crate::client::Client) {} } }",
            "fn f() { m!(X { x: crate::client::LIMIT }); }",
            "#[derive(crate::client::Derive)] struct X;",
            "#[serde(with = \"crate::client::seconds\")] struct X;",
            "struct X { #[serde(default = \"crate::client::limit\")] x: u8 }",
            "#[cfg(not(test))] use crate::client::Client;",
            "#[cfg(any(test, feature = \"testing\"))] use crate::client::Client;",
            "#[cfg(feature = \"testing\")] mod inner { use crate::client::Client; }",
        ] {
            let findings = findings(code);
            assert!(!findings.is_empty(), "{code}");
            for finding in findings {
                assert!(finding.contains("the room `dpop` may not import `client`"), "{code}: {finding}");
            }
        }
    }

    #[test]
    fn a_finding_names_file_line_import_and_rule() {
        assert_eq!(
            findings("use std::fmt;\n\nuse crate::{\n    error::Error,\n    client::Client as C,\n};"),
            ["src/dpop/proof.rs:5: `crate::client::Client`: the room `dpop` may not import `client`"]
        );
    }

    #[test]
    fn what_the_row_lists_is_allowed() {
        let code = "
            use super::{DpopKey, jwk};
            use self::inner::X;
            use crate::dpop::DpopKey as Key;
            use crate::jose::{RawKey, sha256};
            use crate::{clock, error::{Error, ErrorKind}, secret::Secret};
            use std::fmt::{self, Debug};
            pub(crate) fn f(x: &crate::text::Text) -> Self { self.x(crate::random::bytes()) }
            pub(in crate::dpop) mod inner { use super::super::super::jose; pub(super) struct X; }
        ";
        let checked = checked(code);
        assert!(checked.findings.is_empty(), "{}", checked.findings[0]);
        assert_eq!(checked.imports, 9);
    }

    #[test]
    fn the_crate_root_is_not_imported_from() {
        for code in [
            "use crate::DpopKey;",
            "use crate::{DpopKey as Key};",
            "use super::super::DpopKey;",
            "fn f(x: crate::DpopKey) {}",
            "fn f() { println!(\"{}\", crate::LIMIT); }",
            "macro_rules! m { ($room:ident) => { crate::$room::f() } }",
        ] {
            let findings = findings(code);
            assert_eq!(findings.len(), 1, "{code}: {findings:?}");
            assert!(findings[0].contains("is no room: inside src/ write `crate::room::"), "{code}: {findings:?}");
        }
        for code in ["use crate::*;", "use super::super::*;", "use crate as root;", "use crate::{self as root};"] {
            assert!(findings(code)[0].contains("names the crate root"), "{code}");
        }
        assert!(findings("extern crate self as root;")[0].contains("names the crate root"));
    }

    #[test]
    fn code_for_tests_is_exempt() {
        for code in [
            "#[cfg(test)] use crate::client::Client;",
            "#[cfg(test)] mod tests { use crate::client::Client; }",
            "#[cfg(all(test, feature = \"testing\"))] mod tests { use crate::client::Client; }",
            "#[cfg(test)] fn f() { crate::client::start(); }",
            "#[cfg(test)] impl X { fn f() { crate::client::start(); } }",
            "impl X { #[cfg(test)] fn f() { crate::client::start(); } }",
            "#![cfg(test)] use crate::client::Client;",
            "#[cfg(any(fuzzing, test))] fn f() { crate::client::start(); }",
        ] {
            assert_eq!(findings(code), <[String; 0]>::default(), "{code}");
        }
        let declared = checked("#[cfg(test)] mod tests; mod other;").modules_for_tests;
        assert_eq!(declared, [["dpop", "proof", "tests"]]);
        for code in [
            "#[cfg(any(test, feature = \"testing\"))] use crate::client::Client;",
            "#[cfg(any())] use crate::client::Client;",
        ] {
            assert_eq!(findings(code).len(), 1, "{code}");
        }
    }

    #[test]
    fn a_crate_that_belongs_to_one_room_is_used_there_alone() {
        for code in ["use openssl::sha::sha256;", "fn f() { josekit::jws::RS256; }", "extern crate openssl;"] {
            assert!(findings(code)[0].contains("only the room `jose`"), "{code}");
        }
        let jose = Checked::of("src/jose.rs", vec!["jose".to_owned()], "use openssl::sha::sha256;");
        assert!(jose.findings.is_empty());
    }

    #[test]
    fn modules_do_not_hide_from_the_checker() {
        assert!(findings("#[path = \"elsewhere.rs\"] mod inner;")[0].contains("where its name says"));
        assert!(findings("include!(\"elsewhere.rs\");")[0].contains("code lies in modules"));
    }
}
