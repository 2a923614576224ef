//! The application's tables, on every database.

use openid_deferred::store::ProcessId;
use sign_in_application::database::Database;
use sign_in_application::outcomes::{Ending, Person};
use sign_in_application::tables::Tables;

mod support;

fn sign_in(number: u8) -> ProcessId {
    ProcessId::from_bytes([number; 16])
}

fn jane(name: &str) -> Person {
    let own = str::to_owned;
    Person { issuer: own("https://op.example"), subject: own("248"), name: Some(own(name)), email: None }
}

#[tokio::test]
async fn an_approval_can_be_used_again_for_two_minutes_and_leaves_one_session() {
    for (place, _folder) in support::places().await {
        let database = Database::open(&place).await.unwrap();
        let tables = Tables::create(database.clone()).await.unwrap();
        let approved = Ending::Approved(jane("Jane Doe"));
        tables.keep_outcome(sign_in(1), "order 4711", &approved).await.unwrap();
        assert!(tables.use_outcome(sign_in(1), "token").await.unwrap());
        tables.keep_outcome(sign_in(1), "order 4711", &approved).await.unwrap();
        assert!(tables.use_outcome(sign_in(1), "second token").await.unwrap(), "the user has clicked twice");
        assert_eq!(tables.person("token").await.unwrap(), None);
        assert_eq!(tables.person("second token").await.unwrap(), Some(jane("Jane Doe")));
        let later = "UPDATE outcomes SET used_at = used_at - 121";
        database.transaction(vec![(later, Vec::new())]).await.unwrap();
        assert!(!tables.use_outcome(sign_in(1), "third token").await.unwrap(), "the approval was used");
        assert_eq!(tables.person("third token").await.unwrap(), None);
        assert_eq!(tables.person("second token").await.unwrap(), Some(jane("Jane Doe")));
        tables.end_session("second token").await.unwrap();
        assert_eq!(tables.person("second token").await.unwrap(), None);
    }
}

#[tokio::test]
async fn replicas_that_start_together_create_the_tables_once() {
    for (place, _folder) in support::places().await {
        let mut replicas = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let database = Database::open(&place).await.unwrap();
            replicas.spawn(Tables::create(database));
        }
        for tables in replicas.join_all().await {
            tables.unwrap().check().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_late_success_replaces_a_failure_and_never_a_denial() {
    for (place, _folder) in support::places().await {
        let tables = Tables::create(Database::open(&place).await.unwrap()).await.unwrap();
        let approved = Ending::Approved(jane("Jane Doe"));
        tables.keep_outcome(sign_in(1), "", &Ending::Unknown).await.unwrap();
        assert!(!tables.use_outcome(sign_in(1), "token").await.unwrap(), "nobody was approved");
        tables.keep_outcome(sign_in(1), "", &approved).await.unwrap();
        assert_eq!(tables.ending(sign_in(1)).await.unwrap().as_deref(), Some("approved"));

        let refused = sign_in(2);
        tables.keep_outcome(refused, "", &Ending::Denied).await.unwrap();
        tables.keep_outcome(refused, "", &approved).await.unwrap();
        assert_eq!(tables.ending(refused).await.unwrap().as_deref(), Some("denied"));
        assert!(!tables.use_outcome(refused, "token").await.unwrap());
    }
}

#[tokio::test]
async fn a_transaction_is_atomic() {
    for (place, _folder) in support::places().await {
        let database = Database::open(&place).await.unwrap();
        let tables = Tables::create(database.clone()).await.unwrap();
        tables.begin_session(&jane("Jane Doe"), "token").await.unwrap();
        // The token exists, so the second statement of this transaction fails.
        tables.begin_session(&jane("Jane Roe"), "token").await.unwrap_err();
        assert_eq!(tables.person("token").await.unwrap(), Some(jane("Jane Doe")), "the new name was not kept");
    }
}
