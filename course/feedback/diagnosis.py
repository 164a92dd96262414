"""Says of a failed call which exercise is wrong, and which mistake of the catalogue was made in it.

The exercise: with its body written as in the solution, the call comes out right. The mistake: a version of the stage
with only this mistake in it gives what the learner's exercise gives, in this call and in those of all the other tests.
"""

import re
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor

from course.core.limits import Stuck, limited
from course.core.stages import STAGES, Stage
from course.core.stubs import exercises
from course.feedback.mistakes import Mistake, exercise_of, mistakes_of
from course.feedback.versions import mended, wrong_version

left = 3  # how many failures of this run are still explained at length, which takes a second or two each
off = False  # whether nothing is said of failures, not even which exercise is wrong
blamed = ""  # the exercise that the latest failure was filed under: a good guess for the next one
LIMIT = 2.0  # seconds of computing for one diagnosis
LIMIT_OF_OTHERS = LIMIT  # seconds of these for other tests than the failed one
LIMIT_OF_ONE = 0.5  # seconds for one version, and for finding the exercise of a failure that is not explained at length
PATIENCE = 40  # times that it may wait, on a busy machine or by itself
MOST_NAMED = 2
NOTHING = 1e-3  # a smaller tensor, such as a gradient that is zero but for rounding, is compared as if of this size
WIDTH = 110
SEED = 662607015  # of torch's own random numbers before each call, and hardly one that a learner sets


def settings() -> dict[str, Any]:
    """What a call could change for the whole program, by the function that changes it."""
    return {
        "torch.set_default_dtype": torch.get_default_dtype(),
        "torch.set_default_device": torch.get_default_device(),
        "torch.set_grad_enabled": torch.is_grad_enabled(),
        "torch.manual_seed": torch.default_generator.initial_seed(),
    }


def restored(before: Mapping[str, Any]) -> str:
    """The setting that has changed since; "" if none has. All are brought back."""
    now = settings()
    changed = [name for name in before if now[name] != before[name]]
    for name in changed:
        getattr(torch, name.removeprefix("torch."))(before[name])
    return changed[0] if changed else ""


@dataclass
class Result:
    """What came of a call: a value or an exception, an argument that it changed, a setting of torch that it changed."""

    value: Any = None
    error: Exception | None = None
    changed: str = ""
    setting: str = ""

    @property
    def is_to_do(self) -> bool:
        return isinstance(self.error, NotImplementedError)


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
        self.gradients = torch.is_grad_enabled()

    def of(self, module: ModuleType) -> Result:
        """Makes the call. Random numbers, if it draws any, are the same each time; so is whether gradients are kept."""
        with torch.set_grad_enabled(self.gradients):
            return self._of(module)

    def _of(self, module: ModuleType) -> Result:
        torch.default_generator.manual_seed(SEED)  # torch.manual_seed also notes the call stack, for GPUs
        before = settings()
        try:
            value, error = self.run(module), None
        except Exception as raised:
            value, error = None, raised
        return Result(value, error, self.restore_inputs(), restored(before))

    def restore_inputs(self) -> str:
        """Brings the inputs back; the name of the first that had changed, or ""."""
        changed = [name for name, original in self.originals.items() if not torch.equal(self.inputs[name], original)]
        with torch.no_grad():
            for name in changed:
                self.inputs[name].copy_(self.originals[name])
        return "".join(changed[:1])

    def is_right(self, result: Result) -> bool:
        unharmed = not result.changed and not result.setting
        return result.error is None and unharmed and not self.problem(result.value)


@dataclass
class Finding:
    """What is known of a failure.

    Attributes:
        exercise: the one that is wrong; "" if that is not known.
        mistakes: those that explain all that was seen: one, more that cannot be told apart, or none.
    """

    exercise: str = ""
    mistakes: list[Mistake] = field(default_factory=list)


def attach(error: Exception, trial: Trial, result: Result) -> Exception:
    """Notes on an exception how it came about, for `finding`."""
    error.trial = (trial, result)
    return error


def sentences(mistakes: Sequence[Mistake]) -> list[str]:
    """Names the mistakes; [] if there are none."""
    openings = ["This is exactly what you get when", "Or when"]
    lines = [textwrap.fill(f"{opening} {m.hint}", WIDTH) for opening, m in zip(openings, mistakes, strict=False)]
    return [*"\n".join(lines).splitlines(), ""] if lines else []


def finding(
    error: BaseException,
    numbers: Sequence[str] = (),
    run_others: Callable[["Comparison"], object] = lambda comparison: None,
) -> Finding:
    """Which exercise is to blame for a failed check, and what was done wrong there.

    Args:
        error: what the check raised.
        numbers: of the exercises that the test is about: these are suspected first, the last of them before the others.
        run_others: runs the other tests, whose checks then ask `comparison`, until that is `over`.
    """
    global comparison
    if not hasattr(error, "trial"):
        return Finding()
    trial, result = error.trial
    stage = stage_of(trial.stage)
    if stage is None:
        return Finding()
    end = time.process_time() + LIMIT
    suspects = suspected(stage, trial, numbers, end)
    own = alone(stage, trial, result, suspects[0], end) if suspects else trial.stage
    found = [m for m in mistakes_of(stage.number) if not suspects or exercise_of(stage.number, m) in suspects]
    found = sorted(found, key=lambda mistake: exercise_of(stage.number, mistake) not in numbers)
    comparison = candidates = Comparison(own, stage, found, end)
    try:
        candidates.see(trial, result)
        if candidates.mistakes:
            candidates.end = min(end, time.process_time() + LIMIT_OF_OTHERS)
            run_others(candidates)
        found = candidates.mistakes[:MOST_NAMED]
    finally:
        comparison = None
    return Finding(exercise_of(stage.number, found[0]) if found else "".join(suspects[:1]), found)


def wrong_exercise(error: BaseException, numbers: Sequence[str]) -> str:
    """The exercise that is to blame for a failed check; "" if that is not known."""
    if not hasattr(error, "trial"):
        return ""
    trial, _ = error.trial
    stage = stage_of(trial.stage)
    end = time.process_time() + LIMIT_OF_ONE
    return "".join(suspected(stage, trial, numbers, end, most=1)) if stage else ""


def suspected(stage: Stage, trial: Trial, numbers: Sequence[str], end: float, most: int | None = None) -> list[str]:
    """The exercises with whose solution the call comes out right, those of the test before the others."""
    global blamed
    source = vars(trial.stage).get("__source__")
    if source is None:
        return []
    others = [exercise.number for exercise in exercises(stage) if exercise.number not in numbers]
    others.sort(key=lambda number: number != blamed)
    found = []
    for number in [*reversed(numbers), *others]:
        version = mended(stage, source, frozenset({number}))
        theirs = attempt(trial, version, end) if version else None
        if theirs and trial.is_right(theirs):
            found.append(number)
            if len(found) == most:
                break
    blamed = "".join(found[:1]) or blamed
    return found


def alone(stage: Stage, trial: Trial, result: Result, number: str, end: float) -> ModuleType:
    """The learner's file with all exercises but this one as in the solution; as it is, if that gives another result.

    So what was done wrong here is recognised also while something else is wrong elsewhere, or still to do.
    """
    others = frozenset(exercise.number for exercise in exercises(stage)) - {number}
    version = mended(stage, trial.stage.__source__, others)
    theirs = attempt(trial, version, end) if version else None
    return version if version and theirs and same_result(theirs, result) else trial.stage


def stage_of(module: ModuleType) -> Stage | None:
    name = getattr(module, "__name__", "").split(".")[-1]
    return next((stage for stage in STAGES if stage.module == name), None)


def attempt(trial: Trial, version: ModuleType, end: float) -> Result | None:
    """The trial's result with another version; None if that takes too long, or if there is no time left."""
    left = end - time.process_time()
    if left <= 0:
        return None
    try:
        with limited(min(left, LIMIT_OF_ONE), patience=PATIENCE):
            return trial.of(version)
    except Stuck:
        trial.restore_inputs()
        return None


# --- all that is seen ------------------------------------------------------------------------------------------------


@dataclass
class Comparison:
    """Which mistakes explain all that is seen of a version.

    Attributes:
        own: the version.
        mistakes: those that explain what was seen so far.
        end: when to stop, as time.process_time() counts.
    """

    own: ModuleType
    stage: Stage
    mistakes: list[Mistake]
    end: float

    @property
    def over(self) -> bool:
        return not self.mistakes or time.process_time() > self.end

    def see(self, trial: Trial, failed: Result | None = None) -> None:
        """Drops the mistakes that give something else in this trial. failed: what the version is known to give.

        Raises:
            Stuck: if nothing more needs to be seen.
        """
        own = failed or attempt(trial, self.own, self.end)
        if own and not own.is_to_do:
            self.mistakes = [mistake for mistake in self.mistakes if self.explains(mistake, trial, own, bool(failed))]
        if self.over and not failed:
            raise Stuck

    def explains(self, mistake: Mistake, trial: Trial, own: Result, failed: bool) -> bool:
        version = wrong_version(self.stage, mistake)
        theirs = attempt(trial, version, self.end) if version else None
        if theirs is None:
            return not failed
        right = trial.is_right(own)
        if right != trial.is_right(theirs):
            return False
        if right:
            return same(precise(own.value), precise(theirs.value), exact=False)
        return same_result(own, theirs, exact=failed)


class Witness(Protocol):
    """What is shown all trials, as a Comparison is."""

    def see(self, trial: Trial) -> None: ...


comparison: Witness | None = None  # while it is there, checks do not judge but show it their trials


# --- comparing -------------------------------------------------------------------------------------------------------


def same_result(a: Result, b: Result, exact: bool = True) -> bool:
    """Whether a version gives what a wrong one gives. Not exact: as far as that is the same where code looks different.

    An error without a text, in the wrong version, stands for any of its type.
    """
    if a.error is not None or b.error is not None:
        if not exact:  # names: a test may make a class of its own for each call
            return type(a.error).__name__ == type(b.error).__name__
        return type(a.error) is type(b.error) and plain(b.error) in ("", plain(a.error))
    return (a.changed, a.setting) == (b.changed, b.setting) and same(a.value, b.value, exact)


def plain(error: BaseException | None) -> str:
    """An exception's text without the assembled package's name."""
    return re.sub(r"blocks_\d+\.", "", str(error))


def same(a: Any, b: Any, exact: bool = True) -> bool:
    """Whether two values are the same but for rounding; exact: also as to types, order and layout in memory."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return same_tensor(a.detach(), b.detach(), exact)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = list(a) == list(b) if exact else a.keys() == b.keys()
        return names and all(same(a[name], b[name], exact) for name in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(*pair, exact) for pair in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or abs(a - b) <= 1e-9 * abs(b) or (a != a and b != b)  # nan
    try:
        return bool((type(a) is type(b) or not exact) and a == b)
    except Exception:
        return False


def precise(value: Any) -> list[Tensor]:
    """The float64 tensors inside of a value: they alone tell two results apart that both count as right."""
    if isinstance(value, Mapping):
        value = [value[name] for name in sorted(value, key=repr)]
    if isinstance(value, (list, tuple)):
        return [tensor for element in value for tensor in precise(element)]
    return [value] if isinstance(value, Tensor) and value.dtype == torch.float64 else []


def same_tensor(a: Tensor, b: Tensor, exact: bool = True) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or (exact and a.is_contiguous() != b.is_contiguous()):
        return False
    if not a.dtype.is_floating_point:
        return torch.equal(a, b)
    tolerance = max(1e-9, 2 * torch.finfo(a.dtype).eps)
    if (
        not exact and a.dtype != torch.float64
    ):  # of code that looks different, roundings add up, in pictures to a grey level
        tolerance = max(1e-3, 16 * tolerance)
    a, b = a.double(), b.double()
    finite = a.isfinite()
    if not torch.equal(finite, b.isfinite()) or not torch.equal(a.isnan(), b.isnan()):
        return False
    a, b = a[finite], b[finite]
    return bool((a - b).norm() <= tolerance * b.norm().clamp(min=NOTHING))
