// Every rule can fail: a client that breaks it is caught, and by that rule alone.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { ACCESS_TOKEN_TYPE } from './grants.mjs';
import { generateKey, random } from './jose.mjs';
import { BEARER_GRANT, DEFERRAL_CODE_TYPE, EXCHANGE_GRANT } from './metadata.mjs';
import { RULES } from './rules.mjs';
import { CALLBACK, Client, withServer } from './tester.mjs';

const otherKey = generateKey('ES256');

/** Each client breaks the rule once. It gets the world, and a confidential client unless it makes another one. */
const CLIENTS = {
  'request-form': [
    (client) => client.ask({}, { text: 'grant_type=client_credentials&scope=a&scope=b' }),
    (client) => client.ask({}, { headers: { 'Content-Type': 'application/json' } }),
    (client, world) => world.fetch(world.server.endpoints.token),
  ],
  'secret-in-url': [
    (client) => client.ask({}, { query: '?deferral_code=1' }),
    (client) => client.ask({}, { query: '?scope=a' }),
    async (client) => client.resource(await issued(client), { query: '?access_token=1' }),
    (client) => client.authorize(client.request({ client_notification_token: random() })),
  ],
  'client-authentication': [
    (client) => client.ask({}, { headers: { Authorization: 'Basic ' + btoa('client_secret_basic:wrong') } }),
    // A secret that is not encoded as in a form.
    (client) => client.ask({}, { headers: { Authorization: 'Basic ' + btoa('client_secret_basic:%') } }),
    (client) => client.ask({ client_secret: 'another' }),
    (client) => client.ask({ client_id: 'none' }),
    (client, world) => new Client(world, 'client_secret_post').ask({ client_secret: undefined }),
    (client, world) => new Client(world, 'unknown').ask(),
  ],
  'client-assertion': [
    ...[{ iss: 'another' }, { aud: 'https://other.test' }, { exp: 1 }, { jti: undefined }].map(
      (claims) => (client, world) => {
        const signing = new Client(world, 'private_key_jwt');
        return signing.ask({ client_assertion: signing.assertion(claims) });
      },
    ),
    (client, world) => new Client(world, 'private_key_jwt').ask({ client_assertion_type: 'another' }),
    (client, world) => {
      const signing = new Client(world, 'private_key_jwt');
      return signing.ask({ client_assertion: signing.assertion({}, { alg: 'none' }) });
    },
    // Signed by a key of another.
    (client, world) => {
      world.tell('configure', { client: { client_id: 'private_key_jwt', jwks: { keys: [otherKey.jwk] } } });
      return new Client(world, 'private_key_jwt').ask();
    },
  ],
  'client-assertion-once': [
    async (client, world) => {
      const signing = new Client(world, 'private_key_jwt');
      const client_assertion = signing.assertion();
      await signing.ask({ client_assertion });
      await signing.ask({ client_assertion });
    },
  ],

  'authorization-request': [
    (client) => client.code({ redirect_uri: 'https://rp.test/other' }),
    (client) => client.code({ response_type: 'token' }),
    (client) => client.code({ client_id: 'unknown' }),
    (client, world) => world.tell('configure', { settings: { require_pushed: true } }) && client.code(),
  ],
  'pkce-challenge': [
    (client) => client.code({ code_challenge_method: 'plain' }),
    (client) => client.code({ code_challenge: undefined }),
    (client) => client.post('par', client.request({ code_challenge: undefined })),
  ],
  'pushed-body': [(client) => client.post('par', client.request({ request_uri: 'urn:one' }))],
  'pushed-once': [
    async (client) => {
      const request_uri = await pushed(client);
      await client.authorize({ client_id: client.id, request_uri });
      await client.authorize({ client_id: client.id, request_uri });
    },
    async (client) => client.authorize({ client_id: 'none', request_uri: await pushed(client) }),
    async (client, world) => {
      const request_uri = await pushed(client);
      world.pass(61);
      await client.authorize({ client_id: client.id, request_uri });
    },
  ],

  'grant-known': [
    (client) => client.ask({ grant_type: 'password' }),
    (client, world) => new Client(world, 'none').ask(),
  ],
  'code-once': [
    async (client) => {
      const code = await client.code();
      await client.redeem(code);
      await client.redeem(code);
    },
    async (client, world) => {
      const code = await client.code();
      world.pass(61);
      await client.redeem(code);
    },
    (client) => client.redeem('unknown'),
  ],
  'code-request': [
    async (client) => client.redeem(await client.code(), { redirect_uri: 'https://rp.test/other' }),
    async (client) => client.redeem(await client.code(), { redirect_uri: undefined }),
    async (client, world) => {
      const code = await client.code();
      await new Client(world, 'client_secret_post').redeem(code, { code_verifier: client.verifier });
    },
  ],
  'code-verifier': [
    async (client) => client.redeem(await client.code(), { code_verifier: random() }),
    async (client) => client.redeem(await client.code(), { code_verifier: undefined }),
  ],
  'code-key': [
    async (client) => client.redeem(await client.code({ dpop_jkt: otherKey.jwk.kid })),
    async (client) => client.redeem(await client.code({ dpop_jkt: client.key.jwk.kid }), {}, { proof: false }),
    (client) => client.post('par', client.request({ dpop_jkt: otherKey.jwk.kid })),
    async (client) => {
      const code = (await client.authorize({ client_id: client.id, request_uri: await pushed(client) })).code;
      await client.redeem(code, {}, { proof: { key: otherKey } });
    },
  ],
  'exchange-request': [
    (client) =>
      client.ask({ grant_type: EXCHANGE_GRANT, subject_token: 'unknown', subject_token_type: ACCESS_TOKEN_TYPE }),
    (client, world) => client.ask({ grant_type: EXCHANGE_GRANT, ...world.tell('mint_subject_token', {}) }),
    (client, world) => {
      const { subject_token } = world.tell('mint_subject_token', {});
      const exchange = { grant_type: EXCHANGE_GRANT, subject_token, subject_token_type: ACCESS_TOKEN_TYPE };
      return client.ask({ ...exchange, actor_token: 'one' });
    },
  ],
  'bearer-assertion': [
    (client) => client.ask({ grant_type: BEARER_GRANT }),
    (client) => client.ask({ grant_type: BEARER_GRANT, assertion: client.assertion() }),
    (client, world) => client.ask({ grant_type: BEARER_GRANT, ...world.tell('mint_assertion', { exp: 1 }) }),
    (client, world) =>
      client.ask({ grant_type: BEARER_GRANT, ...world.tell('mint_assertion', { aud: 'https://other.test' }) }),
  ],
  'scope-syntax': [(client) => client.ask({ scope: 'a  b' }), (client) => client.ask({ scope: 'a"' })],
  'resource-uri': [
    (client) => client.ask({ resource: '/a' }),
    (client) => client.ask({ resource: 'https://api.test/#a' }),
  ],
  'authorization-details': ['{"type":"a"}', '[{}]', 'a'].map(
    (authorization_details) => (client) => client.ask({ authorization_details }),
  ),

  'dpop-syntax': [
    (client) => client.ask({}, { proof: 'one' }),
    (client) => client.ask({}, { proof: { header: { typ: 'JWT' } } }),
    (client) => client.ask({}, { proof: { header: { alg: 'none' } } }),
    (client) => client.ask({}, { proof: { header: { jwk: undefined } } }),
    (client) => client.ask({}, { proof: { header: { jwk: client.key.privateKey.export({ format: 'jwk' }) } } }),
    (client, world) => {
      const url = world.server.endpoints.token;
      return client.ask({}, { proof: `${client.proof({ url })}, ${client.proof({ url })}` });
    },
  ],
  'dpop-signature': [(client) => client.ask({}, { proof: { header: { jwk: publicPart(otherKey) } } })],
  'dpop-htm': [(client) => client.ask({}, { proof: { claims: { htm: 'GET' } } })],
  'dpop-htu': [
    (client, world) => client.ask({}, { proof: { claims: { htu: world.server.endpoints.par } } }),
    async (client, world) => {
      const { resource } = world.server.endpoints;
      await client.resource(await issued(client), { query: '?a=b', proof: { claims: { htu: `${resource}?a=b` } } });
    },
  ],
  'dpop-iat': [-60, 60].map((seconds) => (client, world) => {
    return client.ask({}, { proof: { claims: { iat: world.now() / 1000 + seconds } } });
  }),
  'dpop-jti': [
    (client) => client.ask({}, { proof: { claims: { jti: undefined } } }),
    async (client, world) => {
      const proof = client.proof({ url: world.server.endpoints.token });
      await client.ask({}, { proof });
      await client.ask({}, { proof });
    },
  ],
  'dpop-ath': [
    async (client) => client.resource(await issued(client), { proof: { claims: { ath: undefined } } }),
    async (client) => client.resource(await issued(client), { proof: { claims: { ath: otherKey.jwk.kid } } }),
  ],
  'dpop-nonce': [
    async (client, world) => {
      world.tell('configure', { settings: { nonce_lifetime: 1 } });
      client.remembers = false;
      for (let i = 0; i < 3; i += 1) await client.ask();
    },
    async (client, world) => {
      const token = await issued(client);
      world.tell('configure', { settings: { nonce_lifetime: 1 } });
      // A nonce of the server is none of the resource.
      await client.ask();
      for (let i = 0; i < 3; i += 1) await client.resource(token);
    },
  ],
  'dpop-scheme': [
    async (client) => client.resource(await issued(client), { scheme: 'Bearer', proof: false }),
    async (client) => client.resource(await issued(client, { proof: false })),
  ],
  'dpop-required': [
    async (client, world) => {
      world.tell('configure', { client: { client_id: client.id, dpop_bound_access_tokens: true } });
      await client.ask({}, { proof: false });
    },
  ],
  'dpop-public-client': [
    async (client, world) => {
      const publicClient = new Client(world, 'none');
      await publicClient.redeem(await publicClient.code(), {}, { proof: false });
    },
  ],
  'dpop-same-key': [
    async (client) => client.poll(await client.deferred(), { proof: { key: otherKey } }),
    async (client) => client.poll(await client.deferred(), { proof: false }),
    async (client) => client.poll(await client.deferred({}, { proof: false })),
    async (client) => client.post('revoke', { token: await client.deferred() }, { proof: { key: otherKey } }),
    async (client) => client.post('revoke', { token: await client.deferred() }, { proof: false }),
    async (client) => client.resource(await issued(client), { proof: { key: otherKey } }),
    async (client) => client.resource(await issued(client), { proof: false }),
  ],

  'hint-repeated': [
    async (client) => client.redeem(await client.code({ completion_mode: 'deferred' }), { completion_mode: undefined }),
    async (client) => {
      const request_uri = await pushed(client, { completion_mode: 'deferred' });
      const { code } = await client.authorize({ client_id: client.id, request_uri });
      await client.redeem(code, { completion_mode: undefined });
    },
  ],
  'poll-without-opt-in': [
    async (client) => client.poll(await client.deferred(), { form: { completion_mode: 'deferred' } }),
  ],
  'notification-token-strength': ['0123456789abcdef0123456789abcde', 'short', 'with space '.repeat(4)].map(
    (token) => (client) => {
      return client.ask({ client_notification_token: token });
    },
  ),
  'notification-token-fresh': [
    async (client) => {
      const client_notification_token = random();
      await client.ask({ client_notification_token });
      await client.ask({ client_notification_token });
    },
  ],
  'poll-request': [
    (client) => client.poll(undefined),
    (client) => client.poll('unknown'),
    async (client, world) => new Client(world, 'client_secret_post').poll(await client.deferred()),
  ],
  'poll-interval': [
    async (client) => {
      const { body } = await client.poll(await client.deferred(), { after: 0.9 });
      assert.equal(body.error, 'slow_down');
    },
    async (client) => {
      const code = await client.deferred();
      await client.poll(code);
      await client.poll(code, { after: 0.5 });
    },
    // The interval stays longer after slow_down.
    async (client, world) => {
      const code = await client.deferred();
      world.tell('decide', { id: 1, to: 'slow_down' });
      await client.poll(code);
      await client.poll(code, { after: 6 });
      await client.poll(code, { after: 5 });
    },
    // Two polls shortly before the end.
    async (client) => {
      const code = await client.deferred();
      await client.poll(code, { after: 599.5 });
      await client.poll(code, { after: 0.2 });
      await client.poll(code, { after: 0.2 });
    },
    // One poll for a callback.
    async (client, world) => {
      const code = await client.deferred();
      world.tell('decide', { id: 1, to: 'deny' });
      world.server.processes[0].state = 'pending';
      await client.poll(code, { after: 0 });
      await client.poll(code, { after: 0 });
    },
  ],
  'poll-after-end': [
    (client, world) => pollTwice(client, world, 'approve'),
    (client, world) => pollTwice(client, world, 'deny'),
    (client, world) => pollTwice(client, world, 'expire'),
  ],
  'cancel-unsupported': [
    async (client, world) => {
      world.tell('configure', { settings: { cancellation: false } });
      await client.post('revoke', { token: await client.deferred() });
    },
  ],
  'cancel-request': [
    (client) => client.post('revoke', {}),
    (client) => client.post('revoke', { token: 'unknown', token_type_hint: DEFERRAL_CODE_TYPE }),
    async (client, world) => new Client(world, 'client_secret_post').post('revoke', { token: await client.deferred() }),
  ],
  'callback-answer': [200, 302, 401].map((status) => async (client, world) => {
    world.answer = status;
    await client.deferred({ client_notification_token: random() });
    world.tell('decide', { id: 1, to: 'approve' });
    await new Promise(setImmediate);
  }),
};

const publicPart = ({ jwk: { kty, crv, x, y } }) => ({ kty, crv, x, y });

/** A token that was issued at once. */
async function issued(client, options) {
  return (await client.ask({ completion_mode: undefined }, options)).body.access_token;
}

async function pushed(client, more) {
  return (await client.post('par', client.request(more))).body.request_uri;
}

/** The second answer is the first again, except that tokens are not issued again. */
async function pollTwice(client, world, to) {
  const code = await client.deferred();
  world.tell('decide', { id: 1, to });
  const first = await client.poll(code);
  const second = await client.poll(code);
  assert.equal(second.body.error, first.status === 200 ? 'invalid_grant' : first.body.error);
}

for (const [rule, clients] of Object.entries(CLIENTS)) {
  clients.forEach((run, index) =>
    test(`${rule}, ${index + 1} of ${clients.length}`, () =>
      withServer({}, async (world) => {
        await run(new Client(world), world);
        assert.deepEqual(world.broken(), [rule]);
      })),
  );
}

test('every rule has a client that breaks it', () => {
  assert.deepEqual(Object.keys(CLIENTS).sort(), Object.keys(RULES).sort());
});
