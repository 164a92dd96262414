"""Proves that the tests of each stage notice every mistake of the catalogue, that the messages name it, and that they
name none that was not made.

Usage: python -m course mutants [--stage 3]
"""

import random
from dataclasses import dataclass

from course.core.options import OneStage, option
from course.core.stages import STAGES, Stage, find_stage
from course.feedback.mistakes import Mistake, exercise_of, mistakes_of, wrong_text
from course.learn.board import Verdict
from tools import claims
from tools.versions import Version, run_versions

SECONDS = 2.0  # of other tests for a diagnosis, as with `make test`
WANTED = 0.85  # the share of all mistakes that a failed test's message names


@dataclass
class Case:
    """A mistake and what the tests of its stage say to it."""

    mistake: Mistake
    verdict: Verdict

    @property
    def caught(self) -> bool:
        return self.verdict.failure is not None

    @property
    def named(self) -> bool:
        """Whether the message names this mistake, or one that it cannot be told from."""
        right = {self.mistake.name, *self.mistake.like}
        return any(mistake["name"] in right for mistake in self.verdict.mistakes)

    def complaint(self) -> str:
        """One line for a mistake that is caught but not named; more for one that survives; "" for all others."""
        name = f"{self.verdict.stage.module}/{self.mistake.name}"
        if not self.caught:
            return f"{name} survives. Find:\n{self.mistake.find}\nreplace:\n{self.mistake.replace}"
        return "" if self.named else f"{name} is not named; first seen by {self.verdict.test}"


def judge(stages: list[Stage], talk: bool = False) -> list[Case]:
    """Runs the tests of these stages on all their wrong versions. talk: complains at once."""
    entries = [(stage.number, mistake) for stage in stages for mistake in mistakes_of(stage.number)]
    versions = [Version(number, wrong_text(number, m), exercise_of(number, m)) for number, m in entries]

    def report(index: int, verdict: Verdict) -> None:
        if talk and (complaint := Case(entries[index][1], verdict).complaint()):
            print(complaint, flush=True)

    verdicts = run_versions(versions, report, seconds=SECONDS)
    return [Case(mistake, verdict) for (_, mistake), verdict in zip(entries, verdicts, strict=True)]


def table(cases: list[Case]) -> str:
    """One line per stage: how many mistakes there are, are caught, are named."""
    lines = [f"{'stage':16s}{'mistakes':>10s}{'caught':>10s}{'named':>10s}"]
    for stage in [*dict.fromkeys(case.verdict.stage for case in cases), None]:
        own = [case for case in cases if stage in (None, case.verdict.stage)]
        counts = len(own), sum(case.caught for case in own), sum(case.named for case in own)
        name = f"{stage.number:2d} {stage.name}" if stage else "all"
        lines.append(f"{name:16s}" + "".join(f"{count:10d}" for count in counts))
    return "\n".join(lines)


def good_enough(cases: list[Case]) -> bool:
    return all(case.caught for case in cases) and sum(case.named for case in cases) >= WANTED * len(cases)


@dataclass
class MutantsOptions(OneStage):
    pairs: int = option(300, "pairs of mistakes that are handed in, to see whether messages claim others", least=0)
    changes: int = option(300, "small changes of the solutions that are handed in for the same", least=0)
    seed: int = option(0, "which pairs and changes these are", least=0)


def mutants(options: MutantsOptions) -> int:
    """Runs the command. With a stage, the pairs and changes are those among them that are of this stage."""
    cases = judge([options.stage] if options.stage else list(STAGES), talk=True)
    print(f"\n{table(cases)}\n", flush=True)
    chance = random.Random(options.seed)
    handed_in = claims.pairs(options.pairs, chance) + claims.small_changes(options.changes, chance)
    found = claims.judge([one for one in handed_in if options.stage in (None, find_stage(one.version.stage))])
    print("\n".join([*(claim.complaint() for claim in found if claim.is_false), claims.summary(found)]))
    return int(not good_enough(cases) or not claims.good_enough(found))
