//! Compares the dashboard, the alert rules and the runbook of `docs/operations` with the metrics and events of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

const DASHBOARD: &str = "docs/operations/dashboard.json";
const RULES: &str = "docs/operations/alerts.yaml";
const RUNBOOK: &str = "docs/operations/runbook.md";

/// What a section of the runbook answers, in this order.
const QUESTIONS: [&str; 5] =
    ["**What it means.**", "**What users see.**", "**How to look.**", "**What to do.**", "**When it ends.**"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    alert: String,
    expr: String,
    #[serde(default, rename = "for")]
    _lasting: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<Rule> {
    let rules: Rules = serde_yaml_ng::from_str(&read(RULES)).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The queries of the dashboard, those of its variables included.
fn queries() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let panels = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| variable["query"]["query"].as_str().map(str::to_owned));
    panels.chain(variables).collect()
}

/// A metric of the guide: its kind, and its labels with the values that the guide names.
struct Metric {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// The metrics that the guide documents, by name. `tests/documentation.rs` checks that these are the ones in the code.
fn metrics() -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for line in read("docs/production.md").lines().filter(|line| line.starts_with("| `openid_deferred_")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { panic!("{line}") };
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut label, mut is_value) = (String::new(), false);
        for (number, part) in labels.split('`').enumerate() {
            if number % 2 == 0 {
                is_value |= part.starts_with(':');
            } else if is_value {
                values.entry(label.clone()).or_default().insert(part.to_owned());
            } else {
                label = part.to_owned();
                values.entry(label.clone()).or_default();
            }
        }
        metrics.insert(name.trim_matches('`').to_owned(), Metric { kind: kind.to_owned(), labels: values });
    }
    metrics
}

/// Whether this character is part of a name.
fn in_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The metrics in a query, each with the text between its braces.
fn used(query: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (start, _) in query.match_indices("openid_deferred_") {
        let rest = &query[start..];
        let name: String = rest.chars().take_while(|character| in_name(*character)).collect();
        let after = &rest[name.len()..];
        let selector = after.strip_prefix('{').and_then(|after| after.split_once('}')).map_or("", |(inside, _)| inside);
        found.push((name, selector.to_owned()));
    }
    found
}

/// The name in the code of a name that Prometheus shows: an exporter writes the sum and the number of a histogram as
/// metrics of their own. metrics-exporter-prometheus adds no unit, because the names have it.
fn documented<'a>(metrics: &'a BTreeMap<String, Metric>, name: &str) -> Option<&'a Metric> {
    let of_histogram = ["_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    match of_histogram.and_then(|name| metrics.get(name)) {
        Some(metric) if metric.kind == "histogram" => Some(metric),
        _ => metrics.get(name).filter(|metric| metric.kind != "histogram"),
    }
}

#[test]
fn the_dashboard_and_the_alert_rules_use_only_existing_metrics_and_labels() {
    let metrics = metrics();
    assert!(metrics.len() >= 19, "{:?}", metrics.keys());
    assert_eq!(metrics["openid_deferred_sign_ins"].labels["state"].len(), 4);
    let mut seen = BTreeSet::new();
    for query in queries().into_iter().chain(rules().into_iter().map(|rule| rule.expr)) {
        let all = used(&query);
        assert!(!all.is_empty(), "{query}");
        for (name, selector) in all {
            let metric = documented(&metrics, &name).unwrap_or_else(|| panic!("{name} is not in the guide: {query}"));
            for matcher in selector.split(", ").filter(|matcher| !matcher.is_empty()) {
                let label: String = matcher.chars().take_while(|character| in_name(*character)).collect();
                let values =
                    metric.labels.get(&label).unwrap_or_else(|| panic!("{name} has no label {label}: {query}"));
                let wanted = matcher.split('"').nth(1).unwrap_or_else(|| panic!("{matcher}"));
                for value in wanted.split('|').filter(|value| !value.starts_with('$')) {
                    let is_known = values.contains(value) || label == "alert" && alerts().contains(value);
                    assert!(is_known, "{name} has no {label} {value}: {query}");
                }
            }
            seen.insert(name.trim_end_matches("_sum").trim_end_matches("_count").to_owned());
        }
    }
    let unseen: Vec<_> = metrics.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(unseen.is_empty(), "neither the dashboard nor a rule shows {unseen:?}");
}

/// The values of the label `alert`.
fn alerts() -> BTreeSet<String> {
    let source = read("src/poller/event.rs");
    let names = source.split("{ .. } => \"").skip(1).filter_map(|rest| rest.split_once('"'));
    names.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn counters_use_rates_and_gauges_do_not() {
    let metrics = metrics();
    for query in queries().into_iter().chain(rules().into_iter().map(|rule| rule.expr)) {
        for (name, _) in used(&query).into_iter().filter(|_| !query.starts_with("label_values")) {
            let kind = documented(&metrics, &name).unwrap().kind.as_str();
            let is_rate = ["rate(", "increase("].iter().any(|function| query.contains(&format!("{function}{name}")));
            match kind {
                // The value itself only tells that it has just appeared.
                "counter" => assert!(is_rate || query.contains("unless"), "{name} needs a rate: {query}"),
                "gauge" => assert!(!is_rate, "{name} is a gauge: {query}"),
                _ => assert!(is_rate, "{name} needs a rate: {query}"),
            }
            // Every replica sets it to the same value.
            let is_of_store = ["sign_ins", "overdue_seconds", "undelivered_seconds", "_rows"];
            if is_of_store.iter().any(|end| name.ends_with(end)) && !query.starts_with("absent") {
                let start = query.find(&name).unwrap();
                assert!(query[..start].contains("max"), "{name} would be counted once for each replica: {query}");
            }
        }
    }
}

#[test]
fn every_alert_has_a_complete_section_in_the_runbook() {
    let runbook = read(RUNBOOK);
    let sections: BTreeMap<_, _> = runbook.split("\n### ").skip(1).filter_map(|rest| rest.split_once('\n')).collect();
    let rules = rules();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = &rule.alert;
        let section = sections.get(&**name).unwrap_or_else(|| panic!("{RUNBOOK} has no section {name}"));
        let places: Vec<_> = QUESTIONS.iter().map(|question| section.find(question)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{name}: {places:?}");
        let link = &rule.annotations["runbook_url"];
        assert!(link.ends_with(&format!("/{RUNBOOK}#{}", name.to_lowercase())), "{link}");
        assert!(runbook.contains(&format!("](#{})", name.to_lowercase())), "{name} is not in the list of the runbook");
        assert!(["critical", "warning"].contains(&&*rule.labels["severity"]), "{name}");
        assert!(rule.annotations.contains_key("summary"), "{name}");
        assert!(names.insert(&**name), "{name} is there twice");
    }
    let others: Vec<_> = sections.keys().filter(|title| !names.contains(*title)).collect();
    assert!(others.is_empty(), "{RUNBOOK} explains alerts that do not exist: {others:?}");
    // Each event with an alert is looked at by a rule, by its own gauge or by its name.
    let all: String = rules.iter().map(|rule| format!("{}\n", rule.expr)).collect();
    let of_gauges = [
        ("client_refused", "openid_deferred_client_refused"),
        ("store_failed", "openid_deferred_store_errors_total"),
        ("unknown_client", "openid_deferred_unknown_client_rows"),
        ("missing_key", "reason=\"missing_key\""),
        ("newer_format", "reason=\"newer_format\""),
        ("op_unreachable", "openid_deferred_op_unreachable"),
        ("panicked", "openid_deferred_panics_total"),
    ];
    for event in alerts() {
        let gauge = of_gauges.iter().find(|(name, _)| *name == event).map_or(&*event, |(_, gauge)| gauge);
        assert!(all.contains(gauge), "no rule of {RULES} looks at the event {event}");
    }
}

/// The commands of the runbook exist: the guide of the tool, which a test compares with the tool, describes them.
#[test]
fn the_runbook_uses_only_documented_commands() {
    let guide = read("docs/operations/command-line.md");
    let runbook = read(RUNBOOK);
    let mut count = 0;
    for rest in runbook.split("openid-deferred ").skip(1) {
        let command: String =
            rest.chars().take_while(|character| character.is_ascii_lowercase() || *character == '-').collect();
        assert!(guide.contains(&format!("\n## `{command}`\n")), "the tool has no command {command:?}");
        count += 1;
    }
    assert!(count >= 10, "{count} commands");
}
