// The networks: fetched with progress, and run by one of two engines.

// @ts-ignore: `make page` puts the runtime there
import * as ort from "./runtime/ort.wasm.min.mjs";
import { Sessions, fetched } from "./sessions.js";

/** @typedef {Record<string, any>} About what page.json holds */
/** @typedef {import("./sessions.js").Inputs} Inputs */
/** @typedef {import("./sessions.js").Engine} Engine */

const PROGRAM = "runtime/ort-wasm-simd-threaded";
const FIRST = ["text_encoder", "unet", "decoder"]; // the encoder comes when it is needed

export class Networks {
  /** @param {About} about */
  constructor(about) {
    this.about = about;
    const side = about.image_size / about.factor;
    this.latent_shape = [1, about.latent_channels, side, side];
    this.latent_size = about.latent_channels * side * side;
    this.switches = new Float32Array(about.switches.length).fill(1);
    this.threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
    const program = new URL(PROGRAM, import.meta.url).href;
    this.processor = new Sessions(ort, "wasm", program, this.threads, (name) => fetched(`model/${name}.onnx`));
    /** @type {Record<string, Engine>} those that another engine than the processor runs */
    this.elsewhere = {};
    /** @param {any} error what an engine said that failed: the processor has taken its place */
    this.on_failure = (error) => console.warn(error);
  }

  /** How many threads there are, in words. */
  get how_many() {
    return `${this.threads} ${this.threads === 1 ? "thread" : "threads"}`;
  }

  /** Where the networks run that run nowhere else, as a sentence. */
  get on_processor() {
    return `The networks run on the processor, in WebAssembly on ${this.how_many}.`;
  }

  /** Loads what text to image needs. @param {(share: number) => void} progress */
  async load(progress) {
    const names = [`${PROGRAM}.wasm.gz`, ...FIRST.map((name) => `model/${name}.onnx`)];
    const total = names.reduce((sum, name) => sum + this.about.files[name], 0);
    let sum = 0;
    const arrived = (/** @type {number} */ bytes) => progress(Math.min((sum += bytes) / total, 1));
    const [binary, ...models] = await Promise.all(names.map((name) => fetched(name, arrived)));
    await this.processor.take(binary);
    for (const [i, name] of FIRST.entries()) await this.processor.open(name, models[i]);
  }

  /** @param {string} name @param {Inputs} inputs */
  async run(name, inputs) {
    const engine = this.elsewhere[name];
    if (engine) {
      try {
        return await engine.run(name, inputs);
      } catch (error) {
        this.elsewhere = {};
        this.on_failure(error);
      }
    }
    return this.processor.run(name, inputs);
  }

  /** The ids of one prompt to its vectors. @param {number[]} ids @returns {Promise<Float32Array>} */
  async encode_prompt(ids) {
    const tokens = BigInt64Array.from(ids, BigInt);
    return (await this.run("text_encoder", { tokens: ["int64", tokens, [1, ids.length]] })).context;
  }

  /** What the U-Net gets. @param {Float32Array} latents @param {number} timestep @param {Float32Array} context @returns {Inputs} */
  unet_inputs(latents, timestep, context) {
    const length = this.about.max_length;
    return {
      latents: ["float32", latents, this.latent_shape],
      timesteps: ["int64", BigInt64Array.of(BigInt(timestep)), [1]],
      context: ["float32", context, [1, length, context.length / length]],
      switches: ["float32", this.switches.slice(), [this.switches.length]],
    };
  }

  /** What the decoder gets. @param {Float32Array} latents @returns {Inputs} */
  decoder_inputs(latents) {
    return { latents: ["float32", latents, this.latent_shape] };
  }

  /** @param {Float32Array} latents @param {number} timestep @param {Float32Array} context */
  async unet(latents, timestep, context) {
    const { noise, attention } = await this.run("unet", this.unet_inputs(latents, timestep, context));
    return { noise, attention };
  }

  /** @param {Float32Array} latents @returns {Promise<Float32Array>} the picture, (3, height, width) */
  async decode(latents) {
    return (await this.run("decoder", this.decoder_inputs(latents))).images;
  }

  /** @param {Float32Array} images one picture, (3, height, width) @returns {Promise<Float32Array>} its latents */
  async encode(images) {
    const size = this.about.image_size;
    return (await this.run("encoder", { images: ["float32", images, [1, 3, size, size]] })).latents;
  }
}
