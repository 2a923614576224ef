//! How the OP tells the client of its decision (CIBA §5).

/// The token delivery mode that the client is registered for (`backchannel_token_delivery_mode`, CIBA §4 and §5).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeliveryMode {
    /// `poll`: the client polls the token endpoint. This is the default of OPs.
    #[default]
    Poll,
    /// `ping`: the OP also calls the client's registered `backchannel_client_notification_endpoint` when it has decided.
    /// Serve a [`Receiver`](crate::ping::Receiver) there. The client polls as well, so that a lost ping only costs time.
    Ping,
    /// `push`: the OP sends the tokens to the client. This crate does not support it. A client of this mode is an error
    /// at discovery and in every request: have it registered for one of the other modes.
    Push,
}

impl DeliveryMode {
    const ALL: [Self; 3] = [Self::Poll, Self::Ping, Self::Push];

    /// The name in metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Ping => "ping",
            Self::Push => "push",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}
