"""Timesteps by range; add_noise by gather and broadcasting from the back."""


class NoiseSchedule(NoiseSchedule):
    def add_noise(self, original, noise, timesteps):
        table = torch.stack([self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt()])
        signal, sigma = table.to(original.dtype).to(original.device)[:, timesteps.to(original.device)]
        while signal.ndim < original.ndim:
            signal, sigma = signal.unsqueeze(-1), sigma.unsqueeze(-1)
        return original * signal + noise * sigma

    def predict_original(self, noisy, predicted_noise, timestep):
        abar = self.alphas_cumprod[timestep].item() if timestep >= 0 else 1.0
        return noisy / abar**0.5 - predicted_noise * ((1 - abar) / abar) ** 0.5

    def inference_timesteps(self, num_steps, intervals=None):
        intervals = intervals or num_steps
        stride = self.num_train_timesteps // intervals
        return list(range(1, 1 + intervals * stride, stride))[::-1][:num_steps]


def ddpm_step(schedule, latents, predicted_noise, timestep, next_timestep, noise):
    here, there = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)
    beta = 1 - here / there
    mean = (latents - beta / math.sqrt(1 - here) * predicted_noise) / math.sqrt(1 - beta)
    return mean + math.sqrt(beta * (1 - there) / (1 - here)) * noise
