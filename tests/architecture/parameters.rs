//! Functions that other files can call take no `bool`: a call such as `issue(name, true)` does not say what it does.
//!
//! Write two functions, an enum, or a struct with a named field. A setter such as `set_paused(true)` is clear, because
//! its name says what the only argument means.

use syn::visit::{self, Visit};
use syn::{FnArg, Signature, TraitItemFn, Type, Visibility};

use crate::source;

#[test]
fn no_function_that_other_files_call_takes_a_bool() {
    let folder = source::folder();
    let mut findings = Vec::new();
    for path in source::rust_files(&folder) {
        let code = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&folder).unwrap().display().to_string();
        findings.extend(found(&code).into_iter().map(|(line, function)| format!("src/{name}:{line}: `{function}`")));
    }
    assert!(findings.is_empty(), "these functions take a `bool`:\n{}", findings.join("\n"));
}

/// The functions in this code that take a `bool` and are not private, with their lines.
fn found(code: &str) -> Vec<(usize, String)> {
    let mut functions = Functions::default();
    functions.visit_file(&syn::parse_file(code).unwrap());
    functions.found
}

#[derive(Default)]
struct Functions {
    found: Vec<(usize, String)>,
}

impl Functions {
    fn check(&mut self, signature: &Signature) {
        let arguments: Vec<_> = signature.inputs.iter().filter_map(argument).collect();
        let is_setter = signature.ident.to_string().starts_with("set_") && arguments.len() == 1;
        if !is_setter && arguments.into_iter().any(is_bool) {
            self.found.push((signature.ident.span().start().line, signature.ident.to_string()));
        }
    }
}

impl Visit<'_> for Functions {
    fn visit_item_fn(&mut self, function: &syn::ItemFn) {
        if !matches!(function.vis, Visibility::Inherited) {
            self.check(&function.sig);
        }
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        if !matches!(function.vis, Visibility::Inherited) {
            self.check(&function.sig);
        }
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &TraitItemFn) {
        self.check(&function.sig);
        visit::visit_trait_item_fn(self, function);
    }
}

/// The type of an argument other than `self`.
fn argument(argument: &FnArg) -> Option<&Type> {
    match argument {
        FnArg::Typed(typed) => Some(&typed.ty),
        FnArg::Receiver(_) => None,
    }
}

fn is_bool(argument: &Type) -> bool {
    match argument {
        Type::Path(path) => path.path.is_ident("bool"),
        _ => false,
    }
}

/// Tests of the checker itself.
mod checker {
    use super::found;

    #[test]
    fn a_bool_is_found_in_functions_methods_and_traits() {
        let names = |code: &str| found(code).into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names("pub fn f(a: u8, b: bool) {}"), ["f"]);
        assert_eq!(names("mod m { pub(super) async fn f(b: bool) {} }"), ["f"]);
        assert_eq!(names("impl T { pub(crate) fn f(&self, b: bool) -> u8 { 1 } }"), ["f"]);
        assert_eq!(names("pub trait T { fn f(&self, b: bool); }"), ["f"]);
    }

    #[test]
    fn private_functions_setters_and_implementations_of_traits_may_take_one() {
        for code in [
            "fn f(b: bool) {}",
            "impl T { fn f(&self, b: bool) {} }",
            "impl Visitor for T { fn visit_bool(self, b: bool) {} }",
            "impl T { pub fn set_paused(&self, b: bool) {} }",
            "pub fn f(check: impl Fn(u8) -> bool) -> bool { true }",
        ] {
            assert_eq!(found(code), [], "{code}");
        }
        assert_eq!(found("pub fn set_paused(name: &str, b: bool) {}").len(), 1, "it is unclear which one is set");
    }
}
