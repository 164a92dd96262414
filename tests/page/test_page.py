"""`make page` and the page that it makes, in a browser. All of it in one file: the page is made once."""

import base64
import functools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from course import cli
from course.core.assemble import assemble, for_generating
from course.core.messages import Refusal
from course.core.stages import STAGES
from course.draw.checkpoint import build, open_checkpoint
from course.draw.pictures import read_settings
from course.page import build as building
from course.page import export, runtime, serve
from solutions.stage05_vae import tensor_to_images
from solutions.stage09_sampler import Sampling, text_to_image
from tests.page.browser import Browser, find_browser

pytestmark = pytest.mark.limit(600)
NEEDS_BROWSER = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium is installed (CHROME names one): the page is not tested in a browser"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, made of the solutions."""
    try:
        runtime.files()
    except Refusal as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("site") / "page"
    assert cli.main(["page", "--blocks=solutions", f"--out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with serve.server(folder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


@pytest.fixture(scope="module")
def tab(address: str) -> Iterator[Browser]:
    """A browser in which the page has drawn its first picture, by the prompt that it starts with."""
    browser = Browser()
    browser.resize(1200, 900)
    browser.open(address)
    browser.wait("document.querySelector('#save')?.hidden === false", seconds=240)
    yield browser
    browser.close()


def drawn(tab: Browser, **fields: object) -> numpy.ndarray:
    """Fills in the form, draws, and waits for the picture, (height, width, 3)."""
    for name, value in fields.items():
        event = "new Event('input', {bubbles: true})"
        tab.run(
            f"{{const e = document.querySelector('#{name}'); e.value = {json.dumps(value)}; e.dispatchEvent({event})}}"
        )
    tab.run("document.querySelector('#draw').click()")
    tab.wait("document.querySelector('#stop').disabled && !document.querySelector('#save').hidden")
    return pixels(tab, "guess")


def pixels(tab: Browser, canvas: str) -> numpy.ndarray:
    data = tab.run(
        f"{{const c = document.querySelector('#{canvas}');"
        "Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)}"
    )
    side = int((len(data) / 4) ** 0.5)
    return numpy.array(data, dtype=numpy.uint8).reshape(side, side, 4)[..., :3]


@functools.cache
def model():
    blocks = for_generating("solutions", fused=True)
    return build(blocks, open_checkpoint())


def by_python(prompt: str, negative: str, seed: int, steps: int, scale: float, sampler: str) -> numpy.ndarray:
    """The same picture by the stages."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 4, 16, 16, generator=generator)
    tensor = text_to_image(model(), [prompt], [negative], noise, Sampling(steps, scale, sampler, generator))
    return tensor_to_images(tensor)[0].numpy()


def farthest(one: numpy.ndarray, other: numpy.ndarray) -> int:
    assert one.shape == other.shape
    return int(numpy.abs(one.astype(int) - other.astype(int)).max())


# --- making it ---


def test_the_page_holds_what_it_says(folder):
    about = json.loads((folder / "page.json").read_text(encoding="utf-8"))
    found = building.sizes(folder)
    assert about["files"] == {name: size for name, size in found.items() if name != "page.json"}
    weights = sum(size for name, size in found.items() if name.startswith("model/"))
    assert weights < 22e6, "the weights are to be below 22 MB"
    assert [block["yours"] for block in about["blocks"]] == [False] * 10
    assert str(building.ROOT).encode() not in b"".join(path.read_bytes() for path in folder.glob("**/*.*"))
    options = building.PageOptions(out=folder, blocks="solutions")
    assert building.is_up_to_date(options)
    (folder / "page.json").write_text(json.dumps(about | {"made_of": "something else"}), encoding="utf-8")
    assert not building.is_up_to_date(options)
    (folder / "page.json").write_text(json.dumps(about), encoding="utf-8")


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert cli.main(["page", f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err.endswith(" is there and holds no page: name a new folder.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_without_the_internet_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(runtime.shutil, "which", lambda name: None)
    monkeypatch.setattr(runtime, "REGISTRY", "http://127.0.0.1:9")
    assert cli.main(["page", "--blocks=solutions", f"--out={tmp_path / 'page'}"]) == 2
    assert "`make page` needs the internet the first time." in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_the_cache_is_not_used(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(runtime, "CACHE", tmp_path)
    monkeypatch.setattr(runtime, "fetch", lambda: fetched.append(1))
    for name in runtime.FILES:
        (tmp_path / name).write_bytes(b"damaged")
    runtime.files()
    assert fetched == [1]


class Plain(nn.Module):
    def forward(self, x):
        return 2 * x


class Branching(nn.Module):
    def forward(self, x):
        return x if float(x.mean()) > 0 else -x


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * self.calls


def test_what_cannot_be_recorded_is_noticed():
    x = {"x": torch.linspace(1, 2, 6)}
    export.record(export.Network(Plain(), x, ("y",)))
    with pytest.raises(export.NotRecorded):
        export.record(export.Network(Branching(), x, ("y",)))
    with pytest.raises(export.NotRecorded, match="another result"):
        export.record(export.Network(Frozen(), x, ("y",)))


def test_the_reference_stands_in_for_a_stage_that_cannot_be_recorded(tmp_path, monkeypatch, capsys):
    """Stage 2 decides by a number what to do, and stage 3 is all right; the networks are the stages' own parts."""
    texts = {number: STAGES[number - 1].solution.read_text(encoding="utf-8") for number in (2, 3)}
    texts[2] = texts[2].replace(
        "return x * torch.sigmoid(x)", "return x * torch.sigmoid(x) if float(x.max()) < 1e9 else x"
    )
    paths = {stage.number: stage.solution for stage in STAGES[:10]}
    for number, text in texts.items():
        paths[number] = tmp_path / f"{STAGES[number - 1].module}.py"
        paths[number].write_text(text, encoding="utf-8")

    def networks(blocks, model, config):
        block = blocks[2].ResidualBlock(8, 8, num_groups=2)
        inputs = {"x": torch.linspace(-1, 1, 8 * 16).reshape(1, 8, 4, 4)}
        attention = blocks[3].PixelAttention(8, num_groups=2)
        return {
            name: export.Network(attention if name == "text_encoder" else block, inputs, ("y",))
            for name in export.STAGES_OF
        }

    monkeypatch.setattr(export, "networks", networks)
    monkeypatch.setattr("course.draw.checkpoint.build", lambda *_: None)
    opened = open_checkpoint()
    blocks, refused, recorded = building.record_all(assemble(paths, fused=True), opened, only_theirs=False)
    assert list(refused) == [2] and blocks.origin[2] == "solutions" and blocks.origin[3] == "exercises"
    assert set(recorded) == set(export.STAGES_OF)
    said = capsys.readouterr().out
    assert said.startswith("stage 2 residual cannot be recorded for a browser (") and "the reference stands in" in said
    with pytest.raises(Refusal, match=r"^stage 2 residual cannot be recorded"):
        building.record_all(assemble(paths, fused=True), opened, only_theirs=True)


# --- in the browser ---


@NEEDS_BROWSER
@pytest.mark.parametrize(
    ("sampler", "scale", "steps", "negative"),
    [("ddim", 4.0, 8, ""), ("ddpm", 4.0, 8, "a tree"), ("euler", 1.0, 6, ""), ("dpm++2m", 7.5, 10, "a blue car")],
)
def test_it_draws_what_python_draws(tab, sampler, scale, steps, negative):
    order = {"prompt": "a yellow car in the desert at sunset", "negative": negative, "seed": 11}
    found = drawn(tab, **order, steps=steps, scale=scale, sampler=sampler)
    assert farthest(found, by_python(**order, steps=steps, scale=scale, sampler=sampler)) <= 2


@NEEDS_BROWSER
def test_the_file_that_is_saved_repeats_the_picture(tab, tmp_path):
    text = '<img src=x onerror="document.title=1"> & "quotes" ü a red boat'
    found = drawn(tab, prompt=text, negative="", seed=5, steps=2, scale=4, sampler="ddim")
    assert tab.run("document.title") == "Stable Diffusion in this page", "the prompt became HTML"
    name = tab.run("document.querySelector('#save').download")
    assert name == "img-src-x-onerror-document-title-1-quote-5.png"
    script = """
        fetch(document.querySelector('#save').href).then((answer) => answer.arrayBuffer())
        .then((bytes) => btoa(Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join("")))
    """
    saved = tmp_path / name
    saved.write_bytes(base64.b64decode(tab.run(script)))
    with Image.open(saved) as file:
        assert numpy.array_equal(numpy.array(file.convert("RGB")), found)
    assert read_settings(saved)["prompt"] == text
    again = tmp_path / "again.png"
    assert cli.main(["generate", f"--from={saved}", "--blocks=solutions", f"--out={again}"]) == 0
    with Image.open(again) as file:
        assert farthest(numpy.array(file), found) <= 2


@NEEDS_BROWSER
def test_it_stops_and_shows_how_far_it_came(tab):
    tab.run("document.querySelector('#steps').value = 50; document.querySelector('#draw').click()")
    tab.wait("document.querySelector('#moment').max >= 1")
    tab.press("Escape", 27)
    tab.wait("document.querySelector('#status').textContent.startsWith('Stopped after')")
    count = int(tab.run("document.querySelector('#status').textContent").split()[2])
    assert 1 < count < 50
    assert tab.run("document.querySelector('#moment').max") == str(count - 1)
    assert tab.run("document.querySelector('#stop').disabled && document.querySelector('#save').hidden")


@NEEDS_BROWSER
def test_each_step_can_be_looked_at_again(tab):
    last = drawn(tab, prompt="a blue boat on the sea", seed=2, steps=5, sampler="ddim")
    tab.run("{const m = document.querySelector('#moment'); m.value = 0; m.dispatchEvent(new Event('input'))}")
    tab.wait("document.querySelector('#moment-value').value.startsWith('1 of 5, timestep 801')")
    tab.wait("document.querySelector('#moment').ariaValueText === document.querySelector('#moment-value').value")
    first = pixels(tab, "guess")
    assert farthest(first, last) > 50
    assert numpy.abs(numpy.diff(pixels(tab, "noisy").astype(int), axis=0)).mean() > 5


@NEEDS_BROWSER
def test_a_prompt_that_is_too_long_is_told(tab):
    tab.run(
        "{const p = document.querySelector('#prompt'); p.value = 'red '.repeat(75) + 'yellow boat';"
        "p.dispatchEvent(new Event('input', {bubbles: true}))}"
    )
    tab.wait("document.querySelector('#cut').textContent === 'The prompt is too long; cut off: yellow boat'")
    tab.run(
        "{const p = document.querySelector('#prompt'); p.value = 'a red';"
        "p.dispatchEvent(new Event('input', {bubbles: true}))}"
    )
    tab.wait("document.querySelector('#cut').textContent === ''")
    tab.run("[...document.querySelectorAll('#words button')].find((b) => b.textContent === 'mushroom').click()")
    assert tab.run("document.querySelector('#prompt').value") == "a red mushroom"


@NEEDS_BROWSER
@pytest.mark.parametrize("width", [320, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window_and_the_colours_can_be_read(tab, width, dark):
    tab.resize(width, 800, dark)
    assert tab.run("document.documentElement.scrollWidth") <= width
    script = """
    (() => {
      const bright = (text) => {
        const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = (e) => {
        const own = getComputedStyle(e).backgroundColor;
        return own === "rgba(0, 0, 0, 0)" && e.parentElement ? ground(e.parentElement) : own;
      };
      return [...document.querySelectorAll("p, label, button:enabled, figcaption, h1, h2, input, a, legend, summary")]
        .map((e) => {
        const pair = [bright(getComputedStyle(e).color), bright(ground(e))].sort((a, b) => b - a);
        return [(pair[0] + 0.05) / (pair[1] + 0.05), e.outerHTML.slice(0, 60)];
      });
    })()
    """
    for contrast, what in tab.run(script):
        assert contrast >= 4.5, what


@NEEDS_BROWSER
def test_everything_has_a_name_and_the_keyboard_reaches_it(tab):
    nodes = tab.send("Accessibility.getFullAXTree")["nodes"]
    kinds = {
        "button",
        "textbox",
        "slider",
        "spinbutton",
        "combobox",
        "img",
        "image",
        "checkbox",
        "progressbar",
        "link",
        "Canvas",
    }
    for node in nodes:
        if not node.get("ignored") and node["role"]["value"] in kinds:
            assert node.get("name", {}).get("value", "").strip(), node
    tab.run("document.querySelector('#prompt').focus()")
    reached = []
    for _ in range(60):
        tab.press("Tab", 9)
        reached.append(tab.run("document.activeElement.id"))
    assert {"negative", "seed", "dice", "sampler", "steps", "scale", "draw", "moment"} <= set(reached)


@NEEDS_BROWSER
def test_no_request_leaves_the_host_and_the_console_is_silent(tab, address):
    assert tab.complaints == []
    assert len(tab.requests) > 15
    away = [url for url in tab.requests if not url.startswith((address, f"blob:{address}", "about:"))]
    assert away == []


@NEEDS_BROWSER
def test_it_draws_without_a_network_and_without_the_hosts_headers(folder, monkeypatch):
    """A host that sends no headers: one thread at first, and threads once the page keeps itself."""
    monkeypatch.setattr(serve.Handler, "headers_sent", {})
    engine = "document.querySelector('#engine')?.textContent"
    finished = "document.querySelector('#save')?.hidden === false"
    with serve.server(folder) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        browser = Browser()
        try:
            browser.open(f"http://127.0.0.1:{running.server_port}/")
            browser.wait(finished, seconds=240)
            assert browser.run("crossOriginIsolated") is False and "on 1 thread." in browser.run(engine)
            first = pixels(browser, "guess")
            browser.wait("navigator.serviceWorker.controller")
            browser.run("navigator.serviceWorker.ready.then(() => true)")
            running.shutdown()
            running.server_close()
            browser.send("Page.reload", {"ignoreCache": False})
            browser.wait(f"crossOriginIsolated && {finished}", seconds=240)
            assert farthest(pixels(browser, "guess"), first) <= 1
        finally:
            browser.close()
