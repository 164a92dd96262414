"""Which prompts are alike to the text encoder, and which tokens they are made of."""

import torch
from torch import Tensor

from course.studio.page import Page, new_figure
from course.studio.studio import Studio

PROMPTS = (
    "a red house in the snow",
    "a red house on a snowy hill",
    "a blue house in the snow",
    "a red car in the snow",
    "a red car in the city at night",
    "a yellow car in the city at night",
    "a white boat on the sea at sunset",
    "a sailing boat on the ocean in the evening",
    "a green robot in the desert",
    "a zebra on a skateboard",
)


@torch.no_grad()
def prompts(studio: Studio) -> Page:
    """The similarity of each pair of prompts, and the tokens of each."""
    pieces = [token_texts(studio, prompt) for prompt in PROMPTS]
    vectors = torch.stack([last_vector(studio, prompt) for prompt in PROMPTS])
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    similarity = (unit @ unit.T).cpu().numpy()

    figure = new_figure(height=4.4)
    axes = figure.subplots()
    axes.set_anchor("E")
    axes.imshow(similarity, cmap="viridis", vmax=1.0)
    for i in range(len(PROMPTS)):
        for j in range(len(PROMPTS)):
            value = float(similarity[i, j])
            dark = value < float(similarity.min() + 1) / 2
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    numbers = [str(number) for number in range(1, len(PROMPTS) + 1)]
    names = [" | ".join(tokens) + f"  {number:>2}" for tokens, number in zip(pieces, numbers)]
    axes.set_xticks(range(len(PROMPTS)), numbers, fontsize=8.5, family="monospace")
    axes.set_yticks(range(len(PROMPTS)), names, fontsize=8.5, family="monospace")
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    return Page(
        "What does the U-Net get to read?",
        "Not letters but vectors. "
        "Numbers: the cosine of the angle between two prompts' vectors at the end mark, near 1 "
        "where prompts describe similar pictures. Left: the tokens of each prompt; a word that the vocabulary lacks is "
        "spelled in pieces.",
        figure,
    )


@torch.no_grad()
def order(studio: Studio) -> Page:
    """How far each token's vector moves when one word of the prompt is replaced."""
    model = studio.model
    before, after = "a red house in the snow at night", "a blue house in the snow at night"
    vectors = [model.text_encoder(model.tokenizer([text]).to(studio.context("").device))[0] for text in (before, after)]
    moved = ((vectors[0] - vectors[1]).norm(dim=-1) / vectors[0].norm(dim=-1)).cpu()
    names = ["begin mark", *token_texts(studio, before), "end mark", "first padding"]
    figure = new_figure(height=3.2)
    axes = figure.subplots()
    axes.bar(range(len(names)), moved[: len(names)].numpy())
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set_ylabel("relative change of the vector")
    return Page(
        "Which tokens know of a word? ('red' becomes 'blue')",
        "The word itself and all to the right of it: the causal mask lets a token look back only. So the end mark "
        "knows the whole prompt, and the begin mark nothing of it.",
        figure,
    )


def token_texts(studio: Studio, prompt: str) -> list[str]:
    tokenizer = studio.model.tokenizer
    return [tokenizer.decode([i]) or "?" for i in tokenizer.tokenize(prompt)]


def last_vector(studio: Studio, prompt: str) -> Tensor:
    """The vector at the first end mark, which has seen the whole prompt."""
    place = 1 + len(studio.model.tokenizer.tokenize(prompt))
    return studio.context(prompt)[0, place]


PICTURES = (prompts, order)
MORE = ()
