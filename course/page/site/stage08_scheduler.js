// Stage 8 in JavaScript: the noise schedule and the four samplers. solutions/stage08_scheduler.py explains them, under the
// same names; tests/page/ compares the two.

/** @typedef {Float32Array} Latents numbers of one picture's latents, (channels, height, width) */

/** Betas whose square roots grow evenly. @returns {number[]} */
export function scaled_linear_betas(num_steps = 1000, start = 0.00085, end = 0.012) {
  const [first, last] = [Math.sqrt(start), Math.sqrt(end)];
  const step = (last - first) / (num_steps - 1);
  return Array.from({ length: num_steps }, (_, i) => (first + i * step) ** 2);
}

/** The running product of 1 - beta. @param {number[]} betas @returns {number[]} */
export function alphas_cumprod(betas) {
  let product = 1;
  return betas.map((beta) => (product *= 1 - beta));
}

/** A mix of latents: the sum of factor * latents. @param {...[number, Latents]} terms @returns {Latents} */
export function mix(...terms) {
  return Float32Array.from(terms[0][1], (_, i) => terms.reduce((sum, [factor, latents]) => sum + factor * latents[i], 0));
}

export class NoiseSchedule {
  /** @param {number[]} betas */
  constructor(betas = scaled_linear_betas()) {
    this.num_train_timesteps = betas.length;
    this.betas = betas;
    this.alphas_cumprod = alphas_cumprod(betas);
  }

  /** abar at a timestep; 1, no noise at all, at -1. @param {number} timestep */
  alpha_bar(timestep) {
    return timestep < 0 ? 1 : this.alphas_cumprod[timestep];
  }

  /** @param {Latents} original @param {Latents} noise @param {number} timestep */
  add_noise(original, noise, timestep) {
    const abar = this.alpha_bar(timestep);
    return mix([Math.sqrt(abar), original], [Math.sqrt(1 - abar), noise]);
  }

  /** @param {Latents} noisy @param {Latents} predicted_noise @param {number} timestep */
  predict_original(noisy, predicted_noise, timestep) {
    const abar = this.alpha_bar(timestep);
    return mix([1 / Math.sqrt(abar), noisy], [-Math.sqrt(1 - abar) / Math.sqrt(abar), predicted_noise]);
  }

  /** Which timesteps to visit, from noisy to clean. @param {number} num_steps @param {number} intervals */
  inference_timesteps(num_steps, intervals = num_steps) {
    const stride = Math.floor(this.num_train_timesteps / intervals);
    const first = 1 + (intervals - num_steps) * stride;
    return Array.from({ length: num_steps }, (_, i) => first + (num_steps - 1 - i) * stride);
  }

  /** At which of them image to image starts. @param {number} num_steps @param {number} strength */
  start_index(num_steps, strength) {
    return num_steps - Math.max(1, Math.floor(num_steps * strength + 1e-6));
  }
}

/**
 * DDIM with eta = 0: guess the clean latents, then add the predicted noise again, but less of it.
 * @param {NoiseSchedule} schedule @param {Latents} latents @param {Latents} predicted_noise
 * @param {number} timestep @param {number} next_timestep @returns {Latents}
 */
export function ddim_step(schedule, latents, predicted_noise, timestep, next_timestep) {
  const abar_next = schedule.alpha_bar(Math.max(next_timestep, 0));
  const original = schedule.predict_original(latents, predicted_noise, timestep);
  return mix([Math.sqrt(abar_next), original], [Math.sqrt(1 - abar_next), predicted_noise]);
}

/**
 * DDPM: the mean of the less noisy latents, and fresh noise.
 * @param {NoiseSchedule} schedule @param {Latents} latents @param {Latents} predicted_noise
 * @param {number} timestep @param {number} next_timestep @param {Latents} noise @returns {Latents}
 */
export function ddpm_step(schedule, latents, predicted_noise, timestep, next_timestep, noise) {
  const [abar, abar_next] = [schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)];
  const alpha = abar / abar_next;
  const beta = 1 - alpha;
  const original = schedule.predict_original(latents, predicted_noise, timestep);
  const variance = ((1 - abar_next) / (1 - abar)) * beta;
  return mix(
    [(Math.sqrt(abar_next) * beta) / (1 - abar), original],
    [(Math.sqrt(alpha) * (1 - abar_next)) / (1 - abar), latents],
    [Math.sqrt(variance), noise],
  );
}

/**
 * Euler: a straight step along the slope of a differential equation.
 * @param {NoiseSchedule} schedule @param {Latents} latents @param {Latents} predicted_noise
 * @param {number} timestep @param {number} next_timestep @returns {Latents}
 */
export function euler_step(schedule, latents, predicted_noise, timestep, next_timestep) {
  const [abar, abar_next] = [schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)];
  const [sigma, sigma_next] = [Math.sqrt((1 - abar) / abar), Math.sqrt((1 - abar_next) / abar_next)];
  return mix(
    [Math.sqrt(abar_next) / Math.sqrt(abar), latents],
    [Math.sqrt(abar_next) * (sigma_next - sigma), predicted_noise],
  );
}

/**
 * DPM-Solver++(2M): a step that also uses how the guess has changed since the step before.
 * @param {NoiseSchedule} schedule @param {Latents} latents @param {Latents} predicted_noise
 * @param {number} timestep @param {number} next_timestep
 * @param {number | null} last_timestep @param {Latents | null} last_original @returns {Latents}
 */
export function dpm_solver_2m_step(schedule, latents, predicted_noise, timestep, next_timestep, last_timestep, last_original) {
  const original = schedule.predict_original(latents, predicted_noise, timestep);
  if (next_timestep < 0) return original;
  const half_log_snr = (/** @type {number} */ t) => 0.5 * Math.log(schedule.alpha_bar(t) / (1 - schedule.alpha_bar(t)));
  const [abar, abar_next] = [schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)];
  const h = half_log_snr(next_timestep) - half_log_snr(timestep);
  let guess = original;
  if (last_timestep !== null && last_original !== null) {
    const r = (half_log_snr(timestep) - half_log_snr(last_timestep)) / h;
    guess = mix([1 + 1 / (2 * r), original], [-1 / (2 * r), last_original]);
  }
  return mix([Math.sqrt((1 - abar_next) / (1 - abar)), latents], [-Math.sqrt(abar_next) * Math.expm1(-h), guess]);
}
