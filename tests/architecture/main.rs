//! Checks what each file of `src/` may import, so that no cycle of imports can appear.
//!
//! In the messages, a *module* is a module of the crate root: `src/<module>.rs` with `src/<module>/`. The checks read
//! every form of `use` and every path in expressions, types, attributes and macros. Code under `cfg(test)` or
//! `cfg(fuzzing)` may import anything. `src/lib.rs` is the crate root and belongs to no module.

mod cycles;
mod graph;
mod modules;
mod parameters;
mod resolve;
mod source;

use std::fs;

const LINES_PER_FILE: usize = 700;

#[test]
fn no_file_is_too_long_and_none_is_called_mod_rs() {
    for path in source::rust_files(&source::folder()) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LINES_PER_FILE, "{} has {lines} lines, more than {LINES_PER_FILE}", path.display());
        assert!(!path.ends_with("mod.rs"), "{}: write `name.rs` beside `name/`", path.display());
    }
}
