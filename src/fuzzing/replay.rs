//! Runs every committed input.

use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

/// The folder of the fuzzer, which is not part of the package.
pub(super) fn fuzz() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Only packages contain this file, because Cargo creates it.
    let is_package = root.join(".cargo_vcs_info.json").exists();
    let fuzz = root.join("fuzz");
    assert!(fuzz.exists() || is_package, "fuzz/ is missing");
    fuzz.exists().then_some(fuzz)
}

fn inputs(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

/// One test for each target, so that they run in parallel.
mod every_committed_input_holds_what_must_hold {
    use super::*;

    macro_rules! replayed {
        ($($name:ident)*) => {
            $(#[test] fn $name() { replay(stringify!($name)); })*

            pub(super) const NAMES: &[&str] = &[$(stringify!($name)),*];
        };
    }

    replayed! {
        authorization_response discovery key_set exchange poll response_headers id_token encrypted_token logout_token
        userinfo introspection pushed_request ping sealed_value stored
    }

    fn replay(name: &str) {
        let Some(fuzz) = fuzz() else { return };
        let run = TARGETS.iter().find(|target| target.name == name).unwrap().run;
        let corpus = inputs(&fuzz.join("corpus").join(name));
        assert!(!corpus.is_empty(), "{name} has no corpus");
        let broken: Vec<_> = corpus
            .into_iter()
            .chain(inputs(&fuzz.join("regressions").join(name)))
            .filter(|path| std::panic::catch_unwind(|| run(&fs::read(path).unwrap())).is_err())
            .collect();
        assert!(broken.is_empty(), "these inputs fail: {broken:#?}");
    }
}

#[test]
fn every_target_of_the_fuzzer_is_replayed() {
    let named: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(named, every_committed_input_holds_what_must_hold::NAMES);
    let Some(fuzz) = fuzz() else { return };
    for (folder, ending) in [("fuzz_targets", ".rs"), ("corpus", ""), ("regressions", "")] {
        for path in inputs(&fuzz.join(folder)) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let name = name.strip_suffix(ending).unwrap_or(&name);
            assert!(named.contains(&name), "fuzz/{folder}/{name} belongs to no target in src/fuzzing.rs");
        }
    }
    let targets = inputs(&fuzz.join("fuzz_targets"));
    assert_eq!(targets.len(), named.len(), "a target in src/fuzzing.rs has no file in fuzz/fuzz_targets");
}
