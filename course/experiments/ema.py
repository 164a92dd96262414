"""What does the averaging of weights do?

A checkpoint holds the U-Net's raw weights, where the training stopped, and their moving average. Between the two, and
beyond, lies a straight line of weights: raw + w (average - raw), so w = 0 is raw and w = 1 the average. For each w the
error of the predicted noise is measured on pictures that were not trained on, always with the same noise.

Other decays would need the weights of earlier steps, which the checkpoint does not hold.
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.studio.page import grid, new_figure
from course.studio.question import Question

TITLE = "What is the difference between raw weights and their average (EMA)?"
QUESTION = Question(
    "Where on the line from the raw weights to their average is the error of the predicted noise the smallest?",
    ("at the raw weights or before them", "between the two", "at the average", "beyond the average"),
)
PLACES = (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
FAR = 200_000


@torch.no_grad()
def run(lab: Lab) -> Result:
    averaged, raw = lab.model.unet.state_dict(), lab.build(ema=False).unet.state_dict()
    averaged = {name: tensor.clone() for name, tensor in averaged.items()}
    distance = norm([averaged[name] - raw[name] for name in raw]) / norm(list(averaged.values()))
    count = lab.pick(32, 2)
    images, captions = lab.examples(FAR, count)
    clean, context = lab.encoded(images), lab.blocks[9].encode_prompts(lab.model, captions)
    scenes = lab.scenes_to_draw(lab.pick(16, 2), seed=13)
    errors, drawn = {}, {}
    try:
        for w in lab.pick(PLACES, (0.0, 1.0)):
            lab.model.unet.load_state_dict({name: raw[name] + w * (averaged[name] - raw[name]) for name in raw})
            errors[w] = noise_error(lab, clean, context)
            if w in (-1.0, 0.0, 1.0, 2.0):
                drawn[w] = lab.draw(lab.prompts(scenes), seed=130, steps=lab.pick(10, 2), sampler="dpm++2m").cpu()
    finally:
        lab.model.unet.load_state_dict(averaged)
    right = {w: lab.right(some, scenes)["all four"] for w, some in drawn.items()}
    moved = float((drawn[0.0].clamp(-1, 1) - drawn[1.0].clamp(-1, 1)).abs().mean()) / 2
    close = abs(errors[1.0] / errors[0.0] - 1) < 0.01
    best = min(errors, key=lambda w: errors[w])
    text = (
        f"The raw weights are {distance:.1%} of their length away from the average. The squared error of the predicted "
        f"noise on {count} unseen pictures is {errors[0.0]:.4f} with raw weights and {errors[1.0]:.4f} with the "
        f"average, and the smallest of those measured is at w = {best:g} ({errors[best]:.4f}). "
        f"Of {len(scenes)} pictures {right[0.0]:.0%} are right with raw weights and {right[1.0]:.0%} with the "
        f"average; their pixels differ by {moved:.1%} of the range in the mean. "
        + ("So here the average is as good as the raw weights, and not better." if close else "")
    )
    answer = 0 if best <= 0 else 1 if best < 1 else 2 if best == 1 else 3
    return Result(draw(lab, errors, drawn, right), text, answer)


def norm(tensors: list[Tensor]) -> float:
    return float(torch.cat([tensor.flatten() for tensor in tensors]).norm())


def noise_error(lab: Lab, clean: Tensor, context: Tensor) -> float:
    """The mean squared error of the predicted noise, at evenly spread timesteps."""
    schedule = lab.model.schedule
    noise = lab.noise(140, len(clean))
    moments = torch.linspace(0, schedule.num_train_timesteps - 1, len(clean)).long()
    noisy = schedule.add_noise(clean, noise, moments)
    return float((lab.model.unet(noisy, moments.to(noisy.device), context) - noise).square().mean())


def draw(lab: Lab, errors: dict[float, float], drawn: dict[float, Tensor], right: dict[float, float]) -> Figure:
    figure = new_figure(height=4.6)
    left, side = figure.subplots(1, 2, width_ratios=[1, 1.25])
    left.plot(list(errors), list(errors.values()), "-o")
    for w, name in ((0.0, "raw"), (1.0, "average")):
        left.axvline(w, color="0.6", linewidth=0.8, linestyle="--")
        left.text(w, 1.01, name, transform=left.get_xaxis_transform(), ha="center", fontsize=11)
    left.set_xlabel("w in raw + w (average - raw)", fontsize=11)
    left.set_ylabel("squared error of the predicted noise", fontsize=11)
    left.grid(alpha=0.3)
    names = {-1.0: "w = -1", 0.0: "raw", 1.0: "average", 2.0: "w = 2"}
    rows = list(zip(*(lab.arrays(some[:4]) for some in drawn.values())))
    grid(side, rows, [], [f"{names[w]}\n{right[w]:.0%}" for w in drawn])
    side.tick_params(labelsize=11)
    side.set_xlabel("above: how many pictures are right", fontsize=11)
    return figure
