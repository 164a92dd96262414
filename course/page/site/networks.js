// The networks: fetched with progress, and run by ONNX Runtime Web.

// @ts-ignore: `make page` puts the runtime there
import * as ort from "./runtime/ort.wasm.min.mjs";

/** @typedef {Record<string, any>} About what page.json holds */

const RUNTIME = "runtime/ort-wasm-simd-threaded";
const FIRST = ["model/text_encoder.onnx", "model/unet.onnx", "model/decoder.onnx"]; // the encoder comes when it is needed

/** Fetches a file, telling of each piece how many bytes it has. @param {string} name @param {(bytes: number) => void} arrived */
async function fetched(name, arrived) {
  const answer = await fetch(name);
  if (!answer.ok || !answer.body) throw new Error(`${name} is missing (${answer.status})`);
  const pieces = [];
  const reader = answer.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    arrived(value.length);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

/** Unpacks what gzip packed, unless the host has let the browser do it. @param {Uint8Array<ArrayBuffer>} bytes */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

export class Networks {
  /** @param {About} about */
  constructor(about) {
    this.about = about;
    const side = about.image_size / about.factor;
    this.latent_shape = [1, about.latent_channels, side, side];
    this.latent_size = about.latent_channels * side * side;
    this.switches = new Float32Array(about.switches.length).fill(1);
    this.threads = 1;
    /** @type {Record<string, any>} */
    this.sessions = {};
  }

  /** Loads what text to image needs. @param {(share: number) => void} progress */
  async load(progress) {
    const names = [`${RUNTIME}.wasm.gz`, ...FIRST];
    const total = names.reduce((sum, name) => sum + this.about.files[name], 0);
    let sum = 0;
    const arrived = (/** @type {number} */ bytes) => progress(Math.min((sum += bytes) / total, 1));
    const [binary, ...models] = await Promise.all(names.map((name) => fetched(name, arrived)));
    this.threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
    ort.env.wasm.numThreads = this.threads;
    ort.env.wasm.wasmPaths = { mjs: new URL(`${RUNTIME}.mjs`, import.meta.url).href };
    ort.env.wasm.wasmBinary = await unpacked(binary);
    ort.env.logLevel = "error";
    for (const [i, name] of FIRST.entries()) await this.open(name, models[i]);
  }

  /** @param {string} name @param {Uint8Array} [bytes] */
  async open(name, bytes) {
    if (this.sessions[name]) return this.sessions[name];
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    return (this.sessions[name] = await ort.InferenceSession.create(bytes ?? (await fetched(name, () => {})), options));
  }

  /** @param {string} name @param {Record<string, [string, any, number[]]>} inputs name -> [type, data, shape] */
  async run(name, inputs) {
    const session = await this.open(`model/${name}.onnx`);
    const feeds = Object.entries(inputs).map(([key, [type, data, shape]]) => [key, new ort.Tensor(type, data, shape)]);
    return session.run(Object.fromEntries(feeds));
  }

  /** The ids of one prompt to its vectors. @param {number[]} ids @returns {Promise<Float32Array>} */
  async encode_prompt(ids) {
    const tokens = BigInt64Array.from(ids, BigInt);
    return (await this.run("text_encoder", { tokens: ["int64", tokens, [1, ids.length]] })).context.data;
  }

  /** @param {Float32Array} latents @param {number} timestep @param {Float32Array} context */
  async unet(latents, timestep, context) {
    const length = this.about.max_length;
    const { noise, attention } = await this.run("unet", {
      latents: ["float32", latents, this.latent_shape],
      timesteps: ["int64", BigInt64Array.of(BigInt(timestep)), [1]],
      context: ["float32", context, [1, length, context.length / length]],
      switches: ["float32", this.switches, [this.switches.length]],
    });
    return { noise: noise.data, attention: attention.data };
  }

  /** @param {Float32Array} latents @returns {Promise<Float32Array>} the picture, (3, height, width) */
  async decode(latents) {
    return (await this.run("decoder", { latents: ["float32", latents, this.latent_shape] })).images.data;
  }

  /** @param {Float32Array} images one picture, (3, height, width) @returns {Promise<Float32Array>} its latents */
  async encode(images) {
    const size = this.about.image_size;
    return (await this.run("encoder", { images: ["float32", images, [1, 3, size, size]] })).latents.data;
  }
}
