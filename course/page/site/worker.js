// Draws, beside the page: what is typed and clicked there never waits for a network here.

import { Networks } from "./networks.js";
import { Generator } from "./noise.js";
import { tensor_to_images } from "./stage05_vae.js";
import { Tokenizer, read_merges } from "./stage06_clip.js";
import { NoiseSchedule } from "./stage08_scheduler.js";
import { denoise, timesteps_for } from "./stage09_sampler.js";

/**
 * @typedef {object} Order
 * @property {string} prompt @property {string} negative @property {number} seed @property {number} steps
 * @property {number} scale @property {string} sampler
 * @property {Float32Array} [noise] in the place of what the seed gives
 */

/** @type {Networks} */
let networks;
/** @type {Tokenizer} */
let tokenizer;
let current = 0; // the number of the picture that is wanted
let busy = Promise.resolve(); // what is being done; the next thing waits for it

/** Lets messages in, such as the one that says stop. */
const breath = () => new Promise((resolve) => setTimeout(resolve));

async function load() {
  const about = await (await fetch("page.json")).json();
  const [vocab, merges] = await Promise.all([fetch("model/vocab.json"), fetch("model/merges.txt")]);
  tokenizer = new Tokenizer(await vocab.json(), read_merges(await merges.text()), about.max_length);
  networks = new Networks(about);
  await networks.load((share) => postMessage({ type: "loading", share }));
  postMessage({ type: "ready", threads: networks.threads });
}

/** What the tokenizer leaves out, as text. @param {string} prompt */
function cut_off(prompt) {
  return tokenizer.decode(tokenizer.tokenize(prompt).slice(tokenizer.max_length - 2));
}

/** The tokens of a prompt as they can be read, without marks. @param {string} prompt */
function token_names(prompt) {
  return tokenizer.tokenize(prompt).slice(0, tokenizer.max_length - 2).map((id) => tokenizer.decode([id]));
}

/** @param {number} id @param {Order} order */
async function draw(id, order) {
  const started = performance.now();
  const generator = new Generator(order.seed);
  const schedule = new NoiseSchedule();
  const draw_noise = () => generator.randn(networks.latent_size);
  const noise = order.noise ?? draw_noise();
  const sampling = { num_steps: order.steps, guidance_scale: order.scale, sampler: order.sampler, draw_noise };
  const context = await networks.encode_prompt(tokenizer.row(order.prompt));
  const negative_context = order.scale === 1 ? null : await networks.encode_prompt(tokenizer.row(order.negative));
  const unet = networks.unet.bind(networks);
  const steps = denoise(unet, schedule, noise, timesteps_for(schedule, sampling), () => ({ context, negative_context }), sampling);

  let shown = 0; // milliseconds that went into showing steps: never more than half of all
  let latents = noise;
  for await (const step of steps) {
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
  const tensor = await networks.decode(latents);
  const seconds = (performance.now() - started) / 1000;
  postMessage({ type: "done", id, picture: tensor_to_images(tensor), tensor, seconds });
}

/** @param {any} data */
async function answer(data) {
  if (data.type === "load") await load();
  else if (data.type === "draw" && data.id === current) await draw(data.id, data.order);
  else if (data.type === "read") {
    const { prompt } = data;
    postMessage({ type: "read", prompt, cut: cut_off(prompt), tokens: token_names(prompt) });
  } else if (data.type === "decode") {
    const pictures = [];
    for (const latents of data.latents) pictures.push(tensor_to_images(await networks.decode(latents)));
    postMessage({ type: "decoded", key: data.key, pictures });
  }
}

self.onmessage = ({ data }) => {
  if (data.type === "stop") current = 0;
  if (data.type === "draw") current = data.id;
  busy = busy.then(() => answer(data)).catch((error) => {
    postMessage({ type: "failed", message: error instanceof Error ? error.message : String(error) });
  });
};
