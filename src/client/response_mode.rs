//! How an authorization response is returned.

use super::setting::setting;
use crate::dialect::ResponseType;
use crate::error::Error;
use crate::provider::ProviderMetadata;

/// How the OP returns the response (OAuth 2.0 Multiple Response Type Encoding Practices; Form Post Response Mode;
/// JARM).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseMode {
    /// In the query of the redirect URI.
    Query,
    /// In the body of a POST to the redirect URI, which `Client::authorization_response` accepts like a query. The
    /// session's cookie then needs `SameSite=None`.
    FormPost,
    /// In the query as a JWT that the OP signed, and encrypted if that was registered (JARM §2.3.1). A response in
    /// another form is refused.
    QueryJwt,
    /// In the body of a POST as such a JWT (JARM §2.3.3). The session's cookie then needs `SameSite=None`.
    FormPostJwt,
    /// `jwt`, the shorthand for a JWT in the default place of the response type (JARM §2.3.4).
    ///
    /// That is the query for [`ResponseType::Code`] and [`ResponseType::DeferredCode`]. For
    /// [`ResponseType::DeferredCodeOrCode`] it would be the fragment, which servers do not receive, so that is an
    /// error. [`QueryJwt`](Self::QueryJwt) is sent as `jwt` to an OP that lists `jwt` and not `query.jwt`. So this mode
    /// is needed only if the OP lists neither, or requires the shorthand.
    Jwt,
}

impl ResponseMode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::FormPost => "form_post",
            Self::QueryJwt => "query.jwt",
            Self::FormPostJwt => "form_post.jwt",
            Self::Jwt => "jwt",
        }
    }

    /// The mode under a name that the OP lists. In FAPI 2.0 Message Signing some OPs support only the shorthand.
    pub(super) fn at(self, metadata: &ProviderMetadata, response_type: ResponseType) -> Result<Self, Error> {
        let lists = |mode: Self| metadata.response_modes_supported().iter().any(|listed| listed == mode.as_str());
        match (self, response_type) {
            (Self::Jwt, ResponseType::DeferredCodeOrCode) => Err(setting(
                "response_mode",
                "for `deferred_code code`, `jwt` means the URL fragment, which servers never receive; set \
                 `QueryJwt` or `FormPostJwt`",
            )),
            (Self::QueryJwt, ResponseType::DeferredCode | ResponseType::Code)
                if lists(Self::Jwt) && !lists(Self::QueryJwt) =>
            {
                Ok(Self::Jwt)
            }
            _ => Ok(self),
        }
    }

    /// Whether the browser returns with a POST.
    pub(super) fn is_form_post(self) -> bool {
        matches!(self, Self::FormPost | Self::FormPostJwt)
    }

    /// Whether the OP answers with a JWT.
    pub(super) fn is_jwt(self) -> bool {
        matches!(self, Self::QueryJwt | Self::FormPostJwt | Self::Jwt)
    }
}
