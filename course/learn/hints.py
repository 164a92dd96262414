"""`make hint`: three hints per exercise, one more each time; and what to read once a stage is done.

The texts are in course/learn/hints/, one TOML file per stage. What was shown is kept in .course/state.json.
"""

import contextlib
import json
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course.core.assemble import StageError, stage_to_do
from course.core.messages import Refusal
from course.core.options import OneStage, option
from course.core.stages import STAGES, Stage, exercises_folder, short_path
from course.core.stubs import Exercise, exercises
from course.core.writing import whole_file

TEXTS = Path(__file__).with_name("hints")
WIDTH = 110


@dataclass
class HintOptions(OneStage):
    exercise: str | None = option(None, "its number, such as 3.2; by default the first that is not done")


def hint(options: HintOptions) -> int:
    """Shows one more hint for an exercise, or for the first of a stage (or of all) that is not done."""
    stage = options.stage
    if options.exercise:
        print(next_hint(*find_exercise(options.exercise, stage)))
        return 0
    for candidate in [stage] if stage else STAGES:
        try:
            exercise = first_not_done(candidate)
        except StageError as error:
            print(error)
            print(f"\nRead that first. A hint all the same: make hint EXERCISE={candidate.number}.1")
            return 1
        if exercise:
            print(next_hint(candidate, exercise))
            return 0
    where = short_path(stage.exercise) if stage else "all files"
    example = f"{stage.number if stage else 3}.1"
    print(f"Every exercise of {where} is written, and no test of them failed when they were last run.")
    print(f"A hint all the same: make hint EXERCISE={example}")
    return 0


def find_exercise(number: str, stage: Stage | None) -> tuple[Stage, Exercise]:
    """The exercise that a person means by "3.2".

    Raises:
        ValueError: if there is no such exercise, or not in this stage.
    """
    for owner in [stage] if stage else STAGES:
        for exercise in exercises(owner):
            if exercise.number == number.strip():
                return owner, exercise
    where = f" in stage {stage.number}" if stage else ""
    listed = ", ".join(e.number for e in exercises(stage)) if stage else "for example 3.2"
    raise ValueError(f"There is no exercise {number!r}{where}: choose one, {listed}.")


def first_not_done(stage: Stage) -> Exercise | None:
    """The first exercise that is a stub, or of which a test failed when tests were last run.

    Raises:
        StageError: if the learner's file cannot be read.
    """
    unfinished = {*stage_to_do(stage), *read_state()["failing"].get(str(stage.number), [])}
    return next((exercise for exercise in exercises(stage) if exercise.number in unfinished), None)


def next_hint(stage: Stage, exercise: Exercise, key: str = "") -> str:
    """The hints shown so far and one more, if there is one; if there is a key that asks for one more, only that one."""
    texts = hints_of(stage, exercise.number)
    state = read_state()
    level = min(state["hints"].get(exercise.number, 0) + 1, len(texts))
    state["hints"][exercise.number] = level
    write_state(state)
    lines = [f"exercise {exercise.number}: {exercise.title}", short_path(stage.exercise)]
    for i, text in enumerate(texts[:level], start=1):
        if i == level or not key:
            lines += ["", f"level {i} of {len(texts)}:", wrapped(text)]
    lines.append("")
    if level < len(texts):
        lines.append(f"one more: {key or f'make hint EXERCISE={exercise.number}'}")
    else:
        lines.append(f"That was the last. The solution beside your file: make solution STAGE={stage.number}")
    return "\n".join(lines)


def hints_of(stage: Stage, number: str) -> list[str]:
    """The hints of an exercise, from a question to nearly the code.

    Raises:
        ValueError: if there are none.
    """
    for entry in texts_of(stage).get("exercise", []):
        if entry["number"] == number and entry["hints"]:
            return entry["hints"]
    raise ValueError(f"There are no hints for exercise {number}.")


def texts_of(stage: Stage) -> dict[str, Any]:
    """What course/learn/hints/ says about a stage; {} if it says nothing."""
    path = TEXTS / f"{stage.module}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def reading_once(stage: Stage) -> str:
    """What to think about and to read now that the stage is done; "" if that was shown before."""
    state = read_state()
    texts = texts_of(stage)
    if stage.number in state["reading"] or not texts:
        return ""
    state["reading"].append(stage.number)
    write_state(state)
    lines = []
    for entry in texts.get("questions", []):
        lines += ["", wrapped(entry["question"], ""), wrapped(entry["answer"])]
    if texts.get("reading"):
        lines += ["", "further reading:"]
        lines += [wrapped(text, "  - ") for text in texts["reading"]]
    return "\n".join(lines)


def wrapped(text: str, first: str = "  ") -> str:
    """A paragraph in lines; text that was laid out with several lines stays as it is."""
    rest = " " * len(first)
    if "\n" in text.strip():
        return textwrap.indent(textwrap.dedent(text).strip("\n"), rest)
    return textwrap.fill(text.strip(), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


# --- what was shown --------------------------------------------------------------------------------------------------


def state_path() -> Path:
    """Beside the learner's folder."""
    return exercises_folder().parent / ".course" / "state.json"


def read_state() -> dict[str, Any]:
    """hints: exercise -> level shown; reading: stages shown; failing: stage -> exercises whose tests failed last."""
    state: dict[str, Any] = {"hints": {}, "reading": [], "failing": {}}
    odd = (OSError, ValueError, RecursionError, AttributeError, TypeError, OverflowError)
    with contextlib.suppress(*odd):  # a file that is not as it was written
        found = json.loads(state_path().read_text(encoding="utf-8")) if state_path().is_file() else {}
        state["hints"] = {number: max(0, int(level)) for number, level in found.get("hints", {}).items()}
        state["reading"] = [int(number) for number in found.get("reading", [])]
        state["failing"] = {stage: [str(n) for n in numbers] for stage, numbers in found.get("failing", {}).items()}
    return state


def write_state(state: dict[str, Any]) -> None:
    """Replaces the file in one step. Where that is not possible, nothing is remembered, and a line says so."""
    path = state_path()
    try:
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
    except Refusal as error:
        print(f"{error} What was shown is forgotten.", file=sys.stderr)


def note_failing(stage: Stage, numbers: list[str]) -> None:
    """Remembers whose tests fail, for the next hint."""
    state = read_state()
    if state["failing"].get(str(stage.number), []) != numbers:
        state["failing"][str(stage.number)] = numbers
        write_state(state)
