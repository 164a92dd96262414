"""The measuring stick itself: right figures for pictures of which the answer is known."""

import json
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from course import cli
from course.core.config import tiny_config
from course.scenes.scenes import Scene, Thing, is_held_out
from course.training import evaluate, judge
from course.training.data import draw_example
from course.training.export import write_untrained

pytestmark = pytest.mark.limit(120)


def scene(thing: str, colour: str, ground: str, time: str) -> Scene:
    return Scene((Thing(thing, colour),), ground, time, "medium", "centre")


SCENES = [scene("house", "red", "meadow", "day"), scene("cat", "blue", "sea", "night")]


class Knowing:
    """A judge that says what it is told."""

    def __init__(self, scenes):
        self.answers = judge.truth(scenes)

    def read(self, images):
        return self.answers


def test_a_picture_is_right_if_all_its_attributes_are():
    images = torch.zeros(2, 3, 8, 8)
    assert set(evaluate.share_right(Knowing(SCENES), images, SCENES).values()) == {1.0}
    wrong_colour = [SCENES[0], scene("cat", "green", "sea", "night")]
    shares = evaluate.share_right(Knowing(wrong_colour), images, SCENES)
    assert shares == {"object": 1.0, "colour": 0.5, "ground": 1.0, "time": 1.0, "all four": 0.5}


@pytest.mark.parametrize("held_out", [False, True])
def test_single_scenes_are_of_the_kind_asked_for(held_out):
    rng = random.Random(0)
    for _ in range(50):
        one = judge.sample_single(rng, held_out)
        assert len(one.things) == 1
        assert is_held_out(one.things[0].object, one.things[0].colour, one.ground) == held_out


def test_psnr_of_a_known_error():
    class Darker:
        def encode(self, images):
            return images

        def decode(self, latents):
            return latents - 0.2  # of a range of 2: an error of 0.1 of the range

    model = SimpleNamespace(vae=Darker(), unet=SimpleNamespace(conv_in=torch.nn.Conv2d(1, 1, 1)))
    assert math.isclose(evaluate.psnr(model, torch.full((3, 3, 8, 8), 0.5)), 20.0, rel_tol=1e-5)


def test_a_copy_is_at_distance_zero_and_a_flat_picture_is_not():
    training = evaluate.small_training_set(4, 64)
    copy = evaluate.to_tensor([draw_example(0, 2, 64)[0]])
    distances = evaluate.nearest(torch.cat([copy, torch.zeros_like(copy)]), training)
    assert distances[0] < 1e-3 < 0.1 < distances[1]


def test_the_distance_is_a_root_mean_square():
    black, white = torch.full((1, 3, 64, 64), -1.0), torch.full((1, 3, evaluate.NEAR, evaluate.NEAR), 1.0)
    assert math.isclose(float(evaluate.nearest(black, white)), 2.0, rel_tol=1e-5)


def test_the_judge_learns():
    """A few seconds of training are enough to tell day from night."""
    small = judge.train_judge(pictures=100, epochs=4, batch=20)
    rng = random.Random(1)
    drawn = [judge.draw_single(rng, False, 64) for _ in range(40)]
    images = evaluate.to_tensor([picture for _, picture in drawn])
    assert evaluate.share_right(small, images, [s for s, _ in drawn])["time"] > 0.7


def test_the_command_on_an_untrained_model(tmp_path, capsys):
    write_untrained(tiny_config(), tmp_path, seed=0)
    torch.manual_seed(0)
    save_file(judge.Judge().state_dict(), tmp_path / "judge.safetensors")
    flags = [f"--checkpoint={tmp_path / 'model.safetensors'}", "--prompts=2", "--steps=1", "--compared=4", "--fresh=4"]
    flags += ["--device=cpu", f"--json={tmp_path / 'figures.json'}", f"--sheet={tmp_path / 'sheet.png'}"]
    code = cli.main(["evaluate", *flags])
    output = capsys.readouterr().out
    assert code == 0 and "held out" in output and "short of the goal" in output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["prompts"] == 2 and figures["psnr"] < 27.0 and figures["retrieval among 64"] is None
    assert (tmp_path / "sheet.png").exists()


def test_options_that_make_no_sense():
    for flag in ("--prompts=1", "--prompts=x", "--steps=0", "--steps=5000", "--scale=x", "--sampler=plms"):
        name, value = flag.removeprefix("--").upper().split("=")
        with pytest.raises(ValueError, match=f"(?i)^{name}={value} is not "):
            evaluate.EvaluateOptions.parse([flag], "evaluate", "")


def test_pictures_become_tensors():
    picture = np.array([[[0, 255, 0]]], dtype=np.uint8)
    assert evaluate.to_tensor([picture]).flatten().tolist() == [-1.0, 1.0, -1.0]
