//! The guide describes every command and option, and no other.

use std::collections::BTreeSet;
use std::path::Path;

use crate::tool::Tool;

const GUIDE: &str = "docs/operations/command-line.md";

/// The subcommands in a help text.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The description of a command may be wrapped.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The long options in a text.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_lowercase() || character == '-'));
    words
        .filter(|word| word.len() > 2 && word.starts_with("--") && !word.starts_with("---"))
        .map(str::to_owned)
        .collect()
}

/// The options that a help text declares, each at the beginning of a line.
fn declared(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.flat_map(|line| options(line.split("  ").next().unwrap_or_default())).collect()
}

fn help(command: &[&str]) -> String {
    let run = Tool::new(command).args(&["--help"]).run();
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.stdout
}

#[test]
fn the_guide_describes_every_command_with_its_options_and_no_other() {
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(GUIDE)).unwrap();
    let sections: Vec<(&str, &str)> =
        guide.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let of_everyone = declared(&help(&[]));
    let common =
        sections.iter().find(|(title, _)| *title == "Options of every command").expect("there is such a section").1;
    for option in of_everyone.iter().filter(|option| !["--help", "--version"].contains(&&***option)) {
        assert!(common.contains(&format!("`{option}")), "{GUIDE} does not describe {option}");
    }
    let mut commands: Vec<Vec<String>> = Vec::new();
    for command in subcommands(&help(&[])) {
        let inner = subcommands(&help(&[&command]));
        match inner.is_empty() {
            true => commands.push(vec![command]),
            false => commands.extend(inner.into_iter().map(|inner| vec![command.clone(), inner])),
        }
    }
    assert!(commands.len() >= 7, "{commands:?}");
    let mut described = BTreeSet::new();
    for command in &commands {
        let title = format!("`{}`", command.join(" "));
        let section = sections.iter().find(|(heading, _)| *heading == title);
        let (_, section) = section.unwrap_or_else(|| panic!("{GUIDE} has no section {title}"));
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let own: BTreeSet<_> = declared(&help(&words)).difference(&of_everyone).cloned().collect();
        let named: BTreeSet<_> = options(section).difference(&of_everyone).cloned().collect();
        assert_eq!(named, own, "the options of {title} in {GUIDE}, and those of the program");
        described.insert(title);
    }
    let others: Vec<_> =
        sections.iter().filter(|(title, _)| title.starts_with('`') && !described.contains(*title)).collect();
    assert!(others.is_empty(), "{GUIDE} describes commands that do not exist: {others:?}");
}

#[test]
fn the_program_says_its_exit_codes_and_its_version() {
    assert!(help(&[]).contains("Exit codes: 0 the command succeeded; 1 it failed"), "{}", help(&[]));
    let version = Tool::new(&["--version"]).run();
    assert_eq!(version.stdout, format!("openid-deferred {}\n", env!("CARGO_PKG_VERSION")));
}
