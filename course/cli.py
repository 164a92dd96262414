"""The commands behind `make`, also as `python -m course COMMAND`. Options can be make variables instead."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable

from course.core import workspace
from course.core.assemble import StageError
from course.core.stages import Stage, find_stage, short_path

HELP = """\
Stable Diffusion from scratch, one failing test at a time.

  make generate PROMPT="a red house on a green hill"     draw a picture, with every block that you have finished
  make test                        tests what you have written, and names the next thing to do
  make test STAGE=3                that stage alone (or STAGE=attention)
  make watch                       the same after each save, in under a second; keys for hints and pictures
  make hint STAGE=3                one more hint each time, three per exercise (or EXERCISE=3.2)
  make show STAGE=3                pictures of what your block does (ALL=1: also those that take longer)
  make solution STAGE=3            read the solution, and how your file differs from it
  make solution STAGE=3 COPY=1     put the solution in place of your file (yours is kept as a backup)
  make reset STAGE=3               put the stub back in place of your file (yours is kept as a backup)
  make doctor                      is everything here that is needed? What to do if not
  make check                       the repo's own tests, against solutions/ (SLOW=1: the slow ones too)
  make mutants                     do the tests notice every known mistake? (STAGE=3: those of that stage)
  make mutation                    do they notice any small change? (STAGE=3; wants one more package, which it names)
  make train MINUTES=60            train the small model
  make evaluate                    measure it: does it draw what it is asked for?
  make weights                     fetch Stable Diffusion 1.5 (4 GB), to draw with CHECKPOINT=checkpoints/sd15/...
  make bench                       speed and memory against diffusers
  make latency                     how long a verdict takes, with make test and with make watch
  make stubs                       make exercises/ anew out of solutions/

Drawing: NEGATIVE STEPS SCALE SEED SAMPLER WIDTH HEIGHT COUNT INIT STRENGTH MASK EMA CHECKPOINT TOKENIZER DEVICE DTYPE
COMPILE FILM FROM OUT, and BLOCKS=auto, exercises or solutions; generate --help tells what they mean.
Training: PART MINUTES OUT.

The first command makes .venv with pinned versions. PYTHON=python3.12 picks the interpreter, NO_VENV=1 uses it as it is,
TORCH_INDEX=https://download.pytorch.org/whl/cpu gets the small CPU-only torch, PIP_ARGS=... goes to pip.
Without make: python -m course generate, test --stage 3, solution --stage 3, ... (each has --help)."""


WITHOUT_TORCH = ("help", "hint", "solution", "reset", "stubs", "doctor")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not {"-h", "--help", *WITHOUT_TORCH}.intersection(arguments) and importlib.util.find_spec("torch") is None:
        return tell_missing("torch")
    try:
        if arguments[:1] == ["generate"]:
            from course.draw.generate import main as generate

            return generate(arguments[1:]) or 0
        if arguments[:1] == ["show"]:
            from course.show import main as show

            return show(arguments[1:]) or 0
        if arguments[:1] == ["train"]:
            from course.training.__main__ import main as train

            return train(arguments[1:]) or 0
        if arguments[:1] == ["evaluate"]:
            from course.training.evaluate import main as evaluate

            return evaluate(arguments[1:]) or 0
        if arguments[:1] == ["weights"]:
            from course.draw.weights import main as weights

            return weights(arguments[1:]) or 0
        if arguments[:1] == ["bench"]:
            from tools.bench import main as bench

            return bench(arguments[1:]) or 0
        options = parser().parse_args(arguments)
        return options.run(options)
    except (ValueError, RuntimeError, StageError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        return tell_missing(error.name or str(error))
    except KeyboardInterrupt:
        return 130


def tell_missing(package: str) -> int:
    print(f"{package} is not installed for {sys.executable}. `make doctor` says what to do.", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m course", description="Stable Diffusion from scratch.")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], description: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=description, description=description)
        sub.set_defaults(run=run)
        return sub

    command("generate", show_help, "draw pictures (generate --help for the options)")
    test = command("test", run_test, "test your stages in order, or one of them")
    watch = command("watch", run_watch, "test the stage that you work on after each save")
    hint = command("hint", run_hint, "one more hint for an exercise")
    solution = command("solution", run_solution, "read a stage's solution, and how your file differs from it")
    reset = command("reset", run_reset, "put a stage's stub back in place of your file, which is backed up")
    for sub in (test, watch, hint, solution, reset):
        sub.add_argument("--stage", default=os.environ.get("STAGE") or None, help="number or name of the stage")
    number = os.environ.get("EXERCISE") or None
    hint.add_argument("--exercise", default=number, help="its number, such as 3.2 (default: the first not done)")
    copy = "put it in place of your file, which is backed up"
    solution.add_argument("--copy", action="store_true", default=switched_on("COPY"), help=copy)
    command("doctor", run_doctor, "is everything here that is needed?")
    latency = command("latency", run_latency, "how long a verdict takes, with make test and with make watch")
    latency.add_argument("--stage", default=os.environ.get("STAGE") or None, help="only this one")
    check = command("check", run_check, "the repo's own tests, against solutions/")
    check.add_argument("--slow", action="store_true", default=switched_on("SLOW"), help="also the slow ones")
    mutants = command("mutants", run_mutants, "do the tests notice every known mistake, and name it?")
    mutants.add_argument("--stage", default=os.environ.get("STAGE") or None, help="only those of this stage")
    mutation = command("mutation", run_mutation, "do the tests notice any small change of a solution?")
    mutation.add_argument("--stage", default=os.environ.get("STAGE") or None, help="only the changes of this stage")
    stubs = command("stubs", run_stubs, "make exercises/ anew out of solutions/")
    stubs.add_argument("--check", action="store_true", help="only say which files are not up to date")
    command("show", show_help, "pictures of what a stage does (show --help for the options)")
    command("train", show_help, "train the small model (train --help for the options)")
    command("evaluate", show_help, "measure the small model (evaluate --help for the options)")
    command("weights", show_help, "fetch Stable Diffusion 1.5 (weights --help for the options)")
    command("bench", show_help, "speed and memory against diffusers (bench --help for the options)")
    command("help", show_help, "what there is")
    return top


def switched_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "no", "false")


def show_help(options: argparse.Namespace) -> int:
    print(HELP)
    return 0


def run_test(options: argparse.Namespace) -> int:
    from course.learn import testing

    return testing.test_one(find_stage(options.stage)) if options.stage else testing.test_in_order()


def run_watch(options: argparse.Namespace) -> int:
    from course.learn.watch import main as watch

    return watch(find_stage(options.stage) if options.stage else None)


def run_latency(options: argparse.Namespace) -> int:
    from tools.latency import main as latency

    return latency(find_stage(options.stage) if options.stage else None)


def run_hint(options: argparse.Namespace) -> int:
    from course.learn import hints

    return hints.main(options.stage, options.exercise)


def run_doctor(options: argparse.Namespace) -> int:
    from course.learn.doctor import main as doctor

    return doctor()


def run_check(options: argparse.Namespace) -> int:
    from tools import check

    stale = run_stubs(argparse.Namespace(check=True))
    return check.main(options.slow) or stale


def run_mutants(options: argparse.Namespace) -> int:
    from tools import mutants

    return mutants.main(find_stage(options.stage) if options.stage else None)


def run_mutation(options: argparse.Namespace) -> int:
    from tools import mutation

    return mutation.main(find_stage(options.stage) if options.stage else None)


def run_stubs(options: argparse.Namespace) -> int:
    if not options.check:
        tell_backups(workspace.write_stubs())
        return 0
    stale = workspace.stale_stubs()
    if stale:
        print(f"Not what solutions/ says: {', '.join(stale)}. `make stubs` writes them anew.", file=sys.stderr)
    return int(bool(stale))


def run_solution(options: argparse.Namespace) -> int:
    stage = chosen_stage(options)
    if options.copy:
        return put(stage, stage.solution.read_text(encoding="utf-8"), "is now the solution")
    from course.learn import board

    print(workspace.solution_beside(stage, board.fancy()))
    return 0


def run_reset(options: argparse.Namespace) -> int:
    stage = chosen_stage(options)
    return put(stage, workspace.stub(stage), "is now the stub again")


def chosen_stage(options: argparse.Namespace) -> Stage:
    if not options.stage:
        raise ValueError("Which stage? Say for example STAGE=3 (python -m course: --stage 3).")
    return find_stage(options.stage)


def put(stage: Stage, text: str, what: str) -> int:
    backup = workspace.replace(stage, text)
    print(f"{short_path(stage.exercise)} {what}.")
    tell_backups([backup] if backup else [])
    return 0


def tell_backups(backups: list) -> None:
    for backup in backups:
        print(f"Your version is kept as {short_path(backup)}.")
