"""The distribution as an object, which the VAE keeps for whoever wants to look at it; its draw in float32."""


class Gaussian:
    def __init__(self, moments):
        self.mean, logvar = moments.tensor_split(2, dim=1)
        self.logvar = logvar.clip(-30, 20)

    def draw(self, noise):
        wide = torch.promote_types(noise.dtype, torch.float32)
        variance = self.logvar.to(wide).exp()
        return (self.mean.to(wide) + variance.sqrt() * noise.to(wide)).to(noise.dtype)


def sample_latents(moments, noise):
    return Gaussian(moments).draw(noise)


class VAE(VAE):
    def encode(self, images, noise=None):
        self.posterior = Gaussian(self.quant_conv(self.encoder(images)))
        return (self.posterior.mean if noise is None else self.posterior.draw(noise)) * self.scaling_factor
