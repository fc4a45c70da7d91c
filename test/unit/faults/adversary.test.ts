import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { expect, it } from 'vitest'
import { Adversary } from '../../faults/adversary.js'
import { type Action, MOVES, type Targets, type Victim } from '../../faults/moves.js'
import { planWorker } from '../../faults/plan.js'
import type { World } from '../../faults/world.js'
import { type ConnectionFault, startTcpProxy } from '../../support/proxy.js'

const VICTIM: Victim = { taskId: 'w0-1', sandboxId: 'box', life: 1, plan: planWorker(1, 0) }

it('counts a move only when there was somebody to feel it, and makes it again until then', async () => {
  const without = new Map(
    (Object.keys(MOVES) as Action[])
      .filter((move) => move !== 'kill conductor')
      .map((move) => [move, 'left out']),
  )
  let running: Victim[] = []
  let kills = 0
  const targets: Targets = {
    running: () => running,
    vanished: () => {},
    conductor: {
      replace: async () => {
        kills++
      },
      signal: () => {},
      forceKill: async () => false,
      meddle: async () => false,
    },
  }
  // This move touches nothing of the world.
  const adversary = new Adversary({ seed: 1, operations: 1, without }, {} as World, targets)
  const move = async (): Promise<void> => {
    const before = kills
    while (kills === before) {
      adversary.tick()
      await new Promise(setImmediate)
    }
  }
  await move()
  expect(adversary.faults).toEqual({})
  expect(adversary.owed).toEqual(['kill conductor'])
  running = [VICTIM]
  await move()
  expect(adversary.faults).toEqual({ 'kill conductor': 1 })
  expect(adversary.planned).toEqual({ 'kill conductor': 2 })
  expect(adversary.owed).toEqual([])
  await adversary.end()
})

it.each([
  ['one that was over before', { kind: 'reset', direction: 'up', afterBytes: 100 }, 0],
  ['one that broke it', { kind: 'reset', direction: 'up', afterBytes: 3 }, 1],
  ['one that cut it short', { kind: 'truncate', afterBytes: 3 }, 1],
  ['one that slowed it', { kind: 'slow', pieceMs: 1 }, 1],
  ['none', { kind: 'pass' }, 0],
] as const satisfies readonly (readonly [string, ConnectionFault, number])[])(
  'tells of a fault of a connection when it is felt: %s',
  async (_, fault, times) => {
    const server = createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const felt: ConnectionFault[] = []
    const target = { host: '127.0.0.1', port: (server.address() as AddressInfo).port }
    await using proxy = await startTcpProxy(
      target,
      () => fault,
      (one) => felt.push(one),
    )
    const client = connect(proxy.port, '127.0.0.1').on('error', () => {})
    client.write('some bytes')
    let heard = 0
    await new Promise<void>((done) => {
      client.once('close', () => done())
      client.on('data', ({ length }) => {
        heard += length
        if (heard === 10) done()
      })
    })
    client.destroy()
    expect(felt).toEqual(Array(times).fill(fault))
    expect(proxy.taken).toBe(1)
    server.close()
  },
)
