//! Resolves a path as it is written to the item or module that it names.

use crate::source::{ModulePath, Scope, Source};

/// The number of steps through `use` declarations that are followed, because a `use` may name what another one names.
/// It is enough, and it ends loops.
const STEPS: usize = 16;

/// The path from the crate root, or `None` if the path does not begin with `crate`, `self` or `super`.
pub fn absolute(place: &[String], path: &[String]) -> Option<Vec<String>> {
    let (first, mut rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => vec![],
        "self" => place.to_vec(),
        "super" => place[..place.len().saturating_sub(1)].to_vec(),
        _ => return None,
    };
    while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
        base.pop();
        rest = after;
    }
    Some([base, rest.to_vec()].concat())
}

/// The module or item that a path names.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    Module(ModulePath),
    /// An item that this module defines, regardless of where it was imported from.
    ItemOf(ModulePath),
}

impl Source {
    /// Resolves a path through all re-exports. Returns `None` for a path outside this crate.
    pub fn named(&self, place: &[String], path: &[String]) -> Option<Named> {
        self.follow(place, path, STEPS)
    }

    fn follow(&self, place: &[String], path: &[String], steps: usize) -> Option<Named> {
        if steps == 0 {
            return None;
        }
        if let Some(absolute) = absolute(place, path) {
            return self.walk(vec![], &absolute, steps);
        }
        // A name in scope. The `use` of an inline function counts as the module's.
        let (first, rest) = path.split_first()?;
        let scope = self.scopes.get(place)?;
        if scope.children.contains(first) || scope.items.contains(first) {
            return self.walk(place.to_vec(), path, steps);
        }
        if let Some(used) = scope.names.get(first).filter(|used| used.as_slice() != std::slice::from_ref(first)) {
            return match self.follow(place, used, steps - 1)? {
                Named::Module(module) => self.walk(module, rest, steps),
                item => Some(item),
            };
        }
        self.through_globs(place, path, steps)
    }

    /// Resolves `path` in `module`.
    fn walk(&self, mut module: ModulePath, path: &[String], steps: usize) -> Option<Named> {
        let Some((first, rest)) = path.split_first() else { return Some(Named::Module(module)) };
        let empty = Scope::default();
        let scope = self.scopes.get(&module).unwrap_or(&empty);
        if scope.children.contains(first) {
            module.push(first.clone());
            return self.walk(module, rest, steps);
        }
        if scope.items.contains(first) {
            return Some(Named::ItemOf(module));
        }
        if let Some(used) = scope.names.get(first) {
            return match self.follow(&module, used, steps - 1) {
                Some(Named::Module(module)) => self.walk(module, rest, steps),
                Some(item) => Some(item),
                // A re-export of an item of another crate.
                None => Some(Named::ItemOf(module)),
            };
        }
        self.through_globs(&module, path, steps).or(Some(Named::ItemOf(module)))
    }

    /// Resolves `path` in the modules that `place` imports with `*`.
    fn through_globs(&self, place: &[String], path: &[String], steps: usize) -> Option<Named> {
        let first = path.first()?;
        self.scopes.get(place)?.globs.iter().find_map(|glob| {
            let Named::Module(other) = self.follow(place, glob, steps - 1)? else { return None };
            let has = other != place && self.scopes.get(&other).is_some_and(|other| other.has(first));
            if has { self.walk(other, path, steps - 1) } else { None }
        })
    }

    /// The file of a module: its own, or that of the module around it.
    pub fn file_of(&self, module: &[String]) -> Option<usize> {
        (1..=module.len()).rev().find_map(|length| self.files.iter().position(|file| file.module == module[..length]))
    }
}

impl Scope {
    fn has(&self, name: &str) -> bool {
        self.children.contains(name) || self.items.contains(name) || self.names.contains_key(name)
    }
}
