//! Moving the rows of a store to another store through a file.
//!
//! The file has one row per line, sealed as it is. A line is a JSON object, a tab, and the beginning of a digest of all
//! lines up to this one. The first line names the version of the format, and the last one the number of rows.

use std::collections::BTreeSet;
use std::io::{BufRead, Read as _, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Clients, Operations};
use crate::clock::saturating_add;
use crate::error::Error;
use crate::jose::sha256;
use crate::store::{
    Cancellation, ClientNote, Fingerprint, Imported, KnownClient, Partition, ProcessId, State, StoredRow,
};

/// The version of the format.
const FORMAT: u32 = 1;
/// The number of rows of one call of the store.
const ROWS: usize = 200;
/// The longest line of a file, in bytes. A row is a few kilobytes, and a response of an OP at most a megabyte.
const LONGEST_LINE: u64 = 16 * 1024 * 1024;
/// The number of conflicts that are named.
const NAMED_CONFLICTS: usize = 100;

/// The progress and the result of [`Operations::export`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Exported {
    /// The number of sign-ins written.
    pub rows: u64,
    /// The number of bytes written.
    pub bytes: u64,
}

/// The progress and the result of [`Operations::import`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ImportReport {
    /// The number of sign-ins that were added.
    pub added: u64,
    /// The number of sign-ins that the store had already, from an earlier run.
    pub present: u64,
    /// The number of sign-ins that were not added, because the store has another one of the same authorization session.
    pub conflicts: u64,
    /// The first hundred of these.
    pub conflicting: Vec<ProcessId>,
    /// The number of bytes read.
    pub bytes: u64,
}

/// Why sign-ins could not be moved.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A call of the store failed. Export again, or import the same file again.
    #[error("the store failed")]
    Store(#[from] Error),
    /// The file could not be written or read.
    #[error("the file cannot be written or read")]
    File(#[from] std::io::Error),
    /// The file was not made by an export, or is damaged or incomplete. Rows of the lines before were imported.
    #[error("line {line} of the file: {problem}")]
    Line {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Header {
    openid_deferred_rows: u32,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct Footer {
    end_after_rows: u64,
}

/// A line between them. Times are microseconds since 1970, bytes are in base64.
#[derive(Serialize, Deserialize)]
struct Line {
    id: ProcessId,
    client: i64,
    /// The name of the client, in the first row of each client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    state: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lookup: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leased_until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinged_at: Option<u64>,
    interval: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    spread: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decided_at: Option<u64>,
    epoch: i64,
    attempts: u32,
    provisional: bool,
    cancellation: u8,
    schedule: String,
    first_key: u32,
    key: u32,
    format: u8,
    revision: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl Operations {
    /// Writes all rows to a file, sealed as they are, to [`import`](Self::import) them into another store.
    ///
    /// Stop every replica before, and start none on this store afterwards: two stores with the same sign-ins would both
    /// poll, and deliver outcomes twice. Receivers of pings and of authorization responses are replicas too. If an OP
    /// does not repeat a ping, polling makes up for it.
    ///
    /// `progress` is called after every few hundred rows. Writing blocks the thread, so do not call this on a thread
    /// that serves users.
    ///
    /// ```
    /// use std::io::Cursor;
    /// use openid_deferred::operations::Operations;
    /// use openid_deferred::store::MemoryStore;
    ///
    /// # async fn move_sign_ins() -> Result<(), openid_deferred::operations::TransferError> {
    /// let (old, new) = (Operations::new(MemoryStore::new()), Operations::new(MemoryStore::new()));
    /// let mut file = Vec::new();
    /// let exported = old.export(&mut file, |so_far| println!("{} rows", so_far.rows)).await?;
    /// let imported = new.import(Cursor::new(file), |_| {}).await?;
    /// assert_eq!(imported.added, exported.rows);
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(move_sign_ins()).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`TransferError::Store`] and [`TransferError::File`]. The file is incomplete then.
    pub async fn export(
        &self,
        out: impl Write + Send,
        mut progress: impl FnMut(&Exported) + Send,
    ) -> Result<Exported, TransferError> {
        let mut lines = Lines { file: out, chain: [0; 32], exported: Exported::default() };
        lines.write(&Header { openid_deferred_rows: FORMAT })?;
        let (mut after, mut clients, mut named) = (None, Clients::of(&*self.store), BTreeSet::new());
        loop {
            let rows = self.store.export(after, ROWS).await.map_err(Error::from)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            clients.look_up(rows.iter().map(|row| row.partition)).await;
            for row in rows {
                let name = clients.get(row.partition).filter(|client| named.insert(client.partition));
                lines.write(&Line::of(row).named(name))?;
                lines.exported.rows += 1;
            }
            progress(&lines.exported);
        }
        lines.write(&Footer { end_after_rows: lines.exported.rows })?;
        lines.file.flush()?;
        Ok(lines.exported)
    }

    /// Adds the rows of a file that [`export`](Self::export) has written, as they are. No sign-in is polled earlier than
    /// it would have been, and no delivery is counted anew.
    ///
    /// Rows that the store has already are skipped, so an import that failed can be repeated. Start replicas only when
    /// it has succeeded. The clocks of both databases must agree, because due times are copied.
    ///
    /// `progress` is called after every few hundred rows. Reading blocks the thread.
    ///
    /// # Errors
    ///
    /// [`TransferError`]. The rows before the error stay.
    pub async fn import(
        &self,
        input: impl BufRead + Send,
        mut progress: impl FnMut(&ImportReport) + Send,
    ) -> Result<ImportReport, TransferError> {
        let mut reader = Reader { input, chain: [0; 32], line: 0, bytes: 0 };
        let header: Header = reader.next("it is not an export of sign-ins; name the file that `export` wrote")?;
        if header.openid_deferred_rows != FORMAT {
            return Err(reader.wrong("a newer release has written this file; import it with that release"));
        }
        let (mut report, mut rows, mut names, mut read) = (ImportReport::default(), Vec::new(), Vec::new(), 0);
        loop {
            let text = reader.text()?;
            if let Ok(footer) = serde_json::from_str::<Footer>(&text) {
                self.import_batch(std::mem::take(&mut rows), &mut report).await?;
                self.import_names(std::mem::take(&mut names)).await;
                report.bytes = reader.bytes;
                progress(&report);
                return match footer.end_after_rows == read {
                    true => Ok(report),
                    false => Err(reader.wrong("the number of rows does not fit; export again")),
                };
            }
            let line: Line = serde_json::from_str(&text).map_err(|_| reader.wrong("it is not a row; export again"))?;
            names.extend(line.name());
            rows.push(line.into_row().ok_or_else(|| reader.wrong("a value is out of range; export again"))?);
            read += 1;
            if rows.len() >= ROWS {
                self.import_batch(std::mem::take(&mut rows), &mut report).await?;
                self.import_names(std::mem::take(&mut names)).await;
                report.bytes = reader.bytes;
                progress(&report);
            }
        }
    }

    /// The names of clients are a convenience, and pollers record them again.
    async fn import_names(&self, names: Vec<ClientNote>) {
        if names.is_empty() {
            return;
        }
        if let Err(error) = self.store.note_clients(names).await {
            let error = Error::from(error);
            tracing::warn!(error = %error, "the names of clients were not imported; pollers record them again");
        }
    }

    async fn import_batch(&self, rows: Vec<StoredRow>, report: &mut ImportReport) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        for (id, imported) in ids.into_iter().zip(self.store.import(rows).await?) {
            match imported {
                Imported::Added => report.added += 1,
                Imported::Present => report.present += 1,
                Imported::Conflict(_) => {
                    report.conflicts += 1;
                    if report.conflicting.len() < NAMED_CONFLICTS {
                        report.conflicting.push(id);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The digest of all lines up to this one.
fn chained(chain: [u8; 32], text: &str) -> [u8; 32] {
    let mut bytes = chain.to_vec();
    bytes.extend_from_slice(text.as_bytes());
    sha256(&bytes)
}

/// The part of the digest that a line ends with.
fn mark(chain: [u8; 32]) -> String {
    chain.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

struct Lines<W> {
    file: W,
    chain: [u8; 32],
    exported: Exported,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        let text = serde_json::to_string(line)?;
        self.chain = chained(self.chain, &text);
        let line = format!("{text}\t{}\n", mark(self.chain));
        self.exported.bytes += line.len() as u64;
        self.file.write_all(line.as_bytes())
    }
}

struct Reader<R> {
    input: R,
    chain: [u8; 32],
    line: u64,
    bytes: u64,
}

impl<R: BufRead> Reader<R> {
    fn wrong(&self, problem: &'static str) -> TransferError {
        TransferError::Line { line: self.line, problem }
    }

    /// The next line without its mark.
    fn text(&mut self) -> Result<String, TransferError> {
        let mut line = Vec::new();
        self.line += 1;
        (&mut self.input).take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        self.bytes += line.len() as u64;
        if line.is_empty() {
            return Err(self.wrong("the file is incomplete; export again, or copy the whole file, and import it again"));
        }
        let text = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n'));
        let Some((text, marked)) = text.and_then(|line| line.rsplit_once('\t')) else {
            return Err(
                self.wrong("it is cut off or not a line of an export; copy the whole file, and import it again")
            );
        };
        self.chain = chained(self.chain, text);
        match mark(self.chain) == marked {
            true => Ok(text.to_owned()),
            false => Err(self.wrong("it was changed or a line before it is missing; copy the file or export again")),
        }
    }

    fn next<T: serde::de::DeserializeOwned>(&mut self, problem: &'static str) -> Result<T, TransferError> {
        // A file of another kind has no marks.
        let text = self.text().map_err(|error| match error {
            TransferError::Line { line, .. } => TransferError::Line { line, problem },
            error => error,
        })?;
        serde_json::from_str(&text).map_err(|_| self.wrong(problem))
    }
}

impl Line {
    fn of(row: StoredRow) -> Self {
        let text = |fingerprint: Option<Fingerprint>| fingerprint.map(|Fingerprint(bytes)| STANDARD.encode(bytes));
        Self {
            id: row.id,
            client: row.partition.0,
            issuer: None,
            client_id: None,
            state: row.state as u8,
            session: text(row.session),
            lookup: text(row.lookup),
            reference: text(row.reference),
            started_at: row.started_at.map(micros),
            due_at: row.due_at.map(micros),
            leased_until: row.leased_until.map(micros),
            not_before: row.not_before.map(micros),
            pinged_at: row.pinged_at.map(micros),
            interval: u64::try_from(row.interval.as_micros()).unwrap_or(u64::MAX),
            expires_at: row.expires_at.map(micros),
            spread: row.spread,
            decided_at: row.decided_at.map(micros),
            epoch: row.epoch,
            attempts: row.attempts,
            provisional: row.provisional,
            cancellation: row.cancellation as u8,
            schedule: row.schedule,
            first_key: u32::from_be_bytes(row.first_key),
            key: u32::from_be_bytes(row.key),
            format: row.format,
            revision: row.revision,
            body: row.body.map(|body| STANDARD.encode(body)),
        }
    }

    fn named(self, client: Option<&KnownClient>) -> Self {
        let (issuer, client_id) = client.map(|client| (client.issuer.clone(), client.client_id.clone())).unzip();
        Self { issuer, client_id, ..self }
    }

    fn name(&self) -> Option<ClientNote> {
        Some(ClientNote::new(Partition(self.client), self.issuer.as_ref()?, self.client_id.as_ref()?))
    }

    /// `None` if a value is not one of its column.
    fn into_row(self) -> Option<StoredRow> {
        let bytes = |text: String| STANDARD.decode(text).ok();
        let fingerprint = |text: Option<String>| match text {
            None => Some(None),
            Some(text) => Some(Some(Fingerprint(bytes(text)?.try_into().ok()?))),
        };
        let due_at = self.due_at.map(time);
        let row = StoredRow::new(self.id, Partition(self.client), State::from_number(self.state)?, UNIX_EPOCH);
        Some(StoredRow {
            session: fingerprint(self.session)?,
            lookup: fingerprint(self.lookup)?,
            reference: fingerprint(self.reference)?,
            started_at: self.started_at.map(time),
            due_at,
            leased_until: self.leased_until.map(time),
            not_before: self.not_before.map(time),
            pinged_at: self.pinged_at.map(time),
            interval: Duration::from_micros(self.interval),
            expires_at: self.expires_at.map(time),
            spread: self.spread,
            decided_at: self.decided_at.map(time),
            epoch: self.epoch,
            attempts: self.attempts,
            provisional: self.provisional,
            cancellation: Cancellation::from_number(self.cancellation)?,
            schedule: self.schedule,
            first_key: self.first_key.to_be_bytes(),
            key: self.key.to_be_bytes(),
            format: self.format,
            revision: self.revision,
            body: match self.body {
                Some(body) => Some(bytes(body)?),
                None => None,
            },
            ..row
        })
    }
}

/// Rounded up, so that nothing becomes due early.
fn micros(time: SystemTime) -> u64 {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(nanos.div_ceil(1000)).unwrap_or(u64::MAX)
}

fn time(micros: u64) -> SystemTime {
    saturating_add(UNIX_EPOCH, Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use super::*;
    use crate::store::{MemoryStore, NewProcess, SealedBody, Store};

    async fn store_with(rows: u16) -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::new());
        for number in 0..rows {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_be_bytes());
            let body = SealedBody::new(1, [7; 4], b"sealed".to_vec());
            let row = NewProcess::new(ProcessId::from_bytes(id), Partition(-3), State::Waiting, body);
            store.insert(row).await.unwrap();
        }
        store
    }

    async fn exported(store: &Arc<MemoryStore>) -> String {
        let mut file = Vec::new();
        Operations::new(store.clone()).export(&mut file, |_| {}).await.unwrap();
        String::from_utf8(file).unwrap()
    }

    async fn import(store: &Arc<MemoryStore>, file: &str) -> Result<ImportReport, TransferError> {
        Operations::new(store.clone()).import(Cursor::new(file.to_owned()), |_| {}).await
    }

    #[tokio::test]
    async fn a_truncated_file_is_detected_and_the_complete_file_adds_the_remaining_rows() {
        let (old, new) = (store_with(450).await, store_with(0).await);
        let file = exported(&old).await;
        let lines: Vec<_> = file.lines().collect();
        assert_eq!(lines.len(), 452);
        let part = lines[..301].join("\n") + "\n";
        let problem = import(&new, &part).await.unwrap_err().to_string();
        assert!(problem.starts_with("line 302 of the file: the file is incomplete"), "{problem}");
        let report = import(&new, &file).await.unwrap();
        assert_eq!((report.added, report.present, report.conflicts), (250, 200, 0));
        assert_eq!(exported(&new).await.lines().count(), 452);
    }

    #[tokio::test]
    async fn changed_lines_missing_lines_and_foreign_files_are_refused() {
        let file = exported(&store_with(3).await).await;
        let lines: Vec<_> = file.lines().collect();
        let cases = [
            (file.replacen("\"client\":-3", "\"client\":-4", 1), "line 2 of the file: it was changed"),
            ([lines[0], lines[2], lines[3], lines[4], ""].join("\n"), "line 2 of the file: it was changed"),
            (lines[1..].join("\n"), "line 1 of the file: it is not an export"),
            ("{}\n".to_owned(), "line 1 of the file: it is not an export"),
            (String::new(), "line 1 of the file: it is not an export"),
            (file.trim_end().to_owned(), "line 5 of the file: it is cut off"),
        ];
        for (file, expected) in cases {
            let problem = import(&store_with(0).await, &file).await.unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
        }
        let mut newer = Lines { file: Vec::new(), chain: [0; 32], exported: Exported::default() };
        newer.write(&Header { openid_deferred_rows: 2 }).unwrap();
        let newer = String::from_utf8(newer.file).unwrap();
        let problem = import(&store_with(0).await, &newer).await.unwrap_err().to_string();
        assert!(problem.contains("a newer release"), "{problem}");
    }

    #[tokio::test]
    async fn the_names_of_clients_move_with_their_first_rows() {
        let (old, new) = (store_with(2).await, store_with(0).await);
        old.note_clients(vec![ClientNote::new(Partition(-3), "https://op.test", "the-app")]).await.unwrap();
        let file = exported(&old).await;
        assert_eq!(file.matches("\"issuer\":\"https://op.test\"").count(), 1, "{file}");
        import(&new, &file).await.unwrap();
        let known = new.known_clients(vec![Partition(-3)]).await.unwrap();
        assert_eq!(known, [KnownClient::new(Partition(-3), "https://op.test", "the-app")]);
        assert_eq!(exported(&new).await, file);
    }

    #[tokio::test]
    async fn progress_is_reported_while_rows_are_moved() {
        let (old, new) = (store_with(450).await, store_with(0).await);
        let (mut file, mut seen) = (Vec::new(), Vec::new());
        Operations::new(old).export(&mut file, |exported| seen.push(exported.rows)).await.unwrap();
        assert_eq!(seen, [200, 400, 450]);
        let mut seen = Vec::new();
        let bytes = file.len() as u64;
        let report = Operations::new(new).import(Cursor::new(file), |report| seen.push(report.added)).await.unwrap();
        assert_eq!((seen, report.bytes), (vec![200, 400, 450], bytes));
    }
}
