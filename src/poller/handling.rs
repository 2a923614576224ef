//! Handles outcomes one after the other, and acknowledges those that were handled.

use std::error::Error as StdError;

use super::delivery::Delivery;
use super::outcomes::Outcomes;

impl Outcomes {
    /// Handles every outcome, one after the other, until the poller is [shut down](super::Poller::shutdown). An outcome
    /// is [acknowledged](Delivery::acknowledge) when `handle` has returned `Ok`. If it returns an error or the
    /// acknowledgement fails, that is logged, and the outcome is delivered again. So `handle` may see an outcome twice.
    ///
    /// ```
    /// # use std::{collections::HashMap, sync::{Arc, Mutex}};
    /// # async fn example(poller: openid_deferred::Poller) {
    /// let users = Arc::new(Mutex::new(HashMap::new())); // a table of your database
    /// let handling = tokio::spawn(poller.outcomes().handle_each(async move |delivery| {
    ///     if let Some(user) = delivery.outcome().approved() {
    ///         users.lock().expect("no holder panics").insert(delivery.id(), user.claims().subject().to_owned());
    ///     }
    ///     Ok(())
    /// }));
    /// # }
    /// ```
    ///
    /// The closure has to be `async move` if it captures variables and the future is spawned. Otherwise the compiler
    /// says that the "implementation of `AsyncFnMut` is not general enough".
    ///
    /// To handle several at a time, run it several times; the streams share the outcomes.
    pub async fn handle_each(
        mut self,
        mut handle: impl AsyncFnMut(&Delivery) -> Result<(), Box<dyn StdError + Send + Sync>>,
    ) {
        while let Some(delivery) = self.next().await {
            let process = delivery.id();
            if let Err(error) = handle(&delivery).await {
                let error: &(dyn StdError + 'static) = &*error;
                tracing::error!(%process, error, "an outcome could not be handled; it is delivered again");
            } else if let Err(error) = delivery.acknowledge().await {
                tracing::warn!(%process, %error, "an outcome could not be acknowledged; it is delivered again");
            }
        }
    }
}
