//! What `examples/template` says about itself: its files for Docker and its settings fit together. `scripts/test` builds
//! and tests it as a project of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    secrets: BTreeMap<String, Secret>,
    volumes: BTreeMap<String, Option<()>>,
}

#[derive(Deserialize)]
struct Service {
    build: Option<Build>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    expose: Vec<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Build {
    context: PathBuf,
    dockerfile: PathBuf,
}

#[derive(Deserialize)]
struct Secret {
    file: String,
}

#[test]
fn the_compose_file_agrees_with_the_dockerfile() {
    let compose: Compose = serde_yaml_ng::from_str(&read("compose.yaml")).unwrap();
    let application = &compose.services["application"];
    let build = application.build.as_ref().unwrap();
    let context = template().join(&build.context).canonicalize().unwrap();
    assert_eq!(context, root().canonicalize().unwrap());
    assert_eq!(context.join(&build.dockerfile).canonicalize().unwrap(), template().join("Dockerfile"));

    let (listens, metrics) =
        (port(&application.environment["LISTEN"]), port(&application.environment["METRICS_LISTEN"]));
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("\nEXPOSE {listens}\n")) && dockerfile.contains(&format!(":{listens} ")));
    assert_eq!(application.ports, [format!("127.0.0.1:{listens}:{listens}")], "only this machine reaches it");
    assert_eq!(application.expose, [metrics.to_owned()]);

    for (name, service) in &compose.services {
        for needed in service.depends_on.keys() {
            assert!(compose.services.contains_key(needed), "{name} needs {needed}");
        }
        for secret in &service.secrets {
            let is_used = service.environment.values().any(|value| *value == format!("/run/secrets/{secret}"));
            assert!(compose.secrets.contains_key(secret) && is_used, "{name}: {secret}");
        }
        for (volume, _) in service.volumes.iter().filter_map(|volume| volume.split_once(':')) {
            assert!(compose.volumes.contains_key(volume), "{name}: {volume}");
        }
    }
    let readme = read("README.md");
    for Secret { file } in compose.secrets.values() {
        assert!(readme.contains(&format!("> {file}")), "the README does not say how to make {file}");
    }
}

#[test]
fn the_dockerfile_refers_to_what_exists() {
    let dockerfile = read("Dockerfile");
    let folder = dockerfile.lines().filter_map(|line| line.strip_prefix("WORKDIR /source/")).next_back().unwrap();
    assert!(root().join(folder).join("Cargo.toml").is_file(), "{folder}");
    let manifest = read("Cargo.toml");
    let name = value(&manifest, "name");
    assert!(dockerfile.contains(&format!("cp target/release/{name} /usr/local/bin/")));
    assert!(
        dockerfile.contains(&format!("\nCMD [\"{name}\"]\n"))
            && dockerfile.contains(&format!("[\"{name}\", \"health\"]"))
    );
    let oldest = value(&manifest, "rust-version");
    assert_eq!(oldest, value(&fs::read_to_string(root().join("Cargo.toml")).unwrap(), "rust-version"));
    assert!(dockerfile.contains(&format!("FROM rust:{oldest}-")));
    assert!(dockerfile.lines().any(|line| line.starts_with("USER ") && line != "USER root"));
}

#[test]
fn every_variable_is_explained_and_read() {
    let settings = read("src/settings.rs") + &read("src/main.rs");
    let example = read(".env.example");
    let explained: BTreeSet<_> = example.lines().filter_map(variable).collect();
    let read: BTreeSet<_> = settings.split('"').filter(|text| is_variable(text)).collect();
    assert_eq!(explained, read);
    assert!(read.len() >= 10, "{read:?}");
}

/// The variable that a line sets, also in a comment.
fn variable(line: &str) -> Option<&str> {
    line.trim_start_matches('#').split_once('=').map(|(name, _)| name).filter(|name| is_variable(name))
}

fn is_variable(text: &str) -> bool {
    text.len() > 4 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && !text.starts_with('_')
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

/// The value of a key of a manifest.
fn value<'a>(manifest: &'a str, key: &str) -> &'a str {
    let line = manifest.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix("= ")).unwrap();
    line.trim_matches('"')
}

fn read(file: &str) -> String {
    let path = template().join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn template() -> PathBuf {
    root().join("examples/template").canonicalize().unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
