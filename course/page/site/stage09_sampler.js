// Stage 9 in JavaScript: guidance, and the way from noise to latents. solutions/stage09_sampler.py explains it, under the same
// names; tests/page/ compares the two. The networks are functions that return promises.

import { ddim_step, ddpm_step, dpm_solver_2m_step, euler_step, mix } from "./stage08_scheduler.js";

/** @typedef {import("./stage08_scheduler.js").Latents} Latents */
/** @typedef {import("./stage08_scheduler.js").NoiseSchedule} NoiseSchedule */
/** @typedef {{ noise: Latents, attention?: Float32Array }} Prediction */
/** @typedef {(latents: Latents, timestep: number, context: Float32Array) => Promise<Prediction>} UNet */
/**
 * @typedef {object} Sampling how a picture is drawn
 * @property {number} num_steps @property {number} guidance_scale @property {string} sampler
 * @property {() => Latents} draw_noise
 * @property {typeof ddim_step} [ddim] another step in the place of DDIM's
 */
/**
 * @typedef {object} Step what `denoise` reports after each step
 * @property {number} index @property {number} count @property {number} timestep
 * @property {Latents} latents after the step
 * @property {Latents} original the clean latents as guessed in this step
 * @property {Float32Array} [attention] where the words of the prompt looked
 */
/** @typedef {{ context: Float32Array, negative_context: Float32Array | null }} Contexts */

export const SAMPLERS = ["ddim", "ddpm", "euler", "dpm++2m"];

/** @param {Latents} unconditional @param {Latents} conditional @param {number} scale @returns {Latents} */
export function classifier_free_guidance(unconditional, conditional, scale) {
  return mix([1 - scale, unconditional], [scale, conditional]);
}

/**
 * The noise that the U-Net predicts, with guidance if there is a negative context.
 * @param {UNet} unet @param {Latents} latents @param {number} timestep @param {Contexts} contexts
 * @param {number} guidance_scale @returns {Promise<Prediction>}
 */
export async function predict_noise(unet, latents, timestep, { context, negative_context }, guidance_scale) {
  const conditional = await unet(latents, timestep, context);
  if (negative_context === null) return conditional;
  const unconditional = await unet(latents, timestep, negative_context);
  return { ...conditional, noise: classifier_free_guidance(unconditional.noise, conditional.noise, guidance_scale) };
}

/** The timesteps that a sampler visits. @param {NoiseSchedule} schedule @param {Sampling} sampling */
export function timesteps_for(schedule, sampling) {
  const intervals = sampling.sampler === "dpm++2m" ? sampling.num_steps + 1 : sampling.num_steps;
  return schedule.inference_timesteps(sampling.num_steps, intervals);
}

/**
 * From noisy latents to clean ones, reporting every step.
 * @param {UNet} unet @param {NoiseSchedule} schedule
 * @param {Latents} latents noisy as at timesteps[0]
 * @param {number[]} timesteps falling
 * @param {(index: number) => Contexts} contexts of each step: the prompt may change on the way
 * @param {Sampling} sampling
 * @param {(latents: Latents, next_timestep: number) => Latents} [after_step]
 * @returns {AsyncGenerator<Step>}
 */
export async function* denoise(unet, schedule, latents, timesteps, contexts, sampling, after_step) {
  const { sampler } = sampling;
  if (!SAMPLERS.includes(sampler)) throw new Error(`sampler ${sampler} is not one of ${SAMPLERS.join(", ")}`);
  /** @type {number | null} */
  let last_timestep = null;
  /** @type {Latents | null} */
  let last_original = null;
  for (const [index, timestep] of timesteps.entries()) {
    const next_timestep = timesteps[index + 1] ?? -1;
    const predicted = await predict_noise(unet, latents, timestep, contexts(index), sampling.guidance_scale);
    const { noise, attention } = predicted;
    const original = schedule.predict_original(latents, noise, timestep);

    if (sampler === "ddim") latents = (sampling.ddim ?? ddim_step)(schedule, latents, noise, timestep, next_timestep);
    else if (sampler === "ddpm") latents = ddpm_step(schedule, latents, noise, timestep, next_timestep, sampling.draw_noise());
    else if (sampler === "euler") latents = euler_step(schedule, latents, noise, timestep, next_timestep);
    else latents = dpm_solver_2m_step(schedule, latents, noise, timestep, next_timestep, last_timestep, last_original);

    if (after_step) latents = after_step(latents, next_timestep);
    [last_timestep, last_original] = [timestep, original];
    yield { index, count: timesteps.length, timestep, latents, original, attention };
  }
}

/**
 * What inpainting does after each step: outside of the mask, the given picture with the noise of the next timestep.
 * @param {NoiseSchedule} schedule @param {Latents} original the picture's latents
 * @param {Float32Array} mask one number per latent pixel: 0 keep, 1 repaint @param {Latents} noise
 */
export function keep_unmasked(schedule, original, mask, noise) {
  return (/** @type {Latents} */ latents, /** @type {number} */ next_timestep) => {
    const kept = next_timestep < 0 ? original : schedule.add_noise(original, noise, next_timestep);
    return Float32Array.from(latents, (value, i) => {
      const share = mask[i % mask.length];
      return share * value + (1 - share) * kept[i];
    });
  };
}
