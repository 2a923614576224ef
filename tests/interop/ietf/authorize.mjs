// Authorization requests, plain and pushed (RFC 6749 §4.1, RFC 9126). There are no pages: every user who comes here
// has signed in and agrees, unless the request's `login_hint` is `declines`.
import { authenticate } from './clients.mjs';
import { checkProof } from './dpop.mjs';
import { checkRepetition, Form, postedForm } from './http.mjs';
import { random } from './jose.mjs';
import { broken } from './rules.mjs';

const PUSHED_LIFETIME = 60;
const CODE_LIFETIME = 60;

/** RFC 9126 §2 */
export function par(server, request) {
  const form = postedForm(request);
  const client = authenticate(server, request, form);
  const jkt = checkProof(server, request);
  if (form.has('request_uri')) broken('pushed-body', 'invalid_request', 'it contains one');
  checkParameters(client, form);
  // The proof binds the code as dpop_jkt does (RFC 9449 §10.1).
  if (jkt && form.has('dpop_jkt') && form.get('dpop_jkt') !== jkt) {
    broken('code-key', 'invalid_dpop_proof', 'dpop_jkt is not the key of the proof');
  }
  const uri = `urn:ietf:params:oauth:request_uri:${random()}`;
  server.pushed.set(uri, { client, form, jkt, end: server.clock() + PUSHED_LIFETIME * 1000 });
  return { status: 201, body: { request_uri: uri, expires_in: PUSHED_LIFETIME } };
}

export function authorize(server, request) {
  const asked = new Form(request.query);
  checkRepetition(asked);
  const { client, form, jkt } = asked.has('request_uri') ? takePushed(server, asked) : plainRequest(server, asked);
  const declines = form.get('login_hint') === 'declines';
  const answer = declines ? { error: 'access_denied' } : { code: issueCode(server, client, form, jkt) };
  const back = new URL(form.get('redirect_uri'));
  const state = form.get('state');
  const parameters = { ...answer, ...(state && { state }), iss: server.issuer };
  Object.entries(parameters).forEach(([name, value]) => back.searchParams.append(name, value));
  return { status: 303, headers: { Location: back.href } };
}

function plainRequest(server, form) {
  if (server.settings.require_pushed) broken('authorization-request', 'invalid_request', 'it is not pushed');
  const client = server.clients.get(form.get('client_id'));
  if (!client) broken('authorization-request', 'invalid_request', 'the client is unknown');
  checkParameters(client, form);
  return { client, form };
}

/** RFC 9126 §4 */
function takePushed(server, asked) {
  const pushed = server.pushed.get(asked.get('request_uri'));
  const refuse = (text) => broken('pushed-once', 'invalid_request', text);
  if (!pushed) refuse('it is unknown or was used');
  if (pushed.client.client_id !== asked.get('client_id')) refuse('client_id is another client');
  if (pushed.end <= server.clock()) refuse('it has expired');
  server.pushed.delete(asked.get('request_uri'));
  return pushed;
}

function checkParameters(client, form) {
  const refuse = (text) => broken('authorization-request', 'invalid_request', text);
  if (form.get('response_type') !== 'code') refuse('response_type is not code');
  if (!client.redirect_uris?.includes(form.get('redirect_uri'))) refuse('redirect_uri is not registered');
  const challenge = form.get('code_challenge');
  if (form.get('code_challenge_method') !== 'S256' || !/^[\w-]{43}$/.test(challenge)) {
    broken('pkce-challenge', 'invalid_request', challenge ? 'the method is not S256' : 'there is none');
  }
}

function issueCode(server, client, form, jkt) {
  const code = random();
  server.codes.set(code, {
    client,
    redirectUri: form.get('redirect_uri'),
    challenge: form.get('code_challenge'),
    scope: form.list('scope'),
    nonce: form.get('nonce'),
    jkt: jkt ?? form.get('dpop_jkt'),
    // The hint (IETF DTR §Client Opt-In Signaling).
    hint: form.list('completion_mode').includes('deferred'),
    end: server.clock() + CODE_LIFETIME * 1000,
    used: false,
  });
  return code;
}
