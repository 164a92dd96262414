// The page itself: what is typed, what is shown.

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

/** @typedef {{ before: Float32Array, original: Float32Array, timestep: number, count: number, pictures: Uint8ClampedArray[] }} Moment */

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

/** @param {string} text @param {boolean} wrong */
function say(text, wrong = false) {
  const status = element("status", HTMLElement);
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

/** @param {HTMLCanvasElement} canvas @param {Uint8ClampedArray} rgba */
function show(canvas, rgba) {
  const side = Math.sqrt(rgba.length / 4);
  if (canvas.width !== side) canvas.width = canvas.height = side;
  canvas.getContext("2d")?.putImageData(new ImageData(new Uint8ClampedArray(rgba), side, side), 0, 0);
}

function show_values() {
  element("steps-value", HTMLOutputElement).value = steps.value;
  element("scale-value", HTMLOutputElement).value = scale.value === "1" ? "1 (none)" : scale.value;
}

function show_buttons() {
  draw_button.disabled = !ready;
  stop_button.disabled = !drawing;
  moment.disabled = film.length === 0;
}

/** The moment that the slider names: its pictures are decoded if they are not there yet. */
function show_moment() {
  const place = Number(moment.value);
  const one = film[place];
  if (!one) return;
  const text = `${place + 1} of ${one.count}, timestep ${one.timestep}`;
  element("moment-value", HTMLOutputElement).value = text;
  moment.setAttribute("aria-valuetext", text);
  if (one.pictures.length === 0) {
    if (!drawing) worker.postMessage({ type: "decode", key: [number, place], latents: [one.before, one.original] });
    return;
  }
  show(noisy, one.pictures[0]);
  show(guess, place === film.length - 1 && finished ? finished : one.pictures[1]);
}

function begin() {
  if (!ready || !form.reportValidity()) return;
  number += 1;
  drawing = true;
  film = [];
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
  };
  progress.value = 0;
  say("Drawing ...");
  worker.postMessage({ type: "draw", id: number, order: settings });
  show_buttons();
}

function stop() {
  if (drawing) worker.postMessage({ type: "stop" });
}

/** Offers the picture as a file. */
async function offer() {
  const canvas = document.createElement("canvas");
  if (!finished) return;
  show(canvas, finished);
  const blob = await new Promise((/** @type {BlobCallback} */ resolve) => canvas.toBlob(resolve, "image/png"));
  if (!blob) return;
  const file = with_settings(new Uint8Array(await blob.arrayBuffer()), settings);
  URL.revokeObjectURL(save.href);
  save.href = URL.createObjectURL(file);
  const words = settings.prompt.toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-+|-+$/g, "");
  save.download = `${words || "picture"}-${settings.seed}.png`;
  save.hidden = false;
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

function ask_to_read() {
  if (ready) worker.postMessage({ type: "read", prompt: prompt.value });
}

worker.onerror = (/** @type {ErrorEvent} */ event) => say(`This browser cannot draw here: ${event.message ?? "the worker did not start"}`, true);
worker.onmessage = (/** @type {MessageEvent} */ { data }) => {
  if (data.type === "loading") {
    progress.value = data.share;
    say(data.share < 1 ? `Loading: ${Math.round(100 * data.share)} %` : "Preparing the networks ...");
  } else if (data.type === "ready") {
    ready = true;
    progress.value = 0;
    say("Ready.");
    element("engine", HTMLElement).textContent = `They run in WebAssembly on ${data.threads} ${data.threads === 1 ? "thread" : "threads"}.`;
    ask_to_read();
    begin();
  } else if (data.type === "read" && data.prompt === prompt.value) {
    element("cut", HTMLElement).textContent = data.cut ? `The prompt is too long; cut off: ${data.cut}` : "";
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
    say(`Stopped after ${film.length} of ${settings.steps} steps.`);
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
  } else if (data.type === "decoded" && data.key[0] === number) {
    film[data.key[1]].pictures = data.pictures;
    if (Number(moment.value) === data.key[1]) show_moment();
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
form.addEventListener("input", show_values);
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
element("dice", HTMLButtonElement).addEventListener("click", () => {
  seed.value = String(Math.floor(Math.random() * 2 ** 31));
  begin();
});

about = await (await fetch("page.json")).json();
prompt.value ||= about.settings.prompt;
scale.value = String(about.guidance_scale);
show_values();
show_words();
show_whose();
worker.postMessage({ type: "load" });
navigator.serviceWorker?.register(`sw.js?version=${about.version}`).catch(() => {}); // without it: no drawing offline
