// Networks as ONNX Runtime Web runs them: fetched, opened, called.

/** @typedef {Record<string, [type: string, data: any, shape: number[]]>} Inputs */
/** @typedef {Record<string, any>} Outputs name -> its numbers */
/** @typedef {{ run: (name: string, inputs: Inputs) => Promise<Outputs> }} Engine what runs networks by their names */

/**
 * Every worker that was started here. Without this list the networks were often never ready in Firefox 140: what a thread of
 * ONNX Runtime said did not arrive. It seems to free a worker that nothing refers to but its own unfinished start.
 * @type {Worker[]}
 */
const held = [];
if (globalThis.Worker) {
  globalThis.Worker = class extends Worker {
    /** @param {ConstructorParameters<typeof Worker>} given */
    constructor(...given) {
      super(...given);
      held.push(this);
    }
  };
}

/** Fetches a file, telling of each piece how many bytes it has. @param {string} name @param {(bytes: number) => void} [arrived] @param {RequestInit} [how] */
export async function fetched(name, arrived, how) {
  const answer = await fetch(name, how);
  if (!answer.ok || !answer.body) throw new Error(`${name} is missing (${answer.status})`);
  const pieces = [];
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    arrived?.(value.length);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** Unpacks what gzip packed, unless the host has let the browser do it. @param {Uint8Array<ArrayBuffer>} bytes */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** @implements {Engine} */
export class Sessions {
  /**
   * @param {any} ort the module @param {string} provider "wasm" or "webgpu"
   * @param {string} program its address, without ending @param {number} threads
   * @param {(name: string) => Promise<Uint8Array>} file of a network that is not open yet
   */
  constructor(ort, provider, program, threads, file) {
    this.ort = ort;
    this.provider = provider;
    this.file = file;
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = { mjs: `${program}.mjs` };
    ort.env.logLevel = "error";
    /** @type {Record<string, any>} */
    this.sessions = {};
  }

  /** Takes the program for WebAssembly, packed or not. @param {Uint8Array<ArrayBuffer>} binary */
  async take(binary) {
    this.ort.env.wasm.wasmBinary = await unpacked(binary);
  }

  /** @param {string} name of a network @param {Uint8Array} bytes its file */
  async open(name, bytes) {
    const options = { executionProviders: [this.provider], graphOptimizationLevel: "all", logSeverityLevel: 3 };
    this.sessions[name] = await this.ort.InferenceSession.create(bytes, options);
  }

  /** @param {string} name @param {Inputs} inputs @returns {Promise<Outputs>} */
  async run(name, inputs) {
    if (!this.sessions[name]) await this.open(name, await this.file(name));
    const feeds = Object.entries(inputs).map(([key, given]) => [key, new this.ort.Tensor(...given)]);
    const results = await this.sessions[name].run(Object.fromEntries(feeds));
    return Object.fromEntries(Object.entries(results).map(([key, tensor]) => [key, tensor.data]));
  }
}
