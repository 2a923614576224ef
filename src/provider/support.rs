//! Checks that the OP advertises what this client needs (DTR §Authorization Server Metadata).

use super::ProviderMetadata;
use super::metadata::values;
use crate::error::ConfigurationProblem;

const RESPONSE_TYPES: &str = "response_types_supported";

/// Checks that the OP lists the response type and the grant types. If it lists `deferred_code` only in other
/// combinations than this response type, that is a warning.
///
/// # Errors
///
/// [`ConfigurationProblem::NotAdvertised`].
pub(crate) fn check_support(
    metadata: &ProviderMetadata,
    response_type: &str,
    grant_types: &[&str],
) -> Result<(), ConfigurationProblem> {
    if let Err(problem) = check_response_type(metadata, response_type) {
        let is_deferred = |listed: &str| values(listed).contains("deferred_code");
        let is_listed = metadata.response_types_supported().iter().any(|listed| is_deferred(listed));
        if !is_listed || !is_deferred(response_type) {
            return Err(problem);
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

/// Checks that the OP lists exactly this response type.
///
/// # Errors
///
/// [`ConfigurationProblem::NotAdvertised`].
pub(crate) fn check_response_type(
    metadata: &ProviderMetadata,
    response_type: &str,
) -> Result<(), ConfigurationProblem> {
    match metadata.supports_response_type(response_type) {
        true => Ok(()),
        false => Err(not_advertised(RESPONSE_TYPES, response_type)),
    }
}

fn not_advertised(member: &'static str, value: &str) -> ConfigurationProblem {
    ConfigurationProblem::NotAdvertised { member, value: value.to_owned() }
}
