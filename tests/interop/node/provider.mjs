// An OpenID Provider of other authors, for the tests beside it. It reads its settings as one line of JSON on standard
// input, prints its address as one line of JSON on standard output, and ends when its input ends.
//
// Every user who logs in is user-1 and consents, unless the request's `login_hint` says otherwise.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';

import Provider, { errors } from 'oidc-provider';

// Standard output is for one line; the library's output goes to standard error.
console.log = console.error;
console.info = console.error;

const [settings, input] = await new Promise((resolve) => {
  const lines = createInterface({ input: process.stdin });
  lines.once('line', (line) => resolve([JSON.parse(line), lines]));
});
input.on('close', () => process.exit(0));

const privateJwk = (type, options) => generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' });
const keys = [
  { use: 'sig', ...privateJwk('rsa', { modulusLength: 2048 }) },
  { use: 'sig', ...privateJwk('ec', { namedCurve: 'P-256' }) },
  { use: 'sig', ...privateJwk('ed25519') },
  { use: 'enc', ...privateJwk('rsa', { modulusLength: 2048 }) },
  { use: 'enc', ...privateJwk('ec', { namedCurve: 'P-256' }) },
];

const server = createServer({
  key: settings.tls.key,
  cert: settings.tls.certificate,
  // The provider decides which client a certificate belongs to.
  ca: settings.tls.authority,
  requestCert: true,
  rejectUnauthorized: false,
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `https://localhost:${server.address().port}`;

// The requests of CIBA for users, by their `binding_message`, and those that are approved before they are answered.
const asked = new Map();
const hasty = new Set();

const ciba = {
  enabled: settings.ciba ?? false,
  deliveryModes: ['poll', 'ping'],
  processLoginHint: (ctx, hint) => (hint === 'nobody' ? undefined : hint),
  verifyUserCode: () => {},
  validateBindingMessage: () => {},
  validateRequestContext: () => {},
  triggerAuthenticationDevice: async (ctx, request) => {
    const message = request.params.binding_message;
    asked.set(message, request);
    if (hasty.has(message)) await decide(message, true);
  },
};

const decide = async (message, approves) => {
  const request = asked.get(message);
  if (!approves) return provider.backchannelResult(request, new errors.AccessDenied('the user declined'));
  const { accountId, clientId } = request;
  const grant = new provider.Grant({ accountId, clientId });
  grant.addOIDCScope(request.scope);
  await grant.save();
  return provider.backchannelResult(request, grant, { acr: '0', authTime: Math.floor(Date.now() / 1000) });
};

// Orders of the test, each as one line that is answered with one line.
input.on('line', async (line) => {
  const order = JSON.parse(line);
  try {
    if (order.hasty) hasty.add(order.hasty);
    else await decide(order.decide, order.approve);
    process.stdout.write('{}\n');
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: `${error.message} ${error.stack}` })}\n`);
  }
});

const certificate = (ctx) => ctx.socket.getPeerX509Certificate();

const provider = new Provider(issuer, {
  clients: settings.clients,
  // The library sends no pings to loopback addresses, where the test is.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  clientAuthMethods: [
    'none',
    'client_secret_basic',
    'client_secret_post',
    'client_secret_jwt',
    'private_key_jwt',
    'tls_client_auth',
    'self_signed_tls_client_auth',
  ],
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: { keys },
  enabledJWA: {
    ...Object.fromEntries(
      ['idToken', 'userinfo', 'authorization', 'requestObject'].map((token) => [
        `${token}EncryptionAlgValues`,
        ['RSA-OAEP', 'RSA-OAEP-256', 'ECDH-ES', 'ECDH-ES+A128KW', 'ECDH-ES+A256KW'],
      ]),
    ),
  },
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'] },
  findAccount: (ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, name: 'Jane Doe', email: 'jane@example.com', email_verified: true }),
  }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  rotateRefreshToken: true,
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => settings.requireNonce ?? false },
    encryption: { enabled: true },
    introspection: { enabled: true },
    jwtResponseModes: { enabled: true },
    jwtUserinfo: { enabled: true },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      selfSignedTlsClientAuth: true,
      tlsClientAuth: true,
      getCertificate: (ctx) => certificate(ctx)?.toString(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_san_dns' && certificate(ctx).subjectAltName === `DNS:${expected}`,
    },
    pushedAuthorizationRequests: {
      enabled: true,
      requirePushedAuthorizationRequests: settings.requirePushedAuthorizationRequests ?? false,
    },
    requestObjects: {
      enabled: true,
      requireSignedRequestObject: settings.requireSignedRequestObject ?? false,
    },
    revocation: { enabled: true },
    ciba,
    ...settings.features,
  },
  ...settings.configuration,
});

// Acts in place of a user on the pages.
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { prompt, params, session, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
  let result;
  if (params.login_hint === 'declines') {
    result = { error: 'access_denied', error_description: 'the user declined' };
  } else if (prompt.name === 'login') {
    result = { login: { accountId: 'user-1' } };
  } else {
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.respond = false;
  return provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
});

// Prints the provider's reason for refusing a request to the test's output.
for (const name of ['authorization', 'pushed_authorization_request', 'backchannel_authentication', 'grant', 'userinfo', 'introspection', 'revocation', 'end_session', 'registration_create', 'registration_read', 'registration_update', 'registration_delete']) {
  provider.on(`${name}.error`, (ctx, error) => console.error(`${name}: ${error.message}: ${error.error_description}`));
}
provider.on('backchannel.error', (ctx, error) => console.error(`logout token: ${error.message}`));
provider.on('server_error', (ctx, error) => console.error(error));

server.on('request', provider.callback());
process.stdout.write(`${JSON.stringify({ issuer })}\n`);
