//! `docs/specification.md` cannot rot: what it names exists, and what it must name is named there.
//!
//! In the document, a link whose text is code and whose target is a Rust file names a test of that file where it
//! stands in a column called "Test" or points into tests, and an item of that file everywhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENT: &str = "docs/specification.md";

/// The sections of the two published texts of the draft, in their order.
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
fn every_section_of_both_texts_has_its_place() {
    let document = document();
    let headings = headings(&document);
    let one_line = document.split_whitespace().collect::<Vec<_>>().join(" ");
    for section in SECTIONS {
        let is_heading = headings.iter().any(|heading| heading == section);
        assert!(is_heading || one_line.contains(&format!("**{section}**")), "{section} is not in {DOCUMENT}");
    }
}

#[test]
fn every_test_that_is_named_is_a_test_of_the_file_it_links_to() {
    let named: Vec<_> = code_links().into_iter().filter(|link| link.names_a_test).collect();
    for link in &named {
        let source = read(&link.file);
        let is_test = has_test(&source, &link.name) || has_scenario(&source, &link.name);
        assert!(is_test, "line {}: {} has no test `{}`", link.line, link.file, link.name);
    }
    let different: BTreeSet<_> = named.iter().map(|link| (&link.file, &link.name)).collect();
    assert!(different.len() >= 200, "only {} tests are named", different.len());
}

#[test]
fn every_item_that_is_named_stands_in_the_file_it_links_to() {
    let named: Vec<_> = code_links().into_iter().filter(|link| !link.names_a_test).collect();
    for link in &named {
        let source = read(&link.file);
        let item = link.name.rsplit("::").next().expect("a split has a last part");
        assert!(has_item(&source, item), "line {}: {} has no item `{}`", link.line, link.file, link.name);
    }
    let different: BTreeSet<_> = named.iter().map(|link| (&link.file, &link.name)).collect();
    assert!(different.len() >= 100, "only {} items are named", different.len());
}

#[test]
fn every_duty_and_answer_has_a_test_or_says_that_it_is_not_built() {
    let rows: Vec<_> = test_rows(&document());
    for (line, cells) in &rows {
        let last = cells.last().expect("a row has cells");
        let not_built = last == "–" && cells.concat().to_lowercase().contains("built");
        assert!(last.starts_with("[`") || not_built, "line {line} names no test");
    }
    assert!(rows.len() >= 120, "only {} rows have tests", rows.len());
}

#[test]
fn every_link_leads_somewhere() {
    let document = document();
    let definitions = definitions(&document);
    for (label, target) in &definitions {
        assert!(path(target).is_file(), "[{label}] leads to {target}, which is not there");
        assert!(document.contains(&format!("][{label}]")), "[{label}] is defined and not used");
    }
    assert!(definitions.len() >= 40, "only {} files are linked to", definitions.len());

    let anchors = anchors(&document);
    let inside = between(&document, "](", ")");
    for target in &inside {
        match target.strip_prefix('#') {
            Some(anchor) => assert!(anchors.contains(anchor), "nothing is called #{anchor}"),
            None => assert!(path(target).exists(), "{target} is not there"),
        }
    }
    assert!(inside.len() >= 60, "only {} links lead into the document", inside.len());

    // Comments may refer to questions.
    for file in rust_files("src") {
        for anchor in between(&read(&file), "specification.md#", " ") {
            let anchor = anchor.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
            assert!(anchors.contains(anchor), "{file}: nothing is called #{anchor}");
        }
    }
}

#[test]
fn every_link_of_the_readme_and_the_guides_leads_somewhere() {
    let guides = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let guides = guides.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let (mut pages, mut links) = (0, 0);
    for page in
        guides.chain(["README.md", "SECURITY.md", "CONTRIBUTING.md", "RELEASING.md"].map(|page| root().join(page)))
    {
        pages += 1;
        let text = fs::read_to_string(&page).unwrap();
        for target in between(&text, "](", ")").iter().filter(|target| !target.starts_with("https://")) {
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(file.exists(), "{}: {target} is not there", page.display());
            if !anchor.is_empty() {
                let known = anchors(&fs::read_to_string(&file).unwrap());
                assert!(known.contains(anchor), "{}: nothing is called {target}", page.display());
            }
        }
    }
    assert!(pages >= 8 && links >= 30, "{links} links on {pages} pages");
}

#[test]
fn every_alert_is_in_the_guide_for_operations() {
    let alerts = read("src/poller/event.rs");
    let guide = read("docs/production.md");
    let alerts = alerts.split("\n    /// ").collect::<Vec<_>>();
    let mut count = 0;
    for (index, line) in alerts.iter().enumerate() {
        // The variant stands behind the last line of its comment.
        if let Some(rest) =
            alerts[index..].iter().find(|line| line.contains(" {\n")).filter(|_| line.contains("Alert somebody"))
        {
            let variant = rest.split_once('\n').unwrap().1.trim_start().split([' ', '{']).next().unwrap();
            assert!(guide.contains(&format!("| `{variant}` |")), "{variant} is not in the table of alerts");
            count += 1;
        }
    }
    assert!(count >= 7, "{count} alerts");
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
    assert_eq!(named.len(), 20, "{named:?}");
}

#[test]
fn every_question_has_an_anchor_of_its_own() {
    let document = document();
    let mut questions = between(&document, "<a id=\"", "\"></a>");
    assert!(questions.len() >= 38, "only {} questions are answered", questions.len());
    questions.extend(headings(&document).iter().map(|heading| slug(heading)));
    let different: BTreeSet<_> = questions.iter().collect();
    assert_eq!(different.len(), questions.len(), "two places have the same anchor");
}

#[test]
fn the_rules_that_are_named_are_those_that_exist() {
    let source = read("src/error/rule.rs");
    let declared = source.lines().filter_map(|line| {
        let (rule, rest) = line.strip_prefix("    ")?.split_once(" = \"")?;
        let is_rule = rule.chars().all(|character| character.is_ascii_alphanumeric()) && rest.contains("\", \"");
        is_rule.then(|| rule.to_owned())
    });
    let declared: BTreeSet<_> = declared.collect();
    let is_rule = |name: &String| name.starts_with(|first: char| first.is_ascii_uppercase());
    let named: BTreeSet<_> = paths(&document(), "Rule::").into_iter().filter(is_rule).collect();
    assert!(declared.len() >= 40, "only {} rules were found", declared.len());
    assert_eq!(named, declared, "{DOCUMENT} and src/error/rule.rs differ; give a new rule its row");
}

#[test]
fn the_settings_that_are_named_are_those_that_exist() {
    let files = rust_files("src/client").into_iter().filter(|file| file.starts_with("src/client/builder"));
    let source: String = files.map(|file| read(&file)).collect();
    let public = ["    pub fn ", "    pub async fn "];
    let declared = source.lines().filter_map(|line| public.iter().find_map(|start| line.strip_prefix(start)));
    let declared: BTreeSet<_> = declared.map(identifier).collect();
    let document = document();
    let settings = document.split_once("\n# Settings\n").expect("there is a list of settings").1;
    let listed = paths(settings, "ClientBuilder::");
    assert!(declared.len() >= 25, "only {} settings were found", declared.len());
    assert_eq!(listed, declared, "{DOCUMENT} and src/client/builder.rs differ; give a new setting its row");
    for named in paths(&document, "ClientBuilder::") {
        assert!(has_item(&source, &named), "there is no `ClientBuilder::{named}`");
    }
}

/// Constants that are no limit of what comes from the network, or of what it can cost.
const NO_LIMITS: [&str; 33] = [
    "ESCAPE",
    "BATCH",
    "BLOCK",
    "CALLS_PER_TRANSACTION",
    "CLAMP_PAUSE",
    "COMMIT_PAUSE",
    "DAY",
    "ENDED_PATIENCE",
    "FIRST_STORE_PAUSE",
    "FORGET_PATIENCE",
    "FORMAT",
    "LENGTH",
    "LONGEST",
    "LONGEST_COMMIT_PAUSE",
    "LONGEST_SIGNATURE",
    "LOOK_EVERY",
    "OTHERS_CLAIM",
    "OUTAGE",
    "PRIME_WIDTH",
    "PURGE_BATCH",
    "PURPOSE",
    "PURGE_EVERY",
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
fn every_limit_is_in_the_table_with_the_value_that_the_code_has() {
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

/// A constant that is a number or a time, which is in milliseconds here.
struct Constant {
    name: String,
    value: Vec<u64>,
}

/// The constants of a file that hold numbers or times, those of its tests aside.
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
                // Lengths of layouts are sums.
                let factors = factors.collect::<Result<Vec<_>, _>>().ok()?;
                Some(if product.contains('+') { factors.iter().sum() } else { factors.iter().product::<u64>() })
            };
            let value = expression.split("..=").map(product).collect::<Option<Vec<_>>>()?;
            Some(Constant { name: name.to_owned(), value: value.into_iter().map(|value| value * factor).collect() })
        })
        .collect()
}

/// The numbers that a text states, with their units: sizes in bytes, times in milliseconds.
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
fn every_dependency_has_a_reason_in_the_section_where_it_belongs() {
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

/// A link from the document to something in a Rust file.
struct CodeLink {
    line: usize,
    name: String,
    file: String,
    names_a_test: bool,
}

fn code_links() -> Vec<CodeLink> {
    let document = document();
    let definitions = definitions(&document);
    let test_cells: BTreeMap<usize, String> =
        test_rows(&document).into_iter().filter_map(|(line, mut cells)| Some((line, cells.pop()?))).collect();
    let mut links = Vec::new();
    for (number, text) in numbered(&document) {
        let tests_begin = test_cells.get(&number).and_then(|cell| text.rfind(cell.as_str())).unwrap_or(text.len());
        for (start, _) in text.match_indices("[`") {
            let rest = &text[start + 2..];
            let Some((name, rest)) = rest.split_once("`][") else { continue };
            let Some((label, _)) = rest.split_once(']') else { continue };
            let target = definitions.get(label).unwrap_or_else(|| panic!("line {number}: [{label}] leads nowhere"));
            let file = target.trim_start_matches("../").to_owned();
            let names_a_test = start >= tests_begin || file.starts_with("tests/") || file.contains("/tests");
            links.push(CodeLink { line: number, name: name.to_owned(), file, names_a_test });
        }
    }
    links
}

/// The rows of all tables whose last column is called "Test", as cells.
fn test_rows(document: &str) -> Vec<(usize, Vec<String>)> {
    let mut rows = Vec::new();
    let mut header: Option<Vec<String>> = None;
    for (number, line) in numbered(document) {
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
                assert_eq!(cells.len(), header.len(), "line {number} has another number of cells than its table");
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

/// A function that the matrix of `tests/interop` runs against several OPs.
fn has_scenario(source: &str, name: &str) -> bool {
    let is_there = ["(", "<"].iter().any(|end| source.contains(&format!("pub(crate) async fn {name}{end}")));
    is_there && read("tests/interop/matrix.rs").contains(&format!("::{name}: "))
}

/// A declaration of this name: of a function, type or constant, or of an enum's variant.
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

/// `[label]: target` at the end of the document.
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

/// The anchor that Markdown readers give to a heading.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|character| character.is_alphanumeric() || " -".contains(*character));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// What stands between two marks, each time.
fn between(text: &str, start: &str, end: &str) -> Vec<String> {
    let found = text.split(start).skip(1).map(|rest| rest.split(end).next().unwrap_or_default());
    found.map(str::to_owned).collect()
}

/// What follows a type's name in paths: `Rule::NoCode` gives `NoCode`.
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

fn document() -> String {
    read(DOCUMENT)
}

/// Where a link of the document leads to.
fn path(target: &str) -> PathBuf {
    root().join("docs").join(target)
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn rust_files(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(folder)).expect("the folder is there") {
        let entry = entry.expect("its entries can be read");
        let name = format!("{folder}/{}", entry.file_name().to_str().expect("file names are UTF-8"));
        match entry.path().is_dir() {
            true => files.extend(rust_files(&name)),
            false if name.ends_with(".rs") => files.push(name),
            false => {}
        }
    }
    files
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `docs/interoperability.md` says about the tests behind it.
#[test]
fn the_page_about_interoperability_knows_every_op_and_the_size_of_the_corpus() {
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
