import { Worker } from 'node:worker_threads'
import { expect, it } from 'vitest'
import { loadAddon } from '../../src/native/load.js'
import { describeFake, fakeFactory } from './support.js'

// Work that never stops: memory, a graph, waits and downloads, and nothing is ever disposed.
const code = `
const { parentPort, workerData } = require('node:worker_threads')
const addon = require(workerData.addon)
const device = addon.cudaOpenDevice(workerData.library, 0)
function use() {
  const stream = addon.cudaStream(device)
  const buffer = addon.cudaAllocate(stream, 1000, 'x')
  addon.cudaBeginCapture(stream)
  addon.cudaFill(stream, buffer, 0, 1000, 1, 'x')
  addon.cudaReplay(stream, addon.cudaEndCapture(stream), 'x')
  for (let i = 0; i < 20; i++) {
    addon.cudaDownload(stream, buffer, 0, new Uint8Array(1000), 'x')
    addon.cudaSynchronize(stream)
  }
  addon.cudaBeginCapture(stream)
}
use()
parentPort.postMessage('working')
setInterval(use, 1)
`

describeFake('a worker', () => {
  it('may be terminated in the middle of everything', async () => {
    const driver = fakeFactory().make()
    const loaded = loadAddon()
    if (loaded.addon === undefined) throw new Error('the addon was there a moment ago')
    const workerData = { addon: loaded.from, library: driver.library }
    for (let i = 0; i < 10; i++) {
      const worker = new Worker(code, { eval: true, workerData })
      await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))
      await new Promise((resolve) => setTimeout(resolve, i))
      expect(await worker.terminate()).toBe(1)
    }
    expect(driver.get('faults')).toBe(0)
  })
})
