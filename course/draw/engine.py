"""Drawing with OpenVINO, if that is installed: a library of Intel's that runs networks on processors of many makers."""

import importlib.util
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from course.core.config import ModelConfig
from course.core.messages import Refusal, first_line
from course.draw.checkpoint import is_wide

FEW_STEPS = 1000  # of all pictures; to record the small model takes 3.3 s, and then each step takes 4 ms less
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.2}  # of the largest value; measured: 1e-6 and 0.02


def choose_engine(
    wanted: str,
    steps: int,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool,
    config: ModelConfig,
    film: bool = False,
) -> str:
    """The engine that takes the least time in all, if that is left to us ("auto"); otherwise the one that is wanted.

    Args:
        wanted: "auto", "torch" or "openvino".
        steps: how often the U-Net will be called, at most.
        device, dtype, compiled: where, in what, and whether compiled it would draw with torch.
        config: of the model. A wide one takes as long with torch.
        film: whether it would draw one.

    Returns:
        "torch" or "openvino".

    Raises:
        Refusal: if the one that is wanted is not installed or cannot do this.
    """
    if wanted != "auto":
        check_engine(wanted, device, dtype, compiled, film)
        return wanted
    try:
        check_engine("openvino", device, dtype, compiled, film)
    except Refusal:
        return "torch"
    return "torch" if steps < FEW_STEPS or is_wide(config) else "openvino"


def check_engine(engine: str, device: torch.device, dtype: torch.dtype, compiled: bool, film: bool = False) -> None:
    """A Refusal, in one sentence, if this engine is not installed or cannot do what is asked of it."""
    if engine != "openvino":
        return
    if importlib.util.find_spec(engine) is None:
        raise Refusal("ENGINE=openvino is not installed here: pip install openvino, or draw with ENGINE=torch.")
    if device.type != "cpu":
        raise Refusal(f"ENGINE=openvino draws on the processor: DEVICE=cpu, or ENGINE=torch for DEVICE={device.type}.")
    if dtype not in ROUNDING:
        raise Refusal("ENGINE=openvino draws in float32 or bfloat16: DTYPE=float16 needs ENGINE=torch.")
    if compiled:
        raise Refusal("ENGINE=openvino and COMPILE=1 do not go together: choose one of them.")
    if film:
        raise Refusal("ENGINE=openvino draws pictures: FRAMES, a film, needs ENGINE=torch.")


def use_openvino(model: Any, dtype: torch.dtype, asked: bool = True) -> None:
    """Makes U-Net and decoder of a filled StableDiffusion (stage 9), in float32, run in OpenVINO.

    Args:
        model: changed in place.
        dtype: what OpenVINO computes in; what goes in and comes out is float32.
        asked: whether somebody asked for it; if not, a module that OpenVINO cannot run is run as it is.
    """
    model.unet = InOpenVINO(model.unet, dtype, asked)
    model.vae.decoder = InOpenVINO(model.vae.decoder, dtype, asked)


class InOpenVINO(nn.Module):
    """A module whose operations OpenVINO runs; for each shape of its inputs they are recorded when it first comes.

    What is recorded is what the module does with its first inputs: an `if` or a number that Python works out of them
    stays as it was. So the result for other inputs is compared with that of the module before it is used.

    Args:
        module: takes and returns tensors, the same number of them each time.
        dtype: what OpenVINO computes in.
        asked: a module that OpenVINO cannot run is refused; if not asked, it is run as it is, and a note says so.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, asked: bool = True):
        super().__init__()
        self.module = module
        self.dtype = dtype
        self.asked = asked
        self.programs: dict[tuple[torch.Size, ...], Any] = {}

    def forward(self, *inputs: Tensor) -> Tensor:
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self.programs:
            try:
                self.programs[shapes] = self.program(inputs)
            except Refusal as refusal:
                if self.asked:
                    raise
                tqdm.write(f"Note: {str(refusal).removesuffix(': draw with ENGINE=torch.')}: it goes on with torch.")
                self.programs[shapes] = None
        program = self.programs[shapes]
        return self.module(*inputs) if program is None else self.run(program, inputs)

    def run(self, program: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        results = program.infer([tensor.contiguous().numpy() for tensor in inputs], share_inputs=True)
        return torch.from_numpy(results[0])

    def program(self, inputs: tuple[Tensor, ...]) -> Any:
        """OpenVINO's program for inputs of these shapes."""
        others = tuple(another(tensor) for tensor in inputs)
        wanted = self.module(*others)  # also: a mistake in a learner's block shows here, as it does without an engine
        try:
            import openvino

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, that it records; of numpy, that a view cannot be written to
                # Recorded by torch itself, whose own check would take as long as all the rest: that is made below.
                recorded = torch.jit.trace(self.module, inputs, check_trace=False)
                shapes = [tuple(tensor.shape) for tensor in inputs]
                converted = openvino.convert_model(recorded, example_input=inputs, input=shapes)
            precision = "bf16" if self.dtype == torch.bfloat16 else "f32"
            settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            program = openvino.Core().compile_model(converted, "CPU", settings).create_infer_request()
            found = self.run(program, others)
        except MemoryError:
            raise
        except Exception as error:  # of whatever kind: it could not be recorded, or an operation is not known
            raise Refusal(f"ENGINE=openvino failed ({first_line(error, 120)}): draw with ENGINE=torch.") from None
        if not torch.allclose(found, wanted, rtol=0.0, atol=ROUNDING[self.dtype] * float(wanted.abs().max())):
            raise Refusal(
                "ENGINE=openvino gives another result than the blocks themselves, which do not do the same with every "
                "input: draw with ENGINE=torch."
            )
        return program

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def another(tensor: Tensor) -> Tensor:
    """Other values of the same kind: of a whole number the next one, and otherwise the last ones first."""
    return tensor + 1 if not tensor.is_floating_point() else tensor.flatten().flip(0).reshape(tensor.shape)
