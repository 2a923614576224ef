//! What the log says about keys that cannot be used.

use super::*;

/// Everything that is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn left_out_keys_are_logged_in_a_few_lines_and_only_when_they_change() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let op = Op::working();
    let with_junk = |junk: usize| {
        let mut set = key_set(&["k1"]);
        let junk = (0..junk).map(|number| json!({"kid": format!("junk {number}"), "kty": "AKP"}));
        set["keys"].as_array_mut().unwrap().extend(junk);
        op.serve(KEYS, &set);
    };
    with_junk(990);
    for _ in 0..3 {
        op.clock.advance(2 * 3_600);
        op.provider.keys().await.unwrap();
        let lines = log.lines();
        assert_eq!((lines.len(), op.visits(KEYS) > 0), (6, true), "{lines:#?}");
        assert!(lines[0].contains("junk 0") && lines[4].contains("junk 4") && lines[5].contains("985"), "{lines:#?}");
    }
    assert_eq!(op.visits(KEYS), 3);
    with_junk(1);
    op.clock.advance(2 * 3_600);
    op.provider.keys().await.unwrap();
    assert_eq!(log.lines().len(), 7, "the set is another one");
}
