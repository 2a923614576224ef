// Deferred token responses: opting in, the processes, polls, callbacks and cancellation.
import { authenticate } from './clients.mjs';
import { checkProof, checkSameKey } from './dpop.mjs';
import { postedForm } from './http.mjs';
import { random } from './jose.mjs';
import { DEFERRAL_CODE_TYPE } from './metadata.mjs';
import { broken, record, Refusal } from './rules.mjs';

/** Each slow_down adds this to the interval, in seconds. */
const SLOWER = 5;

/** What a client's timer may be early, in milliseconds. */
const TOLERANCE = 20;

/** Whether a request opts in, which it must do rightly (IETF DTR §Client Opt-In Signaling). */
export function checkOptIn(server, form, { client, jkt }) {
  const optedIn = form.list('completion_mode').includes('deferred');
  if (!optedIn || !server.settings.supported) return optedIn;
  if (client.token_endpoint_auth_method === 'none' && !jkt) {
    broken('dpop-public-client', 'invalid_dpop_proof', 'there is none');
  }
  const token = form.get('client_notification_token');
  if (token !== undefined) checkNotificationToken(server, token);
  return true;
}

/** The syntax is that of RFC 6750 §2.1. A character of it carries 6 bits at most, and a hexadecimal one 4. */
function checkNotificationToken(server, token) {
  const refuse = (rule, text) => broken(rule, 'invalid_request', text);
  if (!/^[\w.~+/-]+=*$/.test(token)) refuse('notification-token-strength', 'it is no bearer token');
  const bits = token.length * (/^[0-9a-f]+$/i.test(token) ? 4 : 6);
  if (bits < 128) refuse('notification-token-strength', `it has ${bits} bits`);
  if (server.used.has(`notification ${token}`)) refuse('notification-token-fresh', 'it was used before');
  server.used.add(`notification ${token}`);
}

/** A server may always answer at once (IETF DTR §Client Opt-In Signaling). */
export function wantsDeferral({ settings }, { details }) {
  if (!settings.supported || settings.at_once) return false;
  if (settings.defer_above === undefined) return true;
  return (details ?? []).some((detail) => Number(detail.instructedAmount?.amount) > settings.defer_above);
}

/** IETF DTR §Token Endpoint - Deferred Response */
export function defer(server, form, granted) {
  const { expires_in, interval, first, script, interaction, immediately } = server.settings;
  const process = {
    id: server.processes.length + 1,
    code: random(),
    granted,
    notificationToken: form.get('client_notification_token'),
    state: 'pending',
    says: first,
    progress: undefined,
    script: [...script],
    interval,
    end: server.clock() + expires_in * 1000,
    // Whether the client has the deferral code.
    written: false,
    // When the last poll came, or the initial request: the client cannot count from an earlier time.
    lastAt: server.clock(),
    polls: [],
    callbacks: [],
    ended: false,
    // Polls that may come before the interval has passed: after a callback, and one shortly before the end.
    freePolls: 0,
    lastPollUsed: false,
  };
  server.processes.push(process);
  if (first === 'interaction_required' || interaction) offerInteraction(server, process);
  if (immediately) step(server, process, immediately);
  const members = { deferral_code: process.code, expires_in, interval, ...interactionMember(process) };
  const { answer } = new Refusal(first, undefined, { members });
  const written = () => {
    process.written = true;
    if (process.state !== 'pending') announce(server, process);
  };
  return { ...answer, written };
}

/** A single-use page of the user's (IETF DTR §Token Endpoint - Deferred Response). */
function offerInteraction(server, process) {
  if (process.interaction && !process.interaction.opened) return;
  process.interaction = { uri: `${server.issuer}/interaction/${random()}`, opened: false };
  server.interactions.set(process.interaction.uri, process);
}

function interactionMember({ interaction }) {
  return interaction && !interaction.opened ? { interaction_uri: interaction.uri } : {};
}

/** The user opens the page. */
export function interact(server, request) {
  const process = server.interactions.get(request.endpoint);
  if (!process || request.method !== 'GET') return { status: 410, body: '<p>This page was opened before.</p>' };
  server.interactions.delete(request.endpoint);
  process.interaction.opened = true;
  const { opened } = server.settings;
  if (process.state === 'pending') step(server, process, opened);
  return { status: 200, body: '<p>Thank you.</p>' };
}

/**
 * Moves a process on: `authorization_pending`, `interaction_required`, `interaction_pending`, `approve`, `deny`,
 * `expire`, or `slow_down` for the next poll. A text is the progress that pending answers tell.
 */
export function step(server, process, wanted) {
  const { to, text } = typeof wanted === 'string' ? { to: wanted } : wanted;
  if (text !== undefined) process.progress = text;
  if (to === undefined || process.state !== 'pending') return;
  if (to === 'approve') decide(server, process, 'approved');
  else if (to === 'deny') decide(server, process, 'denied');
  else if (to === 'expire') process.end = server.clock();
  else if (to === 'slow_down') process.slowDown = true;
  else process.says = to;
  if (to === 'interaction_required') offerInteraction(server, process);
}

function decide(server, process, state) {
  process.state = state;
  if (process.written) announce(server, process);
}

/** IETF DTR §Token Endpoint - Polling */
export function poll(server, { form, client, jkt }, issue) {
  if (form.has('completion_mode')) broken('poll-without-opt-in', 'invalid_request', 'it is there');
  const code = form.get('deferral_code');
  if (code === undefined) broken('poll-request', 'invalid_request', 'there is no deferral_code');
  const process = server.processes.find((one) => one.code === code);
  if (process?.granted.client !== client) {
    broken('poll-request', 'invalid_grant', process ? 'it is the code of another client' : 'the code is unknown');
  }
  checkSameKey(process.granted.jkt, jkt);
  const answer = pollAnswer(server, process, issue);
  process.polls.push({ at: server.clock(), answer: answer.body.error ?? 'success' });
  return answer;
}

function pollAnswer(server, process, issue) {
  const now = server.clock();
  const final = (error, text) => {
    process.ended = true;
    return new Refusal(error, text).answer;
  };
  if (process.ended) record(server, 'poll-after-end', `process ${process.id}`);
  if (process.state === 'delivered') return final('invalid_grant', 'the code was redeemed');
  if (now >= process.end) return final('expired_token', 'the code has expired');
  const early = isTooEarly(server, process, now);
  process.lastAt = now;
  if (early) return slowDown(process);
  if (process.script.length > 0) step(server, process, process.script.shift());
  if (process.end <= now) return final('expired_token', 'the code has expired');
  if (process.slowDown) return slowDown(process);
  if (process.state === 'denied') return final('access_denied', 'the user has declined');
  if (process.state === 'cancelled') return final('access_denied', 'the request was cancelled');
  if (process.state === 'pending') return pendingAnswer(server, process);
  process.state = 'delivered';
  process.ended = true;
  return issue(server, process.granted);
}

function isTooEarly(server, process, now) {
  const due = process.lastAt + process.interval * 1000 - TOLERANCE;
  if (now >= due) return false;
  if (process.freePolls > 0) {
    process.freePolls -= 1;
    return false;
  }
  // The next regular poll would come too late, so this one may come before.
  if (due >= process.end && !process.lastPollUsed) {
    process.lastPollUsed = true;
    return false;
  }
  const passed = `${now - process.lastAt} ms passed instead of ${process.interval * 1000}`;
  record(server, 'poll-interval', `process ${process.id}, poll ${process.polls.length + 1}: ${passed}`);
  return true;
}

function slowDown(process) {
  process.slowDown = false;
  process.interval += SLOWER;
  return new Refusal('slow_down').answer;
}

/** It does not repeat the code and the interval; some servers do. */
function pendingAnswer({ settings }, process) {
  const repeated = settings.repeat ? { deferral_code: process.code, interval: process.interval } : {};
  const uri = process.says === 'interaction_required' ? interactionMember(process) : {};
  return new Refusal(process.says, process.progress, { members: { ...repeated, ...uri } }).answer;
}

/**
 * IETF DTR §Callback Notification. It is sent on success, error and cancellation, and never after the end or before
 * the client has its code.
 */
async function announce(server, process) {
  if (!process.granted.client.deferred_client_notification_endpoint || server.clock() >= process.end) return;
  const reason = process.state;
  process.freePolls += 1;
  const status = await callback(server, process, { more: server.settings.callback_members });
  // A client that has cancelled may have forgotten the token.
  const allowed = reason === 'cancelled' ? [204, 401] : [204];
  if (status !== 0 && !allowed.includes(status)) {
    record(server, 'callback-answer', `process ${process.id}, ${reason}: the answer is ${status}`);
  }
}

/** Posts a callback, which a test can spoil, and returns the status, or 0 without an answer. */
export async function callback(server, process, { code = process.code, token = process.notificationToken, more = {} }) {
  const headers = { 'Content-Type': 'application/json', ...(token && { Authorization: `Bearer ${token}` }) };
  const url = process.granted.client.deferred_client_notification_endpoint;
  const status = await server.post(url, headers, JSON.stringify({ deferral_code: code, ...more })).catch((error) => {
    server.log(`callback of process ${process.id}: ${error.code ?? error.name}`);
    return 0;
  });
  process.callbacks.push({ status, state: process.state });
  return status;
}

/** RFC 7009 §2.1, IETF DTR §Cancellation */
export function revoke(server, request) {
  const form = postedForm(request);
  const client = authenticate(server, request, form);
  const jkt = checkProof(server, request);
  const token = form.get('token') ?? broken('cancel-request', 'invalid_request', 'there is no token');
  const process = server.processes.find((one) => one.code === token);
  const done = { status: 200, body: {} };
  if (!process) {
    const isCode = form.get('token_type_hint') === DEFERRAL_CODE_TYPE;
    if (isCode) record(server, 'cancel-request', 'the deferral code is unknown');
    else if (server.tokens.get(token)?.client === client) server.tokens.delete(token);
    return done;
  }
  if (process.granted.client !== client) broken('cancel-request', 'invalid_grant', 'it is the code of another client');
  if (!server.settings.cancellation) {
    record(server, 'cancel-unsupported', `process ${process.id}`);
    return done;
  }
  checkSameKey(process.granted.jkt, jkt);
  if (process.state !== 'delivered' && process.state !== 'cancelled') decide(server, process, 'cancelled');
  return done;
}
