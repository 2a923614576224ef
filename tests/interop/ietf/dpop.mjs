// Proofs of possession (RFC 9449).
import { ALGORITHMS, isPublicKey, isSignedBy, parseJwt, random, sha256, thumbprint } from './jose.mjs';
import { broken, record, Refusal } from './rules.mjs';

/** How far the iat of a proof may be from this server's clock, in seconds. */
const WINDOW = 30;

/** So many requests in a row may miss the current nonce. More of them ignore it. */
const MISSES = 2;

/**
 * The thumbprint of the key that has signed the proof of this request, or undefined without a proof. At a resource, the
 * access token is given, and nonces are those of the resource.
 */
export function checkProof(server, request, accessToken) {
  const text = request.headers.dpop;
  if (text === undefined) return undefined;
  const refuse = (rule, why) => broken(rule, 'invalid_dpop_proof', why, challenge(accessToken, 'invalid_dpop_proof'));
  const proof = parseJwt(text);
  if (!proof) refuse('dpop-syntax', 'it is not one JWT');
  const { header, claims } = proof;
  if (header.typ !== 'dpop+jwt') refuse('dpop-syntax', 'typ is not dpop+jwt');
  if (!isPublicKey(header.jwk, header.alg)) refuse('dpop-syntax', 'jwk is not a public key for an asymmetric alg');
  if (!isSignedBy(proof, header.jwk)) refuse('dpop-signature', 'another key has signed it');
  if (claims.htm !== request.method) refuse('dpop-htm', `a ${request.method} needs another htm`);
  if (claims.htu !== request.endpoint) refuse('dpop-htu', `${request.route} has another URL`);
  const age = server.clock() / 1000 - claims.iat;
  if (!(Math.abs(age) <= WINDOW)) refuse('dpop-iat', `it is ${Math.round(age)} s old`);
  checkOnce(server, claims.jti, refuse);
  if (accessToken !== undefined && claims.ath !== sha256(accessToken)) refuse('dpop-ath', 'ath fits another token');
  const jkt = thumbprint(header.jwk);
  checkNonce(server, claims.nonce, jkt, accessToken);
  return jkt;
}

function checkOnce(server, jti, refuse) {
  if (typeof jti !== 'string' || jti === '') refuse('dpop-jti', 'there is none');
  if (server.used.has(`dpop ${jti}`)) refuse('dpop-jti', 'it was used before');
  server.used.add(`dpop ${jti}`);
}

/** RFC 9449 §8 and §9 */
function checkNonce(server, nonce, jkt, accessToken) {
  const lifetime = server.settings.nonce_lifetime;
  if (!lifetime) return;
  const place = accessToken === undefined ? 'server' : 'resource';
  const key = `${place} ${jkt}`;
  const issued = server.nonces[place].get(nonce);
  if (issued !== undefined && server.clock() < issued + lifetime * 1000) {
    server.misses.delete(key);
    return;
  }
  const misses = (server.misses.get(key) ?? 0) + 1;
  server.misses.set(key, misses);
  if (misses > MISSES) record(server, 'dpop-nonce', `${misses} proofs in a row are without a current nonce`);
  throw new Refusal('use_dpop_nonce', 'the proof needs a current nonce', challenge(accessToken, 'use_dpop_nonce'));
}

/** At a resource, an error is a 401 with a challenge (RFC 9449 §7.1). */
function challenge(accessToken, error) {
  if (accessToken === undefined) return {};
  return { status: 401, headers: { 'WWW-Authenticate': `DPoP error="${error}", algs="${ALGORITHMS.join(' ')}"` } };
}

/** The header with a nonce, which is renewed twice in its lifetime, and for each challenge. */
export function nonceHeader(server, place, error) {
  const lifetime = server.settings.nonce_lifetime;
  if (!lifetime) return {};
  const nonces = server.nonces[place];
  const newest = [...nonces].at(-1);
  const isFresh = newest && server.clock() < newest[1] + (lifetime * 1000) / 2;
  if (isFresh && error !== 'use_dpop_nonce') return { 'DPoP-Nonce': newest[0] };
  const nonce = random(16);
  nonces.set(nonce, server.clock());
  return { 'DPoP-Nonce': nonce };
}

/** IETF DTR §Sender-Constraint Requirements: polls and cancellation have a proof by the key of the initial request. */
export function checkSameKey(bound, jkt) {
  if (bound === jkt) return;
  const refuse = (text) => broken('dpop-same-key', 'invalid_dpop_proof', text);
  if (!bound) refuse('the initial request had no proof');
  refuse(jkt ? 'another key has signed' : 'there is no proof');
}
