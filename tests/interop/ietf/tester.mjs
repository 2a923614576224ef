// A server in this process, over plain HTTP and with a clock of its own, and a client that can break rules.
import { createServer } from 'node:http';

import { control, createAuthorizationServer, listener, newKeys } from './app.mjs';
import { generateKey, random, sha256, signJwt } from './jose.mjs';
import { DEFERRED_GRANT } from './metadata.mjs';

export const SECRET = 'a secret: 100% +/?&';
export const CALLBACK = 'https://rp.test/callback';
export const NOTIFY = 'https://rp.test/notify';

const serverKeys = newKeys();
export const clientKey = generateKey('ES256');

const registered = { redirect_uris: [CALLBACK], jwks: { keys: [clientKey.jwk] } };
const CLIENTS = ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'].map((method) => ({
  client_id: method,
  token_endpoint_auth_method: method,
  client_secret: method.startsWith('client_secret') ? SECRET : undefined,
  deferred_client_notification_endpoint: NOTIFY,
  ...registered,
}));

/** Runs a server for one test. */
export async function withServer(settings, run) {
  let now = Date.now();
  const lines = [];
  const posted = [];
  const http = createServer();
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  const server = createAuthorizationServer({
    settings: { clients: structuredClone(CLIENTS), ...settings },
    base: 'https://localhost',
    keys: serverKeys,
    clock: () => now,
    log: (line) => lines.push(line),
    post: async (url, headers, body) => posted.push({ url, headers, body: JSON.parse(body) }) && world.answer,
  });
  http.on('request', listener(server));
  const world = {
    server,
    lines,
    posted,
    // The status with which the client answers callbacks.
    answer: 204,
    pass: (seconds) => {
      now += seconds * 1000;
    },
    now: () => now,
    tell: (name, given) => control(server, { do: name, ...given }),
    broken: () => server.violations.map(({ rule }) => rule),
    /** Sends a request to a URL of the server. */
    fetch: async (url, options) => {
      const { port } = http.address();
      const answer = await fetch(url.replace(server.base, `http://127.0.0.1:${port}`), {
        redirect: 'manual',
        ...options,
      });
      const text = await answer.text();
      const isJson = answer.headers.get('content-type') === 'application/json';
      return { status: answer.status, headers: answer.headers, body: isJson && text ? JSON.parse(text) : text };
    },
  };
  try {
    await run(world);
  } finally {
    http.closeAllConnections();
    http.close();
  }
}

/** A client of the server. Options with `undefined` leave something out. */
export class Client {
  constructor(world, id = 'client_secret_basic') {
    Object.assign(this, { world, id, key: generateKey('ES256') });
  }

  /** A proof, whose header and claims may be wrong. */
  proof({ url, method = 'POST', token, key = this.key, header = {}, claims = {} }) {
    const { kty, crv, x, y } = key.jwk;
    const iat = Math.floor(this.world.now() / 1000);
    const ath = token && sha256(token);
    const all = { jti: random(16), htm: method, htu: url, iat, ath, nonce: this.nonce, ...claims };
    return signJwt({ ...key, jwk: {} }, all, { typ: 'dpop+jwt', jwk: { kty, crv, x, y }, ...header });
  }

  assertion(claims = {}, header = {}) {
    const iat = Math.floor(this.world.now() / 1000);
    const all = { iss: this.id, sub: this.id, aud: this.world.server.issuer, jti: random(16), iat, exp: iat + 60 };
    return signJwt(clientKey, { ...all, ...claims }, header);
  }

  /** Posts a form. `proof: false` leaves the proof out. */
  async post(name, form, { proof = {}, headers = {}, query = '', text } = {}) {
    const url = this.world.server.endpoints[name];
    const given = { ...this.credentials(), ...form };
    const body =
      text ?? new URLSearchParams(Object.entries(given).filter(([, value]) => value !== undefined)).toString();
    const encoded = (value) => new URLSearchParams({ '': value }).toString().slice(1);
    const basic = Buffer.from(`${encoded(this.id)}:${encoded(SECRET)}`).toString('base64');
    const answer = await this.world.fetch(url + query, {
      method: 'POST',
      headers: {
        'Content-Type': 'application/x-www-form-urlencoded',
        ...(proof && { DPoP: typeof proof === 'string' ? proof : this.proof({ url, ...proof }) }),
        ...(this.id === 'client_secret_basic' && { Authorization: `Basic ${basic}` }),
        ...headers,
      },
      body,
    });
    if (this.remembers !== false) this.nonce = answer.headers.get('dpop-nonce') ?? undefined;
    return answer;
  }

  credentials() {
    switch (this.id) {
      case 'client_secret_basic':
        return {};
      case 'client_secret_post':
        return { client_id: this.id, client_secret: SECRET };
      case 'private_key_jwt':
        return {
          client_id: this.id,
          client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
          client_assertion: this.assertion(),
        };
      default:
        return { client_id: this.id };
    }
  }

  /** A request for tokens of its own, which opts in. */
  ask(form, options) {
    return this.post('token', { grant_type: 'client_credentials', completion_mode: 'deferred', ...form }, options);
  }

  async deferred(form, options) {
    const { body } = await this.ask(form, options);
    if (body.deferral_code === undefined) throw new Error(`not deferred: ${JSON.stringify(body)}`);
    return body.deferral_code;
  }

  /** Waits for the interval, unless it is told not to, and polls. */
  poll(deferral_code, { after = 1, form, ...options } = {}) {
    this.world.pass(after);
    return this.post('token', { grant_type: DEFERRED_GRANT, deferral_code, ...form }, options);
  }

  request(more) {
    this.verifier = random();
    const request = {
      response_type: 'code',
      client_id: this.id,
      redirect_uri: CALLBACK,
      scope: 'openid',
      state: 'the-state',
      nonce: 'the-nonce',
      code_challenge: sha256(this.verifier),
      code_challenge_method: 'S256',
      ...more,
    };
    return Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined));
  }

  /** Sends a user to the server, and returns the parameters with which the user comes back. */
  async authorize(parameters) {
    const query = new URLSearchParams(parameters);
    const answer = await this.world.fetch(`${this.world.server.endpoints.authorize}?${query}`);
    const location = answer.headers.get('location');
    return location ? Object.fromEntries(new URL(location).searchParams) : answer;
  }

  async code(more) {
    return (await this.authorize(this.request(more))).code;
  }

  redeem(code, form, options) {
    const given = {
      grant_type: 'authorization_code',
      code,
      redirect_uri: CALLBACK,
      code_verifier: this.verifier,
      ...form,
    };
    return this.ask(given, options);
  }

  /** Gets the resource with a token. */
  resource(token, { scheme = 'DPoP', proof = {}, query = '' } = {}) {
    const url = this.world.server.endpoints.resource;
    const header = proof && { DPoP: this.proof({ url, method: 'GET', token, ...proof }) };
    return this.world.fetch(url + query, { headers: { Authorization: `${scheme} ${token}`, ...header } });
  }
}
