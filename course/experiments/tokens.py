"""Which of the 77 vectors hold the meaning of a prompt?

A prompt is a handful of tokens between a begin mark and an end mark; padding fills the rest. Because the causal mask
lets a token look back, the end mark and the padding have seen the whole prompt. Here a part of the vectors is taken
from the prompt and the rest from the empty prompt, and the judge reads what is drawn.

Then one word is exchanged: how far does the vector at each position move?
"""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from course.experiments.lab import Lab, Result
from course.studio.attention import token_names
from course.studio.page import grid, new_figure, stacked
from course.studio.question import Question

TITLE = "Which of the 77 vectors hold the meaning of a prompt?"
QUESTION = Question(
    "Only the vectors of the padding are kept, those of all words are replaced by the empty prompt's. What is drawn?",
    ("what the prompt says, nearly always", "some of what the prompt says", "nothing of it"),
)
BEFORE, AFTER = "a red house in the snow at night", "a blue house in the snow at night"


@torch.no_grad()
def run(lab: Lab) -> Result:
    scenes = lab.scenes_to_draw(lab.pick(14, 2), seed=11)
    prompts = lab.prompts(scenes)
    context, none = (lab.blocks[9].encode_prompts(lab.model, p) for p in (prompts, [""] * len(prompts)))
    ends = torch.tensor([1 + len(lab.model.tokenizer.tokenize(prompt)) for prompt in prompts])[:, None]
    place = torch.arange(context.shape[1])[None]
    kept = {
        "all 77": place >= 0,
        "the words": (place > 0) & (place < ends),
        "the end mark": place == ends,
        "the padding": place > ends,
        "nothing": place < 0,
    }
    mixed = {name: torch.where(mask[..., None].to(none.device), context, none) for name, mask in kept.items()}
    drawn = {name: sample(lab, some, none) for name, some in mixed.items()}
    right = {name: lab.right(images, scenes) for name, images in drawn.items()}

    places, moved = exchanged(lab)
    padding = float(moved[-1])
    word = float(moved[2])
    shares = {name: some["all four"] for name, some in right.items()}
    text = (
        f"Of {len(scenes)} pictures all four attributes are right in {shares['all 77']:.0%} with all vectors, in "
        f"{shares['the words']:.0%} with those of the words alone, in {shares['the end mark']:.0%} with the end mark "
        f"alone and in {shares['the padding']:.0%} with the padding alone. "
        + (
            "So the padding is not useless, though it is often said to be: the U-Net reads it. "
            if shares["the padding"] > 0.2
            else ""
        )
        + f"If 'red' becomes 'blue', the word's vector changes by {word:.0%} of its length, the last of the padding by "
        f"{padding:.0%}, and what stands before the word not at all ({float(moved[:2].max()):.0%})."
    )
    answer = 0 if shares["the padding"] >= 0.85 else 1 if shares["the padding"] > 0.1 else 2
    return Result(draw(lab, drawn, right, places, moved), text, answer)


def sample(lab: Lab, context: Tensor, none: Tensor) -> Tensor:
    """Pictures from contexts, by stage 9."""
    sampling = lab.blocks[9].Sampling(lab.pick(10, 2), lab.opened.config.guidance_scale, "dpm++2m")
    timesteps = lab.blocks[9].timesteps_for(lab.model.schedule, sampling)
    latents = lab.noise(120, len(context))
    for step in lab.blocks[9].denoise(lab.model, latents, timesteps, context, none, sampling):
        latents = step.latents
    return lab.decoded(latents)


def exchanged(lab: Lab) -> tuple[list[str], Tensor]:
    """The names of the positions, and by how much of its length each vector moves when one word is exchanged."""
    one, other = lab.context(BEFORE)[0], lab.context(AFTER)[0]
    return token_names(lab, BEFORE), ((one - other).norm(dim=-1) / one.norm(dim=-1)).cpu()


def draw(
    lab: Lab, drawn: dict[str, Tensor], right: dict[str, dict[str, float]], places: list[str], moved: Tensor
) -> Figure:
    figure = new_figure(height=6.6)
    top, bottom = stacked(figure, [4.3, 2.3])
    rows = list(zip(*(lab.arrays(images[:3]) for images in drawn.values())))
    axes = top.subplots()
    labels = [f"kept: {name}\n{right[name]['all four']:.0%} all right" for name in drawn]
    grid(axes, rows[:2], [], labels)
    axes.tick_params(labelsize=11)
    bar = bottom.subplots()
    padding = len(moved) - len(places)
    picks = [*range(len(places)), len(places), len(places) + padding // 2, len(moved) - 1]
    names = [name.replace("begin mark", "begin").replace("end mark", "end") for name in places]
    names += ["padding\n1", f"padding\n{padding // 2 + 1}", f"padding\n{padding}"]
    bar.bar(range(len(picks)), [100 * float(moved[i]) for i in picks], color=["C3" if i == 2 else "C0" for i in picks])
    bar.set_xticks(range(len(picks)), names, fontsize=10.5)
    bar.set_ylabel("change of the\nvector (%)", fontsize=11)
    bar.set_title("'red' becomes 'blue': which vectors notice?", fontsize=11)
    return figure
