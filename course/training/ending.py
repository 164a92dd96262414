"""How a training ends: done, stopped, refused, or in a mistake in the learner's file."""

import sys
from collections.abc import Callable

from course.core.assemble import Blocks
from course.draw.blame import explain


def finished(run: Callable[[], object], blocks: Blocks, number: int) -> int:
    """Runs a training; its exit code: 0 done, 1 the stage failed, 2 refused, 130 stopped. Or raises the refusal."""
    import torch

    from course.training.loop import Interrupted

    try:
        run()
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if blocks.origin[number] != "exercises" or isinstance(error, torch.OutOfMemoryError):
            raise
        return explain(error, blocks)
    return 0
