"""Mistakes of stage 8."""

from course.feedback.mistakes import Mistake

BETAS = "torch.linspace(math.sqrt(start), math.sqrt(end), num_steps, dtype=torch.float64) ** 2"
DDIM_RESULT = "math.sqrt(abar_next) * original + math.sqrt(1.0 - abar_next - sigma**2) * predicted_noise"
DDIM_SIGMA = "sigma = eta * math.sqrt((1.0 - abar_next) / (1.0 - abar)) * math.sqrt(1.0 - abar / abar_next)"

MISTAKES = [
    Mistake(
        "table-converted-for-good",
        "        abar = self.alphas_cumprod[timesteps.cpu()].reshape(-1, 1, 1, 1)\n",
        """\
        abar = self.alphas_cumprod[timesteps.cpu()].reshape(-1, 1, 1, 1)
        self.alphas_cumprod = self.alphas_cumprod.to(original.dtype)
""",
        "add_noise converts the schedule's table to the dtype of the latents for good. All later calls read the "
        "rounded "
        "table.",
    ),
    Mistake(
        "guess-with-rounded-factors",
        "        abar = self.alpha_bar(timestep)\n        return (noisy",
        "        abar = float(self.alphas_cumprod.to(noisy.dtype)[timestep])\n        return (noisy",
        "the table is converted to the dtype of the latents before 1 - abar is computed. Where abar is near 1, "
        "little is "
        "left of the difference.",
    ),
    Mistake(
        "timesteps-of-the-first-call",
        "        stride = self.num_train_timesteps // intervals\n",
        """\
        self.stride = getattr(self, "stride", self.num_train_timesteps // intervals)
        stride = self.stride
""",
        "the stride of the first call is kept. Another number of steps has another one.",
    ),
    Mistake(
        "timesteps-as-an-iterator",
        "        return [first + i * stride for i in reversed(range(num_steps))]",
        "        return (first + i * stride for i in reversed(range(num_steps)))",
        "inference_timesteps returns a generator. It should be a list: image to image takes a part of it.",
    ),
    Mistake(
        "ddpm-with-rounded-factors",
        "    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)\n    alpha = abar / "
        "abar_next\n",
        """\
    table = schedule.alphas_cumprod.to(latents.dtype)
    abar, abar_next = (float(table[t]) if t >= 0 else 1.0 for t in (timestep, next_timestep))
    alpha = abar / abar_next
""",
        "ddpm_step reads abar from a table in the dtype of the latents. Where abar is near 1, little is left of 1 "
        "- abar.",
    ),
    Mistake(
        "ddpm-noise-of-the-first-call",
        "    return mean + math.sqrt(variance) * noise",
        """\
    if not hasattr(schedule, "noise") or schedule.noise.shape != noise.shape:
        schedule.noise = noise
    return mean + math.sqrt(variance) * schedule.noise""",
        "ddpm_step keeps the noise of its first call. Every step needs fresh noise.",
    ),
    Mistake(
        "dpm-memory-on-the-schedule",
        "    guess = original\n    if last_timestep is not None:\n",
        """\
    guess = original
    if last_timestep is None and getattr(schedule, "last", (0, None))[0] > timestep:
        last_timestep, last_original = schedule.last
    schedule.last = timestep, original
    if last_timestep is not None:
""",
        "dpm_solver_2m_step looks back to an earlier call of its own when it is given no last step. The first step "
        "of a "
        "picture has none.",
    ),
    Mistake(
        "linear-betas",
        BETAS,
        "torch.linspace(start, end, num_steps, dtype=torch.float64)",
        "the betas grow evenly. Stable Diffusion's grow evenly in their square roots.",
    ),
    Mistake(
        "betas-not-squared",
        BETAS,
        "torch.linspace(math.sqrt(start), math.sqrt(end), num_steps, dtype=torch.float64)",
        "the square roots are not squared again. With betas that large nothing is left of the picture.",
    ),
    Mistake(
        "betas-grow-geometrically",
        BETAS,
        "torch.logspace(math.log10(start), math.log10(end), num_steps, dtype=torch.float64)",
        "the betas grow by equal factors. Their square roots grow in equal steps.",
    ),
    Mistake(
        "squares-interpolated",
        BETAS,
        "torch.sqrt(torch.linspace(start**2, end**2, num_steps, dtype=torch.float64))",
        "the squares of the betas grow evenly. Their square roots do.",
    ),
    Mistake(
        "last-beta-missed",
        "math.sqrt(end), num_steps, dtype=torch.float64) ** 2",
        "math.sqrt(end), num_steps + 1, dtype=torch.float64)[:-1] ** 2",
        "the last beta is one step short of `end`. Both ends belong to the table.",
    ),
    Mistake(
        "betas-falling",
        "return torch.linspace(math.sqrt(start), math.sqrt(end), num_steps, dtype=torch.float64) ** 2",
        "return torch.linspace(math.sqrt(end), math.sqrt(start), num_steps, dtype=torch.float64) ** 2",
        "the betas fall. They grow from start to end.",
    ),
    Mistake(
        "betas-in-float32",
        "num_steps, dtype=torch.float64) ** 2",
        "num_steps, dtype=torch.float32).double() ** 2",
        "the betas are computed in float32. Errors add up in the product of a thousand factors: float64.",
    ),
    Mistake(
        "beta-arguments-ignored",
        "math.sqrt(start), math.sqrt(end), num_steps",
        "math.sqrt(0.00085), math.sqrt(0.012), num_steps",
        "start and end are fixed numbers. They are arguments.",
    ),
    Mistake(
        "default-start",
        "num_steps: int = 1000, start: float = 0.00085, end: float = 0.012",
        "num_steps: int = 1000, start: float = 0.0001, end: float = 0.02",
        "the defaults are those of the DDPM paper, 0.0001 and 0.02. Stable Diffusion's are 0.00085 and 0.012.",
    ),
    Mistake(
        "product-of-the-betas",
        "torch.cumprod(1.0 - betas, dim=0)",
        "torch.cumprod(betas, dim=0)",
        "the betas are multiplied. What is left after a step is 1 - beta.",
    ),
    Mistake(
        "no-running-product",
        "torch.cumprod(1.0 - betas, dim=0)",
        "1.0 - betas",
        "each step is taken for itself. What is left after many steps is the product of them all.",
    ),
    Mistake(
        "running-sum",
        "torch.cumprod(1.0 - betas, dim=0)",
        "1.0 - torch.cumsum(betas, dim=0)",
        "the betas are summed up. What is left after many steps is a product.",
    ),
    Mistake(
        "one-minus-the-product",
        "torch.cumprod(1.0 - betas, dim=0)",
        "1.0 - torch.cumprod(1.0 - betas, dim=0)",
        "the product is subtracted from 1. That is the noise's share of the variance; alphas_cumprod is the picture's.",
    ),
    Mistake(
        "product-without-its-own-factor",
        "torch.cumprod(1.0 - betas, dim=0)",
        "torch.cat([torch.ones_like(betas[:1]), torch.cumprod(1.0 - betas, dim=0)[:-1]])",
        "the product ends before its own factor. abar_t includes 1 - beta_t.",
    ),
    Mistake(
        "root-of-the-product",
        "torch.cumprod(1.0 - betas, dim=0)",
        "torch.cumprod(torch.sqrt(1.0 - betas), dim=0)",
        "the square root is taken already in the table. alphas_cumprod is a variance; add_noise takes the root.",
    ),
    Mistake(
        "add-noise-coefficients-exchanged",
        "return signal * original + sigma * noise",
        "return sigma * original + signal * noise",
        "the two factors change places. The picture gets sqrt(abar), the noise sqrt(1 - abar).",
    ),
    Mistake(
        "signal-without-root",
        "signal = torch.sqrt(abar)",
        "signal = abar",
        "the picture is multiplied by abar. Its square root is the factor: abar is about variances.",
    ),
    Mistake(
        "sigma-of-one-training-step",
        "sigma = torch.sqrt(1.0 - abar).to(",
        "sigma = torch.sqrt(self.betas[timesteps.cpu()]).reshape(-1, 1, 1, 1).to(",
        "the noise is multiplied by sqrt(beta_t): step t alone adds that much. All steps up to t have added noise.",
    ),
    Mistake(
        "sigma-without-root",
        "sigma = torch.sqrt(1.0 - abar)",
        "sigma = (1.0 - abar)",
        "the noise is multiplied by 1 - abar. Its square root is the factor: abar is about variances.",
    ),
    Mistake(
        "sigma-is-one-minus-the-root",
        "sigma = torch.sqrt(1.0 - abar)",
        "sigma = (1.0 - torch.sqrt(abar))",
        "the noise is multiplied by 1 - sqrt(abar). The squares of the two factors make 1, not the factors.",
    ),
    Mistake(
        "noise-subtracted",
        "return signal * original + sigma * noise",
        "return signal * original - sigma * noise",
        "the noise is subtracted. It is added.",
    ),
    Mistake(
        "noise-not-scaled",
        "return signal * original + sigma * noise",
        "return signal * original + noise",
        "the noise is added as it is. Its factor is sqrt(1 - abar).",
    ),
    Mistake(
        "original-not-scaled",
        "return signal * original + sigma * noise",
        "return original + sigma * noise",
        "the picture is not scaled. Its factor is sqrt(abar), so that the variance stays at one.",
    ),
    Mistake(
        "variance-exploding",
        "return signal * original + sigma * noise",
        "return original + sigma / signal * noise",
        "noise is added to the unscaled picture. The picture is multiplied by sqrt(abar): the noise takes its place.",
    ),
    Mistake(
        "per-step-alpha",
        "abar = self.alphas_cumprod[timesteps.cpu()]",
        "abar = 1.0 - self.betas[timesteps.cpu()]",
        "1 - beta of a single step is used. The product of all steps so far is needed.",
    ),
    Mistake(
        "first-timestep-for-the-whole-batch",
        "abar = self.alphas_cumprod[timesteps.cpu()]",
        "abar = self.alphas_cumprod[timesteps.cpu()[:1]]",
        "all samples get the timestep of the first. Each has its own.",
    ),
    Mistake(
        "timestep-per-column",
        "self.alphas_cumprod[timesteps.cpu()].reshape(-1, 1, 1, 1)",
        "self.alphas_cumprod[timesteps.cpu()]",
        "the factors have the shape (batch,). Broadcasting lines them up with the columns of the latents.",
    ),
    Mistake(
        "timesteps-off-by-one",
        "abar = self.alphas_cumprod[timesteps.cpu()]",
        "abar = self.alphas_cumprod[timesteps.cpu() - 1]",
        "abar of the timestep before is used. Timesteps count from 0, like the table.",
    ),
    Mistake(
        "add-noise-returns-float64",
        "        return signal * original + sigma * noise",
        "        return torch.sqrt(abar) * original + torch.sqrt(1.0 - abar) * noise",
        "the table's float64 gets into the result. The result has the dtype of original.",
    ),
    Mistake(
        "roots-in-the-dtype-of-the-latents",
        "sigma = torch.sqrt(1.0 - abar).to(device=original.device, dtype=original.dtype)",
        "sigma = torch.sqrt(1.0 - abar.to(device=original.device, dtype=original.dtype))",
        "abar is converted before 1 - abar is taken. Near abar = 1, rounding it to half precision makes that "
        "difference wrong.",
    ),
    Mistake(
        "guess-adds-the-noise",
        "(noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "(noisy + math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "the predicted noise is added. It was added to the picture, so it is subtracted now.",
    ),
    Mistake(
        "guess-multiplies",
        "* predicted_noise) / math.sqrt(abar)",
        "* predicted_noise) * math.sqrt(abar)",
        "the difference is multiplied by sqrt(abar). add_noise multiplies; this is the way back.",
    ),
    Mistake(
        "guess-divides-by-abar",
        "* predicted_noise) / math.sqrt(abar)",
        "* predicted_noise) / abar",
        "the difference is divided by abar. The picture had been multiplied by the square root of it.",
    ),
    Mistake(
        "guess-divides-the-noise-only",
        "return (noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "return noisy - math.sqrt(1.0 - abar) * predicted_noise / math.sqrt(abar)",
        "only the noise is divided by sqrt(abar). The whole difference is: it needs parentheses.",
    ),
    Mistake(
        "guess-roots-exchanged",
        "return (noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "return (noisy - math.sqrt(abar) * predicted_noise) / math.sqrt(1.0 - abar)",
        "the two factors have changed places. In add_noise, sqrt(abar) belongs to the original.",
    ),
    Mistake(
        "guess-not-divided",
        "return (noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "return noisy - math.sqrt(1.0 - abar) * predicted_noise",
        "the difference is not divided by sqrt(abar). The picture had been multiplied by it.",
    ),
    Mistake(
        "guess-without-root-of-the-noise",
        "(noisy - math.sqrt(1.0 - abar) * predicted_noise)",
        "(noisy - (1.0 - abar) * predicted_noise)",
        "the predicted noise is multiplied by 1 - abar. Its factor is the square root of that.",
    ),
    Mistake(
        "guess-subtracts-unscaled-noise",
        "(noisy - math.sqrt(1.0 - abar) * predicted_noise)",
        "(noisy - predicted_noise)",
        "the predicted noise is subtracted as it is. Its factor is sqrt(1 - abar).",
    ),
    Mistake(
        "guess-divides-first",
        "(noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "noisy / math.sqrt(abar) - math.sqrt(1.0 - abar) * predicted_noise",
        "only the noisy latents are divided by sqrt(abar). The difference is.",
    ),
    Mistake(
        "guess-clipped",
        "return (noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)",
        "return ((noisy - math.sqrt(1.0 - abar) * predicted_noise) / math.sqrt(abar)).clamp(-1.0, 1.0)",
        "the guess is clipped to [-1, 1]. Pictures have that range; latents do not.",
    ),
    Mistake(
        "guess-with-the-step-before",
        """\
        abar = self.alpha_bar(timestep)
        return (noisy""",
        """\
        abar = self.alpha_bar(timestep - 1)
        return (noisy""",
        "the guess uses abar of the timestep before. It is at `timestep`.",
    ),
    Mistake(
        "timesteps-from-zero",
        "first = 1 + (intervals - num_steps) * stride",
        "first = (intervals - num_steps) * stride",
        "the timesteps start at 0. Stable Diffusion's start at 1: 981, 961, ..., 21, 1.",
    ),
    Mistake(
        "timesteps-rise",
        "for i in reversed(range(num_steps))]",
        "for i in range(num_steps)]",
        "the timesteps rise. They fall, from noisy to clean.",
    ),
    Mistake(
        "timesteps-from-the-very-end",
        "return [first + i * stride for i in reversed(range(num_steps))]",
        "return [self.num_train_timesteps - 1 - i * stride for i in range(num_steps)]",
        "the timesteps are counted down from the last one, 999. They are counted up from 1.",
    ),
    Mistake(
        "timesteps-by-linspace",
        "return [first + i * stride for i in reversed(range(num_steps))]",
        "return [round(t) for t in torch.linspace(self.num_train_timesteps - 1, 0, num_steps).tolist()]",
        "the timesteps are spread evenly over 0 to 999. They are a whole stride apart, starting at 1.",
    ),
    Mistake(
        "stride-rounded",
        "stride = self.num_train_timesteps // intervals",
        "stride = round(self.num_train_timesteps / intervals)",
        "the stride is rounded to the nearest whole number. It is rounded down.",
    ),
    Mistake(
        "stride-not-whole",
        """\
        stride = self.num_train_timesteps // intervals
        first = 1 + (intervals - num_steps) * stride
        return [first + i * stride for""",
        """\
        stride = self.num_train_timesteps / intervals
        first = 1 + (intervals - num_steps) * stride
        return [int(first + i * stride) for""",
        "the stride is a fraction and each timestep is rounded by itself. The stride is rounded down, once.",
    ),
    Mistake(
        "stride-from-the-steps",
        "stride = self.num_train_timesteps // intervals",
        "stride = self.num_train_timesteps // num_steps",
        "the stride comes from the number of steps. It comes from the number of intervals.",
    ),
    Mistake(
        "one-timestep-not-left-out",
        "first = 1 + (intervals - num_steps) * stride",
        "first = 1",
        "with one interval more, the 1 at the end is kept. It is left out then.",
    ),
    Mistake(
        "last-timestep-left-out",
        "return [first + i * stride for i in reversed(range(num_steps))]",
        "return [first + i * stride for i in reversed(range(1, num_steps))]",
        "the last timestep is missing: there is one less than num_steps.",
    ),
    Mistake(
        "to-the-end-of-the-schedule",
        "return [first + i * stride for i in reversed(range(num_steps))]",
        "return list(range(first, self.num_train_timesteps, stride))[::-1]",
        "the timesteps go on to the end of the schedule. If the stride was rounded down, these can be too many.",
    ),
    Mistake(
        "largest-left-out",
        """\
        first = 1 + (intervals - num_steps) * stride
        return [first + i * stride for i in reversed(range(num_steps))]""",
        """\
        return [1 + i * stride for i in reversed(range(intervals))][intervals - num_steps :]""",
        "with one interval more, the largest timestep is left out. The 1 at the end is.",
        like=("one-timestep-not-left-out",),
    ),
    Mistake(
        "thousand-timesteps",
        "stride = self.num_train_timesteps // intervals",
        "stride = 1000 // intervals",
        "the schedule is taken to have 1000 timesteps. It has num_train_timesteps.",
    ),
    Mistake(
        "ddim-arrives-at-one",
        "abar_next = schedule.alpha_bar(max(next_timestep, 0))",
        "abar_next = schedule.alpha_bar(next_timestep)",
        "ddim_step arrives at abar = 1. Stable Diffusion's DDIM ends at abar_0, just before.",
    ),
    Mistake(
        "ddim-last-entry-at-the-end",
        "abar_next = schedule.alpha_bar(max(next_timestep, 0))",
        "abar_next = float(schedule.alphas_cumprod[next_timestep])",
        "the table of abar is read at -1, where Python finds its last entry, nearly pure noise. When next_timestep is "
        "negative, abar_0 is wanted here.",
    ),
    Mistake(
        "ddim-next-is-one-less",
        "abar_next = schedule.alpha_bar(max(next_timestep, 0))",
        "abar_next = schedule.alpha_bar(max(timestep - 1, 0))",
        "ddim_step goes to timestep - 1. It goes to next_timestep, which is a whole stride away.",
    ),
    Mistake(
        "ddim-direction-with-abar-t",
        DDIM_RESULT,
        "math.sqrt(abar_next) * original + math.sqrt(1.0 - abar - sigma**2) * predicted_noise",
        "ddim_step mixes in as much noise as there was before. It takes abar at next_timestep for both terms.",
    ),
    Mistake(
        "ddim-signal-with-abar-t",
        DDIM_RESULT,
        "math.sqrt(abar) * original + math.sqrt(1.0 - abar_next - sigma**2) * predicted_noise",
        "ddim_step scales the guess as at `timestep`. It takes abar at next_timestep for both terms.",
    ),
    Mistake(
        "ddim-original-not-scaled",
        DDIM_RESULT,
        "original + math.sqrt(1.0 - abar_next - sigma**2) * predicted_noise",
        "ddim_step does not scale the guess. Its factor is sqrt(abar_next).",
    ),
    Mistake(
        "ddim-without-roots",
        DDIM_RESULT,
        "abar_next * original + (1.0 - abar_next - sigma**2) * predicted_noise",
        "ddim_step mixes without square roots.",
    ),
    Mistake(
        "ddim-noise-subtracted",
        DDIM_RESULT,
        "math.sqrt(abar_next) * original - math.sqrt(1.0 - abar_next - sigma**2) * predicted_noise",
        "ddim_step subtracts the predicted noise from the guess. The guess is clean; noise is mixed back in.",
    ),
    Mistake(
        "ddim-without-predicted-noise",
        DDIM_RESULT,
        "math.sqrt(abar_next) * original + math.sqrt(1.0 - abar_next - sigma**2) * torch.randn_like(latents)",
        "ddim_step mixes in fresh noise. It keeps the predicted noise; that is what makes its way determined.",
    ),
    Mistake(
        "ddim-from-the-latents",
        DDIM_RESULT,
        "math.sqrt(abar_next) * latents + math.sqrt(1.0 - abar_next - sigma**2) * predicted_noise",
        "ddim_step mixes noise into the noisy latents. It mixes it into the guess of the clean ones.",
    ),
    Mistake(
        "ddim-sigma-not-subtracted",
        DDIM_RESULT,
        "math.sqrt(abar_next) * original + math.sqrt(1.0 - abar_next) * predicted_noise",
        "with eta above 0, the predicted noise is not reduced. Both kinds of noise together have a variance of 1 - "
        "abar_next.",
    ),
    Mistake(
        "ddim-sigma-not-squared",
        DDIM_RESULT,
        "math.sqrt(abar_next) * original + math.sqrt(1.0 - abar_next - sigma) * predicted_noise",
        "sigma is subtracted where its square should be. Variances add up, deviations do not.",
    ),
    Mistake(
        "ddim-sigma-as-variance",
        DDIM_SIGMA,
        "sigma = eta * (1.0 - abar_next) / (1.0 - abar) * (1.0 - abar / abar_next)",
        "sigma is computed without square roots. It is a standard deviation.",
    ),
    Mistake(
        "ddim-sigma-fraction-inverted",
        "(1.0 - abar_next) / (1.0 - abar)) * math.sqrt(1.0 - abar / abar_next)",
        "(1.0 - abar) / (1.0 - abar_next)) * math.sqrt(1.0 - abar / abar_next)",
        "the first fraction of sigma is upside down.",
    ),
    Mistake(
        "ddim-sigma-without-second-root",
        DDIM_SIGMA,
        "sigma = eta * math.sqrt((1.0 - abar_next) / (1.0 - abar))",
        "sigma lacks its second factor, sqrt(1 - abar_t / abar_next).",
    ),
    Mistake(
        "ddim-eta-ignored",
        DDIM_SIGMA,
        DDIM_SIGMA.replace("eta * ", "(eta > 0.0) * "),
        "every eta above 0 counts as 1. eta is a factor.",
    ),
    Mistake(
        "ddim-eta-squared",
        DDIM_SIGMA,
        DDIM_SIGMA.replace("eta * ", "eta**2 * "),
        "sigma is proportional to the square of eta. It is proportional to eta.",
    ),
    Mistake(
        "ddim-fresh-noise-forgotten",
        "        result = result + sigma * noise\n",
        "        pass\n",
        "with eta above 0, the fresh noise is left out.",
    ),
    Mistake(
        "ddim-draws-its-own-noise",
        "result = result + sigma * noise",
        "result = result + sigma * torch.randn_like(latents)",
        "ddim_step draws its own fresh noise. The caller gives it: then a seed gives the same picture again.",
    ),
    Mistake(
        "ddim-fresh-noise-not-scaled",
        "result = result + sigma * noise",
        "result = result + noise",
        "with eta above 0, the fresh noise is added as it is. Its factor is sigma.",
    ),
    Mistake(
        "ddpm-arrives-at-abar-0",
        """\
    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)
    alpha = abar / abar_next""",
        """\
    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(max(next_timestep, 0))
    alpha = abar / abar_next""",
        "ddpm_step ends at abar_0. It arrives at the clean picture, abar = 1; only DDIM stops before.",
    ),
    Mistake(
        "ddpm-last-entry-at-the-end",
        """\
    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)
    alpha""",
        """\
    abar, abar_next = (float(schedule.alphas_cumprod[t]) for t in (timestep, next_timestep))
    alpha""",
        "DDPM reads the table of abar at -1, where Python finds its last entry, nearly pure noise. At the end abar is "
        "1: schedule.alpha_bar knows that.",
    ),
    Mistake(
        "ddpm-alpha-of-one-training-step",
        "alpha = abar / abar_next",
        "alpha = 1.0 - float(schedule.betas[timestep])",
        "ddpm_step takes alpha of a single training step. A stride of several counts as one big step.",
    ),
    Mistake(
        "ddpm-alpha-inverted",
        "alpha = abar / abar_next",
        "alpha = abar_next / abar",
        "alpha is upside down. It is what one step leaves of the picture: less than 1.",
    ),
    Mistake(
        "ddpm-beta-is-alpha",
        "beta = 1.0 - alpha",
        "beta = alpha",
        "beta equals alpha. The two make 1 together.",
    ),
    Mistake(
        "ddpm-first-factor-without-root",
        "math.sqrt(abar_next) * beta / (1.0 - abar) * original",
        "abar_next * beta / (1.0 - abar) * original",
        "the guess's factor lacks a square root: sqrt(abar_next).",
    ),
    Mistake(
        "ddpm-first-factor-with-abar-t",
        "math.sqrt(abar_next) * beta / (1.0 - abar) * original",
        "math.sqrt(abar) * beta / (1.0 - abar) * original",
        "the guess's factor takes abar at `timestep`. It takes abar at next_timestep.",
    ),
    Mistake(
        "ddpm-second-factor-without-root",
        "math.sqrt(alpha) * (1.0 - abar_next) / (1.0 - abar) * latents",
        "alpha * (1.0 - abar_next) / (1.0 - abar) * latents",
        "the latents' factor lacks a square root: sqrt(alpha).",
    ),
    Mistake(
        "ddpm-originals-exchanged",
        """\
        math.sqrt(abar_next) * beta / (1.0 - abar) * original
        + math.sqrt(alpha) * (1.0 - abar_next) / (1.0 - abar) * latents""",
        """\
        math.sqrt(abar_next) * beta / (1.0 - abar) * latents
        + math.sqrt(alpha) * (1.0 - abar_next) / (1.0 - abar) * original""",
        "guess and latents change places in the mean.",
    ),
    Mistake(
        "ddpm-guess-alone",
        """\
        math.sqrt(abar_next) * beta / (1.0 - abar) * original
        + math.sqrt(alpha) * (1.0 - abar_next) / (1.0 - abar) * latents""",
        "        math.sqrt(abar_next) * beta / (1.0 - abar) * original",
        "the mean lacks the latents. It is a sum of both, the guess and the latents.",
    ),
    Mistake(
        "ddpm-deviation-without-root",
        "return mean + math.sqrt(variance) * noise",
        "return mean + variance * noise",
        "ddpm_step multiplies the noise by the variance. Its square root, the standard deviation, is the factor.",
    ),
    Mistake(
        "ddpm-without-noise",
        "return mean + math.sqrt(variance) * noise",
        "return mean",
        "ddpm_step adds no noise. It draws from a distribution; the mean is only its centre.",
    ),
    Mistake(
        "ddpm-draws-its-own-noise",
        "return mean + math.sqrt(variance) * noise",
        "return mean + math.sqrt(variance) * torch.randn_like(latents)",
        "ddpm_step draws its own fresh noise. The caller gives it: then a seed gives the same picture again.",
    ),
    Mistake(
        "ddpm-ends-at-timestep-0",
        "    return mean + math.sqrt(variance) * noise",
        "    return original if next_timestep <= 0 else mean + math.sqrt(variance) * noise",
        "the step to timestep 0 counts as the last one. The last step has next_timestep = -1.",
    ),
    Mistake(
        "ddpm-noise-not-scaled",
        "return mean + math.sqrt(variance) * noise",
        "return mean + (noise if next_timestep >= 0 else 0.0)",
        "ddpm_step adds noise as it is. Its factor is the standard deviation.",
    ),
    Mistake(
        "ddpm-variance-is-beta",
        "variance = (1.0 - abar_next) / (1.0 - abar) * beta",
        "variance = beta",
        "the variance is beta. That is the larger of two choices, and leaves noise in the last picture; here it is the "
        "smaller one.",
    ),
    Mistake(
        "ddpm-variance-inverted",
        "variance = (1.0 - abar_next) / (1.0 - abar) * beta",
        "variance = (1.0 - abar) / max(1.0 - abar_next, 1e-20) * beta",
        "the fraction in the variance is upside down.",
    ),
    Mistake(
        "ddpm-predicted-noise-for-fresh",
        "return mean + math.sqrt(variance) * noise",
        "return mean + math.sqrt(variance) * predicted_noise",
        "ddpm_step adds the predicted noise. It adds fresh noise.",
    ),
    Mistake(
        "euler-last-entry-at-the-end",
        """\
    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)
    sigma, sigma_next""",
        """\
    abar, abar_next = (float(schedule.alphas_cumprod[t]) for t in (timestep, next_timestep))
    sigma, sigma_next""",
        "Euler reads the table of abar at -1, where Python finds its last entry, nearly pure noise. At the end abar is "
        "1: schedule.alpha_bar knows that.",
    ),
    Mistake(
        "euler-unscaled",
        "scaled = latents / math.sqrt(abar)",
        "scaled = latents",
        "euler_step does not divide the latents by sqrt(abar) first. Only then is the noise their derivative by sigma.",
    ),
    Mistake(
        "euler-not-scaled-back",
        "return scaled * math.sqrt(abar_next)",
        "return scaled",
        "euler_step does not multiply by sqrt(abar_next) at the end. The latents are divided only inside of the step.",
    ),
    Mistake(
        "euler-scaled-back-to-where-it-was",
        "return scaled * math.sqrt(abar_next)",
        "return scaled * math.sqrt(abar)",
        "euler_step multiplies by sqrt(abar_t) at the end. It has arrived at abar_next.",
    ),
    Mistake(
        "euler-sign",
        "scaled = scaled + (sigma_next - sigma) * predicted_noise",
        "scaled = scaled + (sigma - sigma_next) * predicted_noise",
        "euler_step goes the wrong way. sigma falls, so its change is negative.",
    ),
    Mistake(
        "euler-all-the-way",
        "(sigma_next - sigma) * predicted_noise",
        "-sigma * predicted_noise",
        "euler_step always goes to sigma = 0. It goes to sigma_next.",
    ),
    Mistake(
        "euler-sigma-without-root",
        "sigma, sigma_next = math.sqrt((1.0 - abar) / abar), math.sqrt((1.0 - abar_next) / abar_next)",
        "sigma, sigma_next = (1.0 - abar) / abar, (1.0 - abar_next) / abar_next",
        "sigma is a ratio of variances. Its square root is meant.",
    ),
    Mistake(
        "euler-sigma-inverted",
        "sigma, sigma_next = math.sqrt((1.0 - abar) / abar), math.sqrt((1.0 - abar_next) / abar_next)",
        "sigma, sigma_next = math.sqrt(abar / (1.0 - abar)), math.sqrt(abar_next / max(1.0 - abar_next, 1e-20))",
        "sigma is upside down. It is noise over signal.",
    ),
    Mistake(
        "euler-sigma-of-the-mixture",
        "sigma, sigma_next = math.sqrt((1.0 - abar) / abar), math.sqrt((1.0 - abar_next) / abar_next)",
        "sigma, sigma_next = math.sqrt(1.0 - abar), math.sqrt(1.0 - abar_next)",
        "sigma is sqrt(1 - abar). Of the divided latents the noise is larger, by 1 / sqrt(abar).",
    ),
    Mistake(
        "euler-arrives-at-abar-0",
        """\
    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(next_timestep)
    sigma, sigma_next""",
        """\
    abar, abar_next = schedule.alpha_bar(timestep), schedule.alpha_bar(max(next_timestep, 0))
    sigma, sigma_next""",
        "euler_step ends at abar_0. It arrives at the clean picture, sigma = 0; only DDIM stops before.",
    ),
    Mistake(
        "dpm-last-step-not-the-guess",
        "    if next_timestep < 0:\n        return original\n",
        "    next_timestep = max(next_timestep, 0)\n",
        "the last step of DPM-Solver++ goes to timestep 0. It returns the guess.",
    ),
    Mistake(
        "dpm-ends-at-timestep-0",
        "    if next_timestep < 0:\n        return original",
        "    if next_timestep <= 0:\n        return original",
        "DPM-Solver++'s step to timestep 0 counts as the last one. The last step has next_timestep = -1.",
    ),
    Mistake(
        "dpm-always-first-order",
        "guess = original + (original - last_original) / (2.0 * r)",
        "guess = original",
        "DPM-Solver++ does not look back. That is its first order; the last guess makes it the second.",
    ),
    Mistake(
        "dpm-looks-the-wrong-way",
        "(original - last_original) / (2.0 * r)",
        "(last_original - original) / (2.0 * r)",
        "the change of the guess has the wrong sign. It is the new guess minus the old one.",
    ),
    Mistake(
        "dpm-r-inverted",
        "r = (half_log_snr(timestep) - half_log_snr(last_timestep)) / h",
        "r = h / (half_log_snr(timestep) - half_log_snr(last_timestep))",
        "r is upside down. It is the last step's length over this one's.",
    ),
    Mistake(
        "dpm-r-negative",
        "r = (half_log_snr(timestep) - half_log_snr(last_timestep)) / h",
        "r = (half_log_snr(last_timestep) - half_log_snr(timestep)) / h",
        "r is negative. Both steps go the same way, so r is positive.",
        like=("dpm-looks-the-wrong-way",),
    ),
    Mistake(
        "dpm-r-in-timesteps",
        "r = (half_log_snr(timestep) - half_log_snr(last_timestep)) / h",
        "r = (last_timestep - timestep) / (timestep - next_timestep)",
        "r compares the steps' lengths in timesteps. They are measured in lambda.",
    ),
    Mistake(
        "dpm-half-forgotten",
        "/ (2.0 * r)",
        "/ r",
        "the change of the guess counts in full. It counts half, by 1 / (2 r).",
    ),
    Mistake(
        "dpm-multiplied-by-r",
        "/ (2.0 * r)",
        "/ 2.0 * r",
        "the change of the guess is multiplied by r. It is divided by 2 r: the brackets.",
    ),
    Mistake(
        "dpm-lambda-without-half",
        "return 0.5 * math.log(abar / (1.0 - abar))",
        "return math.log(abar / (1.0 - abar))",
        "lambda is the logarithm of a ratio of variances. alpha and sigma are square roots: half of that.",
    ),
    Mistake(
        "dpm-lambda-negative",
        "return 0.5 * math.log(abar / (1.0 - abar))",
        "return 0.5 * math.log((1.0 - abar) / abar)",
        "lambda has the wrong sign. It is the logarithm of signal over noise, and rises as the noise goes.",
    ),
    Mistake(
        "dpm-h-negative",
        "h = half_log_snr(next_timestep) - half_log_snr(timestep)",
        "h = half_log_snr(timestep) - half_log_snr(next_timestep)",
        "h is negative. It is lambda at the goal minus lambda here.",
    ),
    Mistake(
        "dpm-sign-of-the-last-term",
        "* latents - math.sqrt(abar_next) *",
        "* latents + math.sqrt(abar_next) *",
        "the last term has the wrong sign. exp(-h) - 1 is negative, and minus makes it positive.",
    ),
    Mistake(
        "dpm-exp-of-plus-h",
        "math.expm1(-h)",
        "math.expm1(h)",
        "the exponent has the wrong sign: exp(-h).",
    ),
    Mistake(
        "dpm-minus-one-forgotten",
        "math.expm1(-h)",
        "math.exp(-h)",
        "the 1 is not subtracted from exp(-h).",
    ),
    Mistake(
        "dpm-sigma-inverted",
        "math.sqrt((1.0 - abar_next) / (1.0 - abar)) * latents",
        "math.sqrt((1.0 - abar) / (1.0 - abar_next)) * latents",
        "the latents' factor is upside down: sigma at the goal over sigma here.",
    ),
    Mistake(
        "dpm-sigma-without-root",
        "math.sqrt((1.0 - abar_next) / (1.0 - abar)) * latents",
        "(1.0 - abar_next) / (1.0 - abar) * latents",
        "the latents' factor is a ratio of variances. sigma is the square root.",
    ),
    Mistake(
        "dpm-alpha-t",
        "- math.sqrt(abar_next) * math.expm1",
        "- math.sqrt(abar) * math.expm1",
        "the guess's factor takes alpha at `timestep`. It takes alpha at the goal.",
    ),
    Mistake(
        "dpm-alpha-without-root",
        "- math.sqrt(abar_next) * math.expm1",
        "- abar_next * math.expm1",
        "the guess's factor is abar. alpha is its square root.",
    ),
    Mistake(
        "dpm-without-guess",
        "math.expm1(-h) * guess",
        "math.expm1(-h) * predicted_noise",
        "the last term takes the predicted noise. DPM-Solver++ works with the guess of the original.",
    ),
    Mistake(
        "timesteps-are-floats",
        "return [first + i * stride for i in reversed(range(num_steps))]",
        "return [float(first + i * stride) for i in reversed(range(num_steps))]",
        "the timesteps are floats, 981.0 in place of 981. They are whole numbers: each is an entry of a table.",
    ),
    Mistake(
        "timesteps-are-an-iterator",
        "return [first + i * stride for i in reversed(range(num_steps))]",
        "return reversed(range(first, first + num_steps * stride, stride))",
        "the timesteps are an iterator. A list can be counted and cut, and be gone through more than once.",
    ),
    Mistake(
        "table-asked-on-the-gpu",
        "abar = self.alphas_cumprod[timesteps.cpu()]",
        "abar = self.alphas_cumprod[timesteps]",
        "the table is asked with timesteps that may be on a GPU. It is on the processor, so they have to go there.",
    ),
    Mistake(
        "factors-on-the-processor",
        "signal = torch.sqrt(abar).to(device=original.device, dtype=original.dtype)",
        "signal = torch.sqrt(abar).to(dtype=original.dtype)",
        "the picture's factors stay on the processor. On a GPU they do not go together with the picture.",
    ),
    Mistake(
        "float64-goes-to-the-gpu",
        "abar = self.alphas_cumprod[timesteps.cpu()].reshape(-1, 1, 1, 1)",
        "abar = self.alphas_cumprod[timesteps.cpu()].to(original.device).reshape(-1, 1, 1, 1)",
        "abar goes to the GPU in float64. Apple's GPUs have no float64: convert it at once, or before.",
    ),
    Mistake(
        "ddpm-deviation-on-the-processor",
        "return mean + math.sqrt(variance) * noise",
        "return mean + torch.full((1,), variance, dtype=latents.dtype).sqrt() * noise",
        "DDPM's standard deviation is made a tensor of the processor. On a GPU that does not go together with the "
        "noise; math.sqrt gives a number of Python.",
    ),
]
