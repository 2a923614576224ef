//! Reads whole tables in steps, each of which is a call.

use std::collections::BTreeMap;

use super::{PostgresStore, upkeep};
use crate::store::{KeyStats, PartitionStats, Process, ProcessId, StoreError};

impl PostgresStore {
    pub(super) async fn all_sealed_otherwise(
        &self,
        key: [u8; 4],
        mut after: Option<ProcessId>,
        limit: usize,
    ) -> Result<Vec<Process>, StoreError> {
        let mut found = Vec::new();
        loop {
            let left = limit.saturating_sub(found.len());
            let step = async {
                let session = self.session().await?;
                let step = upkeep::not_sealed_with(&session, key, after, left).await?;
                session.finish();
                Ok(step)
            };
            let (rows, end) = self.bounded(step).await?;
            found.extend(rows);
            if end.is_none() || found.len() >= limit {
                return Ok(found);
            }
            after = end;
        }
    }

    pub(super) async fn all_keys(&self) -> Result<Vec<KeyStats>, StoreError> {
        let (mut keys, mut after) = (BTreeMap::<_, KeyStats>::new(), None);
        loop {
            let step = async {
                let session = self.session().await?;
                let step = upkeep::keys(&session, after).await?;
                session.finish();
                Ok(step)
            };
            let (counted, end) = self.bounded(step).await?;
            for of_step in counted {
                let empty = KeyStats { bodies: 0, waiting: 0, ..of_step };
                let stats = keys.entry((of_step.key, of_step.format)).or_insert(empty);
                stats.bodies += of_step.bodies;
                stats.waiting += of_step.waiting;
            }
            after = end;
            if after.is_none() {
                return Ok(keys.into_values().collect());
            }
        }
    }

    pub(super) async fn all_stats(&self) -> Result<Vec<PartitionStats>, StoreError> {
        let (mut stats, mut after) = (BTreeMap::new(), None);
        loop {
            let step = async {
                let session = self.session().await?;
                let step = upkeep::stats(&session, after).await?;
                session.finish();
                Ok(step)
            };
            let (counted, end) = self.bounded(step).await?;
            for of_step in &counted {
                let partition = of_step.partition;
                stats.entry(partition).or_insert_with(|| PartitionStats::empty(partition)).add(of_step);
            }
            after = end;
            if after.is_none() {
                return Ok(stats.into_values().collect());
            }
        }
    }
}
