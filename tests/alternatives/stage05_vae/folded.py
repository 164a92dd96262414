"""The scaling folded into the neighbouring 1x1 convolutions; those as matrix products."""

import math


def pointwise(x, layer, weight_factor=1.0, bias_factor=1.0):
    y = torch.einsum("bihw,oi->bohw", x, layer.weight[:, :, 0, 0] * weight_factor)
    return y + (layer.bias * bias_factor)[:, None, None]


class VAE(VAE):
    def encode(self, images, noise=None):
        moments = pointwise(self.encoder(images), self.quant_conv)
        if noise is None:
            return self.scaling_factor * moments[:, : moments.shape[1] // 2]
        return self.scaling_factor * sample_latents(moments, noise)

    def decode(self, latents):
        return self.decoder(pointwise(latents, self.post_quant_conv, 1.0 / self.scaling_factor))


class Decoder(Decoder):
    def forward(self, latents):
        x = self.conv_in(latents)
        x = self.middle.residual1(x)
        x = self.middle.attention(x)
        x = self.middle.residual2(x)
        for level in self.levels:
            for block in level.residuals:
                x = block(x)
            x = level.resize(x)
        return self.conv_out(nn.functional.silu(self.norm_out(x)))


def sample_latents(moments, noise):
    mean, logvar = torch.split(moments, noise.shape[1], dim=1)
    logvar = torch.minimum(torch.maximum(logvar, logvar.new_tensor(-30.0)), logvar.new_tensor(20.0))
    return mean + noise * math.e ** (logvar / 2)
