import assert from 'node:assert/strict'
import type { Random } from '../../conformance/random.js'
import type { GpuCase } from './gpu-case.js'

function bytes(random: Random, count: number): Uint8Array {
  const seed = random.int(1, 2 ** 31)
  const words = new Uint32Array(Math.ceil(count / 4)).map((_, i) => Math.imul(i + seed, 0x9e3779b1) ^ (i >>> 7))
  return new Uint8Array(words.buffer, 0, count)
}

/** Copies, graphs and memory: whatever needs no kernel. */
export const transferCases: readonly GpuCase[] = [
  {
    name: 'bytes come back as they went, of every length around a chunk',
    async run(device, random) {
      using stream = device.createStream()
      for (const count of [0, 1, 3, 4096, 2 ** 21 - 1, 2 ** 21, 2 ** 21 + 1, 5 * 2 ** 21 + 7]) {
        using buffer = stream.allocate(count, `x [${count}]`)
        const data = bytes(random, count)
        await stream.upload(buffer, data, 'x')
        const back = await stream.download(buffer, new Uint8Array(count), 'x')
        assert.equal(Buffer.compare(back, data), 0, `${count} bytes`)
      }
    },
  },
  {
    name: 'a part of a buffer is written and read at its offset',
    async run(device, random) {
      using stream = device.createStream()
      using buffer = stream.allocate(1000, 'x [1000]')
      stream.fill(buffer, 0xab, 'x')
      const data = new Float32Array(bytes(random, 400).buffer, 100, 50)
      await stream.upload(buffer, data, 'x', 300)
      const all = await stream.download(buffer, new Uint8Array(1000), 'x')
      assert.deepEqual(all.subarray(300, 500), new Uint8Array(data.buffer, 100, 200))
      assert.ok(all.subarray(0, 300).every((byte) => byte === 0xab))
      assert.ok(all.subarray(500).every((byte) => byte === 0xab))
      assert.deepEqual(await stream.download(buffer, new Uint8Array(20), 'x', 295), all.subarray(295, 315))
    },
  },
  {
    name: 'downloads that overlap each get their own bytes',
    async run(device) {
      using stream = device.createStream()
      using buffer = stream.allocate(3 * 2 ** 20, 'x')
      const results: Promise<Uint8Array>[] = []
      for (let value = 1; value <= 6; value++) {
        stream.fill(buffer, value, 'x')
        results.push(stream.download(buffer, new Uint8Array(buffer.bytes), 'x'))
      }
      const arrays = await Promise.all(results)
      arrays.forEach((array, i) => {
        assert.ok(array.every((byte) => byte === i + 1))
      })
    },
  },
  {
    name: 'a graph runs again with what its buffers hold then, and keeps them',
    async run(device, random) {
      using stream = device.createStream()
      const [from, middle] = [stream.allocate(256, 'from'), stream.allocate(256, 'middle')]
      using to = stream.allocate(256, 'to')
      using graph = stream.capture(() => {
        stream.copy(from, middle, 'from → middle')
        stream.copy(middle, to, 'middle → to')
      })
      stream.fill(to, 0, 'to')
      assert.ok((await stream.download(to, new Uint8Array(256), 'to')).every((byte) => byte === 0))
      const data = bytes(random, 256)
      for (let i = 0; i < 3; i++) {
        data[i] = i
        await stream.upload(from, data, 'from')
        stream.replay(graph, 'two copies')
        assert.deepEqual(await stream.download(to, new Uint8Array(256), 'to'), data)
      }
      const inUse = device.memory().blocks
      from.dispose()
      middle.dispose()
      assert.equal(device.memory().blocks, inUse)
      stream.replay(graph, 'two copies')
      assert.deepEqual(await stream.download(to, new Uint8Array(256), 'to'), data)
      graph.dispose()
      assert.equal(device.memory().blocks, inUse - 2)
    },
  },
  {
    name: 'a stream waits for another one',
    async run(device) {
      using first = device.createStream()
      using second = device.createStream()
      const count = 64 * 2 ** 20
      using buffer = first.allocate(count, 'x')
      using start = first.record()
      for (let value = 0; value < 8; value++) first.fill(buffer, value, 'x')
      using filled = first.record()
      second.waitFor(filled)
      const end = await second.download(buffer, new Uint8Array(64), 'x', count - 64)
      assert.ok(end.every((byte) => byte === 7))
      await first.synchronize()
      assert.ok(filled.since(start) > 0)
    },
  },
  {
    name: 'memory that is not there is an error, and the device stays usable',
    async run(device) {
      using stream = device.createStream()
      assert.throws(() => stream.allocate(2 * device.info.totalBytes, 'weights [2 devices]'), {
        name: 'BackendError',
        message: /^weights \[2 devices\]: out of GPU memory: .* wanted, but .* of .* are free; .* in use here/,
      })
      using buffer = stream.allocate(64, 'x')
      stream.fill(buffer, 9, 'x')
      assert.ok((await stream.download(buffer, new Uint8Array(64), 'x')).every((byte) => byte === 9))
    },
  },
]
