"""Whose fault it is when drawing fails, in a few lines: the memory's, a learner's file's, or what was asked for."""

import sys
import traceback

from course.core.assemble import StageError
from course.core.limits import is_out_of_memory
from course.core.messages import first_line
from course.core.screen import sentence
from course.core.stages import find_stage, short_path


def explain(error: BaseException, blocks, mistaken: bool = False) -> int:
    """What went wrong: out of memory, a mistake in a learner's file, or a refusal from deeper down.

    A mistake in a learner's file need not show there: what it hands over makes the reference fail, or torch, or us.
    That is not said where the reference is `mistaken` itself.
    """
    import torch

    if isinstance(error, StageError):
        print(error, file=sys.stderr)
        return 1
    if isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error):
        print(
            "The GPU's memory is not enough: try a smaller WIDTH and HEIGHT, DTYPE=float16, or DEVICE=cpu.",
            file=sys.stderr,
        )
        return 2
    if is_out_of_memory(error):
        print("The memory is not enough: try a smaller WIDTH and HEIGHT, or DTYPE=bfloat16.", file=sys.stderr)
        return 2
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        print(f"COMPILE=1 failed ({first_line(error)}): draw with COMPILE=0.", file=sys.stderr)
        return 2
    frames = traceback.extract_tb(error.__traceback__)
    origin = blocks.origin if blocks else {}
    yours = {str(blocks.paths[number]): find_stage(number) for number in origin if origin[number] == "exercises"}
    reference = {str(path) for path in blocks.paths.values()} - set(yours) if blocks else set()
    in_yours = [frame for frame in frames if frame.filename in yours]
    in_reference = [frame for frame in frames if frame.filename in reference]
    reason = f"{type(error).__name__}: {first_line(error)}"
    if in_yours:
        place = in_yours[-1]
        advice = f"`make test STAGE={yours[place.filename].number}` tells more; BLOCKS=solutions does without it."
    elif (
        yours
        and not mistaken
        and not isinstance(error, (ValueError, OSError))
        and (in_reference or not isinstance(error, RuntimeError))
    ):
        place = in_reference[-1] if in_reference else frames[-1]
        advice = (
            "One of your blocks hands over something wrong: `make test` finds it; BLOCKS=solutions does without it."
        )
    elif isinstance(error, (ValueError, RuntimeError, OSError)):
        print(first_line(error) if type(error) is RuntimeError else sentence(error), file=sys.stderr)
        return 2
    else:
        print(f"{short_path(frames[-1].filename)}:{frames[-1].lineno}: {reason}", file=sys.stderr)
        return 2
    print(f"{short_path(place.filename)}:{place.lineno}: {reason}\n    {place.line}\n{advice}", file=sys.stderr)
    return 1
