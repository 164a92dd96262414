"""`make evaluate PART=motion`: right figures for films of which the answer is known."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from course import cli
from course.core.assemble import for_generating
from course.core.config import tiny_config
from course.core.stages import ROOT
from course.draw.checkpoint import build, open_checkpoint
from course.draw.motion import put_motion
from course.scenes import scenes
from course.scenes.scenes import GROUNDS, OBJECTS, TIMES, Scene, Thing, draw_matte, draw_scene
from course.studio import judge, things
from course.training import evaluate, films
from course.training.export import write_untrained
from course.training.motion import CONFIG
from tests.course.modules import write_modules

pytestmark = pytest.mark.limit(240)

TINY = ROOT / "checkpoints" / "tiny"
FINDER = TINY / "things.safetensors"
FRAMES = 8


def scene(name: str, number: int = 0, colour: str = "red") -> Scene:
    ground, time = GROUNDS[number % len(GROUNDS)], TIMES[number % len(TIMES)]
    return Scene((Thing(name, colour),), ground, time, "medium", "centre")


# --- the thing's matte and its way -----------------------------------------------------------------------------------


def test_a_matte_covers_what_changes_with_the_colour():
    pictures = [draw_scene(scene("balloon", colour=colour), random.Random("1"), 64) for colour in ("red", "blue")]
    red, blue = (np.asarray(picture, float) for picture in pictures)
    differs = np.abs(red - blue).max(axis=2) > 30
    matte = draw_matte(scene("balloon"), "1", 64)
    assert matte.shape == (64, 64) and matte.min() >= 0.0 and matte.max() <= 1.0
    assert (matte[differs] > 0.3).all()
    assert matte[:3].max() == matte[-3:].max() == 0.0  # nothing of sky and ground


def test_a_matte_leaves_out_the_shadow_and_the_island():
    """The island is half as large as the cat; the shadow of what flies lies far below it."""
    on_sea = Scene((Thing("cat", "red"),), "sea", "day", "medium", "centre")
    areas = [draw_matte(replace(on_sea, ground=ground), "2", 128).sum() for ground in ("sea", "meadow")]
    assert areas[0] == pytest.approx(areas[1], rel=0.3)
    assert draw_matte(scene("balloon"), "2", 128)[-20:].max() == 0.0


def test_a_matte_leaves_out_the_foam(monkeypatch):
    monkeypatch.setattr(scenes, "_draw_waterline", lambda *args: pytest.fail("the foam is drawn after the boat"))
    draw_matte(Scene((Thing("boat", "red"),), "sea", "day", "medium", "centre"), "2", 64)


def test_the_centre_of_a_mask():
    mask = torch.full((2, 32, 32), 0.4)  # faint marks do not count
    mask[0, 4:8, 16:24] = 1.0
    assert torch.allclose(things.centres(mask), torch.tensor([[20 / 32, 6 / 32], [0.5, 0.5]]), atol=1e-4)


def test_the_way_of_a_car_leads_to_where_it_faces():
    for seed in range(4):
        way, side = things.way(scene("car"), seed, FRAMES), things.side_of(scene("car"), seed)
        assert float(way[-1, 0] - way[0, 0]) == pytest.approx(0.3 * side, abs=0.02)
        assert float(way[:, 1].std()) < 0.005
    rising = things.way(scene("rocket"), 0, FRAMES)
    assert float(rising[0, 1] - rising[-1, 1]) == pytest.approx(0.3, abs=0.02)
    assert things.side_of(scene("rocket"), 0) == 0


def test_the_finder_learns():
    finder = things.train_thing_finder(pictures=160, epochs=6, batch=16)
    red = scene("balloon")
    film = films.illustrated(red, "learn", 4, 64)
    masks, centres, _ = finder.find(film)
    assert masks.shape == (4, things.SIDE, things.SIDE)
    assert (centres - things.way(red, "learn", 4)).abs().max() < 0.1


# --- the measures ----------------------------------------------------------------------------------------------------


def test_a_way_along_another():
    wanted = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 1.0]])
    share, rest = things.along(0.5 * wanted + 3.0, wanted)
    assert share == pytest.approx(0.5) and rest == pytest.approx(0.0, abs=1e-6)
    assert things.along(-wanted, wanted)[0] == pytest.approx(-1.0)
    across = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    there_and_back = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    share, rest = things.along(across, there_and_back)
    assert share == pytest.approx(0.0, abs=1e-6) and rest > 1.0


def seen_of(path: torch.Tensor, facing: float = 1.0) -> films.Seen:
    return films.Seen(torch.zeros(len(path), 4, 4), path, facing)


def test_a_car_has_to_drive_where_it_faces_and_as_far_as_the_illustrators():
    car, way = scene("car"), torch.tensor([[0.3 * i / 7, 0.0] for i in range(8)])
    mirror = torch.tensor([-1.0, 1.0])
    right = {(d, f): films.moves_right(car, seen_of(d * way, f), way, side=1) for d in (1, -1) for f in (1.0, -1.0)}
    assert right == {(1, 1.0): True, (-1, -1.0): True, (-1, 1.0): False, (1, -1.0): False}
    assert films.moves_right(car, seen_of(way * mirror, -1.0), way, side=1)
    shares = {share: films.moves_right(car, seen_of(share * way), way, side=1) for share in (0.0, 0.7, 0.85, 1.15, 1.3)}
    assert shares == {0.0: False, 0.7: False, 0.85: True, 1.15: True, 1.3: False}
    jumping = way + 0.08 * torch.tensor([[0.0, (-1.0) ** i] for i in range(8)])
    assert not films.moves_right(car, seen_of(jumping), way, side=1)


def test_a_house_has_to_stand():
    still = torch.full((8, 2), 0.5)
    assert films.moves_right(scene("house"), seen_of(still), still, side=0)
    moving = still + torch.tensor([[0.1 * i / 7, 0.0] for i in range(8)])
    assert not films.moves_right(scene("house"), seen_of(moving), still, side=0)


def test_only_what_is_around_the_thing_counts_as_background():
    film, masks = torch.zeros(3, 3, 64, 64), torch.zeros(3, 32, 32)
    masks[:, 10:20, 10:20] = 1.0
    film[1, :, 22:38, 22:38] = 1.0  # in the thing
    assert things.background_change(film, masks) == 0.0
    film[1] += 0.5
    assert things.background_change(film, masks) == pytest.approx(0.5)


class Knowing:
    def __init__(self, scenes):
        self.answers = judge.truth(scenes)

    def read(self, images):
        return self.answers


def test_a_film_keeps_its_attributes_if_every_frame_does():
    red, blue = scene("cat"), scene("cat", colour="blue")
    film = torch.zeros(3, 3, 8, 8)
    assert films.keeps_all(Knowing([red] * 3), film, red)
    assert not films.keeps_all(Knowing([red, red, blue]), film, red)


@pytest.fixture(scope="module")
def measured():
    """A film of the illustrator for each kind of thing, through the VAE, with the way that is wanted of it."""
    model = build(for_generating("solutions", fused=True).load(), open_checkpoint())
    finder = things.load_thing_finder(FINDER)
    results = []
    for number, name in enumerate(OBJECTS):
        one = scene(name, number)
        film = evaluate.reconstruct(model, films.illustrated(one, f"film {name}", FRAMES, 128))
        results.append((one, film, things.way(one, f"way {name}", FRAMES), things.side_of(one, f"way {name}")))
    return finder, results


def test_the_illustrators_films_move_right(measured):
    finder, results = measured
    right = {one.things[0].object: films.moves_right(one, films.see(finder, film), *to) for one, film, *to in results}
    assert set(right.values()) == {True}, right


def test_the_illustrators_films_keep_their_attributes(measured):
    reader = judge.load_film_judge(FINDER.with_name("film_judge.safetensors"))
    _, results = measured
    kept = [films.keeps_all(reader, film, one) for one, film, *_ in results]
    assert sum(kept) >= len(kept) - 1
    assert not any(films.keeps_all(reader, film, scene("cat", 1, "white")) for _, film, *_ in results)


@pytest.mark.parametrize("change", ["backwards", "still", "as another thing"])
def test_films_that_move_wrongly_are_refused(measured, change):
    """Backwards: of what goes one way. Still: of what moves. As another thing: a rocket that drives as a car does."""
    finder, results = measured
    kinds = {"backwards": films.ONE_WAY, "still": {*OBJECTS} - {*films.STANDING}, "as another thing": films.ONE_WAY}
    ways = {one.things[0].object: wanted for one, _, *wanted in results}
    passed, asked = [], 0
    for one, film, *wanted in results:
        name = one.things[0].object
        if name not in kinds[change]:
            continue
        asked += 1
        shown = {"backwards": film.flip(0), "still": film[:1].expand_as(film)}.get(change, film)
        if change == "as another thing":
            wanted = ways["car" if name in ("rocket", "balloon") else "rocket"]
        passed += [name] * films.moves_right(one, films.see(finder, shown), *wanted)
    assert asked >= 5 and not passed


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model of the shipped size with random weights, with motion modules and readers of random weights."""
    folder = tmp_path_factory.mktemp("films")
    write_untrained(tiny_config(), folder, seed=0)
    torch.manual_seed(0)
    save_file(judge.Judge().state_dict(), folder / "film_judge.safetensors")
    save_file(things.ThingFinder().state_dict(), folder / "things.safetensors")
    write_modules(folder / "motion.safetensors", tiny_config(), CONFIG)
    return folder


def test_the_command_on_untrained_modules(folder, tmp_path, capsys):
    flags = [f"--checkpoint={folder}", "--part=motion", "--prompts=2", "--frames=3", "--steps=1", "--device=cpu"]
    code = cli.main(["evaluate", *flags, f"--json={tmp_path / 'figures.json'}", f"--sheet={tmp_path / 'sheet.webp'}"])
    output = capsys.readouterr().out
    assert code == 0 and "2 films of 3 frames" in output and "short of the goal: all four attributes" in output
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["films"] == 2 and set(figures["moves as its kind does"]) >= {"drawn", "through the VAE", "still"}
    with Image.open(tmp_path / "sheet.webp") as sheet:
        assert sheet.n_frames == 3 and sheet.size == (256, 128)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--part=films"], "PART=films"),
        (["--frames=8"], "FRAMES=8 needs PART=motion"),
        (["--motion=x"], "MOTION=x needs PART=motion"),
        (["--part=motion", "--lora=x"], "LORA=x does not go with PART=motion"),
        (["--part=motion", "--fresh=9"], "FRESH=9 does not go with PART=motion"),
        (["--part=motion", "--sheet=a.png"], "SHEET=a.png does not end in .webp or .gif"),
        (["--part=motion", "--frames=1"], "FRAMES=1"),
        (["--part=motion", "--motion=nowhere"], "MOTION=nowhere"),
    ],
)
def test_refusals(capsys, monkeypatch, tmp_path, flags, words):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *flags]) == 2
    errors = capsys.readouterr().err.strip()
    assert words in errors and len(errors.splitlines()) == 1
    assert not list(tmp_path.iterdir())

# --- the shipped modules ---------------------------------------------------------------------------------------------


def test_diffusers_draws_the_same_film_with_the_shipped_modules():
    from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter, StableDiffusionPipeline

    frames, prompt, noise = 4, "a red balloon over the sea at sunset", torch.randn(1, 4, 4, 16, 16)
    parts = StableDiffusionPipeline.from_single_file(
        str(TINY / "model.safetensors"), config=str(TINY / "diffusers"), local_files_only=True, safety_checker=None
    )
    adapter = MotionAdapter.from_config(MotionAdapter.load_config(TINY / "diffusers" / "motion_adapter"))
    adapter.load_state_dict(load_file(TINY / "motion.safetensors"))
    scheduler = DDIMScheduler.from_config(parts.scheduler.config)
    theirs = AnimateDiffPipeline(parts.vae, parts.text_encoder, parts.tokenizer, parts.unet, adapter, scheduler)
    theirs.set_progress_bar_config(disable=True)
    options = {"num_frames": frames, "height": 128, "width": 128, "num_inference_steps": 3, "guidance_scale": 4.0}
    wanted = theirs(prompt, latents=noise.transpose(1, 2).clone(), output_type="pt", **options).frames

    blocks, opened = for_generating("solutions", encore=(13,)).load(), open_checkpoint()
    model = build(blocks, opened, ema=False)
    put_motion(blocks, model, opened.config, TINY / "motion.safetensors", frames, torch.device("cpu"))
    film = blocks[13].text_to_video(model, [prompt], [""], noise, blocks[9].Sampling(3, 4.0, "ddim"))
    assert ((film / 2 + 0.5).clamp(0, 1) - wanted).abs().max() < 1e-4
    assert (wanted[:, 0] - wanted[:, -1]).abs().max() > 0.1


def test_the_shipped_modules_draw_sixteen_frames_with_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--frames=16", "--prompt=a red balloon over the sea at sunset", "--steps=2", "--out=film.webp", "--seed=1"]
    assert cli.main(["generate", *flags, "--device=cpu", "--blocks=solutions"]) == 0
    said = capsys.readouterr()
    assert "16 frames" in said.out and "2/2" in said.err.replace(" ", "")
    with Image.open("film.webp") as film:
        assert film.n_frames == 16 and film.size == (128, 128)
