// Stage 5 in JavaScript, as far as the page needs it: pictures in and out. solutions/stage05_vae.py explains them.

/** RGBA bytes to (3, height, width) in [-1, 1]. @param {Uint8ClampedArray} rgba @returns {Float32Array} */
export function images_to_tensor(rgba) {
  const size = rgba.length / 4;
  return Float32Array.from({ length: 3 * size }, (_, i) => rgba[4 * (i % size) + Math.floor(i / size)] / 127.5 - 1);
}

/** (3, height, width), about [-1, 1], to RGBA bytes; what lies outside becomes 0 or 255. @param {Float32Array} tensor */
export function tensor_to_images(tensor) {
  const size = tensor.length / 3;
  const rgba = new Uint8ClampedArray(4 * size).fill(255); // it rounds to the nearest and clamps
  for (let channel = 0; channel < 3; channel += 1) {
    for (let i = 0; i < size; i += 1) rgba[4 * i + channel] = (tensor[channel * size + i] + 1) * 127.5;
  }
  return rgba;
}
