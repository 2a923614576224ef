//! Why an OP refuses to ask a user (CIBA §13).

use crate::error::{Error, ErrorKind};

/// Why the OP refused a backchannel authentication request. Get it from an error with [`of`](Self::of).
///
/// After a refusal the OP has not asked the user. What the application shows is for the person who sees the page: someone
/// else than the user, such as a bank teller, should not learn more than they need.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationRefusal {
    /// `unknown_user_id`: the OP cannot identify the user by the hint.
    UnknownUser,
    /// `expired_login_hint_token`: get a new token, and send the request again.
    ExpiredLoginHintToken,
    /// `missing_user_code`: the user has a code. Let them enter it, and send the request with it.
    MissingUserCode,
    /// `invalid_user_code`: the code is wrong. Let the user enter it again.
    InvalidUserCode,
    /// `invalid_binding_message`: the OP cannot show the text. Send a shorter or plainer one.
    InvalidBindingMessage,
    /// `access_denied`: the OP or the user does not accept such requests now.
    Denied,
    /// `invalid_scope`: the OP does not grant a scope. Correct the request.
    InvalidScope,
    /// `unauthorized_client`: the client is not registered for this flow.
    UnauthorizedClient,
    /// `invalid_client`: the client's credentials are wrong.
    InvalidClient,
    /// `invalid_request`, or another code that speaks of the parameters: the OP does not accept the request, which has to
    /// be corrected. The OP's [description](crate::ErrorResponse::description) may say what is wrong.
    InvalidRequest,
}

impl AuthenticationRefusal {
    /// The refusal in an error of [`AuthenticationRequest::send`](super::AuthenticationRequest::send) or
    /// [`Poller::request_authentication`](crate::Poller::request_authentication). `None` if the error is not a refusal,
    /// such as a failed connection or an unavailable OP.
    ///
    /// ```
    /// # async fn example(request: openid_deferred::ciba::AuthenticationRequest<'_>) {
    /// use openid_deferred::ciba::AuthenticationRefusal;
    ///
    /// if let Err(error) = request.send().await {
    ///     let text = match AuthenticationRefusal::of(&error) {
    ///         Some(AuthenticationRefusal::UnknownUser) => "There is no such customer.",
    ///         Some(AuthenticationRefusal::MissingUserCode | AuthenticationRefusal::InvalidUserCode) => {
    ///             "Please let the customer enter their code."
    ///         }
    ///         _ => "The customer cannot be asked now.",
    ///     };
    ///     println!("{text}");
    /// }
    /// # }
    /// ```
    pub fn of(error: &Error) -> Option<Self> {
        let ErrorKind::ErrorResponse(response) = error.kind() else { return None };
        match response.code() {
            "unknown_user_id" => Some(Self::UnknownUser),
            "expired_login_hint_token" => Some(Self::ExpiredLoginHintToken),
            "missing_user_code" => Some(Self::MissingUserCode),
            "invalid_user_code" => Some(Self::InvalidUserCode),
            "invalid_binding_message" => Some(Self::InvalidBindingMessage),
            "access_denied" => Some(Self::Denied),
            "invalid_scope" => Some(Self::InvalidScope),
            "unauthorized_client" => Some(Self::UnauthorizedClient),
            "invalid_client" => Some(Self::InvalidClient),
            "invalid_request" | "invalid_request_object" | "invalid_target" | "invalid_authorization_details" => {
                Some(Self::InvalidRequest)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorResponse;

    #[test]
    fn a_server_error_is_not_a_refusal() {
        let refusal = |code| AuthenticationRefusal::of(&Error::new(ErrorResponse::new(code, None, Some(400))));
        assert_eq!(refusal("access_denied"), Some(AuthenticationRefusal::Denied));
        assert_eq!(refusal("server_error"), None);
        assert_eq!(refusal("temporarily_unavailable"), None);
    }
}
