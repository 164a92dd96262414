"""Pictures, their latents, and what comes back."""

import math

import numpy
import torch

from course.studio.page import Page, colours, difference, grid_figure
from course.studio.studio import Studio

GAIN = 20  # of the difference between two pictures
REACH = 3.0  # latents are drawn from -3 to 3


@torch.no_grad()
def latents(studio: Studio) -> Page:
    """Three pictures, the four channels of their latents, their reconstruction, and its error."""
    images = studio.scenes(3)
    encoded = studio.model.vae.encode(images)
    decoded = studio.model.vae.decode(encoded)
    originals, returned = studio.arrays(images), studio.arrays(decoded)
    rows = []
    for picture, channels, back in zip(originals, encoded.cpu(), returned):
        error = numpy.abs(picture.astype(float) - back).mean(-1)
        rows.append([picture, *(colours(c, -REACH, REACH) for c in channels), back, colours(error, 0, 64, "gray")])
    count = encoded.shape[1]
    names = ["picture", *(f"latent {i}" for i in range(1, count + 1)), "decoded", "error (x4)"]
    squares = (images.clamp(-1, 1) - decoded.clamp(-1, 1)).square().mean() / 4  # of pictures in [0, 1]
    saved = images[0].numel() / encoded[0].numel()
    return Page(
        "What do latents look like?",
        f"Like small pictures in strange colours: {count} channels at an eighth of the size, {saved:.0f} times fewer "
        f"numbers (blue -3, white 0, red 3; here their deviation is {float(encoded.std()):.2f}). What comes back is "
        f"the picture without its finest detail: the root of the mean squared error is {float(squares) ** 0.5:.1%} of "
        f"the way from black to white, a peak signal-to-noise ratio of {-10 * math.log10(float(squares)):.1f} dB.",
        grid_figure(rows, [], names),
    )


@torch.no_grad()
def channels(studio: Studio) -> Page:
    """What is missing from a picture when one channel of its latents is replaced by its mean."""
    vae = studio.model.vae
    encoded = vae.encode(studio.scenes(3))
    versions = {"all channels": encoded}
    for i in range(encoded.shape[1]):
        without = encoded.clone()
        without[:, i] = encoded[:, i].mean((-2, -1), keepdim=True)
        versions[f"without latent {i + 1}"] = without
    columns = [studio.decode(version) for version in versions.values()]
    return Page(
        "What does each channel of the latents carry?",
        "Nobody decided it; training did. Each column is decoded with one channel held at its mean: what changes is "
        "what that channel had to say.",
        grid_figure(list(zip(*columns)), [], list(versions)),
    )


@torch.no_grad()
def cloud(studio: Studio) -> Page:
    """Pictures decoded from latents that are moved by more and more noise."""
    vae = studio.model.vae
    images = studio.scenes(3)
    encoded = vae.encode(images)
    noise = studio.noise(1, len(images))
    sample = vae.encode(images, noise)
    radius = float((sample - encoded).std())
    mean, one = studio.decode(encoded), studio.decode(sample)
    times = (10, 30, 100)
    columns = [mean, one, [difference(a, b, GAIN) for a, b in zip(mean, one)]]
    columns += [studio.decode(encoded + factor * radius * noise) for factor in times]
    names = ["the mean", "one sample", f"their difference\n(x{GAIN})"]
    names += [f"{factor} times as far\n(noise of {factor * radius:.2g})" for factor in times]
    return Page(
        "Why does the encoder describe a cloud and not a point?",
        "Because training decodes samples and not means, latents close to each other must give nearly the same "
        f"picture. The cloud is small: a sample's numbers lie about {radius:.3f} from the mean, where the latents "
        f"themselves deviate by {float(encoded.std()):.2f}. The decoder bears ten times that, so a small error of the "
        "U-Net stays a small error in the picture; at a hundred times, the picture goes under.",
        grid_figure(list(zip(*columns)), [], names),
    )


PICTURES = (latents,)
MORE = (channels, cloud)
