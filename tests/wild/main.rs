//! Responses that OPs send in the wild, and the required result for each.
//!
//! The files in the folders beside this one have shapes that real OPs send according to bug reports and to
//! documentation of OpenID Connect. They are discovery documents, key sets, answers of the token endpoint, claims of ID
//! Tokens and UserInfo responses. Only the shapes are real; every value is invented. `expectations.json` says for each
//! file where the shape was seen, what its result must be, and why.
//!
//! A file `*.json` is a body with status 200 and the media type `application/json`. A file `*.http` is a whole
//! response. A file `*.txt` is the response that comes back in the browser. The placeholders `@state@`, `@nonce@`,
//! `@id_token@`, `@jwt@` and `@bom@` stand for the two values of the request, for an ID Token, for another JWT and for
//! a byte order mark. A scripted OP serves each file to a client that is used as an application uses it.

mod answer;
mod kinds;
mod op;
mod relying_party;
mod signing;
mod table;
mod verdict;

use std::collections::BTreeSet;

use table::{Kind, Row, Source};

#[test]
fn every_file_has_a_row_and_every_row_has_a_file() {
    let rows: Vec<_> = table::rows().into_iter().map(|row| row.file).collect();
    let listed: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), listed.len(), "a file has two rows");
    let files = table::files();
    let without_row: Vec<_> = files.difference(&listed).collect();
    assert!(without_row.is_empty(), "files without a row in expectations.json: {without_row:?}");
    let without_file: Vec<_> = listed.difference(&files).collect();
    assert!(without_file.is_empty(), "rows in expectations.json without a file: {without_file:?}");
}

#[test]
fn the_corpus_has_at_least_150_files_and_20_of_each_kind() {
    let rows = table::rows();
    assert!(rows.len() >= 150, "{}", rows.len());
    for kind in Kind::ALL {
        let of_kind = rows.iter().filter(|row| row.kind() == kind).count();
        assert!(of_kind >= 20, "{kind:?}: {of_kind}");
    }
}

#[test]
fn every_row_names_its_source_and_the_reason_for_its_result() {
    for row in table::rows() {
        assert_eq!(row.seen_at.is_none(), row.source == Source::Variation, "{}", row.file);
        assert!(row.why.ends_with('.'), "{}: `why` is a sentence", row.file);
    }
}

/// The names of real hosts belong to others. RFC 2606 §2 reserves `.example` for this use.
#[test]
fn every_host_is_fictitious() {
    for file in table::files() {
        let text = table::read(&file);
        for (position, _) in text.match_indices("://") {
            let host: String =
                text[position + 3..].chars().take_while(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
            let is_made_up = host.is_empty() || host.ends_with(".example") || host == "10.42.0.17";
            assert!(is_made_up, "{file}: {host}");
        }
    }
}

/// Runs every row of one kind, so that one failure does not hide the others.
async fn run(kind: Kind, came_to: impl AsyncFn(&Row) -> Vec<String>) {
    let mut failures = Vec::new();
    for row in table::rows().iter().filter(|row| row.kind() == kind) {
        for problem in came_to(row).await {
            failures.push(format!("{}: {problem}\n    {}", row.file, row.why));
        }
    }
    assert!(failures.is_empty(), "{} of the {kind:?} files:\n{}\n", failures.len(), failures.join("\n"));
}

#[tokio::test]
async fn discovery_documents_have_the_results_of_the_table() {
    run(Kind::Discovery, kinds::discovery).await;
}

#[tokio::test]
async fn key_sets_have_the_results_of_the_table() {
    run(Kind::Keys, kinds::keys).await;
}

#[tokio::test]
async fn answers_to_pushed_requests_have_the_results_of_the_table() {
    run(Kind::Pushed, kinds::pushed).await;
}

#[tokio::test]
async fn authorization_responses_have_the_results_of_the_table() {
    run(Kind::Callback, kinds::callback).await;
}

#[tokio::test]
async fn answers_to_exchanges_have_the_results_of_the_table() {
    run(Kind::Exchange, kinds::exchange).await;
}

#[tokio::test]
async fn answers_to_polls_have_the_results_of_the_table() {
    run(Kind::Poll, kinds::poll).await;
}

#[tokio::test]
async fn answers_to_refreshes_have_the_results_of_the_table() {
    run(Kind::Refresh, kinds::refresh).await;
}

#[tokio::test]
async fn claims_of_id_tokens_have_the_results_of_the_table() {
    run(Kind::Claims, kinds::claims).await;
}

#[tokio::test]
async fn userinfo_responses_have_the_results_of_the_table() {
    run(Kind::UserInfo, kinds::userinfo).await;
}
