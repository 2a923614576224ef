// The authorization server as a whole: its state, its endpoints and its control.
import { authorize, par } from './authorize.mjs';
import { callback, interact, revoke, step } from './deferral.mjs';
import { nonceHeader } from './dpop.mjs';
import { token } from './grants.mjs';
import { readRequest, writeAnswer } from './http.mjs';
import { generateKey, random, signJwt } from './jose.mjs';
import { endpointsOf, metadata, metadataPaths } from './metadata.mjs';
import { resource } from './resource.mjs';
import { broken, record, Refusal } from './rules.mjs';

const SETTINGS = {
  clients: [],
  // The path of the issuer.
  path: '/strict',
  // Only RFC 8414, without keys, sign-ins and OpenID discovery.
  only_rfc8414: false,
  require_pushed: false,
  // Whether the server knows deferral, says so, and knows its cancellation.
  supported: true,
  advertised: true,
  cancellation: true,
  // Answers at once: always, or unless the amount of the authorization details is above this.
  at_once: false,
  defer_above: undefined,
  // The deferred response: the lifetime and the interval in seconds, the error, and whether a page is always offered.
  expires_in: 600,
  interval: 1,
  first: 'authorization_pending',
  interaction: false,
  // A step before the deferred response is written, one step for each poll, and the step when the user opens the page (see `step` in deferral.mjs).
  immediately: undefined,
  script: [],
  opened: 'interaction_pending',
  // Whether pending answers repeat the code and the interval.
  repeat: false,
  // More members of callbacks.
  callback_members: {},
  // The lifetime of DPoP nonces in seconds; 0 if they are not required.
  nonce_lifetime: 0,
};

export const newKeys = () => ({
  RS256: generateKey('RS256'),
  ES256: generateKey('ES256'),
  assertions: generateKey('ES256'),
});

/** A server at this address. `post` sends callbacks, and `log` gets the lines of the log. */
export function createAuthorizationServer(options) {
  const { settings, base, post, clock = Date.now, log = console.error, keys = newKeys() } = options;
  const all = { ...SETTINGS, ...settings };
  const issuer = `${base}${all.path}`;
  return {
    settings: all,
    base,
    issuer,
    endpoints: endpointsOf(issuer),
    assertionIssuer: 'https://assertions.test',
    keys,
    clock,
    post,
    log,
    clients: new Map(all.clients.map((client) => [client.client_id, client])),
    violations: [],
    pushed: new Map(),
    codes: new Map(),
    tokens: new Map(),
    processes: [],
    interactions: new Map(),
    // The jti of proofs and assertions, and notification tokens.
    used: new Set(),
    nonces: { server: new Map(), resource: new Map() },
    misses: new Map(),
  };
}

const handlers = { authorize, par, token, revoke, resource };

/** The name and the handler of an endpoint. */
function route(server, request) {
  if (metadataPaths(server).includes(request.path))
    return ['metadata', () => ({ status: 200, body: metadata(server) })];
  if (request.path.startsWith(`${server.settings.path}/interaction/`)) return ['interaction', interact];
  const name = Object.keys(server.endpoints).find((one) => server.endpoints[one] === request.endpoint);
  const isForSignIns = ['authorize', 'par', 'jwks'].includes(name);
  if (name === undefined || (isForSignIns && server.settings.only_rfc8414)) return ['unknown', () => ({ status: 404 })];
  if (name !== 'jwks') return [name, handlers[name]];
  return [name, () => ({ status: 200, body: { keys: [server.keys.RS256.jwk, server.keys.ES256.jwk] } })];
}

/** Handles requests of Node's HTTP servers. */
export function listener(server) {
  return async (message, response) => {
    try {
      const request = await readRequest(server, message);
      const [name, handler] = route(server, request);
      const answer = answerOf(server, { ...request, route: name }, handler);
      // The log names the endpoint instead of the URL, which may contain a secret.
      server.log(`${request.method} ${name} ${answer.status} ${answer.body?.error ?? ''}`);
      const place = name === 'resource' ? 'resource' : 'server';
      const hasNonce = ['par', 'token', 'revoke', 'resource'].includes(name);
      const nonce = hasNonce ? nonceHeader(server, place, answer.body?.error) : {};
      writeAnswer(response, { ...answer, headers: { ...answer.headers, ...nonce } });
    } catch (error) {
      server.log(`fault: ${error.stack}`);
      writeAnswer(response, { status: 500 });
    }
  };
}

function answerOf(server, request, handler) {
  try {
    if (/(^|&)(deferral_code|client_notification_token|client_secret)=/.test(request.query)) {
      broken('secret-in-url', 'invalid_request', `a secret stands in the URL of ${request.route}`);
    }
    return handler(server, request);
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.rule) record(server, error.rule, error.message);
    return error.answer;
  }
}

/** Obeys a test: `{"do": NAME, …}`. */
export function control(server, command) {
  const { do: name, ...given } = command;
  if (!(name in COMMANDS)) throw new Error(`there is no command ${name}`);
  return COMMANDS[name](server, given) ?? {};
}

/** A process without its secrets. */
function describe({ id, granted, state, says, polls, callbacks, interval, end, interaction, notificationToken }) {
  return {
    ...{ id, state, says, polls, callbacks, interval, end },
    client_id: granted.client.client_id,
    bound: granted.jkt !== undefined,
    notification_token: notificationToken !== undefined,
    interaction_opened: interaction?.opened ?? false,
  };
}

const COMMANDS = {
  violations: (server) => ({ violations: server.violations }),

  processes: (server) => ({ processes: server.processes.map(describe) }),

  /** `id` of the process, and `to` and `text` of the step. */
  decide: (server, { id, ...wanted }) => step(server, server.processes[id - 1], wanted),

  /** Changes settings from now on. */
  configure: (server, { settings = {}, client }) => {
    Object.assign(server.settings, settings);
    if (client) Object.assign(server.clients.get(client.client_id), client);
  },

  /** Sends a callback that may be wrong. Its answer is among those of the process. */
  callback: (server, { id, ...spoilt }) => {
    callback(server, server.processes[id - 1], spoilt);
  },

  /** An assertion for the JWT bearer grant (RFC 7523 §3). */
  mint_assertion: (server, { sub = 'user-1', ...more }) => {
    const now = Math.floor(server.clock() / 1000);
    const times = { iat: now, exp: now + 300 };
    const claims = { iss: server.assertionIssuer, sub, aud: server.issuer, ...times, jti: random(16), ...more };
    return { assertion: signJwt(server.keys.assertions, claims) };
  },

  /** An access token of a user, for token exchange. */
  mint_subject_token: (server, { sub = 'user-1' }) => {
    const subjectToken = random();
    server.tokens.set(subjectToken, { subject: sub, scope: [], resources: [], end: server.clock() + 300_000 });
    return { subject_token: subjectToken };
  },
};
