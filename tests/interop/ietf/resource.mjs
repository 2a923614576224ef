// A protected resource, which is also UserInfo (RFC 6750 §2.1, RFC 9449 §7, OIDC Core §5.3).
import { checkProof } from './dpop.mjs';
import { broken, Refusal } from './rules.mjs';

export function resource(server, request) {
  if (/(^|&)access_token=/.test(request.query)) broken('secret-in-url', 'invalid_request', 'a token stands in the URL');
  const [scheme, accessToken] = (request.headers.authorization ?? '').split(' ');
  const jkt = checkProof(server, request, accessToken ?? '');
  const known = server.tokens.get(accessToken);
  if (!known || known.end <= server.clock()) {
    throw new Refusal('invalid_token', 'the token is unknown or has ended', unauthorized('invalid_token'));
  }
  const wanted = known.jkt ? 'dpop' : 'bearer';
  if (scheme.toLowerCase() !== wanted) {
    broken('dpop-scheme', 'invalid_token', `${scheme} instead of ${wanted}`, unauthorized('invalid_token'));
  }
  if (known.jkt && known.jkt !== jkt) {
    broken('dpop-same-key', 'invalid_token', 'the token is bound to another key', unauthorized('invalid_token'));
  }
  const { subject, scope, resources, details } = known;
  const body = { sub: subject, name: 'Jane Doe', email: 'jane@example.com', scope: scope.join(' '), resources };
  return { status: 200, body: { ...body, ...(details && { authorization_details: details }) } };
}

function unauthorized(error) {
  return { status: 401, headers: { 'WWW-Authenticate': `DPoP error="${error}", Bearer error="${error}"` } };
}
