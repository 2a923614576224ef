// Signatures and keys (RFC 7515, 7517, 7638), on Node's own cryptography.
import { constants, createHash, createPublicKey, generateKeyPairSync, randomBytes, sign, verify } from 'node:crypto';

export const ALGORITHMS = ['ES256', 'RS256', 'PS256', 'EdDSA'];

const KEY_TYPES = { ES256: 'EC', RS256: 'RSA', PS256: 'RSA', EdDSA: 'OKP' };
const THUMBPRINT_MEMBERS = { EC: ['crv', 'kty', 'x', 'y'], RSA: ['e', 'kty', 'n'], OKP: ['crv', 'kty', 'x'] };
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'k'];

export const random = (bytes = 32) => randomBytes(bytes).toString('base64url');
export const sha256 = (text) => createHash('sha256').update(text).digest('base64url');

/** The left half of the hash of a token (OIDC Core §3.1.3.6). */
export const halfHash = (text) => createHash('sha256').update(text).digest().subarray(0, 16).toString('base64url');

/** The SHA-256 thumbprint of a JWK (RFC 7638). */
export function thumbprint(jwk) {
  return sha256(JSON.stringify(Object.fromEntries(THUMBPRINT_MEMBERS[jwk.kty].map((name) => [name, jwk[name]]))));
}

/** A new key for signing with this algorithm. */
export function generateKey(algorithm) {
  const [type, options] = {
    ES256: ['ec', { namedCurve: 'P-256' }],
    RS256: ['rsa', { modulusLength: 2048 }],
    EdDSA: ['ed25519', {}],
  }[algorithm];
  const { privateKey, publicKey } = generateKeyPairSync(type, options);
  const jwk = publicKey.export({ format: 'jwk' });
  return { algorithm, privateKey, jwk: { ...jwk, kid: thumbprint(jwk), use: 'sig', alg: algorithm } };
}

/** How node:crypto is told to use a key with an algorithm: the hash, and the options beside the key. */
function settings(algorithm) {
  switch (algorithm) {
    case 'ES256':
      return ['sha256', { dsaEncoding: 'ieee-p1363' }];
    case 'RS256':
      return ['sha256', {}];
    case 'PS256':
      return ['sha256', { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }];
    case 'EdDSA':
      return [null, {}];
    default:
      throw new Error('unknown algorithm');
  }
}

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** A signed JWT. */
export function signJwt(key, claims, header = {}) {
  const input = `${encoded({ alg: key.algorithm, kid: key.jwk.kid, ...header })}.${encoded(claims)}`;
  const [hash, options] = settings(key.algorithm);
  return `${input}.${sign(hash, Buffer.from(input), { key: key.privateKey, ...options }).toString('base64url')}`;
}

/** The parts of a JWT, or undefined if the text is none. Nothing is verified. */
export function parseJwt(text) {
  try {
    if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(text)) return undefined;
    const read = (part) => JSON.parse(Buffer.from(part, 'base64url').toString());
    const [header, claims] = text.split('.').slice(0, 2).map(read);
    const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
    return isObject(header) && isObject(claims) ? { text, header, claims } : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a JWK is a public key for this algorithm. */
export function isPublicKey(jwk, algorithm) {
  if (!ALGORITHMS.includes(algorithm) || jwk?.kty !== KEY_TYPES[algorithm]) return false;
  if (PRIVATE_MEMBERS.some((name) => name in jwk)) return false;
  try {
    return createPublicKey({ key: jwk, format: 'jwk' }).type === 'public';
  } catch {
    return false;
  }
}

/** Whether this key has signed the JWT with the algorithm of its header. */
export function isSignedBy(jwt, jwk) {
  if (!isPublicKey(jwk, jwt.header.alg)) return false;
  const end = jwt.text.lastIndexOf('.');
  const [hash, options] = settings(jwt.header.alg);
  const key = { key: createPublicKey({ key: jwk, format: 'jwk' }), ...options };
  return verify(hash, Buffer.from(jwt.text.slice(0, end)), key, Buffer.from(jwt.text.slice(end + 1), 'base64url'));
}
