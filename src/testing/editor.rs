//! Changes that the test makes by a function.

use std::sync::Arc;

/// A change to something that the provider sends.
pub(super) struct Editor<T: ?Sized>(pub(super) Arc<dyn Fn(&mut T) + Send + Sync>);

impl<T: ?Sized> Clone for Editor<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
