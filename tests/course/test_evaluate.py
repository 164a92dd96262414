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
from course.scenes.examples import draw_example
from course.scenes.scenes import TIMES, Scene, Thing, draw_scene, is_held_out
from course.studio import judge
from course.training import evaluate, lights
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


RED_CAR, BLUE_HOUSE = Thing("car", "red"), Thing("house", "blue")


def pair(left: Thing, right: Thing) -> Scene:
    return Scene((left, right), "meadow", "day", "medium", "centre")


class KnowingHalves:
    """A judge of halves that says what it is told."""

    def __init__(self, scenes):
        self.answers = judge.truth_of_halves(scenes)

    def read(self, images):
        assert len(images) == len(self.answers["object"])
        return self.answers


def test_a_picture_of_two_things_is_right_if_both_halves_are():
    images, wanted = torch.zeros(2, 3, 8, 8), [pair(RED_CAR, BLUE_HOUSE)] * 2
    assert set(evaluate.share_of_pairs(KnowingHalves(wanted), images, wanted).values()) == {1.0}
    sides_changed = [pair(BLUE_HOUSE, RED_CAR), wanted[1]]
    shares = evaluate.share_of_pairs(KnowingHalves(sides_changed), images, wanted)
    assert shares == {"object": 0.5, "colour": 0.5, "ground": 1.0, "time": 1.0, "all four": 0.5}
    colours_changed = [pair(Thing("car", "blue"), Thing("house", "red"))] * 2
    shares = evaluate.share_of_pairs(KnowingHalves(colours_changed), images, wanted)
    assert shares["object"] == 1.0 and shares["colour"] == 0.0


def test_halves_come_left_before_right_picture_by_picture():
    images = torch.arange(16.0).reshape(2, 1, 2, 4)
    assert judge.halves(images)[:, 0, 0].tolist() == [[0, 1], [2, 3], [8, 9], [10, 11]]
    single_scene = judge.truth_of_halves([SCENES[0]])
    assert [judge.HALF_ATTRIBUTES["object"][i] for i in single_scene["object"]] == [judge.NOTHING] * 2
    assert single_scene["colour"].tolist() == [judge.IGNORED] * 2


def test_blobs_are_counted_and_specks_are_not():
    mask = torch.zeros(3, 64, 64, dtype=torch.bool)
    mask[1, 5:12, 5:12] = mask[2, 5:12, 5:12] = mask[2, 5:12, 40:50] = True
    mask[1, 8, :] = False  # a bar across the sun: still one
    mask[2, 40:42, 40:42] = True  # too small
    assert lights.count_blobs(mask, 12).tolist() == [0, 1, 2]


@pytest.mark.parametrize("time", TIMES)
def test_the_mask_of_a_light_is_one_disc(time):
    picture, mask = lights.draw_with_mask(scene("cat", "red", "sea", time), "3")
    assert picture.shape == (64, 64, 3) and lights.count_blobs(torch.tensor(mask)[None], 12).tolist() == [1]
    assert 30 < mask.sum() < 150


def test_lights_are_judged_where_the_illustrator_shows_them():
    class Told:
        def count(self, images):
            return torch.tensor([1, 2, 0, 2])

    scenes = [scene("cat", "red", "sea", time) for time in ("day", "night", "sunset", "sunset")]
    assert evaluate.lights(Told(), torch.zeros(4, 3, 8, 8), scenes) == {"one": 0.5, "more": 0.5}


def test_the_finder_learns():
    """A few seconds of training are enough to find most moons."""
    finder = lights.train_light_finder(pictures=80, epochs=8, batch=10)
    night = scene("cat", "red", "sea", "night")
    shown = [np.asarray(draw_scene(night, random.Random(i), 64)) for i in range(10)]
    assert (finder.count(evaluate.to_tensor(shown)) == 1).sum() >= 6


def test_gradient_energy_of_stripes():
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(1, 1, 4, 4)
    assert evaluate.gradient_energy(stripes) == 1.0 and evaluate.gradient_energy(0.5 * stripes) == 0.25


def test_frechet_distance_of_normal_distributions():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(4000, 3, dtype=torch.float64, generator=generator)
    assert evaluate.frechet_distance(one, one) == pytest.approx(0.0, abs=1e-6)
    assert evaluate.frechet_distance(one, one + 2.0) == pytest.approx(12.0)
    wider = evaluate.frechet_distance(one, 3.0 * one)  # (3 - 1)^2 of the variance, plus the shift of the mean
    assert wider == pytest.approx(4.0 * float(one.T.cov().trace() + one.mean(dim=0).square().sum()), rel=1e-6)
    turned = one @ torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
    scales = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    far = evaluate.frechet_distance(one * scales, turned)
    near = evaluate.frechet_distance(one * scales, turned * scales)
    assert far > 5.0 > 0.1 > near


def test_features_see_the_picture_and_not_its_place_alone():
    seen = evaluate.features(judge.Judge(), torch.randn(3, 3, 128, 128))
    assert seen.shape == (3, 128) and seen.dtype == torch.float64 and not torch.allclose(seen[0], seen[1])


def test_evaluated_scenes_are_what_plain_prompts_describe():
    rng = random.Random(0)
    scenes = [evaluate.sample_plain(rng, held_out=False) for _ in range(200)]
    shares = {size: np.mean([one.size == size for one in scenes]) for size in ("medium", "big")}
    assert shares["medium"] > shares["big"] > 0.15
    assert np.mean([one.position == "centre" for one in scenes]) > 0.7


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
    copy = evaluate.to_tensor([draw_example(evaluate.LAST_SEED, 2, 64)[0]])
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


def test_the_command_on_an_untrained_model(tmp_path, capsys, monkeypatch):
    """With a LoRA file that changes nothing, and the thing that it is said to have taught."""
    monkeypatch.setattr(evaluate, "COLOURS", ("red",))
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    zeros = {f"{layer}.lora_down.weight": torch.zeros(1, 160), f"{layer}.lora_up.weight": torch.zeros(160, 1)}
    save_file(zeros, tmp_path / "nothing.safetensors")
    save_file(judge.Judge(judge.NEW_ATTRIBUTES).state_dict(), tmp_path / "new_judge.safetensors")
    write_untrained(tiny_config(), tmp_path, seed=0)
    torch.manual_seed(0)
    save_file(judge.Judge().state_dict(), tmp_path / "judge.safetensors")
    save_file(judge.Judge(judge.HALF_ATTRIBUTES, (64, 32)).state_dict(), tmp_path / "half_judge.safetensors")
    save_file(lights.LightFinder().state_dict(), tmp_path / "lights.safetensors")
    flags = [f"--checkpoint={tmp_path / 'model.safetensors'}", "--prompts=2", "--steps=1", "--compared=4", "--fresh=4"]
    flags += ["--device=cpu", f"--json={tmp_path / 'figures.json'}", f"--sheet={tmp_path / 'sheet.png'}"]
    assert cli.main(["evaluate", *flags, "--new=snowman"]) == 2
    assert "NEW=snowman needs LORA" in capsys.readouterr().err
    flags += [f"--lora={tmp_path / 'nothing.safetensors'}", "--new=snowman"]
    code = cli.main(["evaluate", *flags])
    output = capsys.readouterr().out
    assert code == 0 and "held out" in output and "short of the goal" in output
    assert "nothing.safetensors changes 1 layers" in output and "new thing" in output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["new"]["drawn"]) == {"object", "colour", "ground", "time", "all four"}
    assert figures["prompts"] == 2 and figures["prompts with two things"] == 1
    assert figures["psnr"] < 27.0 and figures["retrieval among 64"] is None
    assert (tmp_path / "sheet.png").exists()


def test_options_that_make_no_sense():
    for flag in ("--prompts=1", "--prompts=x", "--steps=0", "--steps=5000", "--scale=x", "--sampler=plms"):
        name, value = flag.removeprefix("--").upper().split("=")
        with pytest.raises(ValueError, match=f"(?i)^{name}={value} is not "):
            evaluate.EvaluateOptions.parse([flag], "evaluate", "")


def test_pictures_become_tensors():
    picture = np.array([[[0, 255, 0]]], dtype=np.uint8)
    assert evaluate.to_tensor([picture]).flatten().tolist() == [-1.0, 1.0, -1.0]


@pytest.mark.parametrize("option", ["json", "sheet"])
@pytest.mark.parametrize("place", ["folder", "/dev/null", "file/below"])
def test_what_cannot_be_written_is_refused_before_drawing(tmp_path, monkeypatch, capsys, option, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(evaluate, "measure", lambda options: pytest.fail("it drew before it refused"))
    assert cli.main(["evaluate", f"--{option}={place}"]) == 2
    assert f"{place} cannot be written: " in capsys.readouterr().err


def test_a_judge_of_new_things_has_seen_some():
    rng = random.Random(3)
    scenes = [judge.sample_new(rng) for _ in range(5)]
    assert {scene.things[0].object for scene in scenes} == {"snowman"} and len({s.things[0].colour for s in scenes}) > 1
    wanted = judge.truth(scenes, judge.NEW_ATTRIBUTES)["object"]
    assert wanted.tolist() == [judge.NEW_ATTRIBUTES["object"].index("snowman")] * 5 == [12] * 5
