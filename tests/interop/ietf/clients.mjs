// Client authentication (RFC 6749 §2.3, RFC 7523 §3).
import { isSignedBy, parseJwt } from './jose.mjs';
import { broken } from './rules.mjs';

const ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';

/** The client that sends this form. */
export function authenticate(server, request, form) {
  const basic = readBasic(request);
  const assertion = form.get('client_assertion');
  const methods = [
    basic && 'client_secret_basic',
    form.has('client_secret') && 'client_secret_post',
    assertion && 'private_key_jwt',
  ].filter(Boolean);
  if (methods.length > 1) refuse('it uses more than one method');
  const method = methods[0] ?? 'none';
  const client = findClient(server, form.get('client_id'), basic?.id ?? parseJwt(assertion ?? '')?.claims.sub);
  if (client.token_endpoint_auth_method !== method) {
    refuse(`${method} instead of ${client.token_endpoint_auth_method}`);
  }
  const secret = basic?.secret ?? form.get('client_secret');
  if (method.startsWith('client_secret') && secret !== client.client_secret) refuse('the secret is wrong');
  if (method === 'private_key_jwt') checkAssertion(server, request, form, client);
  return client;
}

function findClient(server, inForm, authenticated) {
  if (inForm && authenticated && inForm !== authenticated) refuse('client_id is another client');
  const client = server.clients.get(authenticated ?? inForm);
  return client ?? refuse('the client is unknown');
}

/** The identifier and the secret, which are encoded as in a form (RFC 6749 §2.3.1). */
function readBasic(request) {
  const [scheme, credentials] = (request.headers.authorization ?? '').split(' ');
  if (scheme === '') return undefined;
  if (scheme.toLowerCase() !== 'basic') refuse('the scheme is not Basic');
  const decoded = (text) => decodeURIComponent(text.replaceAll('+', ' '));
  const [id, ...secret] = Buffer.from(credentials ?? '', 'base64')
    .toString()
    .split(':');
  try {
    return { id: decoded(id), secret: decoded(secret.join(':')) };
  } catch {
    return refuse('the credentials are not encoded as in a form');
  }
}

/** RFC 7523 §3. The audience is the issuer, the token endpoint, or the endpoint itself (RFC 9126 §2). */
function checkAssertion(server, request, form, client) {
  const refuseIt = (text, rule = 'client-assertion') => refuse(text, rule);
  if (form.get('client_assertion_type') !== ASSERTION_TYPE) refuseIt('client_assertion_type is wrong');
  const jwt = parseJwt(form.get('client_assertion')) ?? refuseIt('it is not a JWT');
  const { iss, sub, aud, exp, nbf, jti } = jwt.claims;
  const now = server.clock() / 1000;
  if (iss !== client.client_id || sub !== client.client_id) refuseIt('iss and sub are not the client');
  const audiences = [server.issuer, server.endpoints.token, request.endpoint];
  if (![aud].flat().some((name) => audiences.includes(name))) refuseIt('aud is not this server');
  if (!(exp > now) || nbf > now + 5) refuseIt('it is not valid now');
  if (typeof jti !== 'string' || jti === '') refuseIt('there is no jti');
  if (!client.jwks?.keys.some((key) => isSignedBy(jwt, key))) refuseIt('no key of the client has signed it');
  if (server.used.has(`assertion ${jti}`)) refuseIt('it was used before', 'client-assertion-once');
  server.used.add(`assertion ${jti}`);
}

function refuse(text, rule = 'client-authentication') {
  broken(rule, 'invalid_client', text, { status: 401, headers: { 'WWW-Authenticate': 'Basic realm="strict"' } });
}
