"""What all three trainings share: the loop over steps, its budget, its clock, its saves and its progress bar.

Every random number of a step comes from a generator seeded with (seed, part, process, step). So a training that was
interrupted goes on exactly as if it had not been, and two trainings of equally many steps on the same hardware are
equal.
"""

import contextlib
import hashlib
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from course.core.processor import multiplies_bfloat16_faster
from course.core.stages import short_path
from course.core.writing import whole_file
from solutions import stage11_training

AVERAGE = "average."  # before the names of averaged weights in a saved state
EMA_GAMMA = 16.0  # the weights after step s count in proportion to about s ** EMA_GAMMA: mostly the last tenth


class Interrupted(Exception):
    """The training was asked to stop and has saved its state."""


@dataclass(frozen=True)
class Settings:
    """What the command line decides for one part of the training.

    minutes: wall time for the part, over all its runs.
    steps: the number of optimiser steps, which then decides instead of the minutes.
    learning_rate: at its peak; None: the part's own choice.
    save_seconds: how often the state is saved.
    """

    out: Path
    minutes: float = 60.0
    steps: int | None = None
    seed: int = 0
    learning_rate: float | None = None
    save_seconds: float = 240.0


class Part(Protocol):
    """One part of the model in training."""

    name: str
    model: nn.Module  # everything that is trained
    learning_rate: float  # at its peak
    betas: tuple[float, float]
    warmup: int  # steps

    @property
    def average(self) -> nn.Module | None:
        """A copy of the model that is to follow it as the average of its weights; None: none is kept."""

    def loss(self, model: nn.Module, progress: float, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a fresh batch, and more numbers to show. `progress` goes from 0 to 1 over the training."""

    def write(self, out: Path) -> None:
        """Writes the weights, for the parts that come after and for export."""

    def read(self, out: Path) -> None:
        """Begins with the weights that `write` has written, instead of random ones."""

    def check(self) -> dict[str, float]:
        """Numbers that say how good it is, measured on pictures that are not trained on."""

    def sheet(self) -> Image.Image | None:
        """A picture that shows how far the training has got."""


def make_accelerator() -> Accelerator:
    """bfloat16 on a GPU that computes in it or a CPU that is faster with it, else float32.

    Where there is only a CPU that has to be said: else each of several processes would train on its own.
    """
    if torch.cuda.is_available():
        bfloat16 = torch.cuda.is_bf16_supported()
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    else:  # one thread of an AMD EPYC with AVX512-BF16: the VAE 1.5 times as fast, the U-Net 1.7 times
        bfloat16 = multiplies_bfloat16_faster()
    only_cpu = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return Accelerator(mixed_precision="bf16" if bfloat16 else "no", cpu=only_cpu)


def memory_format(device: torch.device) -> torch.memory_format:
    """The order in memory in which convolutions train fastest: channels last on a GPU, first on a processor."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def step_generator(seed: int, part: str, process: int, step: int) -> torch.Generator:
    """The source of all random numbers of one step of one process."""
    digest = hashlib.sha256(f"{seed} {part} {process} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def generator_on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator on the device, seeded by the next number of this one: numbers drawn there need not be sent there.

    On the CPU it is this one itself.
    """
    if device.type != "cuda":
        return generator
    seed = int(torch.randint(2**63 - 1, (1,), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def learning_rate_factor(step: int, progress: float, warmup: int) -> float:
    """Linear warm-up over steps, then half a cosine from 1 to 0.01 over the progress."""
    return min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0))))


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Writes a safetensors file in float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        save_file({name: w.detach().to("cpu", torch.float32).contiguous() for name, w in weights.items()}, temporary)


def advice(made_by: str) -> str:
    """What to do where a file that a part has written is missing, damaged or another model's."""
    return f"make train PART={made_by} writes it"


def load_json(path: Path, name: str, made_by: str) -> float:
    """A number that a part has written beside its weights: in the last line of the file, which is JSON."""
    try:
        number = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])[name]
        if math.isfinite(number):
            return number
    except FileNotFoundError:
        raise ValueError(f"{short_path(path)} is missing: {advice(made_by)}.") from None
    except (ValueError, LookupError, TypeError):
        pass
    raise ValueError(f"{short_path(path)} is damaged: {advice(made_by)}.")


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM only append to the list; a second one acts as usual."""
    received: list[int] = []
    before = {}

    def on_signal(number, frame):
        received.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, on_signal)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


STATE: dict[str, type | tuple[type, ...]] = {  # what a saved state holds
    "model": dict,
    "optimizer": dict,
    "extra": dict,
    "step": int,
    "elapsed": (int, float),
}


def load_state(path: Path) -> dict:
    """Reads what `train` has saved."""
    with contextlib.suppress(Exception):  # torch's reader trips over a damaged file in many ways
        state = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(state, dict) and all(isinstance(state[name], kind) for name, kind in STATE.items()):
            return state
    raise ValueError(f"{short_path(path)} is damaged, or no saved training: delete it to begin anew.")


class Clock:
    """How far a training has got, as a share of its budget: of minutes if it has minutes, else of steps."""

    def __init__(self, settings: Settings, elapsed: float, step: int):
        self.seconds = settings.minutes * 60.0
        self.steps = settings.steps
        self.before = elapsed
        self.started = time.monotonic()
        self.step = step

    @property
    def elapsed(self) -> float:
        """Seconds of training, those of earlier runs included."""
        return self.before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        if self.steps is not None:
            return self.step / self.steps
        return self.elapsed / self.seconds

    def left(self, first_step: int) -> float:
        """Seconds that are left, estimated."""
        if self.steps is None:
            return max(self.seconds - self.elapsed, 0.0)
        done = self.step - first_step
        return (time.monotonic() - self.started) / done * (self.steps - self.step) if done else math.nan


def same_everywhere(accelerator: Accelerator, progress: float, stop: bool) -> tuple[float, bool]:
    """What the first process says about progress and stopping, in all processes."""
    if accelerator.num_processes == 1:
        return progress, stop
    values = torch.tensor([progress, float(stop)], dtype=torch.float32, device=accelerator.device)
    progress, stop = broadcast(values).tolist()
    return progress, bool(stop)


def train(part: Part, settings: Settings, accelerator: Accelerator, training: ModuleType = stage11_training) -> None:
    """Trains one part within its budget, going on from its last save if there is one.

    training: stage 11, whose steps are taken.
    """
    state_file = settings.out / f"{part.name}.state.pt"
    log_file = settings.out / f"{part.name}.log.jsonl"
    peak = settings.learning_rate or part.learning_rate
    part.model.to(accelerator.device)
    if part.average is not None:
        part.average.to(accelerator.device)
    decayed = [p for p in part.model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in part.model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=part.betas, fused=True)

    step, elapsed = 0, 0.0
    if state_file.exists():
        state = load_state(state_file)
        try:
            part.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            if part.average is not None:
                part.average.load_state_dict({name.removeprefix(AVERAGE): w for name, w in state["extra"].items()})
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f"{short_path(state_file)} belongs to a model of another size: choose another OUT."
            ) from None
        step, elapsed = state["step"], state["elapsed"]
    clock = Clock(settings, elapsed, step)
    if clock.progress >= 1.0:
        accelerator.print(f"{part.name}: already trained ({step} steps, {elapsed / 60:.1f} minutes)")
        part.write(settings.out)
        return
    if step:
        accelerator.print(f"{part.name}: going on after step {step} ({elapsed / 60:.1f} minutes)")

    first_step, last_save = step, time.monotonic()
    model, optimizer = accelerator.prepare(part.model, optimizer)
    numbers: dict[str, Tensor] = {"loss": torch.zeros(())}  # of the latest step
    shown: dict[str, float] = {}  # smoothed

    def loss_of(model: nn.Module, progress: float, generator: torch.Generator) -> Tensor:
        with accelerator.autocast():
            loss, others = part.loss(model, progress, generator)
        numbers.update(others)
        return loss

    def save() -> None:
        if not accelerator.is_main_process:
            return
        state = {
            "model": part.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "extra": {AVERAGE + name: w for name, w in part.average.state_dict().items()} if part.average else {},
            "step": clock.step,
            "elapsed": clock.elapsed,
        }
        with whole_file(state_file) as temporary:
            torch.save(state, temporary)
        part.model.eval()
        part.write(settings.out)
        numbers = {name: round(value, 5) for name, value in (shown | part.check()).items()}
        with log_file.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": clock.step, "minutes": round(clock.elapsed / 60, 2), **numbers}) + "\n")
        sheet = part.sheet()
        part.model.train()
        if sheet is not None:
            with whole_file(settings.out / f"{part.name}.png") as temporary:
                sheet.save(temporary, format="PNG")

    part.model.train()
    bar_format = "{desc} {percentage:3.0f}% |{bar:20}|{postfix}"
    quiet = not accelerator.is_local_main_process
    interval = 0.5 if sys.stderr.isatty() else 20.0
    with (
        stop_signals() as stop,
        tqdm(total=1.0, desc=part.name, bar_format=bar_format, disable=quiet, miniters=0, mininterval=interval) as bar,
    ):
        while True:
            progress, stopped = same_everywhere(accelerator, clock.progress, bool(stop))
            if stopped or progress >= 1.0:
                break
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate_factor(step, progress, part.warmup)
            generator = step_generator(settings.seed, part.name, accelerator.process_index, step)
            step += 1
            loss = training.training_step(
                model,
                optimizer,
                partial(loss_of, progress=progress, generator=generator),
                average=part.average,
                decay=training.ema_decay(step, power=1.0, gamma=EMA_GAMMA, max_decay=1.0),
            )
            numbers["loss"] = loss
            clock.step = step

            if step % 10 == 1 or accelerator.device.type == "cpu":  # reading a number makes a GPU wait
                smooth = 0.98 if step - first_step > 100 else 0.9
                for name, value in numbers.items():
                    value = float(value)
                    if not math.isfinite(value):
                        raise ValueError(f"{part.name}: {name} is {value} in step {step}: lower the --learning-rate")
                    shown[name] = smooth * shown.get(name, value) + (1 - smooth) * value
            minutes, seconds = divmod(int(clock.left(first_step)), 60)
            bar.set_postfix_str(
                f"step {step}  "
                + "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
                + f"  {minutes}:{seconds:02d} left",
                refresh=False,
            )
            bar.update(min(clock.progress, 1.0) - bar.n)
            if time.monotonic() - last_save > settings.save_seconds:
                save()
                last_save = time.monotonic()
        save()
    accelerator.wait_for_everyone()
    if stopped:
        raise Interrupted(f"{part.name}: stopped after step {step}, saved in {settings.out}; the same command goes on")
