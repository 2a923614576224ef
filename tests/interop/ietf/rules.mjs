// What a client can do wrong: the name of each rule, where it stands, and what it says. All of them are demanded with
// MUST, or needed so that a MUST can be kept; everything else is tolerated. "IETF DTR" is the draft "Deferred Token
// Response" of the OAuth working group.

export const RULES = {
  // Requests and clients.
  'request-form': ['RFC 6749 §3.2', 'A request is a POST of a form in which no parameter comes twice'],
  'secret-in-url': ['RFC 6749 §3.2, RFC 6750 §5.3, IETF DTR §Redaction', 'Codes and tokens do not stand in a URL'],
  'client-authentication': ['RFC 6749 §2.3', 'A client authenticates with its registered method, and with one only'],
  'client-assertion': [
    'RFC 7523 §3',
    'An assertion names the client, this server and its end, and is signed by a key of the client',
  ],
  'client-assertion-once': ['OIDC Core §9', 'The jti of an assertion is used once'],

  // Authorization requests.
  'authorization-request': [
    'RFC 6749 §4.1.1',
    'An authorization request has a registered redirect URI and asks for a code',
  ],
  'pkce-challenge': ['RFC 7636 §4.3', 'An authorization request has an S256 challenge'],
  'pushed-body': ['RFC 9126 §2.1', 'A pushed request contains no request_uri'],
  'pushed-once': ['RFC 9126 §4', 'A request_uri is used once, in time and by the client that pushed the request'],

  // Grants.
  'grant-known': ['RFC 6749 §5.2', 'The grant type is one of the metadata that the client may use'],
  'code-once': ['RFC 6749 §4.1.2', 'An authorization code is used once'],
  'code-request': ['RFC 6749 §4.1.3', 'A code is redeemed by its client with the redirect URI of the request'],
  'code-verifier': ['RFC 7636 §4.6', 'The code verifier fits the challenge'],
  'code-key': ['RFC 9449 §10', 'A code that is bound to a key is redeemed with a proof by that key'],
  'exchange-request': ['RFC 8693 §2.1', 'A token exchange has a valid subject token and its type'],
  'bearer-assertion': ['RFC 7523 §3', 'A JWT bearer grant has an assertion of a trusted issuer for this server'],
  'scope-syntax': ['RFC 6749 §3.3', 'Scopes are separated by one space'],
  'resource-uri': ['RFC 8707 §2', 'A resource is an absolute URI without a fragment'],
  'authorization-details': ['RFC 9396 §2', 'Authorization details are an array of objects with a type'],

  // Proofs of possession.
  'dpop-syntax': ['RFC 9449 §4.2', 'A proof is one JWT with typ, an asymmetric alg and a public key'],
  'dpop-signature': ['RFC 9449 §4.3', 'The key of the proof signs it'],
  'dpop-htm': ['RFC 9449 §4.3', 'The proof names the method'],
  'dpop-htu': ['RFC 9449 §4.2', 'The proof names the URL, without query and fragment'],
  'dpop-iat': ['RFC 9449 §4.3', 'The proof was made just now'],
  'dpop-jti': ['RFC 9449 §11.1', 'The jti of a proof is used once'],
  'dpop-ath': ['RFC 9449 §4.3', 'At a resource the proof contains the hash of the access token'],
  'dpop-nonce': ['RFC 9449 §8', 'The client uses the nonce that it was given'],
  'dpop-scheme': ['RFC 9449 §7.1', 'A bound token is presented with the scheme DPoP, another one with Bearer'],
  'dpop-required': ['RFC 9449 §5.2', 'A client that is registered for bound tokens sends a proof'],
  'dpop-public-client': ['IETF DTR §Sender-Constraint Requirements', 'A public client that opts in sends a proof'],
  'dpop-same-key': [
    'IETF DTR §Sender-Constraint Requirements',
    'Polls and cancellation have a proof by the key of the initial request',
  ],

  // Deferral.
  'hint-repeated': [
    'IETF DTR §Client Opt-In Signaling',
    'A client that has sent the hint opts in at the token endpoint too',
  ],
  'poll-without-opt-in': ['IETF DTR §Client Opt-In Signaling', 'completion_mode is never on a poll'],
  'notification-token-strength': [
    'IETF DTR §Client Opt-In Signaling',
    'A notification token is a bearer token of 128 bits or more',
  ],
  'notification-token-fresh': ['IETF DTR §Client Opt-In Signaling', 'A notification token is fresh for each request'],
  'poll-request': ['IETF DTR §Token Endpoint - Polling', 'A poll contains a deferral code that this client was given'],
  'poll-interval': [
    'IETF DTR §Token Endpoint - Polling',
    'The interval passes between polls, and 5 s more after each slow_down',
  ],
  'poll-after-end': ['IETF DTR §Token Endpoint - Polling', 'A client does not poll after a final answer'],
  'cancel-unsupported': ['IETF DTR §Cancellation', 'Deferral codes are revoked only where the metadata lists that'],
  'cancel-request': ['RFC 7009 §2.1', 'A client revokes what it was given'],
  'callback-answer': [
    'IETF DTR §Callback Notification',
    'A callback is answered with 204, or 401 for a wrong token, and never 3xx',
  ],
};

/** An error answer. If it names a rule, the client has broken it. */
export class Refusal extends Error {
  constructor(error, text, { rule, status = 400, members = {}, headers = {} } = {}) {
    super(text);
    Object.assign(this, { error, rule, status, members, headers });
  }

  /** RFC 6749 §5.2 */
  get answer() {
    const body = { error: this.error, ...(this.message && { error_description: this.message }), ...this.members };
    return { status: this.status, body, headers: this.headers };
  }
}

/** Refuses a request that breaks a rule. */
export function broken(rule, error, text, more) {
  throw new Refusal(error, text, { rule, ...more });
}

/** Records that a client has broken a rule. The text never contains a secret. */
export function record(server, rule, text) {
  const [section, demand] = RULES[rule];
  server.violations.push({ rule, section, text: `${demand}: ${text}` });
  server.log(`BROKEN ${rule}: ${text}`);
}
