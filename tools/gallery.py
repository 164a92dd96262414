"""`python -m tools.gallery`: the README's pictures, the first of each stage, small and without words around it."""

import importlib

import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image, ImageOps

from course.core.assemble import for_generating
from course.core.stages import ENCORE, ROOT, STAGES, short_path
from course.core.writing import whole_file
from course.draw.checkpoint import TINY
from course.studio.studio import Studio

FOLDER = ROOT / "docs" / "stages"
SIZE = (640, 320)  # pixels


def main() -> None:
    encore = [stage.number for stage in ENCORE]
    studio = Studio(for_generating("solutions", fused=True, encore=encore).load(), TINY)
    for stage in STAGES:
        figure = importlib.import_module(f"course.show.{stage.module}").PICTURES[0](studio).figure
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = Image.fromarray(numpy.asarray(canvas.buffer_rgba())).convert("RGB")
        small = ImageOps.pad(picture, SIZE, Image.Resampling.LANCZOS, color="white")
        small = small.quantize(256, Image.Quantize.MAXCOVERAGE)
        path = FOLDER / f"{stage.module}.png"
        with whole_file(path) as temporary:
            small.save(temporary, "PNG", optimize=True)
        print(short_path(path), path.stat().st_size)


if __name__ == "__main__":
    main()
