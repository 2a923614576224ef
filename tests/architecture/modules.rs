//! The modules of the crate root and what each may import.

use std::collections::BTreeSet;

use crate::resolve::absolute;
use crate::source::{File, Finding, Import, Source};

/// Modules that every other module may import.
pub const BASE: [&str; 9] =
    ["error", "secret", "clock", "random", "task", "text", "trace_parent", "json", "request_body"];

/// Modules without code of their own. Each gives the public types of one subject their path.
pub const FRONT_PAGES: [&str; 7] =
    ["ciba", "claims", "compatibility", "encryption", "identity_assurance", "registration", "tokens"];

/// The modules above the base, the lowest first, each with the modules that it may import besides the base.
pub const MODULES: [(&str, &[&str]); 26] = [
    ("jose", &[]),
    ("id_token", &["jose"]),
    ("dpop", &["jose"]),
    ("keyring", &["jose"]),
    ("transport", &["jose"]),
    ("endpoint", &["jose", "dpop", "transport"]),
    ("provider", &["jose", "transport", "endpoint"]),
    ("sealed", &["id_token", "dpop", "keyring"]),
    ("dialect", &["id_token"]),
    ("pending", &["jose", "id_token", "dpop", "keyring", "sealed", "dialect"]),
    (
        "client",
        &["jose", "id_token", "dpop", "keyring", "transport", "endpoint", "provider", "sealed", "dialect", "pending"],
    ),
    ("store", &[]),
    ("operations", &["jose", "keyring", "client", "pending", "store"]),
    ("poller", &["client", "pending", "sealed", "keyring", "store", "operations"]),
    ("ping", &["client", "dialect", "keyring", "poller"]),
    ("logout", &["client"]),
    ("axum", &["client", "keyring", "sealed", "store", "poller", "ping", "logout"]),
    ("testing", &["transport"]),
    ("measured", &["jose", "id_token", "dpop"]),
    ("ciba", &["client"]),
    ("claims", &["id_token", "client"]),
    ("compatibility", &["client"]),
    ("encryption", &["jose", "id_token", "client"]),
    ("identity_assurance", &["id_token", "client"]),
    ("registration", &["client"]),
    ("tokens", &["client"]),
];

/// Crates that only one or two modules may use.
const CRATES: [(&str, &[&str]); 10] = [
    ("josekit", &["jose"]),
    ("ed25519_dalek", &["jose"]),
    // The store passes a connector of this crate to PostgreSQL's TLS.
    ("openssl", &["jose", "store"]),
    ("aws_lc_rs", &["testing"]),
    ("jsonwebtoken", &["testing"]),
    ("metrics", &["poller"]),
    ("rusqlite", &["store"]),
    ("deadpool", &["store"]),
    ("postgres_openssl", &["store"]),
    ("tokio_postgres", &["store"]),
];

#[test]
fn modules_import_only_what_their_row_lists() {
    let source = Source::read();
    let findings: Vec<_> = source.files.iter().flat_map(judged).map(|finding| finding.to_string()).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn every_module_has_a_row_and_is_checked() {
    let source = Source::read();
    for module in &source.modules {
        assert!(is_module(module), "src/lib.rs declares `{module}`, which has no row in tests/architecture/modules.rs");
        let files = source.files.iter().filter(|file| file.top() == module).count();
        assert!(files > 0, "no file of the module `{module}` was looked at");
    }
    for file in &source.files {
        let module = file.top();
        assert!(source.modules.contains(module), "{} belongs to no module that src/lib.rs declares", file.name);
    }
    // This crate does import across modules, so the checker must find such imports.
    assert!(source.files.iter().map(imports_of_others).sum::<usize>() > 0);
}

#[test]
fn a_row_lists_only_modules_above_it_so_there_is_no_cycle() {
    let mut above = BTreeSet::new();
    for (module, imports) in MODULES {
        assert!(imports.iter().all(|import| above.contains(import)), "{module}");
        assert!(above.insert(module) && !BASE.contains(&module), "{module} stands twice");
    }
}

fn is_module(name: &str) -> bool {
    BASE.contains(&name) || MODULES.iter().any(|(module, _)| *module == name)
}

fn may_import(from: &str, to: &str) -> bool {
    from == to || BASE.contains(&to) || MODULES.iter().any(|(module, imports)| *module == from && imports.contains(&to))
}

/// The number of imports of other modules in a file, allowed or not.
fn imports_of_others(file: &File) -> usize {
    let targets = file.imports.iter().filter_map(|import| absolute(&import.place, &import.path));
    targets.filter(|target| target.first().is_some_and(|to| is_module(to) && to != file.top())).count()
}

fn judged(file: &File) -> Vec<Finding> {
    let problems = file.problems.iter().map(|problem| Finding {
        file: problem.file.clone(),
        line: problem.line,
        import: problem.import.clone(),
        rule: problem.rule.clone(),
    });
    let broken = file.imports.iter().filter_map(|import| {
        let rule = broken_rule(file.top(), import)?;
        Some(Finding { file: file.name.clone(), line: import.line, import: import.path.join("::"), rule })
    });
    problems.chain(broken).collect()
}

/// Returns the rule that an import in the module `from` breaks.
fn broken_rule(from: &str, import: &Import) -> Option<String> {
    let Some(target) = absolute(&import.place, &import.path) else {
        let owner = CRATES.iter().find(|(name, _)| import.path.first().is_some_and(|first| first == name));
        let (name, owners) = owner.filter(|(_, owners)| !owners.contains(&from))?;
        return Some(format!("only the module `{}` may use the crate `{name}`", owners.join("`, `")));
    };
    match target.first().map(String::as_str) {
        Some(to) if is_module(to) => {
            (!may_import(from, to)).then(|| format!("the module `{from}` may not import `{to}`"))
        }
        Some("*") | None => Some("names the crate root; write `crate::module::Item`".to_owned()),
        Some(item) => {
            Some(format!("`{item}` is no module: inside src/ write `crate::module::{item}`, not the re-export"))
        }
    }
}

/// Tests of the checker itself, on code in the file `src/dpop/proof.rs`: `dpop` may import `jose` and the base.
mod checker {
    use super::*;

    fn file(code: &str) -> File {
        File::of("src/dpop/proof.rs", vec!["dpop".to_owned(), "proof".to_owned()], code)
    }

    fn findings(code: &str) -> Vec<String> {
        judged(&file(code)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_import_of_another_module_is_found_in_every_form() {
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
                assert!(finding.contains("the module `dpop` may not import `client`"), "{code}: {finding}");
            }
        }
    }

    #[test]
    fn a_finding_names_file_line_import_and_rule() {
        assert_eq!(
            findings("use std::fmt;\n\nuse crate::{\n    error::Error,\n    client::Client as C,\n};"),
            ["src/dpop/proof.rs:5: `crate::client::Client`: the module `dpop` may not import `client`"]
        );
    }

    #[test]
    fn what_the_row_lists_is_allowed() {
        let code = "
            use super::{DpopKey, jwk};
            use self::inner::X;
            use crate::dpop::DpopKey as Key;
            use crate::jose::{KeyPair, sha256};
            use crate::{clock, error::{Error, ErrorKind}, secret::Secret};
            use std::fmt::{self, Debug};
            pub(crate) fn f(x: &crate::text::Text) -> Self { self.x(crate::random::bytes()) }
            pub(in crate::dpop) mod inner { use super::super::super::jose; pub(super) struct X; }
        ";
        assert_eq!(findings(code), <[String; 0]>::default());
        assert_eq!(imports_of_others(&file(code)), 9);
    }

    #[test]
    fn the_crate_root_is_not_imported_from() {
        for code in [
            "use crate::DpopKey;",
            "use crate::{DpopKey as Key};",
            "use super::super::DpopKey;",
            "fn f(x: crate::DpopKey) {}",
            "fn f() { println!(\"{}\", crate::LIMIT); }",
            "macro_rules! m { ($module:ident) => { crate::$module::f() } }",
        ] {
            let findings = findings(code);
            assert_eq!(findings.len(), 1, "{code}: {findings:?}");
            assert!(findings[0].contains("is no module: inside src/ write `crate::module::"), "{code}: {findings:?}");
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
        let declared = file("#[cfg(test)] mod tests; mod other;").modules_for_tests;
        assert_eq!(declared, [["dpop", "proof", "tests"]]);
        for code in [
            "#[cfg(any(test, feature = \"testing\"))] use crate::client::Client;",
            "#[cfg(any())] use crate::client::Client;",
        ] {
            assert_eq!(findings(code).len(), 1, "{code}");
        }
    }

    #[test]
    fn a_crate_that_belongs_to_one_module_is_used_there_alone() {
        for code in ["use openssl::sha::sha256;", "fn f() { josekit::jws::RS256; }", "extern crate openssl;"] {
            assert!(findings(code)[0].contains("only the module `jose`"), "{code}");
        }
        let jose = File::of("src/jose.rs", vec!["jose".to_owned()], "use openssl::sha::sha256;");
        assert!(judged(&jose).is_empty());
    }

    #[test]
    fn modules_do_not_hide_from_the_checker() {
        assert!(findings("#[path = \"elsewhere.rs\"] mod inner;")[0].contains("where its name says"));
        assert!(findings("include!(\"elsewhere.rs\");")[0].contains("code lies in modules"));
    }
}
