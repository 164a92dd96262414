"""The roots of the tables are computed when they are first asked for; DDPM is DDIM with an eta of one."""


class NoiseSchedule(NoiseSchedule):
    def roots(self):
        if not hasattr(self, "kept"):
            self.kept = self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt()
        return self.kept

    def add_noise(self, original, noise, timesteps):
        signal, sigma = (root[timesteps.cpu()].to(original)[:, None, None, None] for root in self.roots())
        return torch.addcmul(sigma * noise, signal, original)

    def predict_original(self, noisy, predicted_noise, timestep):
        signal, sigma = (float(root[timestep]) for root in self.roots())
        return noisy / signal - predicted_noise * (sigma / signal)

    def inference_timesteps(self, num_steps, intervals=None):
        intervals = num_steps if intervals is None else intervals
        stride = int(self.num_train_timesteps / intervals)
        return (torch.arange(intervals - num_steps, intervals) * stride + 1).flip(0).tolist()


def ddpm_step(schedule, latents, predicted_noise, timestep, next_timestep, noise):
    if next_timestep < 0:
        return schedule.predict_original(latents, predicted_noise, timestep)
    return ddim_step(schedule, latents, predicted_noise, timestep, next_timestep, 1.0, noise)


def euler_step(schedule, latents, predicted_noise, timestep, next_timestep):
    original = schedule.predict_original(latents, predicted_noise, timestep)
    if next_timestep < 0:
        return original
    abar = schedule.alphas_cumprod[next_timestep]  # a float64 tensor without dimensions leaves the dtype alone
    return abar.sqrt() * original + (1 - abar).sqrt() * predicted_noise
