"""One case, from the first line on the screen to its end, at each of the four levels."""

import ast
import difflib
import random
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from course.core.stages import ROOT, Stage, short_path
from course.core.stubs import exercises
from course.feedback.mistakes import Mistake, exercise_of, full_name, mistakes_of, wrong_text
from course.learn.detective.line import Line
from course.learn.detective.probes import GIVEN, PROBES
from course.learn.detective.score import MOST

WIDTH = 110
LONGEST = 2000  # characters of a line that is read
CHOICES = 4
SHORTEST = 6  # lines in which one is to be found
LOOKED = 3  # mistakes from which a case is chosen
GOALS = {
    1: "Which explanation fits the numbers?",
    2: "You know the mistake. Write a call that shows it.",
    3: "Write an assertion that the right version passes and the suspect fails.",
    4: "Which line is wrong?",
}
HOW = {
    1: "1 to 4 names an explanation.",
    2: "Type a call, such as the one above with another input.",
    3: "Type an assertion, such as: assert f(x).shape == x.shape    or several statements: x = 1; assert x",
    4: "Type the number of a line.",
}
COMMANDS = (
    "? CALL shows what both versions give, {picture}`hint` costs {cost}, `skip` gives up, `quit` leaves, "
    "`help` says more."
)
DRAWS = "`picture` draws with both, "
PICTURE = ROOT / "outputs" / "detective.png"
HELP = """\
Both versions are the course's own: the solution of the stage, and the solution with one mistake. Your file is not
touched. Code may name everything in the stage and in those before it, and:
  torch, nn, math, inf, randn, rand, zeros, ones, arange, linspace, tensor    float64, unless you say otherwise
  filled(module)    the module with a random number in every parameter, the same ones in both versions
Random numbers are the same for both versions. Evidence is a different value, type, shape, dtype or error; what differs
between two copies of the same version is none. The last part of a line gives the value: x = randn(1, 4, 2, 2); f(x)"""


class Left(Exception):
    """The person leaves."""


@dataclass
class Case:
    """A mistake that is to be found.

    Attributes:
        probe: a call that shows it; silent: one that does not, or None.
        choices: mistakes, the right one among them.
    """

    stage: Stage
    mistake: Mistake
    level: int
    probe: str
    silent: str | None
    choices: list[Mistake]
    line: Line
    read: Callable[[], str]
    points: int = MOST
    hinted: bool = False
    told: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return full_name(self.stage, self.mistake)

    # --- the screen ---

    def play(self) -> int:
        """Plays to the end; returns the points, 0 if it is given up.

        Raises:
            Left: if the person leaves.
        """
        self.introduce()
        judge = {1: self.choose, 2: self.show, 3: self.contradict, 4: self.point}[self.level]
        while True:
            text = self.read()
            command, _, rest = text.strip().partition(" ")
            if len(text) > LONGEST:
                print(f"That line has {len(text)} characters, and {LONGEST} are read.")
            elif command in ("quit", "q", "exit"):
                raise Left
            elif command == "skip" and not rest:
                self.close(0)
                return 0
            elif command in ("help", "hint", "picture") and not rest:
                {"help": self.help, "hint": self.hint, "picture": self.draw}[command]()
            elif text.strip().startswith("?"):
                self.compare(text.strip()[1:])
            elif text.strip() and judge(text.strip()):
                self.close(self.points)
                return self.points

    def introduce(self) -> None:
        number = exercise_of(self.stage.number, self.mistake)
        title = next(exercise.title for exercise in exercises(self.stage) if exercise.number == number)
        print(f"Level {self.level}: {GOALS[self.level]}\n")
        say(f"A mistake hides in stage {self.stage.number}, exercise {number}: {title}.")
        if self.level == 2:
            say(f"You get it when {self.mistake.hint}")
        code = self.silent if self.level == 2 and self.silent else self.probe
        self.compare(code)
        if self.level == 1:
            print("\nYou get the second when ...")
            for i, mistake in enumerate(self.choices, start=1):
                say(mistake.hint, f"  {i}  ")
        elif self.level == 4:
            print("\nThe suspect, without its docstrings:")
            for i, line in self.listing():
                print(f"  {i:3d}  {line}")
        print()
        self.advise()

    def advise(self) -> None:
        """What can be typed."""
        print(HOW[self.level])
        picture = "" if self.stage.encore else DRAWS
        say(COMMANDS.format(cost="two points" if self.level == 2 else "a point", picture=picture))
        if self.stage.number in GIVEN:
            print(f"Given: {GIVEN[self.stage.number]}.")

    def help(self) -> None:
        self.advise()
        print(f"\n{HELP}")

    def compare(self, code: str) -> dict[str, Any]:
        """Shows what some code gives with both versions."""
        answer = self.ask("compare", code)
        if "problem" not in answer:
            print(f"\n  >>> {code.strip()}")
            for label, key in (("right", "right"), ("suspect", "wrong")):
                for i, line in enumerate(answer[key]):
                    print(f"  {label if i == 0 else '':8s} {line}")
            what = answer["apart"] or "They differ."
            print(f"  {what if answer['differ'] else 'No difference.'}")
        return answer

    def draw(self) -> None:
        """Draws a picture with both versions, if the stage has a part in pictures."""
        if self.stage.encore:
            print(f"No picture is drawn with stage {self.stage.number}.")
            return
        print("Drawing ...", flush=True)
        name = self.mistake.name
        answer = self.line.ask(do="picture", stage=self.stage.number, mistake=name, path=str(PICTURE))
        say(answer.get("problem") or f"{short_path(PICTURE)}: {answer['said']}")

    def ask(self, do: str, code: str) -> dict[str, Any]:
        answer = self.line.ask(do=do, stage=self.stage.number, mistake=self.mistake.name, code=code)
        if "problem" in answer:
            print(answer["problem"])
        for line in answer.get("printed", ()):
            print(f"  printed: {line}")
        return answer

    def lose(self) -> str:
        """One point less, but one is left to win."""
        self.points = max(self.points - 1, 1)
        return f"{self.points} to win."

    def hint(self) -> None:
        if self.hinted:
            print("That was the hint.")
            return
        self.hinted = True
        if self.level == 1:
            wrong = [i for i, mistake in enumerate(self.choices, start=1) if mistake is not self.mistake]
            print(f"It is not {wrong[0]}. {self.lose()}")
        elif self.level == 2:
            self.lose()
            print(f"It shows in: {self.probe}\n{self.lose()}")
        else:
            say(f"You get it when {self.mistake.hint} {self.lose()}")

    def close(self, points: int) -> None:
        """Says what it was."""
        print(f"\n{'Case closed' if points else 'It was'}: {self.name}")
        say(f"You get it when {self.mistake.hint}")
        for line in self.changes():
            print(f"    {line}")
        if not self.stage.encore:
            say(f"What it does to a picture: make generate MISTAKE={self.name}")

    # --- the levels ---

    def choose(self, text: str) -> bool:
        if text not in map(str, range(1, len(self.choices) + 1)):
            self.advise()
            return False
        chosen = self.choices[int(text) - 1]
        if chosen is self.mistake:
            return True
        print()
        say(f"No: {chosen.hint[0].lower()}{chosen.hint[1:]} With that it would have been:")
        answer = self.line.ask(do="compare", stage=self.stage.number, mistake=chosen.name, code=self.probe)
        for i, line in enumerate(answer.get("wrong", ())):
            print(f"  {'' if i else f'with {text}':8s} {line}")
        print(self.lose())
        return False

    def show(self, text: str) -> bool:
        answer = self.compare(text)
        if "problem" in answer:
            return False
        if not answer["differ"]:
            print(f"Both give the same: the mistake stays hidden. {self.lose()}")
        return answer["differ"]

    def contradict(self, text: str) -> bool:
        answer = self.ask("assert", text)
        if "problem" in answer:
            return False
        print(f"  right    {answer['right']}\n  suspect  {answer['wrong']}")
        if not answer["separates"]:
            print(f"It does not tell them apart. {self.lose()}")
        return answer["separates"]

    def point(self, text: str) -> bool:
        numbers = [number for number, _ in self.listing()]
        if text not in map(str, numbers):
            self.advise()
            return False
        if int(text) in self.wrong_lines():
            return True
        print(f"Line {text} is right. {self.lose()}")
        return False

    # --- the text of the suspect ---

    def changes(self) -> Iterator[str]:
        """The lines that the mistake changes: "-" as they are right, "+" as they were in the suspect."""
        right = self.stage.solution.read_text(encoding="utf-8").splitlines()
        for line in difflib.ndiff(right, wrong_text(self.stage.number, self.mistake).splitlines()):
            if line[:2] in ("- ", "+ "):
                yield line

    def listing(self) -> list[tuple[int, str]]:
        """The numbered code of the function or class with the mistake, without docstrings and blank lines."""
        text = wrong_text(self.stage.number, self.mistake)
        lines, wanted = text.splitlines(), min(self.wrong_lines())
        nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        inside = [n for n in nodes if n.lineno <= wanted <= (n.end_lineno or 0)]
        node = max(inside, key=lambda n: (n.end_lineno or 0) - n.lineno) if inside else ast.parse(text)
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno > 60:
            node = min(inside, key=lambda n: (n.end_lineno or 0) - n.lineno)
        hidden: set[int] = set()
        for part in ast.walk(node):
            if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(part, clean=False) is not None:
                hidden |= set(range(part.body[0].lineno, (part.body[0].end_lineno or 0) + 1))
        first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(lines))
        return [(i, lines[i - 1]) for i in range(first, last + 1) if i not in hidden and lines[i - 1].strip()]

    def wrong_lines(self) -> set[int]:
        """The numbers of the lines in the suspect that the mistake changed; of a line left out, its neighbours'."""
        right = self.stage.solution.read_text(encoding="utf-8").splitlines()
        wrong = wrong_text(self.stage.number, self.mistake).splitlines()
        found: set[int] = set()
        for kind, _, _, first, last in difflib.SequenceMatcher(None, right, wrong, False).get_opcodes():
            if kind in ("replace", "insert"):
                found |= {i + 1 for i in range(first, last) if wrong[i].strip()}
            elif kind == "delete":
                found |= {first, first + 1}
        return found


def say(text: str, first: str = "") -> None:
    print(textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False))


def find_case(
    stages: list[Stage], level: int, closed: set[str], rng: random.Random, line: Line, read: Callable[[], str]
) -> Case | None:
    """A case that was not closed yet, of one of these stages; None if there is none.

    Three are looked at. At first the plainest of them is taken, later a subtler one. At level 2 it should not show in
    every call.
    """
    left = [(s, m) for s in stages for m in mistakes_of(s.number) if full_name(s, m) not in closed]
    rng.shuffle(left)
    looked: list[tuple[bool, float, Case]] = []
    for stage, mistake in left:
        if exercise_of(stage.number, mistake) not in PROBES:
            continue
        answer = line.ask(do="open", stage=stage.number, mistake=mistake.name)
        if not answer.get("fits") or (level == 1 and len(answer["others"]) < CHOICES - 1):
            continue
        names = rng.sample(answer["others"], min(CHOICES - 1, len(answer["others"])))
        choices = [mistake, *(m for m in mistakes_of(stage.number) if m.name in names)]
        rng.shuffle(choices)
        case = Case(stage, mistake, level, answer["probe"], answer["silent"], choices, line, read)
        unfit = case.silent is None if level == 2 else answer["apart"] is None
        unfit = unfit or (level == 4 and len(case.listing()) < SHORTEST)
        looked.append((unfit, -(answer["apart"] or 0), case))
        if sum(not unfit for unfit, _, _ in looked) == LOOKED or len(looked) == 3 * LOOKED:
            break
    looked = sorted(looked, key=lambda seen: seen[:2])[:LOOKED]
    return looked[min(len(closed) // LOOKED, len(looked) - 1)][2] if looked else None
