"""The one list of commands, behind `make` and `python -m course COMMAND`.

A command is a function that takes its options, a dataclass (course/core/options.py), and returns its exit code.
"""

import difflib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import Any, get_type_hints

from course.core import screen, setup
from course.core.assemble import StageError
from course.core.options import Options, variable

INSIDE, IF_THERE, ANYWHERE = "in .venv", "in .venv if it is there", "with the standard library alone"


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: as it is typed.
        function: where it is, "module:function".
        does: what it does.
        examples: arguments -> what the command does with them.
        runs: INSIDE, IF_THERE or ANYWHERE.
    """

    name: str
    function: str
    does: str
    examples: tuple[tuple[str, str], ...] = ()
    runs: str = INSIDE

    def load(self) -> tuple[Any, type[Options]]:
        """The function, and the class of its options."""
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        return function, next(iter(get_type_hints(function).values()))


# fmt: off
COMMANDS = (
    Command("generate", "course.draw.generate:generate", "draw pictures, with every block that you have finished",
            (('PROMPT="a red house on a green hill"', "a picture, with every block that you have finished"),)),
    Command("test", "course.learn.testing:test", "test what you have written, and name the next thing to do",
            (("", "tests what you have written, and names the next thing to do"),
             ("STAGE=3", "that stage alone (or STAGE=attention)"),
             ("JSON=1", "also writes the verdicts to result.json"))),
    Command("watch", "course.learn.watch:watch", "test the stage that you work on after each save",
            (("", "the same after each save, in about a second; keys for hints and pictures"),)),
    Command("hint", "course.learn.hints:hint", "one more hint for an exercise",
            (("STAGE=3", "one more hint each time, three per exercise (or EXERCISE=3.2)"),), ANYWHERE),
    Command("page", "course.page.build:page", "a web page that draws with your blocks",
            (("", "a web page that draws with your blocks, as a folder for any host of files"),)),
    Command("play", "course.page.serve:play", "show that page in the browser",
            (("", "shows that page in the browser, from this machine"),)),
    Command("show", "course.show:show", "draw what your block does",
            (("STAGE=3", "pictures of what your block does (ALL=1: also those that take longer)"),)),
    Command("experiment", "course.experiments:experiment", "answer a question about the model by a measurement",
            (("", "lists experiments: what decides a picture, what guidance does, ..."),
             ("NAME=steps", "runs one: a picture and what was measured (NAME=all: all, into docs/gallery.md)"))),
    Command("detective", "course.learn.detective:detective", "find the mistake that hides in a stage you have finished",
            (("", "find the mistake that hides in a stage that you have finished"),)),
    Command("solution", "course.core.workspace:solution", "read a stage's solution, and how your file differs from it",
            (("STAGE=3", "read the solution, and how your file differs from it"),
             ("STAGE=3 COPY=1", "put the solution in place of your file (yours is kept as a backup)")), ANYWHERE),
    Command("reset", "course.core.workspace:reset", "put a stage's stub back in place of your file",
            (("STAGE=3", "put the stub back in place of your file (yours is kept as a backup)"),), ANYWHERE),
    Command("doctor", "course.learn.doctor:doctor", "is everything here that is needed? What to do if not",
            (), IF_THERE),
    Command("check", "tools.check:check", "the repo's own tests, against solutions/",
            (("", "the repo's own tests, against solutions/ (SLOW=1: the slow ones too)"),)),
    Command("mutants", "tools.mutants:mutants", "do the tests notice every known mistake?",
            (("", "do the tests notice every known mistake, and name no other? (STAGE=3: that one)"),)),
    Command("mutation", "tools.mutation:mutation", "do the tests notice any small change of a solution?",
            (("", "do they notice any small change? (STAGE=3; wants one more package, which it names)"),)),
    Command("train", "course.training.command:train", "train the small model",
            (("MINUTES=60", "train the small model"),)),
    Command("tune", "course.training.tune:tune", "teach a model a new thing from a few pictures, as a LoRA file",
            (('PICTURES=my-cat WORD="blorb"', "teach a model a new thing from a few pictures"),)),
    Command("evaluate", "course.training.evaluate:evaluate",
            "measure the small model: does it draw what it is asked for?",
            (("", "measure the small model: does it draw what it is asked for?"),
             ("PART=motion", "measure its films: do things move as they should, and does the rest stand still?"))),
    Command("weights", "course.draw.weights:weights", "fetch Stable Diffusion 1.5 (4 GB)",
            (("", "fetch Stable Diffusion 1.5 (4 GB), to draw with CHECKPOINT=checkpoints/sd15/..."),)),
    Command("bench", "tools.bench:bench", "speed and memory against diffusers"),
    Command("gpu-report", "tools.gpu_report:report", "all checks and figures of a new GPU, in one file"),
    Command("latency", "tools.latency:latency", "how long a verdict takes, with make test and with make watch"),
    Command("stubs", "course.core.workspace:stubs", "make exercises/ anew out of solutions/", (), ANYWHERE),
)
# fmt: on
LEFT = 33  # columns for what is typed, in the list of commands


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    try:
        code = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        return screen.closed_early()
    except (ValueError, RuntimeError, StageError, OSError) as error:
        print(screen.sentence(error), file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        return tell_missing(error.name or str(error))
    except KeyboardInterrupt:
        return 130


def run(arguments: list[str] | None) -> int:
    """Runs the command that the arguments name, here or in .venv."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["help"]
    if name in ("help", "-h", "--help"):
        print(help_text())
        return 0
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        close = difflib.get_close_matches(name, [command.name for command in COMMANDS], n=1)
        meant = f": did you mean {close[0]}?" if close else "."
        print(f"There is no command {name!r}{meant} `make help` lists all.", file=sys.stderr)
        return 2
    if arguments is None and setup.wanted() and command.runs in ([INSIDE, IF_THERE] if setup.is_ready() else [INSIDE]):
        if not setup.is_ready():
            setup.set_up()
        return setup.run_inside([name, *rest])
    if command.runs == INSIDE and importlib.util.find_spec("torch") is None:
        return tell_missing("torch")
    function, kind = command.load()
    options = kind.parse(rest, name, (command.does[0].upper() + command.does[1:] + ".").replace("?.", "?"))
    refuse_unknown_variables(name, kind)
    return function(options) or 0


def tell_missing(package: str) -> int:
    print(f"{package} is not installed for {sys.executable}. `make doctor` says what to do.", file=sys.stderr)
    return 2


def refuse_unknown_variables(name: str, kind: type[Options]) -> None:
    """A ValueError if make was given what looks like a misspelt variable of the command."""
    known = {*map(variable, kind.rules()), "PYTHON", "NO_VENV", "TORCH_INDEX", "PIP_ARGS"}
    for given in os.environ.get("COURSE_GIVEN", "").split():
        if given not in known:
            for close in difflib.get_close_matches(given, known, n=1):
                raise ValueError(f"{given} is no variable of make {name}: did you mean {close}?")


def help_text() -> str:
    """The list of commands."""
    lines = ["Stable Diffusion from scratch, one failing test at a time.", ""]
    for command in COMMANDS:
        for arguments, does in command.examples or (("", command.does),):
            typed = f"make {command.name} {arguments}".rstrip()
            lines.append(f"  {typed:{LEFT}}{does}" if len(typed) < LEFT else f"  {typed}     {does}")
    return (
        "\n".join(lines)
        + """

Every command has --help: python -m course generate --help. An option is a flag there and a variable for make:
python -m course generate --steps 20 --sampler euler, make generate STEPS=20 SAMPLER=euler.

The first command makes .venv with pinned versions. PYTHON=python3.12 picks the interpreter, NO_VENV=1 uses it as it is,
TORCH_INDEX=https://download.pytorch.org/whl/cpu gets the small CPU-only torch, PIP_ARGS=... goes to pip.
Without make: python -m course generate, python -m course test --stage 3, and so on; it sets up .venv as make does."""
    )
