"""Makes docs/page.gif: the page draws a picture, and shows where its words look.

.venv/bin/python -m tests.page.film [FOLDER OF THE PAGE]
"""

import io
import sys
import tempfile
import threading
import time
from pathlib import Path

from PIL import Image

from course.core.stages import ROOT
from course.core.writing import whole_file
from course.page import serve
from tests.page.chromium import Chromium

WINDOW = (1000, 900)
PROMPT = "a red house on a green hill at night"
WORDS = ("house", "hill", "night")


def take(browser: Chromium, folder: Path) -> Image.Image:
    """The part of the page with the pictures."""
    box = browser.run(
        "(({left, top, right, bottom}) => [left, top, right, bottom])"
        "(document.querySelector('#pictures').getBoundingClientRect())"
    )
    browser.screenshot(folder / "frame.png")
    picture = Image.open(io.BytesIO((folder / "frame.png").read_bytes())).convert("RGB")
    return picture.crop(tuple(round(at) for at in box))


def main(page: Path) -> None:
    frames: list[tuple[Image.Image, int]] = []
    with serve.server(page) as running, tempfile.TemporaryDirectory() as name:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        browser = Chromium()
        try:
            browser.resize(*WINDOW)
            browser.open(f"http://127.0.0.1:{running.server_port}/")
            browser.wait("document.querySelector('#order')?.dataset.done", seconds=300)
            count = int(browser.run("document.querySelector('#moment').max")) + 1
            for i in range(count):
                moment = "document.querySelector('#moment')"
                browser.run(f"{moment}.value = {i}; {moment}.dispatchEvent(new Event('input'))")
                time.sleep(1.5)  # until both pictures of this step are decoded
                frames.append((take(browser, Path(name)), 160 if i < count - 1 else 1200))
            for word in WORDS:
                tokens = "Array.from(document.querySelectorAll('#tokens button'))"
                browser.run(f"{tokens}.find((button) => button.textContent === '{word}').focus()")
                frames.append((take(browser, Path(name)), 1200))
        finally:
            browser.close()
            running.shutdown()
    together = Image.new("RGB", (frames[0][0].width, sum(frame.height for frame, _ in frames)))
    for i, (frame, _) in enumerate(frames):
        together.paste(frame, (0, i * frame.height))
    palette = together.quantize(255)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames]
    with whole_file(ROOT / "docs" / "page.gif") as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=[ms for _, ms in frames], loop=0
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "outputs" / "page")
