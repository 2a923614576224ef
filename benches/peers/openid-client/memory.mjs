// The memory of a pending sign-in with openid-client: node --expose-gc memory.mjs [how many]
//
// For each decision that it waits for, a program with openid-client holds a promise that sleeps until the next poll,
// the identifier to poll with, and the DPoP key with its handle. Nothing is sent. Prints the bytes for each sign-in,
// measured as resident memory, because keys are outside the heap.

import { randomBytes } from 'node:crypto'
import * as oidc from 'openid-client'

const many = Number(process.argv[2] ?? 100_000)
const config = new oidc.Configuration({ issuer: 'https://op.example', token_endpoint: 'https://op.example/token' }, 'bench')

// Works like `pollDeviceAuthorizationGrant` and `pollBackchannelAuthenticationGrant` of openid-client, for a grant that
// openid-client does not support.
async function wait(deferred_auth_id, DPoP, interval) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, interval * 1000))
    await oidc.genericGrantRequest(config, 'urn:openid:params:grant-type:deferred', { deferred_auth_id }, { DPoP })
  }
}

async function start(count) {
  const started = []
  for (let i = 0; i < count; i += 1) {
    const keys = await oidc.randomDPoPKeyPair('ES256')
    const DPoP = oidc.getDPoPHandle(config, keys)
    started.push(wait(randomBytes(24).toString('base64url'), DPoP, 3600))
  }
  return started
}

function resident() {
  globalThis.gc()
  globalThis.gc()
  return process.memoryUsage().rss
}

const first = await start(1_000)
const before = resident()
const all = await start(many)
console.log(Math.round((resident() - before) / many))
process.exit(first.length + all.length === many + 1_000 ? 0 : 1)
