"""What the page's JavaScript repeats of the stages gives what the stages give."""

import base64
import io
import random
import struct
from dataclasses import asdict

import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from course.core.assemble import for_generating
from course.draw.checkpoint import TINY, read_tokenizer
from course.draw.pictures import parameters, read_settings
from course.draw.settings import Settings
from course.feedback.mistakes import find_mistake, wrong_text
from course.page.build import MISTAKES
from course.scenes.captions import caption
from course.scenes.scenes import sample_scene
from solutions.stage05_vae import images_to_tensor, tensor_to_images
from solutions.stage06_clip import Tokenizer
from solutions.stage08_scheduler import NoiseSchedule, ddim_step, ddpm_step, dpm_solver_2m_step, euler_step
from solutions.stage09_sampler import SAMPLERS, Sampling, StableDiffusion, denoise, timesteps_for
from tests.page.node import NEEDS_NODE, node

pytestmark = [NEEDS_NODE, pytest.mark.limit(120)]

# Of every kind that the tokenizer tells apart, and such that change when they are composed or made lower case.
CHARACTERS = (
    "abcXYZ'’sStTreVvMmLldD0123456789²½Ⅷ٣१!?.,;:-_()[]{}<>|/\\\"#@&%$€+=*~^`´"
    " \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u200b\u3000"
    "äöüÄÖÜßéèÉñçøåÅÆĲſİıǅΣσςΑάЖжяІіאבعربيहिन्दीไทย漢字かなカナ한국어한ﬁＡｂ１😀👍🏽👨‍👩‍👧🇩🇪e\u0301A\u030aq\u0307\u0323\ufeff\x00\x7f"
)
MARKED = ("<|startoftext|>", "<|endoftext|>", "<|startoftext", "it's", "WE'LL", "o'clock", "'s'", "</w>", "a</w>b")


def tokenizer() -> Tokenizer:
    return Tokenizer(*read_tokenizer(TINY.parent))


def prompts() -> list[str]:
    rng = random.Random(19)
    found = ["", " ", "a", *MARKED]
    while len(found) < 500:
        found.append(caption(sample_scene(rng), rng))
    while len(found) < 1000:
        letters = "".join(rng.choice(CHARACTERS) for _ in range(rng.choice((1, 3, 10, 40, 150))))
        place = rng.randrange(len(letters))
        found.append(letters[:place] + rng.choice(("", *MARKED)) + letters[place:])
    return found


def test_a_thousand_prompts_get_the_ids_of_stage_6(tmp_path):
    script = """
    import fs from "node:fs";
    import { Tokenizer, read_merges } from "site/stage06_clip.js";
    function answer({ vocab, merges, prompts }) {
      const pairs = read_merges(fs.readFileSync(merges, "utf8"));
      const tokenizer = new Tokenizer(JSON.parse(fs.readFileSync(vocab)), pairs, 77);
      return prompts.map((prompt) => [tokenizer.row(prompt), tokenizer.decode(tokenizer.tokenize(prompt))]);
    }
    """
    texts, ours = prompts(), tokenizer()
    given = {"vocab": str(TINY.parent / "vocab.json"), "merges": str(TINY.parent / "merges.txt"), "prompts": texts}
    for prompt, (row, decoded) in zip(texts, node(tmp_path, script, given), strict=True):
        assert row == ours(prompt)[0].tolist(), repr(prompt)
        assert decoded == ours.decode(ours.tokenize(prompt)), repr(prompt)


def test_the_schedule_is_that_of_stage_8(tmp_path):
    counts = [(1, 1), (1, 2), (7, 7), (7, 8), (25, 25), (25, 26), (50, 50), (50, 51), (333, 333)]
    strengths = [(n, s) for n in (1, 10, 25, 50) for s in (0.01, 0.29, 0.3, 0.58, 0.7, 1.0)]
    script = """
    import { NoiseSchedule } from "site/stage08_scheduler.js";
    function answer({ counts, strengths }) {
      const schedule = new NoiseSchedule();
      return {
        betas: schedule.betas, alphas: schedule.alphas_cumprod, ends: [schedule.alpha_bar(-1), schedule.alpha_bar(999)],
        timesteps: counts.map(([n, intervals]) => schedule.inference_timesteps(n, intervals)),
        starts: strengths.map(([n, strength]) => schedule.start_index(n, strength)),
      };
    }
    """
    found, schedule = node(tmp_path, script, {"counts": counts, "strengths": strengths}), NoiseSchedule()
    assert found["betas"] == pytest.approx(schedule.betas.tolist(), rel=1e-12)
    assert found["alphas"] == pytest.approx(schedule.alphas_cumprod.tolist(), rel=1e-10)
    assert found["ends"] == [1.0, pytest.approx(schedule.alpha_bar(999), rel=1e-10)]
    assert found["timesteps"] == [schedule.inference_timesteps(*count) for count in counts]
    assert found["starts"] == [schedule.start_index(*strength) for strength in strengths]


STEPS = {
    "ddim_step": ddim_step,
    "ddpm_step": ddpm_step,
    "euler_step": euler_step,
    "dpm_solver_2m_step": dpm_solver_2m_step,
}


def numbers(seed: int, size: int = 64) -> Tensor:
    return torch.randn(1, 4, 4, size // 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", STEPS)
def test_each_step_is_that_of_stage_8(tmp_path, name):
    latents, noise, third = numbers(1), numbers(2), numbers(3)
    others = {"ddpm_step": [[third]], "dpm_solver_2m_step": [[None, None], [999, third]]}.get(name, [[]])
    cases = [(t, after, other) for t, after in ((961, 921), (500, 1), (41, 1), (1, -1)) for other in others]
    plain = [
        (t, after, [o.flatten().tolist() if isinstance(o, Tensor) else o for o in other]) for t, after, other in cases
    ]
    script = f"""
    import {{ NoiseSchedule, {name} }} from "site/stage08_scheduler.js";
    function answer({{ latents, noise, cases }}) {{
      const numbers = (x) => Array.isArray(x) ? Float32Array.from(x) : x;
      return cases.map(([t, next, others]) =>
        {name}(new NoiseSchedule(), numbers(latents), numbers(noise), t, next, ...others.map(numbers)));
    }}
    """
    given = {"latents": latents.flatten().tolist(), "noise": noise.flatten().tolist(), "cases": plain}
    for (t, after, other), found in zip(cases, node(tmp_path, script, given), strict=True):
        precise = [o.double() if isinstance(o, Tensor) else o for o in other]
        wanted = STEPS[name](NoiseSchedule(), latents.double(), noise.double(), t, after, *precise).flatten()
        error = (torch.tensor(found, dtype=torch.float64) - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-6, f"from {t} to {after}"


@pytest.mark.parametrize("size", [16, 24, 1000, 1024])
def test_a_seed_gives_torchs_noise(tmp_path, size):
    seeds = [0, 7, 2**31 - 1, 2**32 + 5, 2**53 - 1]
    script = """
    import { Generator } from "site/noise.js";
    function answer({ seeds, size }) {
      return seeds.map((seed) => {
        const generator = new Generator(seed);
        return [generator.randn(size), generator.randn(size)];
      });
    }
    """
    for seed, found in zip(seeds, node(tmp_path, script, {"seeds": seeds, "size": size}), strict=True):
        generator = torch.Generator().manual_seed(seed)
        wanted = torch.stack([torch.randn(size, generator=generator) for _ in range(2)])
        torch.testing.assert_close(
            torch.tensor(found), wanted, rtol=0.0, atol=5e-6, msg=lambda m, s=seed: f"seed {s}: {m}"
        )


class PretendedUNet(torch.nn.Module):
    """Something that depends on all three inputs."""

    def forward(self, latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        return 0.3 * latents + (context.mean((1, 2)) + timesteps / 1000)[:, None, None, None]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_all_steps_are_those_of_stage_9(tmp_path, sampler, scale):
    script = """
    import { NoiseSchedule } from "site/stage08_scheduler.js";
    import { denoise, keep_unmasked, timesteps_for } from "site/stage09_sampler.js";
    import { Generator } from "site/noise.js";
    async function answer({ sampler, scale, contexts, mask, original }) {
      const generator = new Generator(5), schedule = new NoiseSchedule();
      const draw_noise = () => generator.randn(64);
      const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
      const unet = async (latents, timestep, context) =>
        ({ noise: latents.map((x) => 0.3 * x + mean(context) + timestep / 1000) });
      const noise = draw_noise();
      const sampling = { num_steps: 6, guidance_scale: scale, sampler, draw_noise };
      const pair = { context: contexts[0], negative_context: scale === 1 ? null : contexts[1] };
      const after = keep_unmasked(schedule, Float32Array.from(original), Float32Array.from(mask), noise);
      const steps = [];
      const timesteps = timesteps_for(schedule, sampling);
      for await (const step of denoise(unet, schedule, noise, timesteps, () => pair, sampling, after)) steps.push(step);
      return steps;
    }
    """
    schedule, original = NoiseSchedule(), numbers(8)
    mask = (numbers(9)[:, :1] > 0).float()
    contexts = [torch.full((1, 2, 3), 0.2), torch.full((1, 2, 3), -0.1)]
    given = {
        "sampler": sampler,
        "scale": scale,
        "contexts": [c.flatten().tolist() for c in contexts],
        "mask": mask.flatten().tolist(),
        "original": original.flatten().tolist(),
    }
    found = node(tmp_path, script, given)
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(1, 4, 4, 4, generator=generator)

    def keep(latents: Tensor, after: int) -> Tensor:
        kept = original if after < 0 else schedule.add_noise(original, noise, torch.tensor([after]))
        return mask * latents + (1 - mask) * kept

    model = StableDiffusion(None, None, PretendedUNet(), None, schedule)
    sampling = Sampling(6, scale, sampler, generator)
    wanted = list(
        denoise(
            model,
            noise,
            timesteps_for(schedule, sampling),
            contexts[0],
            None if scale == 1 else contexts[1],
            sampling,
            keep,
        )
    )
    assert [(s["index"], s["count"], s["timestep"]) for s in found] == [(s.index, s.count, s.timestep) for s in wanted]
    for ours, theirs in zip(found, wanted):
        for name in ("latents", "original"):
            torch.testing.assert_close(
                torch.tensor(ours[name]),
                getattr(theirs, name).flatten(),
                rtol=1e-5,
                atol=1e-5,
                msg=lambda m, n=name: f"{n}: {m}",
            )


STEPS_WITH_A_MISTAKE = """
import { plan } from "site/mistakes.js";
import { denoise } from "site/stage09_sampler.js";
import { Generator } from "site/noise.js";
async function answer({ mistake, sampler, contexts }) {
  const generator = new Generator(5);
  const draw_noise = () => generator.randn(64);
  const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
  const unet = async (latents, timestep, context) =>
    ({ noise: latents.map((x) => 0.3 * x + mean(context) + timestep / 1000) });
  const noise = draw_noise();
  const planned = plan(mistake, { num_steps: 6, guidance_scale: 4, sampler, draw_noise });
  const pair = { context: contexts[0], negative_context: contexts[1] };
  const steps = [];
  for await (const step of denoise(unet, planned.schedule, noise, planned.timesteps, () => pair, planned.sampling)) {
    steps.push(step);
  }
  return steps;
}
"""


@pytest.mark.parametrize("mistake", [*MISTAKES, None])
def test_a_mistake_does_what_that_of_the_catalogue_does(tmp_path, mistake):
    sampler = (mistake and MISTAKES[mistake][1]) or "dpm++2m"
    contexts = [torch.full((1, 2, 3), 0.2), torch.full((1, 2, 3), -0.1)]
    given = {"mistake": mistake, "sampler": sampler, "contexts": [c.flatten().tolist() for c in contexts]}
    found = node(tmp_path, STEPS_WITH_A_MISTAKE, given)
    overrides = {}
    if mistake:
        stage, entry = find_mistake(mistake)
        overrides[stage.number] = wrong_text(stage.number, entry)
    blocks = for_generating("solutions", overrides=overrides)
    torch.manual_seed(5)  # one of the mistakes draws without a generator
    noise = torch.randn(1, 4, 4, 4)
    schedule, sampling = blocks[8].NoiseSchedule(), blocks[9].Sampling(6, 4.0, sampler)
    model = StableDiffusion(None, None, PretendedUNet(), None, schedule)
    timesteps = blocks[9].timesteps_for(schedule, sampling)
    wanted = list(blocks[9].denoise(model, noise, timesteps, *contexts, sampling))
    assert [step["timestep"] for step in found] == [step.timestep for step in wanted]
    for ours, theirs in zip(found, wanted):
        size = theirs.latents.abs().max()
        latents = torch.tensor(ours["latents"])
        torch.testing.assert_close(latents / size, theirs.latents.flatten() / size, rtol=0.0, atol=1e-5)


def test_pictures_go_in_and_out_as_in_stage_5(tmp_path):
    script = """
    import { images_to_tensor, tensor_to_images } from "site/stage05_vae.js";
    const answer = ({ rgba, tensor }) =>
      [images_to_tensor(Uint8ClampedArray.from(rgba)), tensor_to_images(Float32Array.from(tensor))];
    """
    rgba = torch.randint(0, 256, (4, 5, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    tensor = torch.linspace(-1.3, 1.3, 3 * 4 * 5).reshape(1, 3, 4, 5)
    given = {"rgba": rgba.flatten().tolist(), "tensor": tensor.flatten().tolist()}
    into, out = node(tmp_path, script, given)
    torch.testing.assert_close(torch.tensor(into), images_to_tensor(rgba[None, ..., :3]).flatten())
    opaque = torch.cat([tensor_to_images(tensor)[0], torch.full((4, 5, 1), 255, dtype=torch.uint8)], dim=-1)
    assert out == opaque.flatten().tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "prompt": 'über <b>"bold"</b>,\nNegative prompt: 雪',
            "negative": "a, b: c",
            "scale": 7.5,
            "sampler": "dpm++2m",
        },
        {
            "checkpoint": "runs/mine/model.safetensors",
            "mistake": "stage08/betas-not-squared",
            "init": "a.png",
            "mask": "b.png",
        },
        {"init": "a.png", "strength": 0.55, "seed": 2**53 - 1},
    ],
)
def test_a_picture_remembers_what_make_generate_needs(tmp_path, changes):
    picture = Image.fromarray(numpy.arange(16 * 16 * 3, dtype=numpy.uint8).reshape(16, 16, 3))
    bare = io.BytesIO()
    picture.save(bare, "PNG")
    settings = asdict(Settings(seed=3, scale=4.0, width=16, height=16)) | changes
    script = """
    import { with_settings } from "site/png.js";
    async function answer({ png, settings }) {
      const file = with_settings(Uint8Array.from(Buffer.from(png, "base64")), settings);
      return Buffer.from(await file.arrayBuffer()).toString("base64");
    }
    """
    given = {"png": base64.b64encode(bare.getvalue()).decode(), "settings": settings}
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(node(tmp_path, script, given)))
    assert read_settings(path) == settings
    with Image.open(path) as file:
        file.load()
        assert numpy.array_equal(numpy.array(file), numpy.array(picture))
        assert file.text["parameters"] == parameters(settings, file.size)
        assert {name: file.text[name] for name in ("prompt", "negative", "seed")} == {
            name: str(settings[name]) for name in ("prompt", "negative", "seed")
        }
    chunks, data = [], path.read_bytes()[8:]
    while data:
        (length,) = struct.unpack(">I", data[:4])
        chunks.append(data[4:8])
        data = data[12 + length :]
    assert chunks[0] == b"IHDR" and chunks[-1] == b"IEND" and b"iTXt" in chunks


STAND_INS = """
import { choose, compare, decide, report } from "site/webgpu/engine.js";
let clock = 0;
globalThis.performance = { now: () => clock };
let busy = Promise.resolve();
const alone = (job) => {
  const done = busy.then(job);
  busy = done.catch(() => {});
  return done;
};
/** An engine whose calls take some milliseconds, the first one more, and give numbers. */
const engine = (numbers, milliseconds) => ({
  calls: 0,
  async run() {
    clock += this.calls === 0 ? 100 * milliseconds : milliseconds;
    this.calls += 1;
    return { noise: Float32Array.from(numbers, (one) => one ?? NaN) };
  },
});
"""


@pytest.mark.parametrize(
    ("numbers", "milliseconds", "on_its_own", "forced", "calls"),
    [
        ([1, -4, 2], 10, True, True, 4),
        ([1, -4.003, 2], 10, True, True, 4),
        ([1, -4, 2], 30, False, True, 4),
        ([1, -4, 2], 100, False, True, 2),
        ([1.005, -4, 2], 10, False, False, 4),
        ([1, None, 2], 10, False, False, 4),
        ([1, -4], 10, False, False, 4),
    ],
    ids=["sooner", "nearly the same", "later", "much later", "other numbers", "not a number", "too few"],
)
def test_the_graphics_card_runs_what_it_gives_right_and_sooner(
    tmp_path, numbers, milliseconds, on_its_own, forced, calls
):
    script = STAND_INS + """
    async function answer({ numbers, milliseconds }) {
      const [processor, graphics] = [engine([1, -4, 2], 20), engine(numbers, milliseconds)];
      const found = await compare("unet", {}, processor, graphics, alone);
      const names = ["auto", "graphics"].map((choice) => decide([found], choice));
      return { found, names, calls: graphics.calls, text: report([found], names[0], "2 threads") };
    }
    """
    answer = node(tmp_path, script, {"numbers": numbers, "milliseconds": milliseconds})
    assert (answer["found"]["processor"], answer["found"]["graphics"]) == (20, milliseconds)
    assert answer["names"] == [["unet"] if on_its_own else [], ["unet"] if forced else []]
    assert answer["calls"] == calls, "one to load, and no more than one to time if there is no hope"
    times = f"A call of the U-Net takes 20 ms on the processor (2 threads), {milliseconds} ms on the graphics card."
    assert answer["text"].startswith(times)
    assert ("gives other numbers" in answer["text"]) is not forced
    assert answer["text"].endswith("The U-Net runs on the graphics card." if on_its_own else "run on the processor.")


def test_a_choice_holds_from_the_next_picture_on_and_a_failure_ends_it(tmp_path):
    script = STAND_INS + """
    let [started, ended, calls, broken, then] = [0, 0, 0, false, () => {}];
    globalThis.Worker = class {
      constructor() { started += 1; }
      terminate() { ended += 1; }
      postMessage({ id, name }) {
        clock += 10;
        then(calls += 1);
        const data = broken ? { id, error: "It broke." } : { id, results: { noise: [1, 2] } };
        setTimeout(() => this.onmessage({ data }));
      }
    };
    const networks = {
      about: { max_length: 3 }, latent_size: 4, elsewhere: {}, how_many: "1 thread", on_processor: "On the processor.",
      encode_prompt: async (ids) => ids, unet_inputs: () => ({}), decoder_inputs: () => ({}),
      processor: { async run() { clock += 20; return { noise: [1, 2] }; } },
    };
    async function answer() {
      const said = [];
      const state = () => [Object.keys(networks.elsewhere), started, ended];
      const want = (choice) => choose(networks, choice, alone, (on, text) => said.push([on, text]));
      const states = [];
      await want("auto"); states.push(state());
      networks.on_failure(new Error("It is gone.")); networks.elsewhere = {}; states.push(state());
      await want("graphics"); states.push(state());
      await want("processor"); states.push(state());
      await Promise.all([want("graphics"), want("processor")]); states.push(state());
      for (let last = 1; last <= 8; last += 1) { // of the calls of a trial: in it the mind is changed
        calls = 0;
        let other;
        then = (call) => call === last && (other = want("processor"));
        await want("graphics");
        await other;
        states.push(state());
      }
      then = () => {};
      broken = true;
      await want("auto"); states.push(state());
      return { said, states };
    }
    """
    both = ["unet", "decoder"]
    answer = node(tmp_path, script)
    assert [state[0] for state in answer["states"]] == [both, [], both, *[[]] * 11]
    for _, started, ended in answer["states"][3:]:
        assert ended >= started, "what is not used is ended"
    kinds = [on for on, _ in answer["said"]]
    failing, choosing = ["trying", "graphics", "failed"], ["trying", "graphics", "processor"]
    changing_at_once, changing_later = ["processor"], ["trying", "processor"]
    assert kinds == [*failing, *choosing, *changing_at_once, *8 * changing_later, "trying", "failed"]
    assert answer["said"][1][1].endswith("The U-Net and the decoder run on the graphics card.")
    assert answer["said"][2][1] == "The graphics card failed (It is gone). On the processor."
    assert answer["said"][-1][1] == "The graphics card failed (It broke). On the processor."
