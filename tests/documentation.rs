//! Keeps `docs/` consistent with the code: everything that `docs/specification.md` and the pages under
//! `docs/specification/` name exists, and the pages name everything that they must.
//!
//! On these pages, a link whose text is code and whose target is a Rust file names a test or an item of that file. It
//! names a test if it is in a column called "Test", in a line that starts with "- Test: ", or leads into tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Lists the pages under [`PAGES`].
const INDEX: &str = "docs/specification.md";

/// The folder with one page for each group of sections.
const PAGES: &str = "docs/specification";

/// The page about the IETF draft.
const IETF: &str = "docs/specification/ietf.md";

/// The sections of the IETF draft that the crate cites.
const IETF_SECTIONS: [&str; 7] = [
    "Client Opt-In Signaling",
    "Token Endpoint — Deferred Response",
    "Token Endpoint — Polling",
    "Callback Notification",
    "Cancellation",
    "Sender-Constraint Requirements",
    "Redaction",
];

/// The sections of the two published texts of the OpenID draft, in their order.
const SECTIONS: [&str; 51] = [
    "Abstract",
    "Introduction",
    "Requirements Notation and Conventions",
    "Terminology",
    "Overview",
    "Registration and Discovery Metadata",
    "Authorization Server Metadata",
    "Client Registration Metadata",
    "Authentication using Deferred Token Flow",
    "Starting a Deferred Token Flow",
    "Deferred Code Response Type",
    "Authentication Request",
    "Authentication Request Validation",
    "OpenID Provider Obtains End-User Authorization and Identity Information",
    "Authentication Request Acknowledgment",
    "Authentication Request Acknowledgment Validation",
    "Exchanging the Deferred Code to obtain Deferred Authentication ID",
    "Deferred Code Exchange Request",
    "Deferred Code Exchange Request Validation",
    "Successful Deferred Code Exchange Response",
    "Deferred Code Exchange Response Validation",
    "OpenID Provider Authenticates End-User",
    "Deferred Notification Endpoint",
    "Deferred Client Notification Endpoint",
    "Getting the Authentication Result",
    "Token Request using the Authentication Request ID",
    "Token Request Validation",
    "Successful Token Response",
    "Ping Callback",
    "Canceling an Ongoing Authentication Process",
    "Authentication Cancellation Request",
    "Authentication Cancellation Request Validation",
    "Authentication Cancellation Response",
    "Token Request Error Response",
    "Deferred Code Exchange Error Response",
    "Authentication Request Error Response",
    "Authentication Cancellation Request Error Response",
    "Implementation Considerations",
    "Interim ID Tokens",
    "Multi-valued Response Type Authentication Request",
    "Design Considerations for Poll and Ping",
    "Context on the Progress of Incomplete Authentication Processes",
    "Privacy Considerations",
    "Security Considerations",
    "Usage of Deferred Notification Tokens",
    "IANA Considerations",
    "Use cases",
    "Sample Use Case 1: High Risk Transaction Evaluation",
    "Sample Use Case 2: Step-up identity assurance during a non-registration process",
    "Sample Use Case 3: Identification Based on Physical Evidence",
    "Acknowledgments, Notices, Document History",
];

#[test]
fn every_section_of_both_specifications_is_documented() {
    let pages: String = specification().into_iter().map(|page| page.text).collect();
    let headings = headings(&pages);
    let one_line = pages.split_whitespace().collect::<Vec<_>>().join(" ");
    for section in SECTIONS {
        let is_heading = headings.iter().any(|heading| heading == section);
        assert!(is_heading || one_line.contains(&format!("**{section}**")), "{section} is on no page of {INDEX}");
    }
}

#[test]
fn every_section_of_the_ietf_draft_is_documented_and_no_other_is_cited() {
    let headings = headings(&read(IETF));
    for section in IETF_SECTIONS {
        assert!(headings.iter().any(|heading| heading == section), "{section} is not on {IETF}");
    }
    let mut citations = 0;
    for file in rust_files("src") {
        // A comment may be wrapped inside a title.
        let source = read(&file);
        let lines: Vec<_> = source.lines().map(|line| line.trim().trim_start_matches(['/', '!', ' '])).collect();
        for citation in between(&lines.join(" "), "IETF DTR §", "\n") {
            let is_known = IETF_SECTIONS.iter().any(|section| citation.starts_with(section));
            assert!(is_known, "{file}: IETF DTR §{}", citation.chars().take(40).collect::<String>());
            citations += 1;
        }
    }
    assert!(citations >= 30, "only {citations} citations");
}

#[test]
fn the_index_links_to_every_page_of_the_specification() {
    let pages = specification();
    let index = read(INDEX);
    for page in pages.iter().filter(|page| page.file != INDEX) {
        let target = page.file.strip_prefix("docs/").expect("pages are in docs");
        assert!(index.contains(&format!("]({target})")), "{INDEX} does not link to {}", page.file);
    }
    assert!(pages.len() >= 17, "only {} pages", pages.len());
}

#[test]
fn every_named_test_is_in_the_linked_file() {
    let named: Vec<_> = code_links().into_iter().filter(|link| link.names_a_test).collect();
    for link in &named {
        let source = read(&link.file);
        let is_test = has_test(&source, &link.name) || has_scenario(&source, &link.name);
        assert!(is_test, "{}: {} has no test `{}`", link.place, link.file, link.name);
    }
    let different: BTreeSet<_> = named.iter().map(|link| (&link.file, &link.name)).collect();
    assert!(different.len() >= 600, "only {} tests are named", different.len());
}

#[test]
fn every_named_item_is_in_the_linked_file() {
    let named: Vec<_> = code_links().into_iter().filter(|link| !link.names_a_test).collect();
    for link in &named {
        let source = read(&link.file);
        let is_there = match link.name.rsplit_once("::") {
            None => has_item(&source, &link.name),
            Some((path, item)) => has_item(&of_type(&source, path.rsplit("::").next().unwrap_or(path)), item),
        };
        assert!(is_there, "{}: {} has no item `{}`", link.place, link.file, link.name);
    }
    let different: BTreeSet<_> = named.iter().map(|link| (&link.file, &link.name)).collect();
    assert!(different.len() >= 200, "only {} items are named", different.len());
}

#[test]
fn every_requirement_has_a_test_or_is_marked_as_not_implemented() {
    let mut count = 0;
    for page in specification() {
        for (line, cells) in test_rows(&page) {
            let last = cells.last().expect("a row has cells");
            let not_implemented = last == "–" && cells.concat().contains("not implemented");
            assert!(last.starts_with("[`") || not_implemented, "{}:{line} names no test", page.file);
            count += 1;
        }
    }
    assert!(count >= 180, "only {count} rows have tests");
}

#[test]
fn every_open_question_has_a_test() {
    let mut count = 0;
    for page in specification() {
        let Some((_, questions)) = page.text.split_once("\n## Open questions\n") else { continue };
        let mut sections = questions.split("\n### ");
        // The anchor of a question is above its heading.
        let anchors = questions.matches("<a id=\"").count();
        sections.next();
        let sections: Vec<_> = sections.collect();
        assert_eq!(sections.len(), anchors, "{}: every question has an anchor", page.file);
        for section in sections {
            let question = section.lines().next().unwrap_or_default();
            assert!(section.contains("\n- Code: [`"), "{}: \"{question}\" names no code", page.file);
            assert!(section.contains("\n- Test: [`"), "{}: \"{question}\" names no test", page.file);
            count += 1;
        }
    }
    assert!(count >= 49, "only {count} questions are answered");
}

#[test]
fn every_link_to_code_has_a_target() {
    let mut files = BTreeSet::new();
    for Page { file, text } in specification() {
        for (label, target) in definitions(&text) {
            let target = beside(&file, &target);
            assert!(root().join(&target).is_file(), "{file}: [{label}] leads to {target}, which does not exist");
            assert!(text.contains(&format!("][{label}]")), "{file}: [{label}] is defined and not used");
            files.insert(target);
        }
    }
    assert!(files.len() >= 180, "only {} files are linked to", files.len());

    // Comments may refer to questions.
    for file in rust_files("src").iter().chain(&rust_files("tests")).filter(|file| *file != "tests/documentation.rs") {
        for reference in between(&read(file), "docs/specification", " ") {
            let reference = reference.lines().next().unwrap_or_default();
            let reference = reference.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
            let (page, anchor) = reference.split_once('#').unwrap_or((reference, ""));
            let text = read(&format!("docs/specification{page}"));
            assert!(anchor.is_empty() || anchors(&text).contains(anchor), "{file}: nothing is called {reference}");
        }
    }
}

#[test]
fn every_link_of_the_readme_and_the_pages_has_a_target() {
    let mut pages = markdown_files("docs");
    pages.extend(
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md", "RELEASING.md"]
            .map(str::to_owned),
    );
    let mut links = 0;
    for page in &pages {
        for target in between(&read(page), "](", ")").iter().filter(|target| !target.starts_with("https://")) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { beside(page, file) };
            assert!(root().join(&file).exists(), "{page}: {target} does not exist");
            if !anchor.is_empty() {
                assert!(anchors(&read(&file)).contains(anchor), "{page}: nothing is called {target}");
            }
        }
    }
    assert!(pages.len() >= 35 && links >= 200, "{links} links on {} pages", pages.len());
}

#[test]
fn every_alert_is_in_the_guide_for_operations() {
    let alerts = read("src/poller/event.rs");
    let guide = read("docs/production.md");
    let alerts = alerts.split("\n    /// ").collect::<Vec<_>>();
    let mut count = 0;
    for (index, line) in alerts.iter().enumerate() {
        // The variant follows the last line of its comment.
        if let Some(rest) =
            alerts[index..].iter().find(|line| line.contains(" {\n")).filter(|_| line.contains("Alert an operator"))
        {
            let variant = rest.split_once('\n').unwrap().1.trim_start().split([' ', '{']).next().unwrap();
            assert!(guide.contains(&format!("| `{variant}` |")), "{variant} is not in the table of alerts");
            count += 1;
        }
    }
    // The metric of alerts counts the same events.
    let counted = read("src/poller/event.rs").matches(" { .. } => \"").count();
    assert!(count == counted && count >= 12, "{count} alerts are documented, {counted} are counted");
}

#[test]
fn every_span_and_metric_is_in_the_guide_for_operations() {
    let guide = read("docs/production.md");
    let mut named = BTreeSet::new();
    for file in rust_files("src").iter().filter(|file| !file.starts_with("src/store")) {
        named.extend(between(&read(file), "\"openid_deferred", "\"").into_iter().filter(|rest| !rest.is_empty()));
    }
    for rest in &named {
        assert!(guide.contains(&format!("| `openid_deferred{rest}` |")), "openid_deferred{rest} is not in a table");
    }
    assert_eq!(named.len(), 23, "{named:?}");
}

#[test]
fn every_anchor_is_unique() {
    let mut questions = Vec::new();
    for Page { file, text } in specification() {
        let on_this_page = between(&text, "<a id=\"", "\"></a>");
        let all: Vec<_> =
            on_this_page.iter().cloned().chain(headings(&text).iter().map(|heading| slug(heading))).collect();
        let different: BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len(), "{file}: two places have the same anchor");
        questions.extend(on_this_page);
    }
    assert!(questions.len() >= 50, "only {} questions have an anchor", questions.len());
    let different: BTreeSet<_> = questions.iter().collect();
    assert_eq!(different.len(), questions.len(), "two pages have a question with the same anchor");
}

#[test]
fn the_documented_rules_are_the_existing_ones() {
    let source = read("src/error/rule.rs");
    let declared = source.lines().filter_map(|line| {
        let (rule, rest) = line.strip_prefix("    ")?.split_once(" = \"")?;
        let is_rule = rule.chars().all(|character| character.is_ascii_alphanumeric()) && rest.contains("\", \"");
        is_rule.then(|| rule.to_owned())
    });
    let declared: BTreeSet<_> = declared.collect();
    let is_rule = |name: &String| name.starts_with(|first: char| first.is_ascii_uppercase());
    let named: BTreeSet<_> =
        specification().iter().flat_map(|page| paths(&page.text, "Rule::")).filter(is_rule).collect();
    assert!(declared.len() >= 40, "only {} rules were found", declared.len());
    let missing: Vec<_> = declared.difference(&named).collect();
    assert!(missing.is_empty(), "name these rules on the pages of their sections in {PAGES}: {missing:?}");
    let unknown: Vec<_> = named.difference(&declared).collect();
    assert!(unknown.is_empty(), "{PAGES} names rules that src/error/rule.rs does not have: {unknown:?}");
}

#[test]
fn the_documented_settings_are_the_existing_ones() {
    for (builder, folder, at_least) in [("ClientBuilder", "src/client", 25), ("PollerBuilder", "src/poller", 12)] {
        let path = format!("{builder}::");
        let files = rust_files(folder).into_iter().filter(|file| file.starts_with(&format!("{folder}/builder")));
        let source: String = files.map(|file| of_type(&read(&file), builder)).collect();
        let public = ["    pub fn ", "    pub async fn "];
        let declared = source.lines().filter_map(|line| public.iter().find_map(|start| line.strip_prefix(start)));
        let declared: BTreeSet<_> = declared.map(identifier).collect();
        let listed = paths(&read("docs/specification/settings.md"), &path);
        assert!(declared.len() >= at_least, "only {} settings were found", declared.len());
        let missing: Vec<_> = declared.difference(&listed).collect();
        assert!(
            missing.is_empty(),
            "give these settings of {builder} a row in docs/specification/settings.md: {missing:?}"
        );
        let unknown: Vec<_> = listed.difference(&declared).collect();
        assert!(unknown.is_empty(), "docs/specification/settings.md names settings that do not exist: {unknown:?}");
        for page in specification() {
            for named in paths(&page.text, &path) {
                assert!(has_item(&source, &named), "{}: there is no `{builder}::{named}`", page.file);
            }
        }
    }
}

/// Constants that do not limit the input from the network or its cost.
const NO_LIMITS: [&str; 42] = [
    "BATCH",
    "BLOCK",
    "CALLS_PER_TRANSACTION",
    "CHECK_INTERVAL",
    "CLOCKS_DIFFER",
    "CLOCKS_DISAGREE",
    "COMMIT_PAUSE",
    "CORRECTION_PAUSE",
    "DAY",
    "ENDED_PATIENCE",
    "ESCAPE",
    "FIRST_STORE_PAUSE",
    "FORGET_PATIENCE",
    "FORMAT",
    "FRESH_FOR",
    "LENGTH",
    "LONGEST",
    "LONGEST_COMMIT_PAUSE",
    "LONGEST_SIGNATURE",
    "LONG_LOG",
    "LONG_OVERDUE",
    "LONG_TRANSACTION",
    "LONG_UNDELIVERED",
    "OLDEST",
    "OLDEST_FORMAT",
    "OTHERS_CLAIM",
    "OUTAGE",
    "PRIME_WIDTH",
    "PURGE_BATCH",
    "PURGE_EVERY",
    "PURPOSE",
    "RETRY_PAUSE",
    "RSA_EXPONENT",
    "SOON",
    "SPREAD_BATCH",
    "STATEMENTS",
    "STORE_PAUSE",
    "TAG_LENGTH",
    "TRIED_ROWS",
    "USUAL_MEMBERS",
    "VERSION",
    "WIDTH",
];

#[test]
fn every_limit_is_in_the_table_with_the_value_of_the_code() {
    let mut listed = BTreeSet::new();
    for (number, line) in numbered(&read("docs/limits.md")) {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, value, place] = cells[..] else { continue };
        let Some((name, file)) = place.strip_prefix("[`").and_then(|place| place.split_once("`](../")) else {
            continue;
        };
        let file = file.split(')').next().unwrap();
        let source = read(file);
        let item = name.rsplit("::").next().unwrap();
        assert!(has_item(&source, item), "line {number}: {file} has no item `{item}`");
        let Some(constant) = constants(&source).into_iter().find(|constant| constant.name == name) else {
            assert!(!name.chars().all(|character| character.is_uppercase() || character == '_'), "{name} is not read");
            continue;
        };
        let stated = if name == "FAR_FUTURE" { constant.value.clone() } else { quantities(value) };
        // Lifetimes in tokens are numbers of seconds.
        let seconds = constant.value.iter().map(|value| value * 1_000).collect::<Vec<_>>();
        assert!(
            stated == constant.value || stated == seconds,
            "line {number}: `{name}` is {:?} and not {stated:?}",
            constant.value
        );
        listed.insert((file.to_owned(), name.to_owned()));
    }
    assert!(listed.len() >= 70, "only {} limits are listed", listed.len());

    let (mut no_limits, mut unknown) = (BTreeSet::from(NO_LIMITS), Vec::new());
    for file in rust_files("src") {
        let is_for_tests =
            ["src/testing", "src/store/contract", "src/fuzzing"].iter().any(|room| file.starts_with(room));
        if is_for_tests || file.ends_with("tests.rs") || file.contains("/tests/") {
            continue;
        }
        for Constant { name, .. } in constants(&read(&file)) {
            no_limits.remove(name.as_str());
            let known = NO_LIMITS.contains(&name.as_str()) || listed.contains(&(file.clone(), name.clone()));
            if !known {
                unknown.push(format!("`{name}` of {file}"));
            }
        }
    }
    assert_eq!(unknown, [""; 0], "not in docs/limits.md; give each a row, or say here that it is no limit");
    assert_eq!(no_limits, BTreeSet::new(), "no longer there");
}

/// A constant that is a number or a time, here in milliseconds.
struct Constant {
    name: String,
    value: Vec<u64>,
}

/// The constants of a file that are numbers or times, except those of its tests.
fn constants(source: &str) -> Vec<Constant> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let declarations = code.split("const ").skip(1).filter_map(|rest| rest.split_once(';')).map(|(one, _)| one);
    declarations
        .filter_map(|declaration| {
            let (name, rest) = declaration.split_once(": ")?;
            let (kind, expression) = rest.split_once(" = ")?;
            let factor = match kind {
                "usize"
                | "u64"
                | "u32"
                | "u8"
                | "std::ops::RangeInclusive<usize>"
                | "std::ops::RangeInclusive<u32>" => 1,
                "Duration" if expression.starts_with("Duration::from_secs(") => 1_000,
                "Duration" if expression.starts_with("Duration::from_millis(") => 1,
                "Duration" => panic!("{name}: what is {expression}?"),
                _ => return None,
            };
            let expression = expression.rsplit_once('(').map_or(expression, |(_, inside)| inside.trim_end_matches(')'));
            let product = |product: &str| {
                let factors = product.split(['*', '+']).map(|factor| factor.trim().replace('_', "").parse::<u64>());
                // The lengths of layouts are sums.
                let factors = factors.collect::<Result<Vec<_>, _>>().ok()?;
                Some(if product.contains('+') { factors.iter().sum() } else { factors.iter().product::<u64>() })
            };
            let value = expression.split("..=").map(product).collect::<Option<Vec<_>>>()?;
            Some(Constant { name: name.to_owned(), value: value.into_iter().map(|value| value * factor).collect() })
        })
        .collect()
}

/// The quantities in a text with their units: sizes in bytes, times in milliseconds.
fn quantities(text: &str) -> Vec<u64> {
    let words: Vec<_> = text.split_whitespace().collect();
    let unit = |index: usize| match words.get(index + 1).map(|word| word.trim_end_matches(',')) {
        Some("KiB") => 1_024,
        Some("MiB") => 1_024 * 1_024,
        Some("s") => 1_000,
        Some("min") => 60_000,
        Some("h") => 3_600_000,
        Some("d") => 86_400_000,
        _ => 1,
    };
    let number = |word: &str| word.replace(',', "").parse::<u64>().ok();
    words.iter().enumerate().filter_map(|(index, word)| Some(number(word)? * unit(index))).collect()
}

#[test]
fn every_dependency_has_a_reason_in_its_section() {
    let manifest = read("Cargo.toml");
    let mut declared: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut table = "";
    for line in manifest.lines() {
        match line.strip_prefix('[') {
            Some(rest) => table = rest.trim_end_matches(']'),
            None => {
                let Some((name, rest)) = line.split_once(" = ") else { continue };
                let section = match table {
                    "dependencies" if rest.contains("optional = true") => "With a feature",
                    "dependencies" => "Always",
                    table if table.starts_with("target.") => "Always",
                    "dev-dependencies" => "For tests and examples",
                    _ => continue,
                };
                declared.entry(section).or_default().insert(name.to_owned());
            }
        }
    }
    let repeated: BTreeSet<_> = declared.iter().filter(|(section, _)| **section != "For tests and examples").collect();
    let repeated: BTreeSet<_> = repeated.into_iter().flat_map(|(_, names)| names.clone()).collect();
    declared.get_mut("For tests and examples").unwrap().retain(|name| !repeated.contains(name));

    let page = read("docs/dependencies.md");
    for (section, names) in &declared {
        let (_, rest) =
            page.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("there is no {section}"));
        let rows = rest.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
        let named = rows.flat_map(|row| row.split(" | ").next().unwrap().split(", ").map(|name| name.replace('`', "")));
        assert_eq!(&named.collect::<BTreeSet<_>>(), names, "{section}");
    }
    assert_eq!(declared.len(), 3);
    assert!(declared.values().map(BTreeSet::len).sum::<usize>() >= 45);
}

/// A Markdown page.
struct Page {
    file: String,
    text: String,
}

/// The index of the specification and its pages.
fn specification() -> Vec<Page> {
    let files = [INDEX.to_owned()].into_iter().chain(markdown_files(PAGES));
    files.map(|file| Page { text: read(&file), file }).collect()
}

/// A link from a page into a Rust file.
struct CodeLink {
    place: String,
    name: String,
    file: String,
    names_a_test: bool,
}

fn code_links() -> Vec<CodeLink> {
    let mut links = Vec::new();
    for page in specification() {
        let definitions = definitions(&page.text);
        let test_cells: BTreeMap<usize, String> =
            test_rows(&page).into_iter().filter_map(|(line, mut cells)| Some((line, cells.pop()?))).collect();
        for (number, text) in numbered(&page.text) {
            let tests_begin = match test_cells.get(&number) {
                Some(cell) => text.rfind(cell.as_str()).unwrap_or(text.len()),
                None if text.starts_with("- Test: ") => 0,
                None => text.len(),
            };
            for (start, _) in text.match_indices("[`") {
                let rest = &text[start + 2..];
                let Some((name, rest)) = rest.split_once("`][") else { continue };
                let Some((label, _)) = rest.split_once(']') else { continue };
                let place = format!("{}:{number}", page.file);
                let target = definitions.get(label).unwrap_or_else(|| panic!("{place}: [{label}] leads nowhere"));
                let file = beside(&page.file, target);
                let names_a_test = start >= tests_begin || file.starts_with("tests/") || file.contains("/tests");
                links.push(CodeLink { place, name: name.to_owned(), file, names_a_test });
            }
        }
    }
    links
}

/// The rows of all tables whose last column is called "Test", as cells.
fn test_rows(page: &Page) -> Vec<(usize, Vec<String>)> {
    let mut rows = Vec::new();
    let mut header: Option<Vec<String>> = None;
    for (number, line) in numbered(&page.text) {
        let Some(inner) = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) else {
            if !line.starts_with('|') {
                header = None;
            }
            continue;
        };
        let cells: Vec<_> = inner.split(" | ").map(str::to_owned).collect();
        match &header {
            None => header = Some(cells),
            Some(header) => {
                let (is, should_be) = (cells.len(), header.len());
                assert_eq!(is, should_be, "{}:{number} has another number of cells than its table", page.file);
                if header.last().is_some_and(|name| name == "Test") {
                    rows.push((number, cells));
                }
            }
        }
    }
    rows
}

fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<_> = source.lines().collect();
    let signature = format!("fn {name}(");
    lines.iter().enumerate().any(|(index, line)| {
        let above = lines.iter().take(index).rev().take_while(|line| !line.trim().is_empty());
        line.contains(&signature)
            && above.take(4).any(|line| line.trim() == "#[test]" || line.trim().starts_with("#[tokio::test"))
    })
}

/// Whether the source has a function of this name that the matrix of `tests/interop` runs against several OPs.
fn has_scenario(source: &str, name: &str) -> bool {
    let is_there = ["(", "<"].iter().any(|end| source.contains(&format!("pub(crate) async fn {name}{end}")));
    is_there && read("tests/interop/matrix.rs").contains(&format!("::{name}: "))
}

/// Whether the source declares this name as a function, type, constant or variant of an enum.
fn has_item(source: &str, name: &str) -> bool {
    let keywords = ["fn", "struct", "enum", "trait", "const", "mod"];
    source.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).any(|line| {
        let declared = keywords.iter().any(|keyword| {
            line.match_indices(&format!("{keyword} {name}")).any(|(start, found)| {
                let before = line[..start].chars().next_back().is_none_or(|character| " (".contains(character));
                before && !line[start + found.len()..].starts_with(is_part_of_identifier)
            })
        });
        let is_variant = line.strip_prefix(name).is_some_and(|rest| {
            name.starts_with(|first: char| first.is_ascii_uppercase())
                && (rest == "," || rest.starts_with('(') || rest.starts_with(" {") || rest.starts_with(" = \""))
        });
        declared || is_variant
    })
}

/// The bodies of the declarations and `impl` blocks of a type or trait.
fn of_type(source: &str, name: &str) -> String {
    let (mut bodies, mut is_inside) = (String::new(), false);
    for line in source.lines() {
        if is_inside {
            bodies += line;
            bodies.push('\n');
            is_inside = !line.starts_with('}');
        } else {
            is_inside = is_about(line, name) && !line.ends_with([';', '}']);
        }
    }
    bodies
}

/// Whether a declaration or an `impl` block of this type begins with this line.
fn is_about(line: &str, name: &str) -> bool {
    if line.starts_with([' ', '/']) {
        return false;
    }
    let declares = |keyword: &str| line.split_once(keyword).is_some_and(|(_, rest)| identifier(rest) == name);
    let implements = line.starts_with("impl") && {
        let implementor = line.rsplit(" for ").next().unwrap_or(line);
        implementor.split(|character| !is_part_of_identifier(character)).any(|word| word == name)
    };
    implements || ["struct ", "enum ", "trait "].into_iter().any(declares)
}

/// The definitions `[label]: target` at the end of a page.
fn definitions(document: &str) -> BTreeMap<String, String> {
    let lines = document.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    lines.map(|(label, target)| (label.to_owned(), target.to_owned())).collect()
}

fn anchors(document: &str) -> BTreeSet<String> {
    let questions = between(document, "<a id=\"", "\"></a>");
    questions.into_iter().chain(headings(document).iter().map(|heading| slug(heading))).collect()
}

fn headings(document: &str) -> Vec<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim().to_owned()).collect()
}

/// The anchor that Markdown renderers generate for a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -".contains(*character));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// All texts between two marks.
fn between(text: &str, start: &str, end: &str) -> Vec<String> {
    let found = text.split(start).skip(1).map(|rest| rest.split(end).next().unwrap_or_default());
    found.map(str::to_owned).collect()
}

/// The identifiers after a type's name in paths: `NoCode` for `Rule::NoCode`.
fn paths(text: &str, start: &str) -> BTreeSet<String> {
    text.split(start).skip(1).map(identifier).collect()
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|&character| is_part_of_identifier(character)).collect()
}

fn is_part_of_identifier(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn numbered(document: &str) -> impl Iterator<Item = (usize, &str)> {
    document.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// The file that a link on a page leads to, relative to the root of the repository.
fn beside(page: &str, target: &str) -> String {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            ".." => assert!(parts.pop().is_some(), "{page}: {target} leaves the repository"),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn rust_files(folder: &str) -> Vec<String> {
    files(folder, ".rs")
}

fn markdown_files(folder: &str) -> Vec<String> {
    files(folder, ".md")
}

/// The files in a folder and below whose names have this ending, in the order of their names.
fn files(folder: &str, end: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).expect("the folder exists") {
        let entry = entry.expect("its entries can be read");
        let name = format!("{folder}/{}", entry.file_name().to_str().expect("file names are UTF-8"));
        match entry.path().is_dir() {
            true => found.extend(files(&name, end)),
            false if name.ends_with(end) => found.push(name),
            false => {}
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Checks the statements of `docs/interoperability.md` about its tests.
#[test]
fn the_interoperability_page_names_every_op_and_the_size_of_the_corpus() {
    let page = read("docs/interoperability.md");
    let matrix = read("tests/interop/matrix.rs");
    for op in ["node", "keycloak", "zitadel", "glewlwyd", "idpyoidc"] {
        assert!(matrix.contains(op), "the matrix has no {op}");
        let name = if op == "node" { "oidc-provider" } else { op };
        assert!(page.to_lowercase().contains(name), "docs/interoperability.md does not mention {name}");
    }
    let mut files = 0;
    for kind in fs::read_dir("tests/wild").expect("the corpus is there").map(|kind| kind.expect("a folder").path()) {
        files += if kind.is_dir() { fs::read_dir(kind).expect("a kind can be read").count() } else { 0 };
    }
    let stated = format!("`tests/wild` contains {files} files");
    assert!(page.contains(&stated), "docs/interoperability.md does not say: {stated}");
}
