// The token endpoint: what each grant demands, and what it gives.
import { authenticate } from './clients.mjs';
import { checkOptIn, defer, poll, wantsDeferral } from './deferral.mjs';
import { checkProof } from './dpop.mjs';
import { postedForm } from './http.mjs';
import { halfHash, isSignedBy, parseJwt, random, sha256, signJwt } from './jose.mjs';
import { BEARER_GRANT, DEFERRED_GRANT, EXCHANGE_GRANT, metadata } from './metadata.mjs';
import { broken } from './rules.mjs';

const TOKEN_LIFETIME = 300;
export const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';

export function token(server, request) {
  const form = postedForm(request);
  const client = authenticate(server, request, form);
  const jkt = checkProof(server, request);
  if (client.dpop_bound_access_tokens && !jkt) broken('dpop-required', 'invalid_dpop_proof', 'there is none');
  const name = form.get('grant_type');
  if (!metadata(server).grant_types_supported.includes(name)) {
    broken('grant-known', 'unsupported_grant_type', `${name} is not listed`);
  }
  if (name === DEFERRED_GRANT) return poll(server, { form, client, jkt }, issue);
  const asked = { ...readTarget(form), client, jkt };
  const optedIn = checkOptIn(server, form, asked);
  const granted = GRANTS[name](server, form, asked, optedIn);
  return optedIn && wantsDeferral(server, granted) ? defer(server, form, granted) : issue(server, granted);
}

/** Scopes, resources and authorization details, which every grant may have. */
function readTarget(form) {
  const scope = form.get('scope');
  if (scope && !/^[!#-[\]-~]+( [!#-[\]-~]+)*$/.test(scope)) {
    broken('scope-syntax', 'invalid_scope', 'it is no list of scopes');
  }
  form.all('resource').forEach((uri) => {
    if (!URL.canParse(uri) || uri.includes('#')) broken('resource-uri', 'invalid_target', 'it is something else');
  });
  const details = readDetails(form.get('authorization_details'));
  return { scope: form.list('scope'), resources: form.all('resource'), details };
}

function readDetails(text) {
  if (text === undefined) return undefined;
  const refuse = () => broken('authorization-details', 'invalid_authorization_details', 'they are something else');
  let details;
  try {
    details = JSON.parse(text);
  } catch {
    refuse();
  }
  return Array.isArray(details) && details.every((detail) => typeof detail?.type === 'string') ? details : refuse();
}

const GRANTS = {
  /** RFC 6749 §4.1.3, RFC 7636 §4.6, RFC 9449 §10 */
  authorization_code(server, form, asked, optedIn) {
    const refuse = (rule, text) => broken(rule, 'invalid_grant', text);
    const code = server.codes.get(form.get('code')) ?? refuse('code-once', 'it is unknown');
    if (code.used) refuse('code-once', 'it was used before');
    if (code.end <= server.clock()) refuse('code-once', 'it has expired');
    if (code.client !== asked.client) refuse('code-request', 'the client is another one');
    if (code.redirectUri !== form.get('redirect_uri')) refuse('code-request', 'redirect_uri is another one');
    const verifier = form.get('code_verifier') ?? '';
    if (!/^[\w.~-]{43,128}$/.test(verifier) || sha256(verifier) !== code.challenge) {
      refuse('code-verifier', verifier ? 'it does not fit' : 'there is none');
    }
    if (code.jkt && code.jkt !== asked.jkt) refuse('code-key', 'the key is another one');
    if (code.hint && !optedIn) broken('hint-repeated', 'invalid_request', 'completion_mode is missing');
    code.used = true;
    const { scope, nonce } = code;
    return { ...asked, scope, nonce, subject: 'user-1', hasIdToken: scope.includes('openid') };
  },

  /** RFC 6749 §4.4 */
  client_credentials(server, form, asked) {
    if (asked.client.token_endpoint_auth_method === 'none') {
      broken('grant-known', 'unauthorized_client', 'a public client has no credentials');
    }
    return { ...asked, subject: asked.client.client_id };
  },

  /** RFC 8693 §2.1 */
  [EXCHANGE_GRANT](server, form, asked) {
    const refuse = (text) => broken('exchange-request', 'invalid_request', text);
    if (form.get('subject_token_type') !== ACCESS_TOKEN_TYPE) refuse('subject_token_type is unknown');
    if (form.has('actor_token') !== form.has('actor_token_type')) refuse('actor_token and its type come together');
    const subject = server.tokens.get(form.get('subject_token')) ?? refuse('subject_token is unknown');
    return { ...asked, subject: subject.subject, issuedTokenType: ACCESS_TOKEN_TYPE };
  },

  /** RFC 7523 §3 */
  [BEARER_GRANT](server, form, asked) {
    const refuse = (text) => broken('bearer-assertion', 'invalid_grant', text);
    const jwt = parseJwt(form.get('assertion') ?? '') ?? refuse('it is not a JWT');
    const { iss, sub, aud, exp } = jwt.claims;
    const isTrusted = iss === server.assertionIssuer && isSignedBy(jwt, server.keys.assertions.jwk);
    if (!isTrusted) refuse('its issuer is not trusted');
    const audiences = [server.issuer, server.endpoints.token];
    if (![aud].flat().some((name) => audiences.includes(name))) refuse('aud is not this server');
    if (!(exp > server.clock() / 1000)) refuse('it has expired');
    return { ...asked, subject: sub };
  },
};

/** The success response of the originating grant (RFC 6749 §5.1). */
function issue(server, granted) {
  const { client, jkt, scope, resources, details, subject, issuedTokenType } = granted;
  const accessToken = random();
  const end = server.clock() + TOKEN_LIFETIME * 1000;
  server.tokens.set(accessToken, { client, jkt, scope, resources, details, subject, end });
  const body = {
    access_token: accessToken,
    token_type: jkt ? 'DPoP' : 'Bearer',
    expires_in: TOKEN_LIFETIME,
    ...(scope.length > 0 && { scope: scope.join(' ') }),
    ...(details && { authorization_details: details }),
    ...(issuedTokenType && { issued_token_type: issuedTokenType }),
    ...(granted.hasIdToken && { id_token: idToken(server, granted, accessToken) }),
  };
  return { status: 200, body };
}

/** OIDC Core §2 and §3.1.3.6 */
function idToken(server, { client, subject, nonce }, accessToken) {
  const now = Math.floor(server.clock() / 1000);
  const key = server.keys[client.id_token_signed_response_alg ?? 'RS256'];
  const times = { iat: now, auth_time: now, exp: now + TOKEN_LIFETIME };
  const claims = { iss: server.issuer, sub: subject, aud: client.client_id, ...times, at_hash: halfHash(accessToken) };
  return signJwt(key, { ...claims, ...(nonce && { nonce }) });
}
