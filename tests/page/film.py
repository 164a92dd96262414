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
from tests.page.browser import Browser

SIZE = (960, 640)
PROMPT = "a red house on a green hill at night"
WORDS = ("house", "hill", "night")


def take(browser: Browser, folder: Path) -> Image.Image:
    browser.screenshot(folder / "frame.png")
    picture = Image.open(io.BytesIO((folder / "frame.png").read_bytes())).convert("RGB")
    return picture.crop((0, 0, *SIZE))


def main(page: Path) -> None:
    frames: list[tuple[Image.Image, int]] = []
    with serve.server(page) as running, tempfile.TemporaryDirectory() as name:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        browser = Browser()
        try:
            browser.resize(*SIZE)
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
    palette = frames[-1][0].quantize(128)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames]
    with whole_file(ROOT / "docs" / "page.gif") as temporary:
        pictures[0].save(
            temporary, "GIF", save_all=True, append_images=pictures[1:], duration=[ms for _, ms in frames], loop=0
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "outputs" / "page")
