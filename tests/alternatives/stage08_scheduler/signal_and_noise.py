"""DPM-Solver++ by extrapolation; betas by whole numbers; the product by a loop."""


def scaled_linear_betas(num_steps=1000, start=0.00085, end=0.012):
    a, b = start**0.5, end**0.5
    roots = a + (b - a) * torch.arange(num_steps, dtype=torch.float64) / (num_steps - 1)
    return roots * roots


def alphas_cumprod(betas):
    products, product = [], 1.0
    for beta in betas.tolist():
        product *= 1.0 - beta
        products.append(product)
    return torch.tensor(products, dtype=betas.dtype)


def dpm_solver_2m_step(
    schedule, latents, predicted_noise, timestep, next_timestep, last_timestep=None, last_original=None
):
    def levels(t):
        abar = schedule.alpha_bar(t)
        return math.sqrt(abar), math.sqrt(1 - abar)

    guess = schedule.predict_original(latents, predicted_noise, timestep)
    if next_timestep == -1:
        return guess
    (alpha, sigma), (alpha_next, sigma_next) = levels(timestep), levels(next_timestep)
    h = math.log(alpha_next / sigma_next) - math.log(alpha / sigma)
    if last_timestep is not None:
        alpha_last, sigma_last = levels(last_timestep)
        slope = (guess - last_original) / (math.log(alpha / sigma) - math.log(alpha_last / sigma_last))
        guess = guess + slope * h / 2
    return sigma_next / sigma * latents + alpha_next * (1 - math.exp(-h)) * guess
