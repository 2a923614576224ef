//! Checks that the OP advertises what this client needs (DTR §Authorization Server Metadata).

use super::ProviderMetadata;
use super::metadata::values;
use crate::error::ConfigurationProblem;

/// Checks that the OP lists the response type and the grant types.
///
/// If the OP lists `deferred_code` only in other combinations than this response type, that is a warning, unless
/// `strict`.
///
/// # Errors
///
/// [`ConfigurationProblem::NotAdvertised`].
pub(crate) fn check_support(
    metadata: &ProviderMetadata,
    response_type: &str,
    grant_types: &[&str],
    strict: bool,
) -> Result<(), ConfigurationProblem> {
    let not_advertised = |member, value: &str| ConfigurationProblem::NotAdvertised { member, value: value.to_owned() };
    if !metadata.supports_response_type(response_type) {
        let deferred = |listed: &String| values(listed).contains("deferred_code");
        let deferred_listed = metadata.response_types_supported().iter().any(deferred);
        if strict || !deferred_listed || !values(response_type).contains("deferred_code") {
            return Err(not_advertised("response_types_supported", response_type));
        }
        tracing::warn!(
            response_type,
            "the OP lists `deferred_code`, but not in this combination; it may refuse the request"
        );
    }
    let listed = metadata.grant_types_supported();
    match grant_types.iter().find(|&&needed| !listed.iter().any(|listed| listed == needed)) {
        Some(missing) => Err(not_advertised("grant_types_supported", missing)),
        None => Ok(()),
    }
}
