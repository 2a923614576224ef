// A small strict authorization server that speaks the IETF draft "Deferred Token Response", for the tests beside it. It
// reads its settings as one line of JSON on standard input, prints its issuer as one line of JSON on standard output,
// then obeys one command a line (see `COMMANDS` in app.mjs), and ends when its input ends.
import { createServer, request } from 'node:https';
import { createInterface } from 'node:readline';

import { control, createAuthorizationServer, listener } from './app.mjs';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

const { tls, ...settings } = JSON.parse((await lines.next()).value);

/** Posts to a client over HTTPS and returns the status. */
function post(url, headers, body) {
  return new Promise((resolve, reject) => {
    const sent = request(
      url,
      { method: 'POST', headers, ca: tls.authority, timeout: 10_000, agent: false },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    );
    sent.on('timeout', () => sent.destroy(new Error('timeout')));
    sent.on('error', reject);
    sent.end(body);
  });
}

const https = createServer({ key: tls.key, cert: tls.certificate });
await new Promise((resolve) => https.listen(0, '127.0.0.1', resolve));
const server = createAuthorizationServer({ settings, base: `https://localhost:${https.address().port}`, post });
https.on('request', listener(server));
say({ issuer: server.issuer, resource: server.endpoints.resource });

for await (const line of lines) say(control(server, JSON.parse(line)));
process.exit(0);
