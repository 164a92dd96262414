"""Tests of the training: data, tokenizer, losses, the loop's promises, and the exported file."""

import copy
import dataclasses
import functools
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from course import cli
from course.core.assemble import StageError
from course.core.config import CLIPConfig, ModelConfig, UNetConfig, VAEConfig, tiny_config
from course.core.messages import Refusal
from course.core.screen import sentence
from course.core.stages import ROOT, STAGES
from course.core.workspace import write_stubs
from course.core.writing import whole_file
from course.scenes.examples import draw_example, draw_film
from course.studio.judge import load_judge
from course.training import clip, command, export, loop, motion, unet, unpack, vae
from course.training.data import load_pictures
from course.training.lights import load_light_finder
from course.training.tokenizer import train_tokenizer, write_tokenizer
from solutions import stage11_training
from solutions.stage05_vae import VAE
from solutions.stage06_clip import CLIPTextEncoder, Tokenizer
from solutions.stage07_unet import UNet
from solutions.stage10_key_remapper import load_weights, remap_clip, remap_unet, remap_vae, select_ema, split_checkpoint
from solutions.stage13_motion import remap_motion
from tests.course.modules import NARROW

TRAINED = dataclasses.replace(NARROW, image_size=96)  # by `train_part`


def randomised(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random numbers in every parameter, so that swapped ones would be noticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(scope="module")
def tokenizer_parts():
    return train_tokenizer(1024)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return load_pictures(tmp_path_factory.mktemp("data"), count=12, size=TRAINED.image_size, workers=1)


# ---- data


def test_an_example_depends_on_seed_and_number_only():
    image, captions = draw_example(seed=1, index=5, size=64)
    again, captions_again = draw_example(seed=1, index=5, size=64)
    assert (image == again).all() and captions == captions_again
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8 and len(captions) == 4
    assert not (draw_example(seed=2, index=5, size=64)[0] == image).all()


def test_pictures_are_drawn_once_and_a_larger_set_is_shared(tmp_path):
    some = load_pictures(tmp_path, count=6, size=64, workers=1)
    before = (tmp_path / "pictures-6-64px-seed0" / "pictures.npy").stat().st_mtime_ns
    fewer = load_pictures(tmp_path, count=4, size=64, workers=1)
    assert (fewer.images == some.images[:4]).all() and fewer.captions == some.captions[:4]
    assert [path.name for path in tmp_path.iterdir()] == ["pictures-6-64px-seed0"]
    assert (tmp_path / "pictures-6-64px-seed0" / "pictures.npy").stat().st_mtime_ns == before
    assert (some.images[3] == draw_example(0, 3, 64)[0]).all()


def test_some_pictures_are_never_trained_on(pictures):
    assert pictures.num_checked == 6 and pictures.num_trained == 6
    part = vae.VAEPart(tiny_config().vae, pictures, torch.device("cpu"), batch=4)
    seen = part.batch_of_pictures(1.0, torch.Generator().manual_seed(0))
    checked = part.checked_pictures(6)
    assert all((one != other).any() for one in seen for other in checked)


def test_a_crop_is_a_part_of_its_own_picture_and_where_something_happens():
    size = 96
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    flat = torch.stack([torch.stack([rows, columns, torch.full_like(rows, 10 * i)], dim=-1) for i in range(3)])
    crops = vae.detailed_crops(flat.to(torch.uint8), torch.Generator().manual_seed(0)).long()
    assert crops.shape == (3, vae.CROP, vae.CROP, 3)
    for i, crop in enumerate(crops):
        top, left = crop[0, 0, 0], crop[0, 0, 1]
        assert torch.equal(crop, flat[i, top : top + vae.CROP, left : left + vae.CROP])
    striped = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    striped[0, 80:90:4], striped[1, 6:16:4] = 255, 255
    crops = vae.detailed_crops(striped, torch.Generator().manual_seed(0), candidates=20)
    assert [int((crop[:, 0, 0] == 255).sum()) for crop in crops] == [3, 3]


def test_the_decoder_is_trained_further_and_the_latents_stay(pictures, tmp_path):
    config = VAEConfig(channels=(4, 4, 8, 8), blocks_per_level=1, num_groups=2)
    trained = randomised(VAE(config))
    loop.save_weights(tmp_path / "vae.safetensors", trained.state_dict())
    (tmp_path / "vae.json").write_text('{"latent_std": 1.5}', encoding="utf-8")
    part = vae.DecoderPart(config, pictures, tmp_path, torch.device("cpu"), batch=2)
    loop.train(part, loop.Settings(tmp_path, steps=2), loop.make_accelerator())
    after = vae.load_vae(config, tmp_path)
    before = trained.state_dict()
    changed = {name for name, weight in after.state_dict().items() if not torch.equal(weight, before[name])}
    assert {"post_quant_conv.weight", "decoder.conv_in.weight", "decoder.conv_out.bias"} <= changed
    assert not [name for name in changed if name.startswith(("encoder.", "quant_conv."))]
    assert vae.scaling_factor(tmp_path) == 1.0 / 1.5, "the U-Net of this run may be trained on latents of this scale"
    assert unet.encoder_digest(after) == unet.encoder_digest(trained)
    trained.quant_conv.bias.data[0] += 1.0
    assert unet.encoder_digest(after) != unet.encoder_digest(trained)


# ---- tokenizer


def test_the_vocabulary_has_clips_layout(tokenizer_parts):
    vocab, merges = tokenizer_parts
    assert len(vocab) == 1024 and sorted(vocab.values()) == list(range(1024))
    assert vocab["!"] == 0 and vocab["!</w>"] == 256
    assert vocab["".join(merges[0])] == 512 and len(merges) == 1024 - 512 - 2
    assert vocab["<|startoftext|>"] == 1022 and vocab["<|endoftext|>"] == 1023


def test_words_of_the_captions_are_single_tokens(tokenizer_parts):
    tokenizer = Tokenizer(*tokenizer_parts)
    assert len(tokenizer.tokenize("a red house in a green meadow at night")) == 9
    assert len(tokenizer.tokenize("an orange mushroom next to a purple castle")) == 8


def test_transformers_reads_the_same_ids(tokenizer_parts, tmp_path):
    from transformers import CLIPTokenizer

    write_tokenizer(tmp_path, *tokenizer_parts)
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8").startswith("#version: 0.2\n")
    theirs = CLIPTokenizer(
        vocab=str(tmp_path / "vocab.json"), merges=str(tmp_path / "merges.txt"), model_max_length=77
    )
    prompts = ["a red house", "Ein  GRÜNES Häuschen, 42 Fenster!", "日本の家 🏠", "", "don't <|endoftext|> x", "egg " * 99]  # noqa: E501 (wide letters)
    ours = Tokenizer(*tokenizer_parts)(prompts)
    ids = theirs(prompts, padding="max_length", truncation=True, max_length=77)["input_ids"]
    assert ours.tolist() == ids


# ---- losses


def test_swapped_captions_are_scored_beside_the_right_ones(pictures, tmp_path):
    part = clip.CLIPPart(tiny_config().clip, pictures, tmp_path, torch.device("cpu"), batch=4)
    captions = ["a red car and a blue boat", "a red car at sea", "a pink cat next to a white fish", "a red car"]
    part.pictures = clip.Pictures(pictures.images[:4], [[text] for text in captions])
    tokens, images = part.examples(np.arange(4), np.zeros(4, int))
    words = [part.tokenizer(text)[0, : tokens.shape[1]].tolist() for text in
             [*captions, "a blue car and a red boat", "a white cat next to a pink fish"]]
    assert tokens.tolist() == words and len(images) == 4
    part = clip.CLIPPart(tiny_config().clip, pictures, tmp_path, torch.device("cpu"))
    loss, _ = part.loss(part.model, 0.0, torch.Generator())
    assert math.isfinite(loss.item())


def test_short_token_rows_give_the_same_vector(tokenizer_parts):
    encoder = randomised(CLIPTextEncoder(tiny_config().clip)).double()
    tokens = Tokenizer(*tokenizer_parts)(["a red house", "a blue cat in the desert at night"])
    short = clip.shortened(tokens)
    assert short.shape == (2, 10)
    assert torch.allclose(encoder(tokens)[:, :10], encoder(short), atol=1e-12)


def test_average_of_the_weights_is_the_weighted_mean_of_all_steps(tmp_path):
    """Of a toy whose weights are 3, 1, 4, 1, 5 after its steps."""
    values = [3.0, 1.0, 4.0, 1.0, 5.0]

    class Averaged(ToyPart):
        def __init__(self):
            super().__init__()
            self.average = copy.deepcopy(self.model).requires_grad_(False)

    def set_weight(model, optimizer, loss_of, average, decay):
        loss = loss_of(model).detach()
        torch.nn.init.constant_(model.weight, values.pop(0))
        stage11_training.update_average(average, model, decay)
        return loss

    part = Averaged()
    shares = [math.prod((1 - 1 / s) ** 17 for s in range(step + 1, 6)) for step in range(1, 6)]
    shares = [share * (1 - (1 - 1 / step) ** 17) for step, share in enumerate(shares, start=1)]
    wanted = sum(share * value for share, value in zip(shares, values))
    assert sum(shares) == pytest.approx(1.0)
    stage = SimpleNamespace(ema_decay=stage11_training.ema_decay, training_step=set_weight)
    loop.train(part, loop.Settings(tmp_path, steps=5), loop.make_accelerator(), stage)
    assert torch.allclose(part.average.weight, torch.full((3, 3), wanted), rtol=1e-5)
    saved = loop.load_state(tmp_path / "toy.state.pt")["extra"]
    assert torch.equal(saved["average.weight"], part.average.weight)


# ---- the loop


class Wobble(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 3))

    def forward(self, wanted):
        return self.weight - wanted


def run_train(*flags):
    return command.train(command.TrainOptions.parse(flags, "train", ""))


class ToyPart:
    """The smallest thing that can be trained."""

    name, learning_rate, betas, warmup = "toy", 0.1, (0.9, 0.99), 2
    average = None

    def __init__(self, seconds: float = 0.0):
        self.model = Wobble()
        self.seconds = seconds

    def loss(self, model, progress, generator):
        time.sleep(self.seconds)
        loss = model(torch.randn(3, 3, generator=generator)).square().mean()
        return loss, {}

    def write(self, out):
        loop.save_weights(out / "toy.safetensors", self.model.state_dict())

    def check(self):
        return {}

    def sheet(self):
        return None


def train_toy(out, part=None, **settings):
    out.mkdir(exist_ok=True)
    loop.train(part or ToyPart(), loop.Settings(out=out, **settings), loop.make_accelerator())
    return load_file(out / "toy.safetensors")["weight"]


def test_equal_seeds_give_equal_weights(tmp_path):
    one = train_toy(tmp_path / "a", steps=6)
    assert torch.equal(one, train_toy(tmp_path / "b", steps=6))
    assert not torch.equal(one, train_toy(tmp_path / "c", steps=6, seed=1))


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path):
    class Stopped(ToyPart):
        steps = 0

        def loss(self, model, progress, generator):
            self.steps += 1
            if self.steps == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(model, progress, generator)

    whole = train_toy(tmp_path / "whole", steps=9)
    with pytest.raises(loop.Interrupted, match=r"after step 4.*goes on"):
        train_toy(tmp_path / "parts", Stopped(), steps=9)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert torch.equal(train_toy(tmp_path / "parts", steps=9), whole)


def test_minutes_are_wall_time_over_all_runs(tmp_path):
    started = time.monotonic()
    train_toy(tmp_path / "a", ToyPart(seconds=0.02), minutes=0.5 / 60)
    assert 0.4 < time.monotonic() - started < 5.0
    steps = json.loads((tmp_path / "a" / "toy.log.jsonl").read_text().splitlines()[-1])["step"]
    train_toy(tmp_path / "a", ToyPart(seconds=0.02), minutes=0.5 / 60)  # nothing is left to do
    assert json.loads((tmp_path / "a" / "toy.log.jsonl").read_text().splitlines()[-1])["step"] == steps


TWO_PROCESSES = """
import sys
from pathlib import Path
from course.training import loop
from tests.course.test_training import ToyPart

accelerator = loop.make_accelerator()
assert accelerator.num_processes == 2
loop.train(ToyPart(), loop.Settings(Path(sys.argv[1]), steps=5), accelerator)
accelerator.end_training()
"""


@pytest.mark.limit(120)
def test_two_processes_average_their_gradients(tmp_path):
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    launch = f"-m torch.distributed.run --nproc_per_node 2 --master_port {free_port()}"  # what accelerate uses for GPUs
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch.split(), str(tmp_path / "script.py"), str(tmp_path)],
        capture_output=True, text=True, env=environment,
    )
    assert done.returncode == 0, done.stderr

    class Both(ToyPart):
        steps = 0

        def loss(self, model, progress, generator):
            generators = [loop.step_generator(0, "toy", process, self.steps) for process in range(2)]
            self.steps += 1
            losses = [ToyPart.loss(self, model, progress, one)[0] for one in generators]
            return sum(losses) / 2, {}

    alone = train_toy(tmp_path / "alone", Both(), steps=5)
    assert torch.allclose(load_file(tmp_path / "toy.safetensors")["weight"], alone, atol=1e-6)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_learning_rate_warms_up_and_falls():
    factors = [loop.learning_rate_factor(step, step / 100, warmup=10) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] > 0.95
    assert factors[55] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 0.55)))
    assert factors[100] == pytest.approx(0.01)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    def write_half():
        with whole_file(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 281536 vs 281424"),  # of torch.save
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["torch", "safetensors"],
)
def test_a_full_disk_is_told_whatever_the_library_says(tmp_path, monkeypatch, error):
    (tmp_path / "file").write_text("old")
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(Refusal, match=r"file cannot be written: No space left"), whole_file(tmp_path / "file"):
        raise error
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_state_of_another_model_is_refused(tmp_path):
    train_toy(tmp_path, steps=1)
    other = ToyPart()
    other.model = torch.nn.Linear(5, 5)
    with pytest.raises(ValueError, match="another size"):
        train_toy(tmp_path, other, steps=2)


# ---- the exported file


SMALL = ModelConfig(
    vae=VAEConfig(channels=(4, 8, 12), blocks_per_level=2, num_groups=2, scaling_factor=0.7),
    clip=CLIPConfig(vocab_size=1024, width=16, hidden_width=24, num_layers=3, num_heads=2),
    unet=UNetConfig(
        channels=(8, 12, 16, 20), attention=(True, False, True, False), blocks_per_level=2, num_heads=2,
        context_channels=16, num_groups=4,
    ),
    image_size=32,
)


@pytest.mark.parametrize("config", [tiny_config(), SMALL], ids=["tiny", "another shape"])
def test_the_file_holds_the_weights_under_the_original_names(config, tmp_path):
    models = {
        "vae": randomised(VAE(config.vae), 1), "clip": randomised(CLIPTextEncoder(config.clip), 2),
        "unet": randomised(UNet(config.unet), 3), "ema": randomised(UNet(config.unet), 4),
    }
    tensors = export.assemble(config, *(model.state_dict() for model in models.values()), num_updates=7)
    export.write_model(tmp_path, config, tensors, train_tokenizer(config.clip.vocab_size), trained=True)
    file = load_file(tmp_path / "model.safetensors")
    assert file["model_ema.num_updates"] == 7
    assert file["first_stage_model.encoder.mid.attn_1.q.weight"].ndim == 4
    assert file["cond_stage_model.transformer.text_model.embeddings.position_ids"].shape == (1, 77)
    assert ModelConfig.from_json(tmp_path / "config.json") == config

    raw, averaged = split_checkpoint(file), split_checkpoint(select_ema(file))
    fresh = {
        "vae": (VAE(config.vae), remap_vae(raw["vae"])),
        "clip": (CLIPTextEncoder(config.clip), remap_clip(raw["clip"])),
        "unet": (UNet(config.unet), remap_unet(raw["unet"])),
        "ema": (UNet(config.unet), remap_unet(averaged["unet"])),
    }
    for name, (model, weights) in fresh.items():
        load_weights(model, weights)
        for parameter, original in zip(model.parameters(), models[name].parameters(), strict=True):
            assert torch.equal(parameter, original.half().float())


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A model file with random weights in every tensor, and the models in it."""
    config, folder = tiny_config(), tmp_path_factory.mktemp("model")
    models = {
        "vae": randomised(VAE(config.vae), 1), "clip": randomised(CLIPTextEncoder(config.clip), 2),
        "unet": randomised(UNet(config.unet), 3), "unet_ema": randomised(UNet(config.unet), 4),
    }
    tensors = export.assemble(config, *(model.state_dict() for model in models.values()), num_updates=7)
    vocab, merges = train_tokenizer(config.clip.vocab_size)
    own = {"xyz" if token == "".join(merges[-1]) else token: number for token, number in vocab.items()}
    export.write_model(folder, config, tensors, (own, [*merges[:-1], ("x", "yz")]), trained=True)
    companion = randomised(clip.ContrastiveModel(models["clip"], 128), 5).state_dict()
    companion = {name: weight for name, weight in companion.items() if not name.startswith("text_encoder.")}
    randomised(models["clip"], 2)
    loop.save_weights(folder / "picture_encoder.safetensors", companion)
    return folder / "model.safetensors", models


def test_training_goes_on_from_a_model_file(model_file, pictures, tmp_path):
    """Each part begins with the file's weights, the U-Net with its raw ones."""
    path, models = model_file
    config, cpu = tiny_config(), torch.device("cpu")
    unpack.unpack(path, config, tmp_path)
    assert vae.scaling_factor(tmp_path) == pytest.approx(config.vae.scaling_factor)
    parts = {
        "vae": vae.VAEPart(config.vae, pictures, cpu), "clip": clip.CLIPPart(config.clip, pictures, tmp_path, cpu),
        "unet": unet.UNetPart(config, pictures, tmp_path, loop.make_accelerator()),
    }
    began = {"vae": lambda: parts["vae"].model.vae, "clip": lambda: parts["clip"].model.text_encoder,
             "unet": lambda: parts["unet"].model}
    merges = (path.parent / "merges.txt").read_text(encoding="utf-8").splitlines()
    for part in (parts["clip"], parts["unet"]):  # the file's tokenizer, not the one that would be trained today
        assert part.tokenizer.rank[("x", "yz")] == len(merges) - 2
    for name, part in parts.items():
        part.read(tmp_path)
        for parameter, original in zip(began[name]().parameters(), models[name].parameters(), strict=True):
            assert torch.equal(parameter, original.half().float())
    beside = load_file(path.with_name("picture_encoder.safetensors"))
    assert torch.equal(parts["clip"].model.text_projection.weight, beside["text_projection.weight"])


def test_what_has_been_trained_since_is_kept(model_file, tmp_path):
    newer = randomised(VAE(tiny_config().vae), 9).state_dict()
    loop.save_weights(tmp_path / "vae.safetensors", newer)
    unpack.unpack(model_file[0], tiny_config(), tmp_path)
    assert torch.equal(load_file(tmp_path / "vae.safetensors")["quant_conv.weight"], newer["quant_conv.weight"])
    assert (tmp_path / "unet.safetensors").exists()


def few_steps(sampling, num_steps, guidance_scale):
    return sampling(min(num_steps, 2), guidance_scale)


@pytest.fixture(scope="module")
def film_run(model_file, tmp_path_factory):
    """The folder of a run that goes on from the model file, and its training of motion modules after two steps."""
    folder = tmp_path_factory.mktemp("film")
    unpack.unpack(model_file[0], tiny_config(), folder)
    films = load_pictures(folder, 4, tiny_config().image_size, frames=motion.FRAMES)
    set_seed(0)
    part = motion.MotionPart(tiny_config(), films, folder, loop.make_accelerator(), batch=1)
    before = {name: w.clone() for name, w in part.model.state_dict().items()}, part.check()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(motion, "SHEET_PROMPTS", motion.SHEET_PROMPTS[:1])
        patched.setattr(motion, "Sampling", functools.partial(few_steps, motion.Sampling))
        loop.train(part, loop.Settings(folder, steps=2), loop.make_accelerator())
    assert (folder / "motion.png").exists()
    return folder, part, *before


def test_films_are_drawn_and_shared_as_pictures_are(film_run, tmp_path):
    folder, part, *_ = film_run
    size = tiny_config().image_size
    assert part.pictures.images.shape == (4, motion.FRAMES, size, size, 3)
    assert part.moments.shape[0] == 4 * motion.FRAMES
    frames, captions = draw_film(0, 2, size, motion.FRAMES)
    assert np.array_equal(part.pictures.images[2], frames) and part.pictures.captions[2] == captions
    assert load_pictures(folder, 3, size, frames=motion.FRAMES).images.filename == part.pictures.images.filename


def test_only_motion_modules_are_trained(film_run):
    _, part, before, checked = film_run
    assert checked["mse_of_unseen"] == checked["mse_of_unseen_ema"] == checked["mse_without"]  # they begin at zero
    moved = {name for name, weight in part.model.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and not [name for name in moved if name.startswith("unet.")]
    assert all(f"{place}.proj_out.weight" in moved for place in ("down.0.0", "down.2.0", "up.0.1", "up.2.0"))


def test_diffusers_opens_the_motion_modules(film_run, tmp_path):
    from diffusers import MotionAdapter

    folder, part, *_ = film_run
    export.export_motion(folder, tmp_path)
    path = tmp_path / "motion.safetensors"
    file = load_file(path)
    adapter = MotionAdapter.from_config(MotionAdapter.load_config(tmp_path / "diffusers" / "motion_adapter"))
    tables = {name: table for name, table in adapter.state_dict().items() if name.endswith(".pe")}
    adapter.load_state_dict(file)
    assert tables and all(torch.allclose(file[name], table, atol=1e-6) for name, table in tables.items())
    modules, read = motion.modules_of(part.average), remap_motion(file)
    assert read.keys() == modules.keys()
    assert all(torch.equal(read[name], weight.half()) for name, weight in modules.items())
    with safe_open(path, "pt") as opened:
        assert opened.metadata()["num_heads"] == str(motion.CONFIG.num_heads)
    assert path.stat().st_size < 8e6


def test_motion_modules_go_on_from_the_file_beside_the_model(model_file, film_run, tmp_path):
    folder, part, *_ = film_run
    shutil.copytree(model_file[0].parent, tmp_path / "model")
    export.export_motion(folder, tmp_path / "model")
    unpack.unpack(tmp_path / "model", tiny_config(), tmp_path)
    began = motion.MotionPart(tiny_config(), part.pictures, tmp_path, loop.make_accelerator(), batch=1)
    began.read(tmp_path)
    read, modules = motion.modules_of(began.model), motion.modules_of(part.average)
    assert read.keys() == modules.keys()
    assert all(torch.equal(read[name], weight.half().float()) for name, weight in modules.items())


def test_films_are_trained_most_with_more_noise(film_run, monkeypatch):
    evenly = torch.arange(1000)
    moved = motion.with_more_noise(evenly)
    assert moved.dtype == torch.int64 and torch.equal(moved, moved.sort().values)
    odds = torch.logit((moved.double() + 0.5) / 1000)
    assert float(odds.mean()) == pytest.approx(0.5, abs=0.01) and float(odds.std()) == pytest.approx(1.0, abs=0.01)
    part, seen = film_run[1], []

    def noise_loss(unet, schedule, latents, noise, timesteps, context):
        seen.append(timesteps)
        return torch.zeros(())

    monkeypatch.setattr(part, "training", SimpleNamespace(**vars(part.training) | {"noise_loss": noise_loss}))
    for step in range(400):
        part.loss(part.model, 0.0, loop.step_generator(0, "motion", 0, step))
    assert all(len(timesteps.unique()) == 1 for timesteps in seen)  # all frames of a film have the same noise
    firsts = torch.stack(seen)[:, 0]
    assert 0.45 < float(((firsts >= 500) & (firsts < 850)).float().mean()) < 0.6  # evenly spread: 0.35
    assert 0 < int((firsts < moved.min()).sum()) < 20  # no timestep is left out


def test_a_model_file_of_another_size_is_refused(model_file, tmp_path):
    with pytest.raises(ValueError, match="of another size"):
        unpack.unpack(model_file[0], SMALL, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_goes_on_from_a_model_file(model_file, tmp_path, monkeypatch):
    """A step at a learning rate of next to nothing leaves the file's weights as they are."""
    options = "--part clip --steps 1 --pictures 16 --batch 4 --learning-rate 1e-12 --out".split()
    monkeypatch.setenv("CONTINUE", str(model_file[0]))
    assert run_train(*options, str(tmp_path / "run")) == 0
    after, before = load_file(tmp_path / "run" / "clip.safetensors"), model_file[1]["clip"].state_dict()
    assert all(torch.allclose(after[name], weight.half().float(), atol=1e-6) for name, weight in before.items())
    monkeypatch.setenv("CONTINUE", str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="no checkpoint"):
        run_train(*options, str(tmp_path / "run"))


def test_diffusers_opens_the_file(tmp_path):
    from diffusers import StableDiffusionPipeline

    assert run_train("--part", "untrained", "--export", str(tmp_path)) == 0
    pipeline = StableDiffusionPipeline.from_single_file(
        str(tmp_path / "model.safetensors"), config=str(tmp_path / "diffusers"), local_files_only=True
    )
    config = ModelConfig.from_json(tmp_path / "config.json")
    parts = split_checkpoint(load_file(tmp_path / "model.safetensors"))
    ours = UNet(config.unet)
    load_weights(ours, remap_unet(parts["unet"]))
    latents, context = torch.randn(2, 4, 16, 16), torch.randn(2, 77, 128)
    timesteps = torch.tensor([7, 801])
    with torch.no_grad():
        assert torch.allclose(
            ours(latents, timesteps, context), pipeline.unet(latents, timesteps, context).sample, atol=1e-5
        )
    assert pipeline.vae.config.scaling_factor == config.vae.scaling_factor


# ---- the command


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--part=encoder",
         "PART=encoder is not possible: choose vae, decoder, clip, unet, all, motion, export or untrained."),
        ("--minutes=soon", "MINUTES=soon is not a number."),
        ("--seed=4294967296", "SEED=4294967296 is not possible: choose 0 to 4294967295."),
        ("--minutes=-3", "MINUTES=-3 is not possible: choose a number above 0."),
        ("--steps=0", "STEPS=0 is not possible: choose 1 or more."),
    ],
)
def test_bad_options_are_refused_in_a_sentence(flag, says):
    with pytest.raises(Refusal, match=f"^{re.escape(says)}$"):
        run_train(flag)


def test_export_of_nothing_says_what_is_missing(tmp_path, capsys):
    assert cli.main(["train", "--part", "export", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("vae.safetensors is missing: make train PART=vae writes it.\n")


def test_two_exports_are_equal_bit_for_bit(tmp_path):
    """One of them in another process: what Python and Rust keep in tables of hashes has another order there."""
    assert run_train("--part=untrained", f"--export={tmp_path / 'one'}") == 0
    command = [sys.executable, "-m", "course", "train", "--part=untrained", f"--export={tmp_path / 'two'}"]
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    one, two = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
                for name in ("one", "two"))
    assert one.keys() == two.keys() and [path for path in one if one[path] != two[path]] == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory, pictures):
    """A run of one step for each part."""
    folder = tmp_path_factory.mktemp("trained")
    source = next(path for path in pictures.images.filename.parents if path.name.startswith("pictures-"))
    shutil.copytree(source, folder / source.name)
    for part in ("vae", "clip", "unet"):
        assert train_part(part, folder, steps=1) == 0
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def holds(content):
    return lambda path: path.write_bytes(content)


def saves(value):
    return lambda path: torch.save(value, path)


def without(name):
    return lambda path: (path / name).unlink()


@pytest.mark.parametrize(
    ("part", "name", "change", "says"),
    [
        ("clip", "pictures-*", without("captions.json"), "is not complete: delete it, and it is drawn anew."),
        ("clip", "pictures-*", without("pictures.npy"), "is not complete: delete it"),
        ("clip", "pictures-*/pictures.npy", cut, "is not complete: delete it"),
        ("clip", "pictures-*/captions.json", cut, "is not complete: delete it"),
        ("clip", "pictures-*/captions.json", holds(b"7"), "is not complete: delete it"),
        ("clip", "clip.state.pt", cut, "is damaged, or no saved training: delete it to begin anew."),
        ("clip", "clip.state.pt", holds(b""), "is damaged, or no saved training"),
        ("clip", "clip.state.pt", holds(b"hello"), "is damaged, or no saved training"),
        ("clip", "clip.state.pt", saves([1, 2]), "is damaged, or no saved training"),
        ("clip", "clip.state.pt", saves(torch.zeros(2)), "is damaged, or no saved training"),
        ("clip", "clip.state.pt", saves({"model": {}, "step": 1}), "is damaged, or no saved training"),
        ("clip", "clip.state.pt", saves({"model": {}, "optimizer": {}, "extra": {}, "step": 1, "elapsed": 1.0}),
         "belongs to a model of another size"),
        ("unet", "vae.safetensors", cut, "vae.safetensors is damaged: make train PART=vae writes it."),
        ("unet", "vae.safetensors", lambda path: save_file({"x": torch.zeros(1)}, path), "belongs to another model"),
        ("unet", "vae.json", holds(b"{}"), "vae.json is damaged: make train PART=vae writes it."),
        ("unet", "vae.json", holds(b""), "vae.json is damaged"),
        ("unet", "vae.json", lambda path: path.unlink(), "vae.json is missing: make train PART=vae writes it."),
        ("unet", "clip.safetensors", lambda path: path.unlink(), "clip.safetensors is missing: make train PART=clip"),
        ("export", "unet.log.jsonl", holds(b""), "unet.log.jsonl is damaged: make train PART=unet writes it."),
        ("export", "unet.log.jsonl", holds(b'{"step": "x"}'), "unet.log.jsonl is damaged"),
        ("export", "picture_encoder.safetensors", cut, "picture_encoder.safetensors is damaged"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_a_run_that_are_no_good_are_named(trained, tmp_path, part, name, change, says):
    folder = shutil.copytree(trained, tmp_path / "run", copy_function=os.link)
    (path,) = folder.glob(name)
    if path.is_file():  # the others are not written to
        path.unlink()
        shutil.copyfile(trained / path.relative_to(folder), path)
    change(path)
    with pytest.raises((ValueError, OSError)) as refused:
        train_part(part, folder, steps=2)
    said = sentence(refused.value)
    assert says in said and len(said.splitlines()) == 1, said


def test_latents_that_are_no_good_are_made_anew(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    latents = folder / "latents.safetensors"
    for change in (holds(b""), holds(b"hello" * 100), lambda path: save_file({"x": torch.zeros(1)}, path)):
        change(latents)
        assert not unet.is_current(latents, "digest", 1)
    shutil.copyfile(trained / "latents.safetensors", latents)
    cut(latents)
    assert train_part("unet", folder, steps=2) == 0
    made, before = load_file(folder / "latents.safetensors"), load_file(trained / "latents.safetensors")
    assert torch.equal(made["moments"], before["moments"])


def test_networks_that_are_kept_are_named_if_they_are_no_good(tmp_path):
    for load, name in ((load_judge, "judge.safetensors"), (load_light_finder, "lights.safetensors")):
        for change in (holds(b"hello"), lambda path: save_file({"x": torch.zeros(1)}, path)):
            change(tmp_path / name)
            with pytest.raises(ValueError, match=rf"{name} .*: delete it, and it is trained anew\.$"):
                load(tmp_path / name)


def test_part_and_minutes_from_the_environment(monkeypatch):
    monkeypatch.setenv("PART", "clip")
    monkeypatch.setenv("MINUTES", "2.5")
    options = command.TrainOptions.parse([], "train", "")
    assert options.part == "clip" and options.minutes == 2.5
    assert command.TrainOptions.parse(["--part", "vae"], "train", "").part == "vae"


# ---- whose stage 11


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """A learner's folder with stubs; the path of their stage 11."""
    monkeypatch.setenv("COURSE_EXERCISES", str(tmp_path / "exercises"))
    write_stubs()
    return STAGES[10].exercise


def train_part(part, folder, *options, steps=5):
    flags = f"--part {part} --steps {steps} --pictures 12 --batch 4 --threads 1 --out {folder}".split()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("course.core.config.tiny_config", lambda: TRAINED)
        return run_train(*flags, *options)


@pytest.mark.limit(200)
def test_the_learners_stage_trains_the_same_weights_bit_for_bit(learner, pictures, tmp_path, capsys):
    """Five steps of each part, with the reference and with the solution as the learner's file."""
    prepared = tmp_path / "prepared"
    source = next(path for path in pictures.images.filename.parents if path.name.startswith("pictures-"))
    shutil.copytree(source, prepared / source.name)
    weights = {}
    for who in ("reference", "learner"):
        folder = shutil.copytree(prepared, tmp_path / who)
        if who == "learner":
            shutil.copyfile(STAGES[10].solution, learner)
        for part in ("vae", "decoder", "clip", "unet"):
            assert train_part(part, folder) == 0
        shown = capsys.readouterr().out
        owner = f"yours ({learner})" if who == "learner" else "the reference's (solutions/stage11_training.py)"
        assert shown.count(f"Losses and steps are {owner}.") == 4
        weights[who] = {path.name: load_file(path) for path in folder.glob("*.safetensors") if path.stem != "latents"}
    assert {"vae.safetensors", "clip.safetensors", "unet_ema.safetensors"} <= set(weights["learner"])
    for name, tensors in weights["reference"].items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, weights["learner"][name][key]), (name, key)


def test_an_unfinished_stage_does_not_train(learner, pictures, tmp_path, capsys):
    assert train_part("vae", tmp_path / "run", steps=1) == 0
    assert "Losses and steps are the reference's" in capsys.readouterr().out
    with pytest.raises(StageError, match=r"needs stage11_training, and 1 are to do, from exercise 11\.1 on"):
        train_part("vae", tmp_path / "run", "--blocks", "exercises")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("error = outputs - images", "error = outputs - pictures", "NameError"),
        ("error = outputs - images", "error, _, _ = outputs - images", "ValueError"),
        ("    return loss.detach()", "    return None", "TypeError"),
    ],
)
def test_a_mistake_of_the_learner_is_named_with_its_file(learner, tmp_path, capsys, old, new, says):
    text = STAGES[10].solution.read_text(encoding="utf-8")
    assert text.count(f"    {old.strip()}\n") >= 1
    learner.write_text(text[::-1].replace(old[::-1], new[::-1], 1)[::-1], encoding="utf-8")
    assert train_part("vae", tmp_path / "run", steps=1) == 1
    shown = capsys.readouterr().err
    assert says in shown and "Traceback" not in shown and "BLOCKS=solutions does without it" in shown
    assert "stage11_training.py:" in shown or "make test" in shown


@pytest.mark.slow
@pytest.mark.limit(300)
def test_the_whole_training_in_two_steps(tmp_path):
    options = "--steps 2 --pictures 16 --batch 4 --threads 1 --out".split()
    run = [sys.executable, "-m", "course", "train", *options, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 40e6
    again = subprocess.run(run, capture_output=True, text=True)
    assert again.returncode == 0 and again.stdout.count("already trained") == 4
