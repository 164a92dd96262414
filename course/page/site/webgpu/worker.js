// Runs networks on the graphics card. Nothing of this folder is loaded where there is none.

// @ts-ignore: `make page` puts the runtime there
import * as ort from "./ort.webgpu.min.mjs";
import { Sessions, fetched } from "../sessions.js";

const program = new URL("ort-wasm-simd-threaded.asyncify", import.meta.url).href;
// The processor has fetched the networks already: the browser's cache has them.
const file = (/** @type {string} */ name) => fetched(`../model/${name}.onnx`, undefined, { cache: "force-cache" });
const sessions = new Sessions(ort, "webgpu", program, 1, file);
const taken = fetched(`${program}.wasm.gz`).then((binary) => sessions.take(binary));
/** @type {any} */
let device;
/** @type {Promise<unknown>} what is being done; the next thing waits for it */
let busy = taken;

/** @param {string} name @param {import("../sessions.js").Inputs} inputs */
async function run(name, inputs) {
  const results = await sessions.run(name, inputs);
  if (!device) {
    device = await ort.env.webgpu.device;
    device.lost.then((/** @type {any} */ { message }) => postMessage({ lost: message || "it was lost" }));
  }
  return results;
}

self.onmessage = ({ data: { id, name, inputs } }) => {
  busy = busy
    .then(() => run(name, inputs))
    .then((results) => postMessage({ id, results }))
    .catch((error) => postMessage({ id, error: error instanceof Error ? error.message : String(error) }));
};
