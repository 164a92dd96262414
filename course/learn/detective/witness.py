"""The process in which what the learner types is run with both versions of a stage: the right one and the suspect.

It reads requests and writes one answer to each, a JSON object per line. Every request holds "stage" and "mistake":

    {"do": "open"}                     a case: {"fits": false}, or the "probe" that shows the mistake, a "silent" one
                                       that does not (or null), how far "apart" the results are (null: not told by
                                       a number), and names of "others", which give something else
    {"do": "compare", "code": "..."}   {"right": [...], "wrong": [...], "apart": "...", "differ": true}: what both give
    {"do": "assert", "code": "..."}    {"right": "...", "wrong": "...", "separates": true}: "passes" or why not
    {"do": "picture", "path": "..."}   {"said": "..."}: what is seen in a picture of both, written there

An answer may instead be {"problem": "..."}: one sentence about the code. Where processes can be forked, each request is
answered by a fork, whose end ends nothing else. Time and memory are limited as in the tests.

Evidence is what the versions do, not what comes by chance: what a learner types is run several times with new copies of
each version, in an order without a pattern and with other things in memory each time. All copies of a version have to
give the same.
"""

import ast
import contextlib
import dataclasses
import importlib
import io
import json
import math
import os
import random
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from course.core.limits import Stuck, is_out_of_memory, limit_memory, limited
from course.core.messages import Refusal, first_line
from course.core.stages import Stage, find_stage
from course.feedback.diagnosis import Result, same_result
from course.feedback.mistakes import Mistake, exercise_of, mistakes_of, wrong_text
from course.feedback.versions import loaded, reference, wrong_version
from course.learn.detective.probes import PROBES, given
from course.learn.runner import CAN_FORK, cause_of_death

LIMIT = 5.0  # seconds of computing for what a learner types, each time that it is run
LIMIT_OF_PICTURES = 60.0
LIMIT_OF_ONE = 0.5  # and for one probe of the course's own
STUCK = f"That was still running after {LIMIT:g} seconds: is there a loop that never ends?"
LONGEST = 150  # characters of a value
SEEDS = (0, 1, 2)
ROUNDS = 8  # how often both versions are run
ENOUGH = 1.0  # seconds of computing after which there are no more rounds than are needed
NO_EVIDENCE = "That differs even between two copies of the same version: it is no evidence."
TORCHS = ("randn", "rand", "zeros", "ones", "arange", "linspace", "tensor")
CHOICES = 4
Answer = dict[str, Any]
Found = TypeVar("Found")


class Unclear(Exception):
    """Code that is no evidence; the message is one sentence."""


def main() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    torch.set_num_threads(1)
    for line in iter(requests.readline, b""):
        request = json.loads(line)
        if find_stage(request["stage"]).encore:
            importlib.import_module("torch._dynamo")  # optimizers import it, which takes longer than a call may
        answer = answered_by_fork if CAN_FORK else answered
        answers.write(json.dumps(answer(request)).encode() + b"\n")


def answered_by_fork(request: Answer) -> Answer:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        with contextlib.suppress(BaseException):
            limit_memory()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps(answered(request)).encode())
            os._exit(0)
        os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code == -getattr(signal, "SIGXCPU", 0):
        return {"problem": STUCK}
    if not data or code:
        return {"problem": cause_of_death(code, 0).replace("The test", "That")}
    return json.loads(data)


def limit_computing() -> None:
    """Ends this process if it computes on where no Python runs."""
    import resource

    seconds = math.ceil(time.process_time() + LIMIT) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def answered(request: Answer) -> Answer:
    """What a request asks for, or {"problem": one sentence}."""
    stage = find_stage(request["stage"])
    mistake = next(m for m in mistakes_of(stage.number) if m.name == request["mistake"])
    torch.set_default_dtype(torch.float32 if request["do"] == "picture" else torch.float64)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if request["do"] == "open":
                return opened(stage, mistake)
            if request["do"] == "picture":
                return pictured(stage, mistake, Path(request["path"]))
            do = compared if request["do"] == "compare" else asserted
            answer = do(stage, mistake, request["code"])
        return answer | {"printed": [clean(line) for line in printed.getvalue().splitlines()[:5]]}
    except Unclear as error:
        return {"problem": str(error)}
    except Stuck:
        return {"problem": STUCK}
    except (MemoryError, RecursionError) as error:
        return {"problem": f"That takes too much memory ({type(error).__name__})."}


# --- versions --------------------------------------------------------------------------------------------------------


def names_of(number: int, module: ModuleType, code: str) -> dict[str, Any]:
    """What code about a version of a stage may name: the stage, those before it, and what is given."""
    blocks = reference(number)
    modules = [*(blocks[i] for i in range(1, number)), module]
    names = {name: value for m in modules for name, value in vars(m).items() if not name.startswith("_")}
    names |= {name: getattr(torch, name) for name in TORCHS}
    names |= {"torch": torch, "nn": nn, "math": math, "inf": math.inf, "filled": filled}
    return names | given(number, names, code)


def filled(module: nn.Module) -> nn.Module:
    """The module with a random number in every parameter. It depends on the parameter's name and shape alone."""
    module.requires_grad_(False)
    for name, parameter in module.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{name}{tuple(parameter.shape)}".encode()))
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim > 1:
            values /= math.sqrt(parameter[0].numel())
        elif name.endswith("weight"):
            values = 1 + 0.3 * values
        parameter.copy_(values)
    return module.eval()


# --- code ------------------------------------------------------------------------------------------------------------


def parsed(code: str) -> ast.Module:
    try:
        tree = ast.parse(code.strip())
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else first_line(error)
        raise Unclear(f"That is not Python: {clean(reason)}.") from None
    if not tree.body:
        raise Unclear("There is nothing in that line.")
    return tree


def outcome(code: str, number: int, module: ModuleType, seed: int = 0) -> Result:
    """What the last expression of some code gives with a version of a stage, or the exception that it ends in."""
    *statements, last = parsed(code).body
    if not isinstance(last, ast.Expr):
        raise Unclear("That gives no value: end with an expression, such as a call.")
    names = names_of(number, module, code)
    set_seeds(seed)
    try:
        exec(compile(ast.Module(statements, []), "<yours>", "exec"), names)
        return Result(evidence(eval(compile(ast.Expression(last.value), "<yours>", "eval"), names)))
    except (Unclear, MemoryError, RecursionError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError from None
        return Result(error=error)
    except (SystemExit, GeneratorExit, KeyboardInterrupt) as error:
        raise Unclear(f"That ends the program ({type(error).__name__}).") from None


def set_seeds(seed: int) -> None:
    """Of the random numbers that code draws without a generator of its own."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed)


def evidence(value: Any) -> Any:
    """The value as tensors, numbers and texts, in lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, (bool, int, float, complex, str, torch.dtype, torch.Size)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: evidence(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): evidence(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, Iterator)):
        parts = [evidence(part) for _, part in zip(range(1000), value, strict=False)]
        return tuple(parts) if isinstance(value, tuple) else parts
    raise Unclear(f"That gives a {type(value).__name__}, and only numbers, texts and tensors can be compared: call it?")


def clean(text: str) -> str:
    """Text that is safe to print: one line without control characters, not too long."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 4] + " ..."


# --- comparing -------------------------------------------------------------------------------------------------------


def compared(stage: Stage, mistake: Mistake, code: str) -> Answer:
    """What some code gives with both versions."""
    results = repeated(
        stage, mistake, (0,), lambda module, seed: outcome(code, stage.number, module, seed), same_result
    )
    right, wrong = results[True, 0], results[False, 0]
    return {
        "right": described(right),
        "wrong": described(wrong),
        "apart": "" if right.error or wrong.error else how_far(right.value, wrong.value),
        "differ": not same_result(right, wrong),
    }


def repeated(
    stage: Stage,
    mistake: Mistake,
    seeds: tuple[int, ...],
    run: Callable[[ModuleType, int], Found],
    same: Callable[[Found, Found], bool],
) -> dict[tuple[bool, int], Found]:
    """What `run` gives with new copies of both versions and each seed: {(whether it is the right one, seed): ...}.

    What comes by chance, such as an address or the time, cannot be told from what a mistake does in a single pair of
    runs. So there are several, in an order without a pattern, and between them memory is taken that is not given back.

    Raises:
        Unclear: if copies of one version do not give the same with the same seed.
    """
    texts = {True: stage.solution.read_text(encoding="utf-8"), False: wrong_text(stage.number, mistake)}
    chance, taken, found = random.Random(0), [], {}
    end = time.process_time() + ENOUGH
    for count in range(max(ROUNDS, 2 * len(seeds))):
        if count > len(seeds) and time.process_time() > end:
            break
        seed = seeds[count % len(seeds)]
        for is_right in chance.sample((True, False), 2):
            module = loaded(stage, texts[is_right], "a copy")
            if module is None:
                raise Unclear("The version with the mistake cannot be loaded.")
            taken.append([make() for make in (object, list, torch.Tensor) for _ in range(chance.randrange(9))])
            taken.append(torch.empty(chance.randrange(1, 99)))
            if CAN_FORK:
                limit_computing()
            shown = io.StringIO() if count else sys.stdout  # what is printed is told once
            with limited(LIMIT), contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
                result = run(module, seed)
            if not same(found.setdefault((is_right, seed), result), result):
                raise Unclear(NO_EVIDENCE)
    return found


def described(result: Result) -> list[str]:
    if result.error is not None:
        return [clean(f"raises {type(result.error).__name__}: {first_line(result.error)}")]
    value = result.value
    if isinstance(value, (list, tuple)) and any(isinstance(part, Tensor) for part in value):
        more = [f"and {len(value) - 4} more"] if len(value) > 4 else []
        return [line(part) for part in value[:4]] + more
    if isinstance(value, dict):
        more = [f"and {len(value) - 4} more"] if len(value) > 4 else []
        return [clean(f"{key}: {line(part)}") for key, part in list(value.items())[:4]] + more
    return [line(value)]


def line(value: Any) -> str:
    if not isinstance(value, Tensor):
        try:
            return clean(str(value) if isinstance(value, torch.dtype) else repr(value))
        except ValueError:  # Python shows no number of more than 4300 digits
            return f"{type(value).__name__}, too long to be shown"
    text = f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if not value.is_contiguous():
        text += ", not contiguous"
    if 0 < value.numel() <= 8:
        numbers = value.double().flatten().tolist() if value.dtype != torch.bool else value.flatten().tolist()
        return f"{text}  {', '.join(f'{number:.4g}' for number in numbers)}"
    if value.numel() == 0:
        return text
    x = value.double()
    mean = 0.0 if x.mean().abs() < 1e-12 * x.std() else float(x.mean())
    return f"{text}  mean {mean:.4g}  std {x.std():.4g}  min {x.min():.4g}  max {x.max():.4g}"


def distance(right: Any, wrong: Any) -> float:
    """||wrong - right|| / ||right||, of the worst part; infinite where that cannot be told."""
    if isinstance(right, Tensor) and isinstance(wrong, Tensor) and right.shape == wrong.shape:
        a, b = right.double(), wrong.double()
        if a.isfinite().all() and b.isfinite().all():
            return float((b - a).norm() / a.norm().clamp_min(1e-300))
    elif isinstance(right, (list, tuple)) and isinstance(wrong, (list, tuple)) and len(right) == len(wrong) > 0:
        return max(map(distance, right, wrong))
    return 0.0 if type(right) is type(wrong) and not isinstance(right, Tensor) and right == wrong else math.inf


def how_far(right: Any, wrong: Any) -> str:
    """How far two values are apart, in words; "" if that is no number."""
    far = distance(right, wrong)
    if not 0 < far < math.inf:
        return ""
    return f"relative difference {far:.2g}: ||suspect - right|| / ||right||"


# --- assertions ------------------------------------------------------------------------------------------------------


def asserted(stage: Stage, mistake: Mistake, code: str) -> Answer:
    """Whether an assertion passes with the right version and fails with the wrong one, whatever the random numbers."""
    tree = parsed(code)
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise Unclear("That asserts nothing: begin with assert, such as: assert randn(2).shape == (2,)")

    def run(module: ModuleType, seed: int) -> str:
        return verdict(tree, stage.number, module, seed)

    found = repeated(stage, mistake, SEEDS, run, lambda one, other: bool(one) == bool(other))
    right, wrong = ([found[is_right, seed] for seed in SEEDS] for is_right in (True, False))
    answer: Answer = {"right": next(filter(None, right), "passes"), "wrong": next(filter(None, wrong), "passes")}
    if not any(right) and any(wrong) and not all(wrong):
        answer["wrong"] = f"fails with {sum(map(bool, wrong))} of {len(SEEDS)} sets of random numbers only"
    return answer | {"separates": not any(right) and all(wrong)}


def verdict(tree: ast.Module, number: int, module: ModuleType, seed: int) -> str:
    """Why an assertion does not pass; "" if it does."""
    names = names_of(number, module, ast.unparse(tree))
    set_seeds(seed)
    try:
        exec(compile(tree, "<yours>", "exec"), names)
        return ""
    except AssertionError as error:
        return clean(f"fails: {first_line(error)}" if str(error) else "fails")
    except (Unclear, MemoryError, RecursionError):
        raise
    except Exception as error:
        return clean(f"raises {type(error).__name__}: {first_line(error)}")
    except (SystemExit, GeneratorExit, KeyboardInterrupt) as error:
        raise Unclear(f"That ends the program ({type(error).__name__}).") from None


# --- cases -----------------------------------------------------------------------------------------------------------


def opened(stage: Stage, mistake: Mistake) -> Answer:
    """What is needed to make a case of a mistake, found by trying the probes of its exercise."""
    number = exercise_of(stage.number, mistake)
    right = reference(stage.number)[stage.number]
    silent, telling = [], {}
    for code in PROBES.get(number, ()):
        ours, theirs = tried(code, stage, right), tried(code, stage, wrong_version(stage, mistake))
        if ours is None or theirs is None:
            continue
        if same_result(ours, theirs):
            silent.append(code)
        else:
            telling[code] = math.inf if ours.error or theirs.error else distance(ours.value, theirs.value)
    if not telling:
        return {"fits": False}
    probe = next((code for code, far in telling.items() if far < math.inf), next(iter(telling)))
    apart = telling[probe]
    culprit = tried(probe, stage, wrong_version(stage, mistake))
    others, fallback = [], []
    for other in mistakes_of(stage.number):
        if exercise_of(stage.number, other) != number or other.name in (mistake.name, *mistake.like):
            continue
        theirs = tried(probe, stage, wrong_version(stage, other))
        if theirs is not None and culprit is not None and not same_result(theirs, culprit):
            alike = same_result(theirs, tried(probe, stage, right) or theirs)
            (fallback if alike else others).append(other.name)
    return {
        "fits": True,
        "probe": probe,
        "silent": next((code for code in silent if not code.startswith("[name")), None),
        "apart": apart if apart < math.inf else None,
        "others": others if len(others) >= CHOICES - 1 else others + fallback,
    }


def tried(code: str, stage: Stage, module: ModuleType | None) -> Result | None:
    """What a probe gives; None if it does not end in time, or there is no such version."""
    if module is None:
        return None
    try:
        with limited(LIMIT_OF_ONE):
            return outcome(code, stage.number, module)
    except (Stuck, Unclear):
        return None


def pictured(stage: Stage, mistake: Mistake, path: Path) -> Answer:
    """A picture of what the mistake does to a picture."""
    from course.learn.detective.picture import draw_both  # imports what draws only now

    try:
        with limited(LIMIT_OF_PICTURES):
            return draw_both(stage, mistake, path)
    except Stuck:
        return {"problem": f"The suspect was still drawing after {LIMIT_OF_PICTURES:g} seconds."}
    except (Refusal, ValueError, OSError) as error:
        return {"problem": f"There is no picture: {first_line(error)}."}


if __name__ == "__main__":
    main()
    sys.stderr.flush()
    os._exit(0)
