// Draws, beside the page: what is typed and clicked there never waits for a network here.

import { plan } from "./mistakes.js";
import { Networks } from "./networks.js";
import { Generator } from "./noise.js";
import { images_to_tensor, tensor_to_images } from "./stage05_vae.js";
import { Tokenizer, read_merges } from "./stage06_clip.js";
import { denoise, keep_unmasked } from "./stage09_sampler.js";

/**
 * @typedef {object} Order
 * @property {string} prompt @property {string} negative @property {number} seed @property {number} steps
 * @property {number} scale @property {string} sampler
 * @property {string | null} mistake a name of the catalogue
 * @property {string} second another prompt @property {number} from the step from which on it holds; 0: none
 * @property {number[]} switches 1 or 0 for each part of the U-Net
 * @property {Uint8ClampedArray | null} start RGBA bytes of a picture to start from
 * @property {Uint8Array | null} mask of that picture: 1 where to paint anew; null: everywhere
 * @property {number} strength of image to image or inpainting
 */

/** @type {Networks} */
let networks;
/** @type {Tokenizer} */
let tokenizer;
let current = 0; // the number of the picture that is wanted
/** @type {Promise<unknown>} what is being done; the next thing waits for it */
let busy = Promise.resolve();

/** Lets messages in, such as the one that says stop. */
const breath = () => new Promise((resolve) => setTimeout(resolve));

async function load() {
  const about = await (await fetch("page.json")).json();
  const [vocab, merges] = await Promise.all([fetch("model/vocab.json"), fetch("model/merges.txt")]);
  tokenizer = new Tokenizer(await vocab.json(), read_merges(await merges.text()), about.max_length);
  networks = new Networks(about);
  await networks.load((share) => postMessage({ type: "loading", share }));
  postMessage({ type: "ready", engine: networks.on_processor });
}

/** What the tokenizer leaves out, as text. @param {string} prompt */
function cut_off(prompt) {
  return tokenizer.decode(tokenizer.tokenize(prompt).slice(tokenizer.max_length - 2));
}

/** The tokens of a prompt as they can be read, without marks. @param {string} prompt */
function token_names(prompt) {
  return tokenizer.tokenize(prompt).slice(0, tokenizer.max_length - 2).map((id) => tokenizer.decode([id]));
}

/** @param {string} prompt */
const encode = (prompt) => networks.encode_prompt(tokenizer.row(prompt));

/**
 * Where the steps begin, and what is done after each: image to image and inpainting of stage 9.
 * @param {Order} order @param {ReturnType<typeof plan>} planned @param {Float32Array} noise
 */
async function beginning(order, { schedule, timesteps }, noise) {
  if (order.start === null) return { latents: noise, timesteps };
  const left = timesteps.slice(schedule.start_index(order.steps, order.strength));
  const original = await networks.encode(images_to_tensor(order.start));
  const noisy = schedule.add_noise(original, noise, left[0]);
  if (order.mask === null) return { latents: noisy, timesteps: left };
  const { image_size, factor } = networks.about;
  const side = image_size / factor;
  const mask = Float32Array.from({ length: side * side }, (_, i) => {
    return /** @type {Uint8Array} */ (order.mask)[Math.floor(i / side) * factor * image_size + (i % side) * factor];
  });
  const after_step = keep_unmasked(schedule, original, mask, noise);
  return { latents: order.strength === 1 ? noise : noisy, timesteps: left, after_step };
}

/** @param {number} id @param {Order} order */
async function draw(id, order) {
  const started = performance.now();
  const generator = new Generator(order.seed);
  const draw_noise = () => generator.randn(networks.latent_size);
  const noise = draw_noise();
  const wanted = { num_steps: order.steps, guidance_scale: order.scale, sampler: order.sampler, draw_noise };
  const planned = plan(order.mistake, wanted);
  const negative_context = order.scale === 1 ? null : await encode(order.negative);
  const first = { context: await encode(order.prompt), negative_context };
  const second = order.from ? { context: await encode(order.second), negative_context } : first;
  const { latents: start, timesteps, after_step } = await beginning(order, planned, noise);
  networks.switches.set(order.switches);
  const unet = networks.unet.bind(networks);
  const contexts = (/** @type {number} */ index) => (order.from && index + 1 >= order.from ? second : first);
  const { schedule, sampling } = planned;

  let shown = 0; // milliseconds that went into showing steps: never more than half of all
  let latents = start;
  for await (const step of denoise(unet, schedule, start, timesteps, contexts, sampling, after_step)) {
    /** @type {Uint8ClampedArray[]} */
    let pictures = [];
    const now = performance.now();
    if (shown <= (now - started) / 2) {
      pictures = [await networks.decode(latents), await networks.decode(step.original)].map(tensor_to_images);
      shown += performance.now() - now;
    }
    postMessage({ type: "step", id, ...step, before: latents, pictures });
    latents = step.latents;
    await breath();
    if (id !== current) return postMessage({ type: "stopped", id });
  }
  const picture = tensor_to_images(await networks.decode(latents));
  postMessage({ type: "done", id, picture, seconds: (performance.now() - started) / 1000 });
}

/** Has the networks run where the person who looks wants them. @param {import("./webgpu/engine.js").Choice} choice */
async function choose(choice) {
  const say = (/** @type {string} */ on, /** @type {string} */ text) => postMessage({ type: "engine", on, text });
  try {
    const { choose } = await import("./webgpu/engine.js");
    await choose(networks, choice, alone, say);
  } catch {
    say("failed", `What the graphics card needs could not be loaded. ${networks.on_processor}`);
  }
}

/** @param {any} data */
async function answer(data) {
  if (data.type === "load") await load();
  else if (data.type === "draw" && data.id === current) await draw(data.id, data.order);
  else if (data.type === "read") {
    const tokens = data.prompts.map(token_names);
    postMessage({ type: "read", prompts: data.prompts, cut: cut_off(data.prompts[0]), tokens });
  } else if (data.type === "decode") {
    const pictures = [];
    for (const latents of data.latents) pictures.push(tensor_to_images(await networks.decode(latents)));
    postMessage({ type: "decoded", key: data.key, pictures });
  }
}

/** Does something when all before it is done. @template T @param {() => T | Promise<T>} job @returns {Promise<T>} */
function alone(job) {
  const done = busy.then(job);
  busy = done.catch(() => {});
  return done;
}

self.onmessage = ({ data }) => {
  if (data.type === "stop") current = 0;
  if (data.type === "draw") current = data.id;
  if (data.type === "choose") return choose(data.choice); // loads beside the drawing
  alone(() => answer(data)).catch((error) => {
    postMessage({ type: "failed", message: error instanceof Error ? error.message : String(error) });
  });
};
