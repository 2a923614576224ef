//! Dynamic client registration and its management (RFC 7591, RFC 7592, OpenID Connect Dynamic Client Registration 1.0).
//!
//! 1. Build a [`Registrar`] for the OP, and a [`RegistrationRequest`].
//! 2. [`Registrar::register`] returns a [`Registration`]. [Seal](Registration::seal) and store it before you use it.
//! 3. [`Registration::differences`] lists where the registration differs from the request, and
//!    [`Registration::client`] makes a [`ClientBuilder`](crate::ClientBuilder) with the registered settings.
//!
//! Later [`Registrar::read`], [`Registrar::update`] and [`Registrar::delete`] manage the registration. If the OP refuses,
//! [`RegistrationRefusal::of`] states why. A client that was registered in another way needs none of this: start with
//! [`Client::builder`](crate::Client::builder).

pub use crate::client::{
    ApplicationType, CertificateSubject, ClientMetadata, DifferenceEffect, Registrar, RegistrarBuilder, Registration,
    RegistrationDifference, RegistrationRefusal, RegistrationRequest, SubjectType,
};
