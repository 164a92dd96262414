"""Proves that the tests of each stage notice every mistake of the catalogue, and that the messages name it.

Usage: python -m course mutants [--stage 3]
"""

import sys
from dataclasses import dataclass

from course.stages import STAGES, find_stage
from mistakes import Mistake, mistakes_of, wrong_text
from warm import Outcome, Version, run_versions

WANTED = 0.85  # the share of mistakes, of each stage, that a failed test's message names


@dataclass
class Verdict:
    """A mistake and what the tests of its stage say to it."""

    mistake: Mistake
    outcome: Outcome
    named: bool

    @property
    def caught(self) -> bool:
        return bool(self.outcome.failure)


def judge(stage_number: int) -> list[Verdict]:
    """Runs the tests of a stage on all its wrong versions."""
    catalogue = mistakes_of(stage_number)
    outcomes = run_versions([Version(stage_number, wrong_text(stage_number, mistake)) for mistake in catalogue])
    hints = {mistake.name: mistake.hint for mistake in catalogue}
    verdicts = []
    for mistake, outcome in zip(catalogue, outcomes):
        right = [hints[name] for name in (mistake.name, *mistake.like)]
        verdicts.append(Verdict(mistake, outcome, any(plain(hint) in plain(outcome.failure) for hint in right)))
    return verdicts


def plain(text: str) -> str:
    """The text with one blank for each run of white space."""
    return " ".join(text.split())


def complaints(stage_number: int, verdicts: list[Verdict]) -> list[str]:
    """What is wrong with a stage's tests or its catalogue."""
    module = find_stage(stage_number).module
    found = [
        f"{module}/{v.mistake.name} survives. Find:\n{v.mistake.find}\nreplace:\n{v.mistake.replace}"
        for v in verdicts
        if not v.caught
    ]
    named = sum(v.named for v in verdicts)
    if named < WANTED * len(verdicts):
        found.append(f"{module}: only {named} of {len(verdicts)} mistakes are named by the message")
    return found


def main(arguments: list[str]) -> int:
    stages = [find_stage(text) for text in arguments] or STAGES
    rows, wrong = [], []
    for stage in stages:
        verdicts = judge(stage.number)
        caught, named = sum(v.caught for v in verdicts), sum(v.named for v in verdicts)
        rows.append((f"{stage.number:2d} {stage.name}", len(verdicts), caught, named))
        wrong += complaints(stage.number, verdicts)
        print(f"{stage.number:2d} {stage.name}: {caught} of {len(verdicts)} caught", flush=True)
        for v in verdicts:
            if v.caught and not v.named:
                print(f"   not named: {v.mistake.name} (first seen by {v.outcome.test})")
    print(f"\n{'stage':16s}{'mistakes':>10s}{'caught':>10s}{'named':>10s}")
    for name, *counts in [*rows, ("all", *(sum(column) for column in zip(*(row[1:] for row in rows))))]:
        print(f"{name:16s}" + "".join(f"{count:10d}" for count in counts))
    for complaint in wrong:
        print(f"\n{complaint}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
