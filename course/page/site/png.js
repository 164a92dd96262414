// PNG files that remember how they were made, in the text entries of `make generate` (course/draw/pictures.py).

const NAMES = { ddim: "DDIM", ddpm: "DDPM", euler: "Euler", "dpm++2m": "DPM++ 2M" };
const KEPT = ["prompt", "negative", "seed", "mistake"]; // also in entries of their own

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** @param {Uint8Array} bytes */
function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** A text entry in UTF-8 (iTXt). @param {string} name @param {string} text */
function entry(name, text) {
  const content = new TextEncoder().encode(`iTXt${name}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(content.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, content.length - 4);
  chunk.set(content, 4);
  view.setUint32(content.length + 4, crc(content));
  return chunk;
}

/** A value as it stands in the line of parameters. @param {unknown} value */
function quoted(value) {
  const text = String(value);
  return /[,:\n"]/.test(text) ? JSON.stringify(text) : text;
}

/** The settings in the form that other Stable Diffusion programs read. @param {Record<string, any>} settings */
export function parameters(settings) {
  const parts = (settings.checkpoint ?? "checkpoints/tiny").split(/[\\/]/).filter(Boolean);
  const [folder, stem] = [parts.at(-2), parts.at(-1).replace(/(.)\.[^.]*$/, "$1")];
  const strength = settings.init == null ? null : settings.strength ?? (settings.mask == null ? 0.8 : 1);
  const values = {
    Steps: settings.steps,
    Sampler: NAMES[/** @type {keyof typeof NAMES} */ (settings.sampler)],
    "CFG scale": settings.scale,
    Seed: settings.seed,
    Size: `${settings.width}x${settings.height}`,
    Model: stem === "model" && folder ? folder : stem,
    "Denoising strength": strength,
    Mistake: settings.mistake,
  };
  const line = Object.entries(values).filter(([, value]) => value != null).map(([name, value]) => `${name}: ${quoted(value)}`);
  return [settings.prompt, ...(settings.negative ? [`Negative prompt: ${settings.negative}`] : []), line.join(", ")].join("\n");
}

/**
 * A PNG file with the settings in it.
 * @param {Uint8Array} png a PNG file without them @param {Record<string, any>} settings
 */
export function with_settings(png, settings) {
  const kept = KEPT.filter((name) => settings[name] != null).map((name) => entry(name, String(settings[name])));
  const entries = [...kept, entry("settings", JSON.stringify(settings)), entry("parameters", parameters(settings))];
  const header = 8 + 25; // the signature, and the chunk IHDR
  return new Blob([png.slice(0, header), ...entries, png.slice(header)], { type: "image/png" });
}
