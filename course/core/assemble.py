"""Builds one package out of two folders: for each stage either the learner's file or the reference one.

The stage files import each other relatively (`from .stage01_group_norm import GroupNorm`). Executed as modules of one
fresh package, they find whichever version of the earlier stage that package was given.
"""

import functools
import itertools
import linecache
import sys
import traceback
from collections.abc import Collection, Mapping
from pathlib import Path
from types import CodeType, ModuleType

from course.core.limits import is_out_of_memory, make_room, out_of_memory
from course.core.stages import PIPELINE, SOLUTIONS, STAGES, Stage, find_stage, short_path, source_of
from course.core.stubs import todo

_serial = itertools.count(1)


class StageError(Exception):
    """A stage's file cannot be used; the message names file, line and cause in a few lines."""


class Blocks:
    """The stages of one assembled package: `blocks[3]` or `blocks.stage03_attention`. Each is loaded when asked for.

    Attributes:
        package: the package's name in sys.modules.
        paths: stage number -> the file it comes from.
        origin: stage number -> "exercises" or "solutions".
    """

    def __init__(self, paths: Mapping[int, Path], overrides: Mapping[int, str], fused: bool):
        self.package = f"blocks_{next(_serial)}"
        self.paths = {number: Path(path) for number, path in paths.items()}
        self.origin = {number: _origin(path) for number, path in self.paths.items()}
        self._overrides = dict(overrides)
        self._fused = fused
        self._modules: dict[int, ModuleType] = {}
        package = ModuleType(self.package, "Stages of the course, assembled.")
        package.__path__ = []
        sys.modules[self.package] = package

    def __getitem__(self, number: int) -> ModuleType:
        for stage in STAGES[:number]:  # in order, so that every import of an earlier stage finds it
            if stage.number in self.paths and stage.number not in self._modules:
                self._modules[stage.number] = self._load(stage)
        return self._modules[number]

    def __getattr__(self, name: str) -> ModuleType:
        if not name.startswith("stage"):
            raise AttributeError(name)
        try:
            return self[find_stage(name).number]
        except ValueError as error:
            raise AttributeError(str(error)) from None

    def load(self) -> "Blocks":
        """Loads all its stages now.

        Raises:
            StageError: if one of them cannot be loaded.
        """
        self[max(self.paths)]
        return self

    def _load(self, stage: Stage) -> ModuleType:
        number, path = stage.number, self.paths[stage.number]
        filename, source = _source(path, self._overrides.get(number))
        module = ModuleType(f"{self.package}.{stage.module}")
        module.__file__ = filename
        module.__package__ = self.package
        module.__source__ = source  # for versions that are made from it
        sys.modules[module.__name__] = module
        try:
            exec(_compiled(source, filename), module.__dict__)
        except BaseException as error:
            del sys.modules[module.__name__]
            if not isinstance(error, (Exception, SystemExit, GeneratorExit)) or _is_to_do(error):
                raise
            raise StageError(_cause(error, filename, self.package)) from error
        if self._fused and self.origin[number] == "solutions" and number not in self._overrides:
            from course.core.kernels import fused_functions

            module.__dict__.update(fused_functions(number))
        setattr(sys.modules[self.package], stage.module, module)
        return module


def assemble(sources: Mapping[int, Path], overrides: Mapping[int, str] | None = None, fused: bool = False) -> Blocks:
    """One fresh package out of the files of some stages.

    Args:
        sources: stage number -> file.
        overrides: stage number -> source text that takes the place of the file's.
        fused: whether the reference stages get torch's fused kernels in place of the written-out formulas of group
            norm, SiLU, attention and upsampling, and pixels as tokens without gaps in memory. A learner's file and an
            override are never changed.
    """
    return Blocks(sources, overrides or {}, fused)


def for_testing(
    number: int, source: str = "exercises", overrides: Mapping[int, str] | None = None, fused: bool = False
) -> Blocks:
    """Stage `number` from `source` ("exercises" or "solutions"), and the reference for all other stages."""
    sources = {stage.number: stage.solution for stage in STAGES}
    if source == "exercises":
        sources[number] = STAGES[number - 1].exercise
    return assemble(sources, overrides, fused)


def with_version(module: ModuleType) -> Blocks:
    """What draws pictures when this version of a stage, which is loaded already, is all that a learner has written."""
    number, file = find_stage(module.__name__.rpartition(".")[2]).number, Path(getattr(module, "__file__", "<text>"))
    sources = {stage.number: stage.solution for stage in PIPELINE}
    if file.is_file():
        return assemble(sources | {number: file}, fused=True)
    return assemble(sources, {number: module.__source__}, fused=True)


def for_generating(
    mode: str = "auto",
    fused: bool = False,
    overrides: Mapping[int, str] | None = None,
    encore: Collection[int] = (),
) -> Blocks:
    """What draws pictures: the ten stages, and those of the encore that are asked for.

    Args:
        mode: "auto": the learner's file for each stage without an exercise to do, the reference for the rest;
            "solutions": the reference only; "exercises": the learner's files only.
        fused: as for `assemble`.
        overrides: stage number -> source text that takes the place of the reference and of the learner's file.
        encore: the numbers of those stages of the encore that are needed.

    Raises:
        StageError: if a learner's file cannot be read, or if mode is "exercises" and something is still to do.
        ValueError: if mode is none of the three.
    """
    stages = [stage for stage in STAGES if not stage.encore or stage.number in encore]
    theirs = set(_learners(mode, stages)) - set(overrides or ())
    return assemble({s.number: s.exercise if s.number in theirs else s.solution for s in stages}, overrides, fused)


def for_training(mode: str = "auto", number: int = 11, fused: bool = False) -> Blocks:
    """What a model is trained with: as for_generating, but only this stage of the encore can be the learner's.

    The models that are trained are the reference's.
    """
    return for_testing(number, "exercises" if _learners(mode, [STAGES[number - 1]]) else "solutions", fused=fused)


def _learners(mode: str, stages: Collection[Stage]) -> list[int]:
    """The numbers of those of the stages for which the learner's file is taken."""
    if mode not in ("auto", "exercises", "solutions"):
        raise ValueError(f"BLOCKS={mode} is not possible: choose auto, exercises or solutions.")
    open_numbers = {} if mode == "solutions" else {stage.number: stage_to_do(stage) for stage in stages}
    if mode == "exercises" and any(open_numbers.values()):
        first = next(number for numbers in open_numbers.values() for number in numbers)
        count = sum(map(bool, open_numbers.values()))
        encore = [stage.module for stage in stages if stage.encore]
        which = " and ".join([*(["all ten stages"] if len(encore) < len(stages) else []), *encore])
        raise StageError(f"BLOCKS=exercises needs {which}, and {count} are to do, from exercise {first} on.")
    return [number for number, numbers in open_numbers.items() if not numbers]


def stage_to_do(stage: Stage) -> list[str]:
    """The exercises that are still stubs in the learner's file.

    Raises:
        StageError: if the file is missing or is not Python.
    """
    try:
        return todo(stage.exercise)
    except (SyntaxError, UnicodeDecodeError, RecursionError, MemoryError) as error:
        raise StageError(_cause(error, str(stage.exercise), "")) from error
    except OSError as error:
        raise StageError(_unreadable(stage.exercise, error)) from error


@functools.lru_cache(maxsize=100)
def _compiled(source: str, filename: str) -> CodeType:
    return compile(source, filename, "exec", dont_inherit=True)


def _source(path: Path, override: str | None) -> tuple[str, str]:
    """(file name for tracebacks, source text)"""
    if override is not None:
        filename = f"<changed {path.name}>"
        linecache.cache[filename] = (len(override), None, override.splitlines(keepends=True), filename)
        return filename, override
    try:
        return str(path), source_of(path)
    except OSError as error:
        raise StageError(_unreadable(path, error)) from error
    except UnicodeDecodeError as error:
        raise StageError(_cause(error, str(path), "")) from error


def _origin(path: Path) -> str:
    return "solutions" if path.parent.resolve() == SOLUTIONS else "exercises"


def _unreadable(path: Path, error: OSError) -> str:
    what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
    return f"{short_path(path)} {what}: `make reset STAGE={find_stage(path.stem).number}` brings the stub back."


def _is_to_do(error: BaseException) -> bool:
    return isinstance(error, NotImplementedError) and str(error).startswith("exercise ")


def _cause(error: BaseException, filename: str, package: str) -> str:
    """file:line: what is wrong, then the line it is about."""
    text = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
    text = text.replace(f"{package}.", "") if package else text
    if is_out_of_memory(error):
        make_room(error)
        text = out_of_memory(error)
    if isinstance(error, SyntaxError) and error.filename == filename and error.text:
        line = error.text.rstrip("\n").expandtabs(1)
        shown = line.lstrip()
        caret = max((error.offset or 1) - 1 - (len(line) - len(shown)), 0)
        return f"{short_path(filename)}:{error.lineno}: {text}\n    {shown}\n    {' ' * caret}^"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == filename]
    if not frames:
        return f"{short_path(filename)}: {text}"
    return f"{short_path(filename)}:{frames[-1].lineno}: {text}\n    {frames[-1].line}"
