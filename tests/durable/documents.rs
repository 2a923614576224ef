//! Metadata and keys that cannot be fetched while sign-ins wait, and the log about it.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use openid_deferred::Outcome;
use openid_deferred::testing::{DecisionPolicy, Endpoint, Fault};

use crate::support::{CLIENT_ID, HOUR, SECOND, world_of};

#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub fn lines(&self, text: &str) -> Vec<String> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_final_poll_is_sent_in_time_while_the_refresh_of_metadata_hangs() {
    let world =
        world_of(|op| op.decisions(DecisionPolicy::scripted()).interval(7200 * SECOND).expires_in(4000 * SECOND)).await;
    let _id = world.waiting().await;
    world.sleep(3000 * SECOND).await;
    world.op.misbehave(Fault::stall(Endpoint::Metadata).always());
    world.op.last_process().approve();
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Approved(_)), "{delivery:?}");
    let gap = world.gaps()[0];
    assert!((3994.0..3996.0).contains(&gap), "{gap}");
    delivery.acknowledge().await.unwrap();
}

#[tokio::test]
async fn an_outage_of_keys_is_logged_once_for_each_process_and_when_its_validation_is_given_up() {
    let (log, _guard) = Log::start();
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    world.op.misbehave(Fault::status(Endpoint::Keys, 503).always());
    let id = world.waiting().await;
    world.op.last_process().approve();
    world.sleep(26 * HOUR).await;
    let delivery = world.outcome().await;
    assert!(matches!(delivery.outcome(), Outcome::Invalid(_)), "{delivery:?}");
    let names_all = |line: &str| {
        let names = [id.to_string(), world.client.issuer().to_owned(), CLIENT_ID.to_owned()];
        assert!(names.iter().all(|name| line.contains(name)), "{line}");
    };
    let waiting = log.lines("cannot be validated yet");
    assert!((1..=30).contains(&waiting.len()), "{waiting:?}");
    for part in ["503", "next_try_in"] {
        assert!(waiting[0].contains(part), "{}", waiting[0]);
    }
    waiting.iter().for_each(|line| names_all(line));
    let given_up = log.lines("is not valid");
    assert_eq!(given_up.len(), 1, "{given_up:?}");
    assert!(given_up[0].contains("keys_unavailable"), "{}", given_up[0]);
    names_all(&given_up[0]);
    delivery.acknowledge().await.unwrap();
}

#[tokio::test]
async fn an_outdated_document_is_named_in_the_log() {
    let (log, _guard) = Log::start();
    let world = world_of(|op| op.decisions(DecisionPolicy::scripted())).await;
    let _id = world.waiting().await;
    world.op.misbehave(Fault::status(Endpoint::Metadata, 503).always());
    world.sleep(5 * HOUR).await;
    let lines = log.lines("could not be fetched again");
    assert!((1..=5).contains(&lines.len()), "{lines:?}");
    for part in ["the OP's metadata", world.client.issuer(), "503"] {
        assert!(lines[0].contains(part), "{}", lines[0]);
    }
}
