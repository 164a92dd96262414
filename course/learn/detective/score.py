"""What is remembered of the cases: .course/detective.json, beside the learner's folder."""

import contextlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.core.messages import Refusal
from course.core.writing import whole_file
from course.learn.hints import state_path

MOST = 4  # points of a case
LEVELS = 4
CASES_PER_LEVEL = 2  # solved cases that lead to the next level


@dataclass
class Score:
    """The closed cases.

    Attributes:
        cases: full name of a mistake -> {"level": 1 to 4, "points": 0 to 4}; 0 of a case that was given up.
    """

    cases: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def points(self) -> int:
        return sum(case["points"] for case in self.cases.values())

    def solved(self, level: int) -> int:
        return sum(case["level"] == level and case["points"] > 0 for case in self.cases.values())

    @property
    def level(self) -> int:
        """The first level of which fewer than two cases are solved, or else the last one."""
        return next((level for level in range(1, LEVELS) if self.solved(level) < CASES_PER_LEVEL), LEVELS)

    def __str__(self) -> str:
        solved = sum(case["points"] > 0 for case in self.cases.values())
        cases = f"{solved} case{'' if solved == 1 else 's'}"
        return f"{cases} solved, {self.points} points, level {self.level} of {LEVELS}."


def score_path() -> Path:
    return state_path().with_name("detective.json")


def read_score() -> Score:
    """What the file holds, as far as it makes sense."""
    found: Any = None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(score_path().read_text(encoding="utf-8"))
    cases = found.get("cases") if isinstance(found, dict) else None
    whole = {"level": range(1, LEVELS + 1), "points": range(MOST + 1)}
    return Score(
        {
            name: case
            for name, case in (cases.items() if isinstance(cases, dict) else ())
            if isinstance(case, dict) and all(type(case.get(key)) is int and case[key] in whole[key] for key in whole)
        }
    )


def write_score(score: Score) -> None:
    """Replaces the file in one step. Where that is not possible, nothing is remembered, and a line says so."""
    try:
        with whole_file(score_path()) as temporary:
            temporary.write_text(json.dumps({"cases": score.cases}, indent=1), encoding="utf-8")
    except Refusal as error:
        print(f"{error} The case is forgotten.", file=sys.stderr)
