"""Proves that the tests of each stage notice every mistake of the catalogue, and that the messages name it.

Usage: python -m course mutants [--stage 3]
"""

from dataclasses import dataclass

from course.core.options import OneStage
from course.core.stages import STAGES, Stage
from course.feedback.mistakes import Mistake, exercise_of, mistakes_of, wrong_text
from tools.warm import Outcome, Version, run_versions

WANTED = 0.85  # the share of all mistakes that a failed test's message names


@dataclass
class Verdict:
    """A mistake and what the tests of its stage say to it."""

    stage: Stage
    mistake: Mistake
    outcome: Outcome

    @property
    def caught(self) -> bool:
        return bool(self.outcome.failure)

    @property
    def named(self) -> bool:
        """Whether the message names this mistake, or one that it cannot be told from."""
        right = {self.mistake.name, *self.mistake.like}
        hints = [mistake.hint for mistake in mistakes_of(self.stage.number) if mistake.name in right]
        return any(plain(hint) in plain(self.outcome.failure) for hint in hints)

    def complaint(self) -> str:
        """One line for a mistake that is caught but not named; more for one that survives; "" for all others."""
        name = f"{self.stage.module}/{self.mistake.name}"
        if not self.caught:
            return f"{name} survives. Find:\n{self.mistake.find}\nreplace:\n{self.mistake.replace}"
        return "" if self.named else f"{name} is not named; first seen by {self.outcome.test}"


def plain(text: str) -> str:
    """The text with one blank for each run of white space."""
    return " ".join(text.split())


def judge(stages: list[Stage], talk: bool = False) -> list[Verdict]:
    """Runs the tests of these stages on all their wrong versions. talk: complains at once."""
    entries = [(stage, mistake) for stage in stages for mistake in mistakes_of(stage.number)]
    versions = [Version(s.number, wrong_text(s.number, m), exercise_of(s.number, m)) for s, m in entries]

    def report(index: int, outcome: Outcome) -> None:
        if talk and (complaint := Verdict(*entries[index], outcome).complaint()):
            print(complaint, flush=True)

    return [Verdict(*entry, outcome) for entry, outcome in zip(entries, run_versions(versions, report))]


def table(verdicts: list[Verdict]) -> str:
    """One line per stage: how many mistakes there are, are caught, are named."""
    lines = [f"{'stage':16s}{'mistakes':>10s}{'caught':>10s}{'named':>10s}"]
    names = dict.fromkeys(f"{v.stage.number:2d} {v.stage.name}" for v in verdicts)
    for name in [*names, "all"]:
        own = [v for v in verdicts if name in ("all", f"{v.stage.number:2d} {v.stage.name}")]
        counts = len(own), sum(v.caught for v in own), sum(v.caught and v.named for v in own)
        lines.append(f"{name:16s}" + "".join(f"{count:10d}" for count in counts))
    return "\n".join(lines)


def good_enough(verdicts: list[Verdict]) -> bool:
    return all(v.caught for v in verdicts) and sum(v.named for v in verdicts) >= WANTED * len(verdicts)


def mutants(options: OneStage) -> int:
    verdicts = judge([options.stage] if options.stage else list(STAGES), talk=True)
    print(f"\n{table(verdicts)}")
    return int(not good_enough(verdicts))
