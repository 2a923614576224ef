//! `check` with a role that may not do everything.

use openid_deferred::store::{ClientNote, NewProcess, Partition, ProcessId, SealedBody, State};
use serde_json::Value;
use tokio_postgres::NoTls;

use crate::tool::Tool;
use crate::world::{Place, database};

/// The severity of the finding about a subject.
fn severity(findings: &Value, subject: &str) -> String {
    let found = findings.as_array().unwrap().iter().find(|found| found["subject"] == subject);
    found.unwrap_or_else(|| panic!("no {subject} in {findings}"))["severity"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_role_without_privileges_is_reported_until_it_has_them() {
    let place = Place::postgres().await;
    let (admin, connection) = tokio_postgres::connect(&database(), NoTls).await.unwrap();
    let _connection = tokio::task::JoinSet::from_iter([connection]);
    let (role, schema) = (format!("cli_reader_{}", std::process::id()), &place.schema);
    let grant = async |what: &str| admin.batch_execute(&format!("GRANT {what} TO {role}")).await.unwrap();
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")).await.unwrap();
    let mut url = url::Url::parse(&database()).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("hunter2")).unwrap();
    let check = || Tool::new(&["check", "--json", "--schema", schema]).store(url.as_str()).run();

    let refused = check();
    let text = refused.failed(1);
    assert!(text.contains("42501") && text.contains("GRANT") && !text.contains("hunter2"), "{text}");

    grant(&format!("USAGE ON SCHEMA \"{schema}\"")).await;
    grant(&format!("SELECT ON ALL TABLES IN SCHEMA \"{schema}\"")).await;
    let reader = check();
    assert_eq!(reader.code, 1);
    assert_eq!(severity(&reader.document(), "privileges"), "wrong");

    grant(&format!("INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA \"{schema}\"")).await;
    assert_eq!(severity(&check().document(), "privileges"), "fine");

    // As after a migration that another role has made: only the names of clients are missing.
    place.store.note_clients(vec![ClientNote::new(Partition(7), "https://op.test", "the-app")]).await.unwrap();
    let body = SealedBody::new(1, [7; 4], b"sealed".to_vec());
    let row = NewProcess::new(ProcessId::from_bytes([1; 16]), Partition(7), State::Waiting, body);
    place.store.insert(row).await.unwrap();
    let stats = || Tool::new(&["stats", "--json", "--schema", schema]).store(url.as_str()).run().json();
    assert_eq!(stats()[0]["client_id"], "the-app");
    admin.batch_execute(&format!("REVOKE ALL ON \"{schema}\".client FROM {role}")).await.unwrap();
    assert_eq!((&stats()[0]["client_id"], &stats()[0]["waiting"]), (&Value::Null, &1.into()));
    assert_eq!(severity(&check().document(), "privileges"), "wrong");
    admin.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}
