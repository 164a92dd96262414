"""`make test`: tests what was begun, says where the learner stands, and writes that down for a program to read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course.core.options import OneStage, option
from course.core.stages import ENCORE, PIPELINE, ROOT, STAGES, Stage, others
from course.core.stubs import exercises
from course.core.writing import whole_file
from course.learn import hints
from course.learn.board import DONE, FAILING, NOT_LOADED, Board, Verdict, failure_text, next_lines, read
from course.learn.runner import run_all

RESULT_VERSION = 1
RESULT = ROOT / "result.json"


@dataclass
class TestOptions(OneStage):
    json: bool = option(False, "also write what was found to result.json, for a program to read")


def test(options: TestOptions) -> int:
    """Runs the command."""
    result = RESULT if options.json else None
    return test_one(options.stage, result) if options.stage else test_in_order(result)


def test_in_order(result: Path | None) -> int:
    """Tests every stage that was begun. Exit code 1 only if something that was tried fails.

    result: where to write what was found; see write_result.
    """
    verdicts = run_tests(STAGES, result)
    ten, encore = verdicts[: len(PIPELINE)], verdicts[len(PIPELINE) :]
    done, more = (sum(verdict.state == DONE for verdict in some) for some in (ten, encore))
    solved = sum(len(verdict.solved) for verdict in ten)
    total = sum(len(exercises(stage)) for stage in PIPELINE)
    print(f"{done} of {len(ten)} stages and {solved} of {total} exercises are done; encore {more}/{len(ENCORE)}.")
    if done == len(ten):
        print("\nAll ten stages are yours: `make generate` now draws with your code alone.")
    failing = [verdict for verdict in verdicts if verdict.state == FAILING]
    if left := failing or [verdict for verdict in verdicts if verdict.state != DONE]:
        explain(left[0])
    return int(bool(failing))


def test_one(stage: Stage, result: Path | None) -> int:
    """Tests one stage. Exit code 0 only if it is done."""
    (verdict,) = run_tests([stage], result)
    if verdict.state != DONE:
        explain(verdict)
        return 1
    if texts := hints.reading_once(stage):
        print(texts)
        print(f"\na picture of it: make show STAGE={stage.number}")
    print()
    after = left_after(stage)
    if after is None or after.stage.encore > stage.encore:
        print(f"All {'ten ' if after else ''}stages are written: `make test` tests them together.")
    if after is not None:
        print("\n".join(next_lines(after)))
    return 0


def left_after(stage: Stage) -> Verdict | None:
    """The first stage to go on with after a finished one that is known not to be done without testing it."""
    for other in others(stage):
        verdict = read(other)
        verdict.failing = set(hints.read_state()["failing"].get(str(other.number), []))
        if verdict.open or verdict.failing or verdict.failure is not None:
            return verdict
    return None


def run_tests(stages: tuple[Stage, ...] | list[Stage], result: Path | None) -> list[Verdict]:
    """Runs the tests of those stages that were begun and can be read, and shows the board meanwhile.

    Raises:
        RuntimeError: if the tests could not be run at all.
    """
    if result:
        result.unlink(missing_ok=True)  # whatever happens, an old result is none
    verdicts = [read(stage) for stage in stages]
    board = Board(verdicts)
    begun = [verdict for verdict in verdicts if not verdict.untouched and verdict.failure is None]
    requests = [{"stage": verdict.stage.number, "whole": True} for verdict in begun]
    for news in run_all(requests, [verdict.stage for verdict in begun]):
        verdict = begun[news["run"]]
        verdict.add(news)
        if news["event"] == "begun":
            board.testing(verdict)
        elif news["event"] == "over":
            board.known(verdict)
            hints.note_failing(verdict.stage, sorted(verdict.failing))
    board.known()
    if result:
        write_result(result, verdicts)
    return verdicts


def explain(verdict: Verdict) -> None:
    """The first failure in full, or the next exercise; then the commands for that."""
    number = verdict.stage.number
    again = ["", f"again: make test STAGE={number}     a hint: make hint STAGE={number}"]
    lines = next_lines(verdict) if verdict.failure is None else [failure_text(verdict), *again]
    print("\n".join(["", *lines]))


# --- for programs ----------------------------------------------------------------------------------------------------


def write_result(path: Path, verdicts: list[Verdict]) -> None:
    """Writes what `make test` found, for automatic grading, in one step: there is a whole file or none.

    The file holds a JSON object with "version": 1 and "stages", a list with one object per stage that was asked for:

        number, name    such as 3 and "attention"
        state           "done", "failing", "to do", "cannot be loaded", or "written": all exercises, but no test was run
        tests           numbers of tests: {"passed": 12, "failed": 1, "to do": 0}; all 0 in a stage that was not run.
                        A test that never ends, or ends its process, ends the stage: the tests behind it are not counted
        exercises       a list of {"number": "3.1", "title": "...", "state": ...}, where the state is "to do": a stub;
                        "failing": a failed test shows that it is wrong; "done": all its tests were run, and it
                        is not failing; or "not tested": it is written, but not all its tests were run
        failure         null, or the first failure: {"test": name, "exercise": "3.1", "mistake": {"name": "...", "hint":
                        "..."}, "or": null, "message": "..."}. "mistake" is the entry of course/feedback/mistakes/ that
                        gives the same result, "or" a second one if there is one; null if none is recognised. "test" and
                        "exercise" are null of a file that cannot be loaded, and where there is none
    """
    text = json.dumps({"version": RESULT_VERSION, "stages": [as_json(verdict) for verdict in verdicts]}, indent=1)
    with whole_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def as_json(verdict: Verdict) -> dict[str, Any]:
    def state(number: str) -> str:
        if number in verdict.open:
            return "to do"
        if number in verdict.failing and verdict.loads:
            return "failing"
        return "done" if number in verdict.solved else "not tested"

    failure = None
    if verdict.failure is not None:
        test = verdict.test if verdict.loads else None
        number = verdict.exercise if test else None
        mistake, other = [*verdict.mistakes, None, None][:2]
        failure = {"test": test, "exercise": number, "mistake": mistake, "or": other, "message": verdict.failure}
    parts = [{"number": e.number, "title": e.title, "state": state(e.number)} for e in exercises(verdict.stage)]
    return {
        "number": verdict.stage.number,
        "name": verdict.stage.name,
        "state": verdict.state if verdict.loads else NOT_LOADED,
        "tests": {"passed": verdict.passed, "failed": verdict.failed, "to do": verdict.to_do},
        "exercises": parts,
        "failure": failure,
    }
