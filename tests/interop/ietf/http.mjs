// Requests and answers.
import { broken } from './rules.mjs';

/** A form with its parameters. An empty one counts as absent (RFC 6749 §3.1). */
export class Form {
  #values;

  constructor(text) {
    this.#values = [...new URLSearchParams(text)].filter(([, value]) => value !== '');
  }

  all(name) {
    return this.#values.filter(([key]) => key === name).map(([, value]) => value);
  }

  get(name) {
    return this.all(name)[0];
  }

  has(name) {
    return this.all(name).length > 0;
  }

  get names() {
    return [...new Set(this.#values.map(([name]) => name))];
  }

  /** Space-separated values. */
  list(name) {
    return (this.get(name) ?? '').split(' ').filter(Boolean);
  }
}

/** These may come more than once (RFC 8707 §2, RFC 8693 §2.1). */
const REPEATABLE = ['resource', 'audience'];

export function checkRepetition(form) {
  const twice = form.names.find((name) => !REPEATABLE.includes(name) && form.all(name).length > 1);
  if (twice) broken('request-form', 'invalid_request', `${twice} comes twice`);
}

/** The form that is posted. */
export function postedForm(request) {
  const refuse = (text) => broken('request-form', 'invalid_request', text);
  if (request.method !== 'POST') refuse(`it is a ${request.method}`);
  const type = (request.headers['content-type'] ?? '').split(';')[0].trim().toLowerCase();
  if (type !== 'application/x-www-form-urlencoded') refuse('it is not a form');
  if (request.query !== '') broken('secret-in-url', 'invalid_request', 'parameters stand in the URL of a POST');
  const form = new Form(request.body);
  checkRepetition(form);
  return form;
}

const LONGEST = 1_000_000;

/** Reads a request of Node's, for these endpoints. */
export async function readRequest(server, message) {
  const url = new URL(message.url, server.base);
  let body = '';
  for await (const piece of message.setEncoding('utf8')) {
    body += piece;
    if (body.length > LONGEST) throw new Error('the request is too long');
  }
  const { method, headers } = message;
  return {
    method,
    headers,
    body,
    path: url.pathname,
    query: url.search.slice(1),
    endpoint: server.base + url.pathname,
  };
}

/** Writes an answer, and then calls its `written`. */
export function writeAnswer(response, { status, body, headers = {}, written }) {
  response.once('finish', () => written?.());
  const isText = typeof body === 'string';
  response.writeHead(status, {
    'Content-Type': isText ? 'text/html' : 'application/json',
    'Cache-Control': 'no-store',
    ...headers,
  });
  response.end(isText ? body : body && JSON.stringify(body));
}
