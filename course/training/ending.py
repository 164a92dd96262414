"""How a training ends: done, stopped, refused, or in a mistake in the learner's file."""

import sys
import traceback
from collections.abc import Callable

from course.core.assemble import Blocks
from course.core.screen import sentence
from course.draw.blame import explain


def finished(run: Callable[[], object], blocks: Blocks, number: int) -> int:
    """Runs a training on this stage; returns the exit code: 0 done, 1 it could not be done, 130 stopped."""
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
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, (ValueError, OSError)) and str(blocks.paths[number]) not in files:
            print(sentence(error), file=sys.stderr)
            return 1
        if blocks.origin[number] != "exercises" or isinstance(error, torch.OutOfMemoryError):
            raise
        return explain(error, blocks)
    return 0
