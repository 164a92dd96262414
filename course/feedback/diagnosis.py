"""Recognises a mistake by its result: runs the wrong versions of the stage on the same input and compares."""

import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from course.core.assemble import Blocks, for_testing
from course.core.limits import Stuck, limited
from course.core.stages import STAGES, Stage
from course.feedback.mistakes import Mistake, exercise_of, mistakes_of, wrong_text

left = 3  # how many failures of this run are still explained at length, which takes a second or two each
LIMIT = 2.0  # seconds of computing for one diagnosis
LIMIT_OF_ONE = 0.5  # seconds for one wrong version
MOST_NAMED = 2
WIDTH = 110


@dataclass
class Result:
    """What came of a call: a value or an exception, and the name of an argument that it changed in place."""

    value: Any = None
    error: Exception | None = None
    changed: str = ""


@dataclass
class Trial:
    """A call that can be repeated with any version of a stage.

    Attributes:
        stage: the version under test.
        run: makes the call.
        inputs: tensors that it must not change; they are restored before each call.
        problem: what is wrong with the value of a call; "" if nothing is.
    """

    stage: ModuleType
    run: Callable[[ModuleType], Any]
    inputs: Mapping[str, Tensor]
    problem: Callable[[Any], str]

    def __post_init__(self) -> None:
        self.originals = {name: tensor.clone() for name, tensor in self.inputs.items()}

    def of(self, module: ModuleType) -> Result:
        """Makes the call. Random numbers, if it draws any, are the same each time."""
        torch.default_generator.manual_seed(0)  # torch.manual_seed also notes the call stack, for GPUs
        try:
            value, error = self.run(module), None
        except Exception as raised:
            value, error = None, raised
        changed = ""
        for name, original in self.originals.items():
            if not torch.equal(self.inputs[name], original):
                changed = changed or name
                with torch.no_grad():
                    self.inputs[name].copy_(original)
        return Result(value, error, changed)

    def is_right(self, result: Result) -> bool:
        return result.error is None and not result.changed and not self.problem(result.value)


_passed: dict[tuple[str, str], Trial] = {}  # of each stage under test: trials that it passed, one per kind of call


def remember(trial: Trial, call: str) -> None:
    """Keeps a trial that was passed: it rules out mistakes that would have failed it."""
    _passed.setdefault((trial.stage.__name__, call), trial)


def attach(error: Exception, trial: Trial, result: Result) -> Exception:
    """Notes on an exception how it came about, for `mistakes_behind`."""
    error.trial = (trial, result)
    return error


def mistakes_behind(error: BaseException, numbers: Sequence[str] = ()) -> list[Mistake]:
    """The mistakes that give the same result as the call that this exception is about.

    Args:
        numbers: of the exercises that the test is about: mistakes in them are tried first.
    """
    if not hasattr(error, "trial"):
        return []
    trial, result = error.trial
    return culprits(trial, result, numbers)[:MOST_NAMED]


def sentences(mistakes: Sequence[Mistake]) -> list[str]:
    """Names the mistakes; [] if there are none."""
    openings = ["This is exactly what you get when", "Or when"]
    lines = [textwrap.fill(f"{opening} {m.hint}", WIDTH) for opening, m in zip(openings, mistakes, strict=False)]
    return [*"\n".join(lines).splitlines(), ""] if lines else []


def culprits(trial: Trial, result: Result, numbers: Sequence[str]) -> list[Mistake]:
    """The mistakes that give this result, without those that would have failed an earlier trial.

    Those in the exercises of these numbers come first.
    """
    stage = stage_of(trial.stage)
    if stage is None:
        return []
    end = time.process_time() + LIMIT
    found = []
    for mistake in sorted(mistakes_of(stage.number), key=lambda m: exercise_of(stage.number, m) not in numbers):
        version = wrong_version(stage, mistake)
        if version is None:
            continue
        theirs = attempt(trial, version, end)
        if theirs is None:
            break
        if not trial.is_right(theirs) and same_result(theirs, result):
            found.append(mistake)
    earlier = [passed for (name, _), passed in _passed.items() if name == trial.stage.__name__]
    for passed in reversed(earlier):
        if len(found) < 2 or time.process_time() > end:
            break
        found = [mistake for mistake in found if passes(passed, wrong_version(stage, mistake), end)] or found
    return found


def passes(trial: Trial, version: ModuleType | None, end: float) -> bool:
    """Whether a wrong version passes a trial, or there is no time left to tell."""
    result = attempt(trial, version, end) if version else None
    return result is None or trial.is_right(result)


def stage_of(module: ModuleType) -> Stage | None:
    name = getattr(module, "__name__", "").split(".")[-1]
    return next((stage for stage in STAGES if stage.module == name), None)


def attempt(trial: Trial, version: ModuleType, end: float) -> Result | None:
    """The trial's result with another version; None if there is no time left."""
    left = end - time.process_time()
    if left <= 0:
        return None
    try:
        with limited(min(left, LIMIT_OF_ONE)):
            return trial.of(version)
    except Stuck:
        return Result(error=TimeoutError())


# --- wrong versions --------------------------------------------------------------------------------------------------


@cache
def reference(stage_number: int) -> Blocks:
    """The package that the wrong versions of a stage import the earlier stages from."""
    blocks = for_testing(stage_number, "solutions")
    if stage_number > 1:
        blocks[stage_number - 1]
    return blocks


@cache
def wrong_version(stage: Stage, mistake: Mistake) -> ModuleType | None:
    """The stage with this mistake in it; None if it cannot be loaded."""
    package = reference(stage.number).package
    module = ModuleType(f"{package}.{stage.module}")
    module.__package__ = package
    try:
        text = module.__source__ = wrong_text(stage.number, mistake)
        exec(compile(text, f"<{stage.module} with {mistake.name}>", "exec", dont_inherit=True), module.__dict__)
    except Exception:
        return None
    return module


# --- comparing -------------------------------------------------------------------------------------------------------


def same_result(a: Result, b: Result) -> bool:
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error) and plain(a.error) == plain(b.error)
    return a.changed == b.changed and same(a.value, b.value)


def plain(error: BaseException | None) -> str:
    """An exception's text without the assembled package's name."""
    return re.sub(r"blocks_\d+\.", "", str(error))


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same but for rounding."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return same_tensor(a.detach(), b.detach())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= 1e-9 * abs(b)
    try:
        return bool(type(a) is type(b) and a == b)
    except Exception:
        return False


def same_tensor(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or a.is_contiguous() != b.is_contiguous():
        return False
    if not a.dtype.is_floating_point:
        return torch.equal(a, b)
    tolerance = max(1e-9, 2 * torch.finfo(a.dtype).eps)
    a, b = a.double(), b.double()
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not torch.equal(a.isnan(), b.isnan()):
        return False
    a, b = a[finite], b[finite]
    return bool((a - b).norm() <= tolerance * b.norm())
