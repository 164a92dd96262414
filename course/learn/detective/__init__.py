"""`make detective`: one of the known mistakes is hidden in a finished stage, and the learner finds evidence of it.

It hides in memory, in the course's solution of that stage; no file is changed but the score.
"""

import contextlib
import random
import sys
from dataclasses import dataclass

from course.core.assemble import StageError, stage_to_do
from course.core.messages import Refusal
from course.core.options import OneStage, option
from course.core.stages import STAGES, Stage
from course.learn.detective.game import Case, Left, find_case
from course.learn.detective.line import Line
from course.learn.detective.score import LEVELS, MOST, Score, read_score, write_score
from course.learn.hints import read_state


@dataclass
class DetectiveOptions(OneStage):
    level: int | None = option(
        None,
        "1: choose the explanation; 2: write a call that shows the mistake; 3: write an assertion; 4: name the line; "
        "by default what your score says",
        least=1,
        most=LEVELS,
    )
    seed: int | None = option(None, "number that picks the case; by default a new one every time", least=0)
    score: bool = option(False, "only say how many cases are solved")


def detective(options: DetectiveOptions) -> int:
    """Runs the command: case after case, until the person leaves."""
    if options.score:
        print(read_score())
        return 0
    stages = finished_stages(options.stage)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives input() a history)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    try:
        with Line() as line:
            while play_one(stages, options.level, random.Random(seed), line):
                seed += 1
    except Left:
        print("\nUntil next time.", read_score())
    except KeyboardInterrupt:
        print("\nUntil next time.", read_score())
        return 130
    return 0


def finished_stages(wanted: Stage | None) -> list[Stage]:
    """The stages in which nothing is to do and no test is known to fail; of these the wanted one, if one is wanted.

    Raises:
        Refusal: if there is none.
    """
    failing = read_state()["failing"]
    found = []
    for stage in STAGES:
        with contextlib.suppress(StageError):
            if not stage_to_do(stage) and not failing.get(str(stage.number)):
                found.append(stage)
    if wanted is None and not found:
        raise Refusal("A case needs a stage that you have finished: `make test` says what is next.")
    if wanted is not None and wanted not in found:
        raise Refusal(
            f"Stage {wanted.number} {wanted.name} is not finished, and a case shows parts of its solution: "
            f"make test STAGE={wanted.number}"
        )
    return found if wanted is None else [wanted]


def play_one(stages: list[Stage], level: int | None, rng: random.Random, line: Line) -> bool:
    """Plays a case and keeps its points. Whether the person wants another one."""
    score = read_score()
    print("Looking for a case ...", flush=True)
    case = find_case(stages, level or score.level, set(score.cases), rng, line, ask) or find_case(
        stages, level or score.level, set(), rng, line, ask
    )
    if case is None:
        raise Refusal(f"There is no case of level {level or score.level} in the stages that you have finished.")
    points = case.play()
    keep(score, case, points)
    print(f"\n{points} of {MOST} points. {score}")
    return ask("Enter: another case; quit leaves. ").strip() not in ("q", "quit", "exit", "skip")


def keep(score: Score, case: Case, points: int) -> None:
    score.cases[case.name] = {"level": case.level, "points": points}
    write_score(score)


def ask(prompt: str = "> ") -> str:
    """A line that is typed. Left at the end of the input."""
    try:
        return input(prompt)
    except EOFError:
        raise Left from None
