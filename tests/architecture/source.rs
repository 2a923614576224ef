//! Reads the files of `src/` and the paths in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// The path of a module from the crate root: `src/dpop/proof.rs` is `["dpop", "proof"]`, and the crate root is empty.
pub type ModulePath = Vec<String>;

/// All files of `src/` except those that exist for tests only.
pub struct Source {
    /// The modules that `lib.rs` declares.
    pub modules: BTreeSet<String>,
    /// All files except `lib.rs`.
    pub files: Vec<File>,
    pub scopes: BTreeMap<ModulePath, Scope>,
}

/// One file, without the code that is for tests only.
pub struct File {
    /// `src/dpop/proof.rs`
    pub name: String,
    pub module: ModulePath,
    pub imports: Vec<Import>,
    pub problems: Vec<Finding>,
    /// The scopes of the file's module and of the inline modules inside it.
    scopes: BTreeMap<ModulePath, Scope>,
    /// Modules that are declared under `cfg(test)` and have files of their own.
    pub modules_for_tests: Vec<ModulePath>,
}

/// A path of more than one segment, as it is written.
pub struct Import {
    /// The module that contains it.
    pub place: ModulePath,
    pub path: Vec<String>,
    pub line: usize,
}

/// The names of a module.
#[derive(Default)]
pub struct Scope {
    /// The modules that it declares.
    pub children: BTreeSet<String>,
    /// The names that a `use` gives to paths.
    pub names: BTreeMap<String, Vec<String>>,
    /// The paths before the `*` of each `use`.
    pub globs: Vec<Vec<String>>,
    /// The items that it defines.
    pub items: BTreeSet<String>,
}

pub struct Finding {
    pub file: String,
    pub line: usize,
    pub import: String,
    pub rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: `{}`: {}", self.file, self.line, self.import, self.rule)
    }
}

impl Source {
    /// Reads the folder once for all tests.
    pub fn read() -> &'static Self {
        static SOURCE: LazyLock<Source> = LazyLock::new(Source::of_folder);
        &SOURCE
    }

    fn of_folder() -> Self {
        let folder = folder();
        // Programs are crates of their own, which import the library as its users do.
        let programs = folder.join("bin");
        let files = rust_files(&folder).into_iter().filter(|path| !path.starts_with(&programs)).map(|path| {
            let inside = path.strip_prefix(&folder).unwrap();
            let mut module: ModulePath =
                inside.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            if module == ["lib"] {
                module.clear();
            }
            File::of(&format!("src/{}", inside.display()), module, &fs::read_to_string(&path).unwrap())
        });
        Self::of(files.collect())
    }

    pub fn of(mut files: Vec<File>) -> Self {
        let for_tests: Vec<_> = files.iter().flat_map(|file| file.modules_for_tests.clone()).collect();
        files.retain(|file| !for_tests.iter().any(|module| file.module.starts_with(module)));
        let mut scopes = BTreeMap::new();
        for file in &mut files {
            scopes.append(&mut file.scopes);
        }
        let modules = scopes.get(&vec![]).map(|root: &Scope| root.children.clone()).unwrap_or_default();
        files.retain(|file| !file.module.is_empty());
        Self { modules, files, scopes }
    }
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

pub fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

impl File {
    pub fn of(name: &str, module: ModulePath, code: &str) -> Self {
        let file = syn::parse_file(code).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (imports, problems, modules_for_tests) = (vec![], vec![], vec![]);
        let name = name.to_owned();
        let mut read = Reader {
            place: module.clone(),
            file: Self { name, module, imports, problems, scopes: BTreeMap::new(), modules_for_tests },
        };
        if is_for_tests(&file.attrs) {
            read.file.modules_for_tests.push(read.place);
        } else {
            read.scope();
            read.visit_file(&file);
        }
        read.file
    }

    /// The module of the crate root that contains this file.
    pub fn top(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }
}

struct Reader {
    file: File,
    /// The module that the visitor is in: that of the file or an inline module inside it.
    place: ModulePath,
}

impl Reader {
    fn scope(&mut self) -> &mut Scope {
        self.file.scopes.entry(self.place.clone()).or_default()
    }

    fn found(&mut self, path: &[String], span: Span) {
        let (place, path) = (self.place.clone(), path.to_vec());
        self.file.imports.push(Import { place, path, line: span.start().line });
    }

    fn report(&mut self, path: &[String], span: Span, rule: &str) {
        let (file, line) = (self.file.name.clone(), span.start().line);
        self.file.problems.push(Finding { file, line, import: path.join("::"), rule: rule.to_owned() });
    }

    fn read_use(&mut self, tree: &syn::UseTree, mut path: Vec<String>) {
        match tree {
            syn::UseTree::Path(part) => {
                path.push(name(&part.ident));
                self.read_use(&part.tree, path);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.read_use(tree, path.clone()));
            }
            syn::UseTree::Name(syn::UseName { ident, .. }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                if ident != "self" || path.is_empty() {
                    path.push(name(ident));
                }
                let alias = match tree {
                    syn::UseTree::Rename(rename) => name(&rename.rename),
                    _ => path.last().cloned().unwrap_or_default(),
                };
                self.scope().names.insert(alias, path.clone());
                self.found(&path, ident.span());
            }
            syn::UseTree::Glob(glob) => {
                self.scope().globs.push(path.clone());
                path.push("*".to_owned());
                self.found(&path, glob.span());
            }
        }
    }

    /// Finds paths in tokens that are not parsed: the arguments of macros and attributes, and the bodies of
    /// `macro_rules!`.
    fn read_tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let Some((token, after)) = rest.split_first() {
            rest = after;
            match token {
                TokenTree::Group(group) => self.read_tokens(group.stream()),
                TokenTree::Literal(literal) => self.read_quoted(&literal.to_string(), literal.span()),
                TokenTree::Ident(first) => rest = self.read_path_of_macro(first, after),
                TokenTree::Punct(_) => {}
            }
        }
    }

    /// Follows a path and returns the tokens after it.
    fn read_path_of_macro<'t>(&mut self, first: &Ident, mut rest: &'t [TokenTree]) -> &'t [TokenTree] {
        let mut path = vec![name(first)];
        while let [TokenTree::Punct(one), TokenTree::Punct(two), next, after @ ..] = rest
            && (one.as_char(), two.as_char()) == (':', ':')
        {
            match next {
                TokenTree::Ident(part) => path.push(name(part)),
                // `crate::*` or `crate::$module`, whose target is known only where the macro is used.
                TokenTree::Punct(punct) if "*$".contains(punct.as_char()) => path.push(punct.as_char().to_string()),
                TokenTree::Group(group) => {
                    self.read_group_of_macro(group.stream(), &path);
                    return after;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => break,
            }
            rest = after;
        }
        if path.len() > 1 {
            self.found(&path, first.span());
        }
        rest
    }

    /// Reads `use crate::{a::A, b};` inside a macro.
    fn read_group_of_macro(&mut self, group: TokenStream, path: &[String]) {
        let parser = syn::punctuated::Punctuated::<syn::UseTree, syn::Token![,]>::parse_terminated;
        for tree in syn::parse::Parser::parse2(parser, group).into_iter().flatten() {
            self.read_use(&tree, path.to_vec());
        }
    }

    /// Reads `#[serde(with = "crate::text")]`.
    fn read_quoted(&mut self, literal: &str, span: Span) {
        if let Ok(path) = syn::parse_str::<syn::Path>(literal.trim_matches('"'))
            && path.segments.len() > 1
        {
            self.found(&written(&path), span);
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !attributes_of_item(item).is_some_and(is_for_tests) {
            if let syn::Item::Verbatim(tokens) = item {
                self.read_tokens(tokens.clone());
            }
            if let Some(defined) = name_of_item(item) {
                self.scope().items.insert(name(defined));
            }
            visit::visit_item(self, item);
        } else if let syn::Item::Mod(module) = item {
            self.file.modules_for_tests.push([self.place.clone(), vec![module.ident.to_string()]].concat());
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
            self.report(&["path".to_owned()], attribute.span(), "a module lies where its name says");
        }
        self.scope().children.insert(name(&module.ident));
        self.place.push(name(&module.ident));
        if module.content.is_some() {
            self.scope();
        }
        visit::visit_item_mod(self, module);
        self.place.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.read_use(&item.tree, vec![]);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        let name = item.ident.to_string();
        let path = if name == "self" { vec!["crate".to_owned()] } else { vec![name] };
        self.found(&path, item.ident.span());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // One segment names a local item, and `crate` alone occurs in `pub(crate)`.
        if path.segments.len() > 1 {
            self.found(&written(path), path.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if item.path.segments.last().is_some_and(|name| name.ident == "include") {
            self.report(&written(&item.path), item.path.span(), "code lies in modules");
        }
        self.read_tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.read_tokens(list.tokens.clone());
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

fn name_of_item(item: &syn::Item) -> Option<&Ident> {
    match item {
        syn::Item::Const(item) => Some(&item.ident),
        syn::Item::Enum(item) => Some(&item.ident),
        syn::Item::Fn(item) => Some(&item.sig.ident),
        syn::Item::Macro(item) => item.ident.as_ref(),
        syn::Item::Static(item) => Some(&item.ident),
        syn::Item::Struct(item) => Some(&item.ident),
        syn::Item::Trait(item) => Some(&item.ident),
        syn::Item::Type(item) => Some(&item.ident),
        syn::Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// Whether an item is compiled for tests only, as with `cfg(test)` or `cfg(all(test, …))`, or for the fuzzer, as with
/// `cfg(any(fuzzing, test))`. Such code may import everything and is in no application.
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
