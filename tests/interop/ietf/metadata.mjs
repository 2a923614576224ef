// What this server says about itself (RFC 8414, OpenID Connect Discovery 1.0).
import { ALGORITHMS } from './jose.mjs';

export const DEFERRED_GRANT = 'urn:ietf:params:oauth:grant-type:deferred';
export const DEFERRAL_CODE_TYPE = 'urn:ietf:params:oauth:token-type:deferral-code';
export const EXCHANGE_GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
export const BEARER_GRANT = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

export function endpointsOf(issuer) {
  const names = ['authorize', 'par', 'token', 'revoke', 'resource', 'jwks'];
  return Object.fromEntries(names.map((name) => [name, `${issuer}/${name}`]));
}

/** RFC 8414, with the members of the draft. */
export function metadata(server) {
  const { issuer, endpoints, settings } = server;
  return {
    issuer,
    token_endpoint: endpoints.token,
    grant_types_supported: [
      ...(settings.only_rfc8414 ? [] : ['authorization_code']),
      'client_credentials',
      EXCHANGE_GRANT,
      BEARER_GRANT,
      ...(settings.supported ? [DEFERRED_GRANT] : []),
    ],
    response_types_supported: settings.only_rfc8414 ? [] : ['code'],
    token_endpoint_auth_methods_supported: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    token_endpoint_auth_signing_alg_values_supported: ALGORITHMS,
    dpop_signing_alg_values_supported: ALGORITHMS,
    revocation_endpoint: endpoints.revoke,
    ...(settings.supported && settings.advertised && { deferred_token_response_supported: true }),
    ...(settings.cancellation && { revocation_endpoint_token_type_values_supported: [DEFERRAL_CODE_TYPE] }),
    ...(!settings.only_rfc8414 && signInMetadata(server)),
  };
}

function signInMetadata({ endpoints, settings }) {
  return {
    authorization_endpoint: endpoints.authorize,
    pushed_authorization_request_endpoint: endpoints.par,
    require_pushed_authorization_requests: settings.require_pushed,
    jwks_uri: endpoints.jwks,
    userinfo_endpoint: endpoints.resource,
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['RS256', 'ES256'],
    scopes_supported: ['openid', 'profile', 'email'],
    response_modes_supported: ['query'],
    code_challenge_methods_supported: ['S256'],
    authorization_response_iss_parameter_supported: true,
    request_parameter_supported: false,
    request_uri_parameter_supported: false,
  };
}

/** In the one path the well-known part comes before the issuer's path, in the other after it. */
export function metadataPaths(server) {
  const path = server.issuer.slice(server.base.length);
  const oauth = `/.well-known/oauth-authorization-server${path}`;
  return server.settings.only_rfc8414 ? [oauth] : [oauth, `${path}/.well-known/openid-configuration`];
}
