// What explains: where a word looks, the schedule, the parts of the U-Net.

import { plan } from "./mistakes.js";

const HEAT = [[24, 20, 70], [190, 50, 110], [255, 225, 90]]; // from little to much

/**
 * A picture in grey under a map in bright colours.
 * @param {Uint8ClampedArray} rgba @param {Float32Array} map one number per latent pixel
 */
export function overlay(rgba, map) {
  const [side, few] = [Math.sqrt(rgba.length / 4), Math.sqrt(map.length)];
  const [least, most] = [Math.min(...map), Math.max(...map)];
  const at = (/** @type {number} */ x, /** @type {number} */ y) => {
    const inside = (/** @type {number} */ n) => Math.min(Math.max(n, 0), few - 1);
    return (map[inside(y) * few + inside(x)] - least) / (most - least || 1);
  };
  const result = new Uint8ClampedArray(rgba.length).fill(255);
  for (let i = 0; i < rgba.length / 4; i += 1) {
    const x = (((i % side) + 0.5) * few) / side - 0.5, y = ((Math.floor(i / side) + 0.5) * few) / side - 0.5;
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const [right, low] = [x - left, y - top];
    const level =
      (1 - low) * ((1 - right) * at(left, top) + right * at(left + 1, top)) +
      low * ((1 - right) * at(left, top + 1) + right * at(left + 1, top + 1));
    const grey = (rgba[4 * i] + rgba[4 * i + 1] + rgba[4 * i + 2]) / 3;
    const [from, to] = level < 0.5 ? [HEAT[0], HEAT[1]] : [HEAT[1], HEAT[2]];
    const share = level < 0.5 ? 2 * level : 2 * level - 1;
    for (let c = 0; c < 3; c += 1) result[4 * i + c] = 0.72 * (from[c] + share * (to[c] - from[c])) + 0.28 * grey;
  }
  return result;
}

const SVG = "http://www.w3.org/2000/svg";

/** @param {string} kind @param {Record<string, string | number>} attributes */
function drawn(kind, attributes) {
  const node = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
}

/**
 * The factors of picture and noise over the timesteps, the timesteps that are visited, and the one of the current step.
 * @param {Element} svg @param {Element} words where it is said @param {any} settings @param {number | undefined} timestep
 */
export function show_schedule(svg, words, settings, timestep) {
  const sampling = { num_steps: settings.steps, guidance_scale: 1, sampler: settings.sampler, draw_noise: () => new Float32Array() };
  const { schedule, timesteps } = plan(settings.mistake, sampling);
  const x = (/** @type {number} */ t) => 2 + (296 * (999 - t)) / 999;
  const y = (/** @type {number} */ factor) => 70 - 60 * factor;
  const signal = (/** @type {number} */ t) => Math.sqrt(schedule.alpha_bar(t));
  const noise = (/** @type {number} */ t) => Math.sqrt(1 - schedule.alpha_bar(t));
  const nodes = [drawn("line", { x1: 2, x2: 298, y1: 70, y2: 70, class: "axis" })];
  for (const [factor, name] of /** @type {[(t: number) => number, string][]} */ ([[signal, "signal"], [noise, "noise"]])) {
    const points = Array.from({ length: 101 }, (_, i) => Math.round((999 * i) / 100)).map((t) => `${x(t)},${y(factor(t))}`);
    nodes.push(drawn("polyline", { points: points.join(" "), class: name }));
  }
  for (const t of timesteps) nodes.push(drawn("line", { x1: x(t), x2: x(t), y1: 70, y2: 75, class: "visited" }));
  if (timestep !== undefined) nodes.push(drawn("line", { x1: x(timestep), x2: x(timestep), y1: 4, y2: 76, class: "current" }));
  svg.replaceChildren(...nodes);
  words.textContent = timestep === undefined
    ? `${timesteps.length} timesteps are visited, from ${timesteps[0]} to ${timesteps.at(-1)}.`
    : `At timestep ${timestep}: ${signal(timestep).toFixed(2)} × the picture + ${noise(timestep).toFixed(2)} × noise.`;
}

/**
 * A table of checkboxes in the shape of the U: down on the left, up on the right, skips between them.
 * @param {Element} body of the table @param {string[]} names of the parts @param {() => void} changed
 * @returns {() => number[]} what gives 1 or 0 for each part
 */
export function switches(body, names, changed) {
  const boxes = names.map((name) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.setAttribute("aria-label", name);
    box.addEventListener("change", changed);
    return box;
  });
  const levels = Math.max(...names.map((name) => Number(/^down (\d+)/.exec(name)?.[1] ?? 0)));
  const kinds = (/** @type {RegExp} */ pattern) => names.flatMap((name, i) => (pattern.test(name) ? [i] : []));
  const titles = ["down", "skips", "up"]; // of the columns, where there is no room for columns
  const cell = (/** @type {number[]} */ places, /** @type {number} */ column) => {
    const td = document.createElement("td");
    if (places.length > 0 && !names[places[0]].startsWith("middle")) td.dataset.title = titles[column];
    for (const place of places) {
      const label = document.createElement("label");
      label.append(boxes[place], ` ${names[place].split(", ")[1]}`);
      td.append(label);
    }
    return td;
  };
  const row = (/** @type {string} */ title, /** @type {number[][]} */ cells) => {
    const tr = document.createElement("tr");
    const th = document.createElement("th");
    th.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.title = "switch all blocks of this row";
    button.addEventListener("click", () => {
      const all = cells.flat().filter((place) => !names[place].includes("skip"));
      const on = all.some((place) => !boxes[place].checked);
      for (const place of all) boxes[place].checked = on;
      changed();
    });
    th.append(button);
    tr.append(th, ...cells.map(cell));
    return tr;
  };
  for (let level = 1; level <= levels; level += 1) {
    const up = `^up ${level}, `;
    body.append(row(`level ${level}`, [kinds(RegExp(`^down ${level},`)), kinds(RegExp(`${up}skip`)), kinds(RegExp(`${up}[^s]`))]));
  }
  body.append(row("middle", [[], kinds(/^middle/), []]));
  return () => boxes.map((box) => Number(box.checked));
}
