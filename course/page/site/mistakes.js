// Four mistakes of the course's catalogue, made on purpose, under the names that `make generate MISTAKE=` knows.

import { NoiseSchedule, mix, scaled_linear_betas } from "./stage08_scheduler.js";
import { timesteps_for } from "./stage09_sampler.js";

/** @typedef {import("./stage09_sampler.js").Sampling} Sampling */
/** @typedef {import("./stage08_scheduler.js").Latents} Latents */

/**
 * Schedule, timesteps and sampling, with the mistake that is asked for.
 * @param {string | null} mistake @param {Sampling} sampling
 * @returns {{ schedule: NoiseSchedule, timesteps: number[], sampling: Sampling }}
 */
export function plan(mistake, sampling) {
  const betas = scaled_linear_betas();
  const schedule = new NoiseSchedule(mistake === "stage08/betas-not-squared" ? betas.map(Math.sqrt) : betas);
  const timesteps = timesteps_for(schedule, sampling);
  if (mistake === "stage08/timesteps-rise") timesteps.reverse();
  if (mistake === "stage09/guidance-backwards") sampling = { ...sampling, guidance_scale: -sampling.guidance_scale };
  if (mistake === "stage08/ddim-without-predicted-noise") {
    /** @type {typeof import("./stage08_scheduler.js").ddim_step} */
    const ddim = (schedule, latents, predicted_noise, timestep, next_timestep) => {
      const abar_next = schedule.alpha_bar(Math.max(next_timestep, 0));
      const original = schedule.predict_original(latents, predicted_noise, timestep);
      return mix([Math.sqrt(abar_next), original], [Math.sqrt(1 - abar_next), sampling.draw_noise()]);
    };
    sampling = { ...sampling, ddim };
  }
  return { schedule, timesteps, sampling };
}
