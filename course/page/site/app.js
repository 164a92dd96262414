// The page itself: what is typed, what is shown.

import { Brush, mask_picture, read_picture } from "./brush.js";
import { overlay, show_schedule, switches } from "./dials.js";
import { with_settings } from "./png.js";

/** @template {HTMLElement} T @param {string} id @param {new () => T} kind @returns {T} */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`${id} is missing`);
  return found;
}

const form = element("order", HTMLFormElement);
const prompt = element("prompt", HTMLTextAreaElement);
const negative = element("negative", HTMLInputElement);
const seed = element("seed", HTMLInputElement);
const steps = element("steps", HTMLInputElement);
const scale = element("scale", HTMLInputElement);
const sampler = element("sampler", HTMLSelectElement);
const draw_button = element("draw", HTMLButtonElement);
const stop_button = element("stop", HTMLButtonElement);
const save = element("save", HTMLAnchorElement);
const progress = element("progress", HTMLProgressElement);
const moment = element("moment", HTMLInputElement);
const noisy = element("noisy", HTMLCanvasElement);
const guess = element("guess", HTMLCanvasElement);
const second = element("second", HTMLInputElement);
const from = element("from", HTMLInputElement);
const mistake = element("mistake", HTMLSelectElement);
const radius = element("radius", HTMLInputElement);
const strength = element("strength", HTMLInputElement);
const file = element("file", HTMLInputElement);
const tokens = element("tokens", HTMLElement);
const where = element("where", HTMLSelectElement);

/**
 * @typedef {object} Moment a step of the picture
 * @property {Float32Array} before the latents before it @property {Float32Array} original the guess
 * @property {Float32Array} attention for each token, one number per latent pixel
 * @property {number} timestep @property {number} count of all steps
 * @property {Uint8ClampedArray[]} pictures of `before` and `original`; empty until they are decoded
 * @property {boolean} [asked] whether the worker has been asked for them
 */

const worker = new Worker("worker.js", { type: "module" });
/** @type {Record<string, any>} */
let about;
let ready = false;
let number = 0; // of the picture that was last asked for
let drawing = false;
/** @type {Record<string, any>} the settings of that picture */
let settings = {};
/** @type {Moment[]} its steps */
let film = [];
/** @type {Uint8ClampedArray | null} the finished picture */
let finished = null;
/** @type {string[][]} the tokens of the first and of the second prompt */
let names = [[], []];
let graphics_offered = false;
let looked_at = -1; // which token; -1: none
/** @type {() => number[]} */
let switched = () => [];
/** @type {Brush} */
let brush;
/** @type {number | undefined} */
let later;

/** @param {string} text @param {boolean} wrong */
function say(text, wrong = false) {
  const status = element("status", HTMLElement);
  if (status.textContent !== text) status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

/** @param {HTMLCanvasElement} canvas @param {Uint8ClampedArray} rgba */
function show(canvas, rgba) {
  const side = Math.sqrt(rgba.length / 4);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  canvas.getContext("2d")?.putImageData(new ImageData(new Uint8ClampedArray(rgba), side, side), 0, 0);
}

function show_values() {
  from.max = steps.value;
  const outputs = {
    steps: steps.value,
    scale: scale.value === "1" ? "1 (none)" : scale.value,
    radius: radius.value,
    strength: strength.value,
    from: from.value === "0" ? "never" : from.value === "1" ? "from the first step on" : `from step ${from.value} on`,
  };
  for (const [name, text] of Object.entries(outputs)) element(`${name}-value`, HTMLOutputElement).value = text;
  if (brush) brush.radius = Number(radius.value);
  if (film.length === 0) show_plan(undefined);
}

function show_buttons() {
  draw_button.disabled = !ready;
  stop_button.disabled = !drawing;
  moment.disabled = film.length === 0;
  element("take", HTMLButtonElement).disabled = finished === null;
}

/** @param {number | undefined} timestep */
function show_plan(timestep) {
  const plan = film.length > 0 ? settings : { steps: Number(steps.value), sampler: sampler.value, mistake: mistake.value || null };
  const svg = document.getElementById("schedule");
  if (svg) show_schedule(svg, element("schedule-words", HTMLElement), plan, timestep);
}

/** The tokens of the prompt that holds in a step, each a button. @param {number} place the number of the step */
function show_tokens(place) {
  const shown = settings.from && place + 1 >= settings.from ? names[1] : names[0];
  if (tokens.dataset.shown === shown.join("\n")) return;
  tokens.dataset.shown = shown.join("\n");
  tokens.replaceChildren(
    ...shown.map((name, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("pointerenter", () => look_at(i));
      button.addEventListener("focus", () => look_at(i));
      button.addEventListener("pointerleave", () => look_at(-1));
      button.addEventListener("blur", () => look_at(-1));
      return button;
    }),
  );
}

/** @param {number} token */
function look_at(token) {
  looked_at = token;
  for (const [i, button] of Array.from(tokens.children).entries()) button.setAttribute("aria-pressed", String(i === token));
  show_moment();
}

/** The moment that the slider names: its pictures are decoded if they are not there yet. */
function show_moment() {
  const place = Number(moment.value);
  const one = film[place];
  if (!one) return;
  const text = `${place + 1} of ${one.count}, timestep ${one.timestep}`;
  element("moment-value", HTMLOutputElement).value = text;
  moment.setAttribute("aria-valuetext", text);
  show_plan(one.timestep);
  show_tokens(place);
  if (one.pictures.length === 0 && !drawing && !one.asked) {
    one.asked = true;
    worker.postMessage({ type: "decode", key: [number, place], latents: [one.before, one.original] });
  }
  if (one.pictures.length > 0) show(noisy, one.pictures[0]);
  const picture = place === film.length - 1 && finished ? finished : one.pictures[1];
  const size = one.attention.length / about.max_length;
  const start = (looked_at + 1) * size; // before the words stands the begin mark
  if (picture) show(guess, looked_at < 0 ? picture : overlay(picture, one.attention.subarray(start, start + size)));
}

function begin() {
  if (!ready || !form.reportValidity()) return;
  clearTimeout(later);
  number += 1;
  drawing = true;
  film = [];
  looked_at = -1;
  moment.value = moment.max = "0";
  finished = null;
  save.hidden = true;
  settings = {
    ...about.settings,
    prompt: prompt.value,
    negative: negative.value,
    seed: Number(seed.value),
    steps: Number(steps.value),
    scale: Number(scale.value),
    sampler: sampler.value,
    width: about.image_size,
    height: about.image_size,
    mistake: mistake.value || null,
  };
  const others = {
    second: second.value,
    from: Number(from.value),
    switches: switched(),
    start: brush.picture,
    mask: brush.picture && brush.painted(),
    strength: Number(strength.value),
  };
  settings = { ...settings, ...others };
  progress.value = 0;
  say("Drawing ...");
  worker.postMessage({ type: "read", prompts: [prompt.value, second.value] });
  worker.postMessage({ type: "draw", id: number, order: settings });
  show_buttons();
}

function stop() {
  if (drawing) worker.postMessage({ type: "stop" });
}

/** A dial was turned: draws again in a moment, unless it is turned further. */
function again() {
  if (number === 0) return;
  clearTimeout(later);
  later = setTimeout(begin, 300);
}

/** @param {Uint8ClampedArray} rgba @returns {Promise<Uint8Array>} a PNG file */
async function png(rgba) {
  const canvas = document.createElement("canvas");
  show(canvas, rgba);
  const blob = await new Promise((/** @type {BlobCallback} */ resolve) => canvas.toBlob(resolve, "image/png"));
  return new Uint8Array(await /** @type {Blob} */ (blob).arrayBuffer());
}

/** @param {HTMLAnchorElement} link @param {Blob} blob @param {string} name */
function put(link, blob, name) {
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.hidden = false;
}

/** A picture that belongs to the drawn one, as a file: its name and hash. @param {string} id @param {Uint8ClampedArray} rgba @param {string} name */
async function put_beside(id, rgba, name) {
  const bytes = await png(rgba);
  put(element(id, HTMLAnchorElement), new Blob([bytes.slice()], { type: "image/png" }), name);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice()));
  return [name, Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("")];
}

/** Offers the picture as a file that remembers what make generate needs to repeat it. */
async function offer() {
  if (!finished) return;
  const [mine, picture] = [number, finished];
  const words = settings.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-+|-+$/g, "");
  const name = `${words || "picture"}-${settings.seed}`;
  const { second: _, from: changed, switches: parts, start, mask, strength: share, ...kept } = settings;
  if (start) {
    kept.strength = share;
    [kept.init, kept.init_sha256] = await put_beside("save-start", start, `${name}-start.png`);
  }
  if (mask) [kept.mask, kept.mask_sha256] = await put_beside("save-mask", mask_picture(mask), `${name}-mask.png`);
  const bytes = await png(picture);
  if (mine !== number) return;
  // What make generate has no option for is not said to be repeatable.
  const repeatable = !changed && parts.every((/** @type {number} */ part) => part === 1);
  form.dataset.done = String(mine);
  put(save, repeatable ? with_settings(bytes, kept) : new Blob([bytes.slice()], { type: "image/png" }), `${name}.png`);
}

/** Puts a word at the end of the prompt. @param {string} word */
function add(word) {
  prompt.value = `${prompt.value.trimEnd()} ${word}`.trim();
  ask_to_read();
}

function show_words() {
  const all = Object.values(about.words).flat();
  element("words", HTMLElement).replaceChildren(
    ...all.map((word) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word;
      button.addEventListener("click", () => add(word));
      return button;
    }),
  );
}

function show_whose() {
  const mine = about.blocks.filter((/** @type {any} */ block) => block.yours);
  const names = mine.map((/** @type {any} */ block) => `${block.number} ${block.name}`).join(", ");
  const refused = about.blocks.filter((/** @type {any} */ block) => block.refused);
  const whose = mine.length === 0
    ? "All blocks are the course's own."
    : `Blocks that its learner wrote: ${names}${mine.length < about.blocks.length ? "; the course's own for the rest." : "."}`;
  const without = refused.map((/** @type {any} */ block) => ` Stage ${block.number} ${block.name} could not be recorded (${block.refused}).`);
  element("whose", HTMLElement).textContent = whose + without.join("");
}

function show_mistakes() {
  for (const { name, title } of about.mistakes) mistake.append(new Option(title, name));
}

function ask_to_read() {
  if (ready) worker.postMessage({ type: "read", prompts: [prompt.value, second.value] });
}

/** Takes a picture to start from, or none. @param {Uint8ClampedArray | null} picture */
function start_from(picture) {
  brush.take(picture);
  element("brushing", HTMLElement).hidden = picture === null;
  element("without", HTMLButtonElement).disabled = picture === null;
  for (const id of ["save-start", "save-mask"]) element(id, HTMLAnchorElement).hidden = true;
}

/** What a browser keeps for this page, or null. @param {string} key @param {string} [value] to keep from now on */
function kept(key, value) {
  try {
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key);
  } catch {
    return null; // the browser keeps nothing here
  }
}

/** Offers the graphics card, if there is one, and tries it. Not before the first picture, which would have to wait. */
async function offer_graphics() {
  if (graphics_offered) return;
  graphics_offered = true;
  const adapter = await (/** @type {any} */ (navigator)).gpu?.requestAdapter().catch(() => null);
  if (!adapter || (adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter)) return; // a program that plays one is slow
  where.value = kept("where") ?? "auto";
  if (!where.value) where.value = "auto";
  element("choice", HTMLElement).hidden = false;
  if (where.value === "auto" && kept("slower") === about.version) {
    element("engine", HTMLElement).textContent += " An earlier trial decided against the graphics card.";
  } else if (where.value !== "processor") choose();
}

function choose() {
  worker.postMessage({ type: "choose", choice: where.value });
}

/** @param {string} on "processor", "graphics", "trying" or "failed" @param {string} text */
function show_engine(on, text) {
  const line = element("engine", HTMLElement);
  line.textContent = text;
  line.classList.toggle("wrong", on === "failed");
  if (where.value === "auto") kept("slower", on === "processor" ? about.version : "");
  if (on === "failed") where.value = "processor";
  if (on === "graphics") navigator.serviceWorker?.ready.then(({ active }) => active?.postMessage("graphics"));
}

worker.onerror = (/** @type {ErrorEvent} */ event) => say(`This browser cannot draw here: ${event.message ?? "the worker did not start"}`, true);
worker.onmessage = (/** @type {MessageEvent} */ { data }) => {
  if (data.type === "loading") {
    progress.value = data.share;
    // In tens, for those to whom it is read aloud.
    say(data.share < 1 ? `Loading: ${10 * Math.floor(10 * data.share)} %` : "Preparing the networks ...");
  } else if (data.type === "ready") {
    ready = true;
    progress.value = 0;
    say("Ready.");
    element("engine", HTMLElement).textContent = data.engine;
    ask_to_read();
    begin();
  } else if (data.type === "read") {
    if (data.prompts[0] === prompt.value) {
      element("cut", HTMLElement).textContent = data.cut ? `The prompt is too long; cut off: ${data.cut}` : "";
    }
    if (data.prompts[0] === settings.prompt && data.prompts[1] === settings.second) names = data.tokens;
  } else if (data.type === "step" && data.id === number) {
    film.push(data);
    progress.value = (data.index + 1) / data.count;
    moment.max = String(data.index);
    if (data.pictures.length > 0) {
      moment.value = String(data.index);
      show_moment();
    }
  } else if (data.type === "stopped" && data.id === number) {
    drawing = false;
    say(`Stopped after ${film.length} of ${film[0]?.count ?? settings.steps} steps.`);
    moment.value = moment.max;
    show_moment();
  } else if (data.type === "done" && data.id === number) {
    drawing = false;
    finished = data.picture;
    show(guess, data.picture);
    moment.value = moment.max;
    show_moment();
    say(`Drawn in ${data.seconds.toFixed(1)} seconds, seed ${settings.seed}.`);
    offer();
    offer_graphics();
  } else if (data.type === "decoded" && data.key[0] === number) {
    film[data.key[1]].pictures = data.pictures;
    if (Number(moment.value) === data.key[1]) show_moment();
  } else if (data.type === "engine") {
    show_engine(data.on, data.text);
  } else if (data.type === "failed") {
    drawing = false;
    say(`That failed: ${data.message}`, true);
  }
  show_buttons();
};

form.addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});
document.addEventListener("input", show_values);
for (const dial of [scale, from, strength]) dial.addEventListener("input", again);
second.addEventListener("change", () => from.value !== "0" && again());
sampler.addEventListener("change", show_values);
mistake.addEventListener("change", () => {
  const found = about.mistakes.find((/** @type {any} */ one) => one.name === mistake.value);
  element("hint", HTMLElement).textContent = found ? `${found.hint} (make generate MISTAKE=${found.name})` : "";
  if (found?.sampler) sampler.value = found.sampler;
  show_values();
  again();
});
prompt.addEventListener("input", ask_to_read);
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  begin();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
stop_button.addEventListener("click", stop);
moment.addEventListener("input", show_moment);
where.addEventListener("change", () => {
  kept("where", where.value);
  choose();
});
element("dice", HTMLButtonElement).addEventListener("click", () => {
  seed.value = String(Math.floor(Math.random() * 2 ** 31));
  begin();
});
element("take", HTMLButtonElement).addEventListener("click", () => start_from(finished));
element("without", HTMLButtonElement).addEventListener("click", () => start_from(null));
element("clear", HTMLButtonElement).addEventListener("click", () => brush.clear());
file.addEventListener("change", async () => {
  try {
    if (file.files?.[0]) start_from(await read_picture(file.files[0], about.image_size));
  } catch {
    say(`${file.files?.[0]?.name} is no picture that this browser can read.`, true);
  }
  file.value = "";
});

about = await (await fetch("page.json")).json();
prompt.value ||= about.settings.prompt;
scale.value = String(about.guidance_scale);
let painted = false;
brush = new Brush(element("start", HTMLCanvasElement), about.image_size, () => {
  if (painted === (brush.painted() !== null)) return;
  painted = !painted;
  strength.value = painted ? "1" : "0.8"; // as make generate takes them if none is asked for
  show_values();
});
switched = switches(element("switches", HTMLElement), about.switches, again);
show_mistakes();
show_values();
show_words();
show_whose();
worker.postMessage({ type: "load" });
navigator.serviceWorker?.register(`sw.js?version=${about.version}`).catch(() => {}); // without it: no drawing offline
