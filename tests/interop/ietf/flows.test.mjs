// A client that follows the rules gets what the draft promises, and no violation is recorded.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ACCESS_TOKEN_TYPE } from './grants.mjs';
import { generateKey, halfHash, isSignedBy, parseJwt, random } from './jose.mjs';
import { BEARER_GRANT, DEFERRAL_CODE_TYPE, EXCHANGE_GRANT } from './metadata.mjs';
import { Client, NOTIFY, withServer } from './tester.mjs';

const METHODS = ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'];

/** A test at the end of which no rule is broken. */
function flow(name, settings, run) {
  test(name, () =>
    withServer(settings, async (world) => {
      await run(new Client(world), world);
      assert.deepEqual(world.server.violations, []);
    }),
  );
}

/** The steps of a process and the errors of the polls after each. */
async function polls(client, world, code, expected) {
  for (const [to, error] of expected) {
    if (to) world.tell('decide', { id: 1, to });
    const answer = await client.poll(code, { after: world.server.processes[0].interval });
    assert.equal(answer.body.error, error, to);
    assert.equal(answer.status, error ? 400 : 200);
    assert.equal(answer.headers.get('cache-control'), 'no-store');
    assert.equal(answer.headers.has('dpop-nonce'), world.server.settings.nonce_lifetime > 0);
  }
}

flow('the metadata is where RFC 8414 and OpenID discovery put it', {}, async (client, { fetch, server, tell }) => {
  const [oauth, openid] = [
    'https://localhost/.well-known/oauth-authorization-server/strict',
    'https://localhost/strict/.well-known/openid-configuration',
  ];
  for (const url of [oauth, openid]) {
    const { body } = await fetch(url);
    assert.equal(body.issuer, server.issuer);
    assert.equal(body.deferred_token_response_supported, true);
    assert.deepEqual(body.revocation_endpoint_token_type_values_supported, [DEFERRAL_CODE_TYPE]);
    assert.equal((await fetch(body.jwks_uri)).body.keys.length, 2);
  }
  tell('configure', { settings: { only_rfc8414: true } });
  const { body } = await fetch(oauth);
  assert.ok(!('jwks_uri' in body) && !('authorization_endpoint' in body));
  assert.equal((await fetch(openid)).status, 404);
});

for (const method of METHODS) {
  for (const push of [false, true]) {
    flow(`a sign-in by ${method}, ${push ? 'pushed' : 'plain'}`, {}, async (_, world) => {
      const client = new Client(world, method);
      const request = client.request({ completion_mode: 'deferred', dpop_jkt: client.key.jwk.kid });
      const { body } = push ? await client.post('par', request) : {};
      const sent = push ? { client_id: method, request_uri: body.request_uri } : request;
      const { code, state, iss } = await client.authorize(sent);
      assert.deepEqual([state, iss], ['the-state', world.server.issuer]);
      const first = (await client.redeem(code)).body;
      assert.deepEqual(Object.keys(first), ['error', 'deferral_code', 'expires_in', 'interval']);
      assert.deepEqual([first.error, first.expires_in, first.interval], ['authorization_pending', 600, 1]);
      await polls(client, world, first.deferral_code, [[undefined, 'authorization_pending']]);
      world.tell('decide', { id: 1, to: 'approve' });
      checkSignIn(client, world, (await client.poll(first.deferral_code)).body);
    });
  }
}

function checkSignIn({ id }, { server }, { token_type, access_token, id_token }) {
  assert.equal(token_type, 'DPoP');
  const jwt = parseJwt(id_token);
  assert.ok(isSignedBy(jwt, server.keys.RS256.jwk));
  const { iss, sub, aud, nonce, at_hash } = jwt.claims;
  assert.deepEqual([iss, sub, aud, nonce], [server.issuer, 'user-1', id, 'the-nonce']);
  assert.equal(at_hash, halfHash(access_token));
}

flow('a sign-in is answered at once, with the algorithm of the client', { at_once: true }, async (client, world) => {
  world.tell('configure', { client: { client_id: client.id, id_token_signed_response_alg: 'ES256' } });
  const { status, body } = await client.redeem(await client.code());
  assert.equal(status, 200);
  assert.ok(isSignedBy(parseJwt(body.id_token), world.server.keys.ES256.jwk));
  const { body: user } = await client.resource(body.access_token);
  assert.equal(user.sub, 'user-1');
});

flow('a user declines', {}, async (client) => {
  assert.equal((await client.authorize(client.request({ login_hint: 'declines' }))).error, 'access_denied');
});

const details = (amount) =>
  JSON.stringify([{ type: 'payment_initiation', instructedAmount: { currency: 'EUR', amount } }]);
const GRANTS = {
  'client credentials': () => ({ scope: 'a b', resource: 'https://api.test/', authorization_details: details('10') }),
  'token exchange': (world) => {
    return {
      grant_type: EXCHANGE_GRANT,
      subject_token_type: ACCESS_TOKEN_TYPE,
      ...world.tell('mint_subject_token', {}),
    };
  },
  'JWT bearer': (world) => ({ grant_type: BEARER_GRANT, ...world.tell('mint_assertion', {}) }),
};

for (const [name, form] of Object.entries(GRANTS)) {
  flow(`${name}: at once without opting in, and deferred`, {}, async (client, world) => {
    const once = await client.ask({ ...form(world), completion_mode: undefined });
    const code = await client.deferred(form(world));
    world.tell('decide', { id: 1, to: 'approve' });
    const later = await client.poll(code);
    for (const { status, body } of [once, later]) {
      assert.deepEqual([status, body.token_type, body.id_token], [200, 'DPoP', undefined]);
      assert.equal(body.issued_token_type, name === 'token exchange' ? ACCESS_TOKEN_TYPE : undefined);
      assert.equal((await client.resource(body.access_token)).status, 200);
    }
    const known = ({ body: { access_token, ...rest } }) => rest;
    assert.deepEqual(known(once), known(later));
  });
}

flow('tokens without a proof are bearer tokens', {}, async (client, world) => {
  const code = await client.deferred({}, { proof: false });
  world.tell('decide', { id: 1, to: 'approve' });
  const { body } = await client.poll(code, { proof: false });
  assert.equal(body.token_type, 'Bearer');
  assert.equal((await client.resource(body.access_token, { scheme: 'Bearer', proof: false })).status, 200);
});

flow('only large amounts are deferred', { defer_above: 100 }, async (client) => {
  assert.equal((await client.ask({ authorization_details: details('100') })).status, 200);
  assert.equal((await client.ask()).status, 200);
  assert.ok(await client.deferred({ authorization_details: details('100.5') }));
});

flow('a server may defer without saying so in its metadata', { advertised: false }, async (client, world) => {
  const { body } = await world.fetch('https://localhost/.well-known/oauth-authorization-server/strict');
  assert.ok(!('deferred_token_response_supported' in body));
  assert.ok(await client.deferred());
});

flow('a server that does not know deferral answers at once', { supported: false }, async (client) => {
  assert.equal((await client.ask({ client_notification_token: 'short' })).status, 200);
});

flow(
  'the answers to polls follow the script',
  {
    script: ['authorization_pending', { to: 'interaction_pending', text: 'step_2' }, 'slow_down', 'approve'],
  },
  async (client, world) => {
    const code = await client.deferred();
    assert.equal((await client.poll(code)).body.error, 'authorization_pending');
    assert.deepEqual((await client.poll(code)).body, { error: 'interaction_pending', error_description: 'step_2' });
    assert.deepEqual((await client.poll(code)).body, { error: 'slow_down' });
    assert.equal((await client.poll(code, { after: 6 })).status, 200);
  },
);

flow('pages alternate with waiting', { first: 'interaction_required' }, async (client, world) => {
  const { body } = await client.ask();
  assert.ok(body.interaction_uri.startsWith(`${world.server.issuer}/interaction/`));
  const [code, opened] = [body.deferral_code, body.interaction_uri];
  await polls(client, world, code, [
    [undefined, 'interaction_required'],
    ['authorization_pending', 'authorization_pending'],
  ]);
  assert.equal((await world.fetch(opened)).status, 200);
  assert.equal((await world.fetch(opened)).status, 410, 'it is for one use');
  await polls(client, world, code, [
    [undefined, 'interaction_pending'],
    ['interaction_required', 'interaction_required'],
  ]);
  const { interaction_uri: next } = (await client.poll(code)).body;
  assert.ok(next && next !== opened);
  world.tell('decide', { id: 1, to: 'interaction_required' });
  assert.equal((await client.poll(code)).body.interaction_uri, next, 'it was not opened yet');
  await polls(client, world, code, [['approve', undefined]]);
});

flow(
  'a page may stand beside authorization_pending, and opening it may approve',
  { interaction: true, opened: 'approve' },
  async (client, world) => {
    const { body } = await client.ask();
    assert.equal(body.error, 'authorization_pending');
    await world.fetch(body.interaction_uri);
    assert.equal((await client.poll(body.deferral_code)).status, 200);
  },
);

flow('a server may repeat the code and the interval', { repeat: true }, async (client) => {
  const code = await client.deferred();
  const { body } = await client.poll(code);
  assert.deepEqual(body, { error: 'authorization_pending', deferral_code: code, interval: 1 });
});

flow('a script may let a code expire', { script: ['expire'] }, async (client) => {
  assert.equal((await client.poll(await client.deferred())).body.error, 'expired_token');
});

flow('denial is final', {}, async (client, world) => {
  await polls(client, world, await client.deferred(), [['deny', 'access_denied']]);
});

flow(
  'a code expires, with one poll shortly before, and no callback after',
  { expires_in: 10 },
  async (client, world) => {
    const code = await client.deferred();
    await client.poll(code, { after: 9.5 });
    await client.poll(code, { after: 0.4 });
    // That it is over is said even if the poll is early.
    assert.equal((await client.poll(code, { after: 0.2 })).body.error, 'expired_token');
    world.tell('decide', { id: 1, to: 'approve' });
    assert.deepEqual(world.posted, []);
  },
);

flow('callbacks tell of success and error, with the token', {}, async (client, world) => {
  for (const [id, to] of [
    [1, 'approve'],
    [2, 'deny'],
  ]) {
    const token = random();
    const code = await client.deferred({ client_notification_token: token });
    world.tell('decide', { id, to: 'interaction_required' });
    assert.equal(world.posted.length, id - 1, 'only an end is told');
    world.tell('decide', { id, to });
    const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` };
    assert.deepEqual(world.posted[id - 1], { url: NOTIFY, headers, body: { deferral_code: code } });
    await client.poll(code, { after: 0 });
  }
});

flow('callbacks without a token have no Authorization', { callback_members: { a: 1 } }, async (client, world) => {
  const deferral_code = await client.deferred();
  world.tell('decide', { id: 1, to: 'approve' });
  const [{ headers, body }] = world.posted;
  assert.deepEqual([headers, body], [{ 'Content-Type': 'application/json' }, { deferral_code, a: 1 }]);
});

flow('a callback leaves only after the deferred response', { immediately: 'approve' }, async (client, world) => {
  const { server } = world;
  const push = server.processes.push.bind(server.processes);
  server.processes.push = (process) => {
    push(process);
    // After the decision, and before the answer.
    queueMicrotask(() => assert.deepEqual([process.state, world.posted], ['approved', []]));
  };
  await client.deferred();
  assert.equal(world.posted.length, 1);
});

flow('tests send callbacks that are wrong', {}, async (client, world) => {
  await client.deferred({ client_notification_token: random() });
  world.answer = 401;
  world.tell('callback', { id: 1, token: 'wrong', code: 'unknown', more: { more: 1 } });
  await new Promise(setImmediate);
  const [{ headers, body }] = world.posted;
  assert.deepEqual([headers.Authorization, body], ['Bearer wrong', { deferral_code: 'unknown', more: 1 }]);
  assert.equal(world.tell('processes').processes[0].callbacks[0].status, 401);
});

flow('cancellation is idempotent and suppresses a success', {}, async (client, world) => {
  const code = await client.deferred();
  world.tell('decide', { id: 1, to: 'approve' });
  world.answer = 401;
  for (let i = 0; i < 2; i += 1) {
    const { status } = await client.post('revoke', { token: code, token_type_hint: DEFERRAL_CODE_TYPE });
    assert.equal(status, 200);
  }
  assert.equal(world.posted.length, 2, 'success and cancellation are told');
  world.tell('decide', { id: 1, to: 'approve' });
  assert.equal((await client.poll(code)).body.error, 'access_denied');
});

flow('a revoked access token is refused', {}, async (client) => {
  const { access_token: token } = (await client.ask({ completion_mode: undefined })).body;
  await client.post('revoke', { token });
  assert.equal((await client.resource(token)).status, 401);
});

flow('nonces rotate', { nonce_lifetime: 2 }, async (client, world) => {
  assert.equal((await client.ask()).body.error, 'use_dpop_nonce');
  const code = await client.deferred();
  await polls(client, world, code, [[undefined, 'authorization_pending']]);
  const refused = await client.poll(code, { after: 5 });
  assert.deepEqual([refused.status, refused.body.error], [400, 'use_dpop_nonce']);
  world.tell('decide', { id: 1, to: 'approve' });
  const { access_token: token } = (await client.poll(code, { after: 0 })).body;
  client.nonce = undefined;
  const challenge = await client.resource(token);
  assert.equal(challenge.status, 401);
  assert.match(challenge.headers.get('www-authenticate'), /use_dpop_nonce/);
  client.nonce = challenge.headers.get('dpop-nonce');
  assert.equal((await client.resource(token)).status, 200);
});

flow('a refused answer to a bad client', {}, async (_, { server, fetch }) => {
  const body = new URLSearchParams({ grant_type: 'client_credentials', client_id: 'unknown' });
  const { status, headers } = await fetch(server.endpoints.token, { method: 'POST', body });
  assert.deepEqual([status, headers.get('www-authenticate')], [401, 'Basic realm="strict"']);
  server.violations.length = 0;
});

flow('neither the log nor the control contains a secret', { first: 'interaction_required' }, async (client, world) => {
  const token = random();
  const { body } = await client.ask({ client_notification_token: token });
  await world.fetch(body.interaction_uri);
  await client.poll(body.deferral_code);
  await client.poll(body.deferral_code, { after: 0.1, proof: { key: generateKey('ES256') } });
  const told = [
    ...world.lines,
    JSON.stringify(world.tell('processes')),
    JSON.stringify(world.tell('violations')),
  ].join();
  const secrets = [token, body.deferral_code, body.interaction_uri.split('/').at(-1)];
  assert.ok(world.lines.length >= 4 && secrets.every((secret) => !told.includes(secret)));
  world.server.violations.length = 0;
});
