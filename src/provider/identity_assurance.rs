//! The OP's metadata about identity assurance (OpenID Connect for Identity Assurance 1.0 §OP metadata).

use serde_json::Value;

use super::ProviderMetadata;

macro_rules! lists {
    ($($(#[$attribute:meta])* $name:ident;)*) => {
        impl ProviderMetadata {
            $(
                $(#[$attribute])*
                pub fn $name(&self) -> Vec<&str> {
                    let listed = self.extra(stringify!($name)).and_then(Value::as_array);
                    listed.into_iter().flatten().filter_map(Value::as_str).collect()
                }
            )*
        }
    };
}

lists! {
    /// Trust frameworks under which the OP verifies claims.
    trust_frameworks_supported;
    /// Claims that it can verify.
    claims_in_verified_claims_supported;
    /// Types of evidence that it checks.
    evidence_supported;
    /// Types of documents that it checks.
    documents_supported;
    /// How it checks documents.
    documents_check_methods_supported;
    /// Types of electronic records that it checks.
    electronic_records_supported;
    /// How copies of evidence are delivered: `external` or `embedded`.
    attachments_supported;
    /// Algorithms of the digests of external attachments.
    digest_algorithms_supported;
}

impl ProviderMetadata {
    /// Whether the OP delivers `verified_claims`: it states so, or it only lists
    /// [trust frameworks](Self::trust_frameworks_supported). Drafts of the specification defined the first, and the final text
    /// only the second.
    pub fn verified_claims_supported(&self) -> bool {
        match self.extra("verified_claims_supported") {
            Some(Value::Bool(supported)) => *supported,
            _ => !self.trust_frameworks_supported().is_empty(),
        }
    }

    /// Whether the OP supports the `claims` parameter (OpenID Connect Discovery 1.0 §3), which requests verified
    /// claims.
    pub fn claims_parameter_supported(&self) -> bool {
        self.extra("claims_parameter_supported") == Some(&Value::Bool(true))
    }
}
