// Which engine runs a network: the processor, or the graphics card where that gives the same numbers in less time.

import { Generator } from "../noise.js";

/** @typedef {import("../sessions.js").Engine} Engine */
/** @typedef {import("../sessions.js").Inputs} Inputs */
/** @typedef {import("../sessions.js").Outputs} Outputs */
/** @typedef {import("../networks.js").Networks} Networks */
/** @typedef {"auto" | "processor" | "graphics"} Choice */
/** @typedef {<T>(job: () => T | Promise<T>) => Promise<T>} Alone does something when nothing is drawn */
/**
 * @typedef {object} Found what a comparison found
 * @property {string} name of the network
 * @property {number} difference of the two results, as a share of the largest number
 * @property {number} processor milliseconds of a call @property {number} graphics those on the graphics card
 */

const NETWORKS = ["unet", "decoder"]; // those that take the time
const TITLES = /** @type {Record<string, string>} */ ({ unet: "U-Net", decoder: "decoder" });
const ROUNDING = 1e-3; // the largest difference that may be, as a share of the largest number
const CALLS = 3; // that are timed: the fastest counts
const HOPELESS = 4; // times slower: no further call is timed

/** Networks on the graphics card, in a worker of their own: the memory that they take is free again when it ends. */
class Graphics {
  constructor() {
    /** @type {Map<number, { resolve: (results: Outputs) => void, reject: (error: Error) => void }>} */
    this.calls = new Map();
    this.count = 0;
    /** @type {Error | null} */
    this.failure = null;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onerror = (event) => this.fail(event.message || "its worker did not start");
    this.worker.onmessage = ({ data }) => {
      if (data.lost) return this.fail(data.lost);
      const call = this.calls.get(data.id);
      this.calls.delete(data.id);
      if (data.error) call?.reject(new Error(data.error));
      else call?.resolve(data.results);
    };
  }

  /** Nothing comes any more. @param {string} reason */
  fail(reason) {
    this.failure ??= new Error(reason);
    for (const { reject } of this.calls.values()) reject(this.failure);
    this.calls.clear();
  }

  /** @param {string} name @param {Inputs} inputs @returns {Promise<Outputs>} */
  run(name, inputs) {
    return new Promise((resolve, reject) => {
      if (this.failure) return reject(this.failure);
      this.count += 1;
      this.calls.set(this.count, { resolve, reject });
      this.worker.postMessage({ id: this.count, name, inputs });
    });
  }

  end() {
    this.worker.terminate();
    this.fail("it was ended");
  }
}

/** How far numbers are from those that are expected, as a share of the largest. @param {ArrayLike<number>} numbers @param {ArrayLike<number>} expected */
function difference(numbers, expected) {
  let [farthest, largest] = [0, 0];
  for (let i = 0; i < expected.length; i += 1) {
    farthest = Math.max(farthest, Math.abs(numbers[i] - expected[i]));
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return farthest / (largest || 1);
}

/**
 * Runs a network on both engines.
 * @param {string} name @param {Inputs} inputs @param {Engine} processor @param {Engine} graphics @param {Alone} alone
 * @returns {Promise<Found>}
 */
export async function compare(name, inputs, processor, graphics, alone) {
  const results = await graphics.run(name, inputs); // not timed: it also loads the network and compiles its programs
  const expected = await alone(() => processor.run(name, inputs));
  const differences = Object.keys(expected).map((key) => difference(results[key], expected[key]));
  const time = async (/** @type {Engine} */ engine) => {
    const started = performance.now();
    await engine.run(name, inputs);
    return performance.now() - started;
  };
  const found = { name, difference: Math.max(...differences), processor: Infinity, graphics: Infinity };
  for (let i = 0; i < CALLS && (i === 0 || found.graphics < HOPELESS * found.processor); i += 1) {
    found.processor = Math.min(found.processor, await alone(() => time(processor)));
    found.graphics = Math.min(found.graphics, await alone(() => time(graphics)));
  }
  return found;
}

/** The networks that are to run on the graphics card. @param {Found[]} found @param {Choice} choice */
export function decide(found, choice) {
  const right = found.filter((one) => one.difference <= ROUNDING);
  return right.filter((one) => choice === "graphics" || one.graphics < one.processor).map((one) => one.name);
}

/** @param {string[]} names of networks */
const list = (names) => names.map((name) => `the ${TITLES[name]}`).join(" and ");

/** @param {number} milliseconds */
const rounded = (milliseconds) => `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;

/** What was found and decided, in sentences. @param {Found[]} found @param {string[]} names @param {string} threads how many */
export function report(found, names, threads) {
  const times = found.map(({ name, processor, graphics }) => {
    return `A call of ${list([name])} takes ${rounded(processor)} on the processor (${threads}), ${rounded(graphics)} on the graphics card.`;
  });
  const wrong = found.filter((one) => !(one.difference <= ROUNDING)).map((one) => {
    return `On the graphics card ${list([one.name])} gives other numbers, so it stays on the processor.`;
  });
  const where = names.length > 0
    ? `${list(names)} ${names.length > 1 ? "run" : "runs"} on the graphics card.`
    : "all networks run on the processor.";
  return [...times, ...wrong, where[0].toUpperCase() + where.slice(1)].join(" ");
}

/** @type {Graphics | null} */
let running = null;
let wish = 0; // the number of the last choice

/**
 * Has the networks run where a person wants them, from the next picture on.
 * @param {Networks} networks @param {Choice} choice @param {Alone} alone
 * @param {(on: "processor" | "graphics" | "trying" | "failed", text: string) => void} say what holds now
 */
export async function choose(networks, choice, alone, say) {
  const mine = (wish += 1);
  await alone(() => {
    networks.elsewhere = {};
    running?.end();
    running = null;
  });
  if (mine !== wish) return;
  if (choice === "processor") return say("processor", networks.on_processor);
  say("trying", `${networks.on_processor} The graphics card is being tried ...`);
  const graphics = (running = new Graphics());
  const fail = (/** @type {any} */ error) => {
    graphics.end();
    const reason = String(error?.message ?? error).replace(/\.$/, "");
    if (mine === wish) say("failed", `The graphics card failed (${reason}). ${networks.on_processor}`);
  };
  try {
    const latents = new Generator(0).randn(networks.latent_size);
    const context = await alone(() => networks.encode_prompt(new Array(networks.about.max_length).fill(0)));
    const inputs = /** @type {Record<string, Inputs>} */ ({
      unet: networks.unet_inputs(latents, 500, context),
      decoder: networks.decoder_inputs(latents),
    });
    /** @type {Found[]} */
    const found = [];
    for (const name of NETWORKS) found.push(await compare(name, inputs[name], networks.processor, graphics, alone));
    const names = decide(found, choice);
    await alone(() => {
      if (mine !== wish) return;
      networks.elsewhere = Object.fromEntries(names.map((name) => [name, graphics]));
      networks.on_failure = fail;
      if (names.length === 0) graphics.end();
      say(names.length > 0 ? "graphics" : "processor", report(found, names, networks.how_many));
    });
  } catch (error) {
    fail(error);
  }
}
