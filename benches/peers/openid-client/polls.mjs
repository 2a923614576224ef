// The cost of a poll with openid-client: polls.mjs <issuer> <in flight> <rounds> <repetitions>
//
// The work is the same as in benches/polls.rs, against its server: kept connections, Basic authentication, a key per
// sign-in and a fresh DPoP proof (ES256) for each poll. Prints the median CPU time of this program for a poll, in
// microseconds.

import * as oidc from 'openid-client'

const [issuer, inFlight, rounds, repetitions] = [process.argv[2], ...process.argv.slice(3).map(Number)]
const GRANT = 'urn:openid:params:grant-type:deferred'

const authentication = oidc.ClientSecretBasic('a secret of some length')
const options = { execute: [oidc.allowInsecureRequests] }
const config = await oidc.discovery(new URL(issuer), 'bench', {}, authentication, options)

const waiting = []
for (let i = 0; i < inFlight; i += 1) {
  waiting.push(oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair('ES256')))
}

async function poll(DPoP) {
  try {
    await oidc.genericGrantRequest(config, GRANT, { deferred_auth_id: 'YSBkZWZlcnJlZCBh' }, { DPoP })
  } catch (error) {
    if (error.error === 'authorization_pending') {
      return
    }
    throw error
  }
  throw new Error('the server says pending')
}

const times = []
for (let repetition = 0; repetition <= repetitions; repetition += 1) {
  const began = process.cpuUsage()
  for (let round = 0; round < rounds; round += 1) {
    await Promise.all(waiting.map(poll))
  }
  const { user, system } = process.cpuUsage(began)
  // The first repetition warms up connections and the compiler.
  if (repetition > 0) {
    times.push((user + system) / (rounds * inFlight))
  }
}
console.log(times.toSorted((one, other) => one - other)[Math.floor(times.length / 2)])
process.exit()
